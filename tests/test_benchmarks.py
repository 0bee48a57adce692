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


def test_the_ratio_is_the_median_over_rounds_not_that_of_medians(capsys):
    specification = importlib.util.spec_from_file_location("benchmarks_cell", SCRIPT)
    benchmark = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(benchmark)
    seconds = [(1.0, 1.0), (2.0, 8.0), (9.0, 3.0)]  # medians 2 and 3; ratios 1, 1/4 and 3
    benchmark.print_table([
        {"here": dict.fromkeys(PARTS, here), "against": dict.fromkeys(PARTS, against)} for here, against in seconds
    ])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PARTS)
    assert " ".join(lines[0].split()) == "cell here 2.000 s against 3.000 s here/against 1.00 (0.25 to 3.00)"


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
