"""The benchmarks run, and their tables say what was measured."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "cell.py"
PARTS = ("cell", "step", "sampling", "kl", "gold", "held_out")


def load(name):
    specification = importlib.util.spec_from_file_location(f"benchmarks_{name}", SCRIPT.with_name(f"{name}.py"))
    benchmark = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(benchmark)
    return benchmark


def test_the_ratio_is_the_median_over_rounds_not_that_of_medians(capsys):
    benchmark = load("cell")
    seconds = [(1.0, 1.0), (2.0, 8.0), (9.0, 3.0)]  # medians 2 and 3; ratios 1, 1/4 and 3
    benchmark.print_table([
        {"here": dict.fromkeys(PARTS, here), "against": dict.fromkeys(PARTS, against)} for here, against in seconds
    ])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PARTS)
    assert " ".join(lines[0].split()) == "cell here 2.000 s against 3.000 s here/against 1.00 (0.25 to 3.00)"


def test_commands_are_compared_within_their_rounds():
    commands = load("commands")
    assert commands.row("x", [[1.0, 1.0], [2.0, 8.0], [9.0, 3.0]]) == (
        "| x | 2.00 (1.00–9.00) | 3.00 | 1.00 (0.25–3.00) |"
    )
    assert commands.row("x", [[1.5], [2.5]]) == "| x | 2.00 (1.50–2.50) |"


def test_commands_of_a_finished_sweep_need_one(tmp_path):
    commands = load("commands")
    without = commands.commands(tmp_path, tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    assert set(commands.commands(tmp_path, tmp_path)) - set(without) == {
        "a sweep that is done", "a report", "a report without notebooks", "a report that is up to date",
    }  # fmt: skip


def test_a_command_is_timed_and_one_that_breaks_ends_the_benchmark():
    commands = load("commands")
    assert 0.2 < commands.seconds(ROOT, ["-c", "import time; time.sleep(0.2)"]) < 10
    assert commands.seconds(ROOT, ["-c", "raise SystemExit(2)"]) < 10, "bad input is what is timed"
    with pytest.raises(SystemExit, match="ended with status 1"):
        commands.seconds(ROOT, ["-c", "import no_such_module"])


@pytest.mark.slow
def test_a_cell_beside_trl(tiny_world, tmp_path):
    overrides = [each for each in tiny_world.overrides(tmp_path / "runs", {"optim.steps": 4}) if "runs_dir" not in each]
    command = [sys.executable, str(SCRIPT.with_name("beside_trl.py")), "--rounds", "1", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == ["", "---", "process", "warm"]


@pytest.mark.slow
def test_a_cell_is_timed_against_another_checkout(tiny_world, tmp_path):
    overrides = [each for each in tiny_world.overrides(tmp_path / "runs", {"optim.steps": 4}) if "runs_dir" not in each]
    command = [sys.executable, str(SCRIPT), "--cells", "1", "--against", str(ROOT), *overrides]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
    assert run.returncode == 0, run.stderr
    table = [line.split() for line in run.stdout.splitlines()]
    assert [line[0] for line in table] == list(PARTS)
    cell, *parts = (float(line[2]) for line in table)
    assert 0 < sum(parts) < cell
    assert all(part > 0 for part in parts)
