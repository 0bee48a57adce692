"""A sweep and a report with nothing left to do find that out from their files, without what training needs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cells.settings import write_cell_config
from bench.records import PLAN_FILE, RECORDS_FILE, CellStatus, empty_plan, write_json, write_status
from bench.sweep.compose import compose_sweep
from bench.sweep.plan import plan_cells

ROOT = Path(__file__).resolve().parents[3]
RECORDS = next((ROOT / "tests" / "fixtures" / "sweep_before_variants").glob(f"*/{RECORDS_FILE}"))
HEAVY = ("torch", "transformers", "pandas", "scipy", "matplotlib", "wandb")


@pytest.fixture
def finished(tmp_path):
    """Overrides of a sweep of four cells whose files say that all are done."""
    overrides = ["-m", "loss=hinge,savage", "seed=1,2", "sweep=s", f"runs_dir={tmp_path}"]
    cells = plan_cells(compose_sweep(overrides).jobs)
    for cell in cells:
        cell.directory.mkdir(parents=True)
        write_cell_config(cell)
        shutil.copyfile(RECORDS, cell.directory / RECORDS_FILE)
        write_status(cell.directory, CellStatus("done", cell.name, 1, 0.0, 1.0, 160, 160, "host", 1))
    plan = empty_plan("s") | {"cells": [cell.summary() for cell in cells], "jobs": {cell.name: {} for cell in cells}}
    write_json(tmp_path / "s" / PLAN_FILE, plan)
    return overrides


def run(module, *words):
    """What a command prints, and which heavy libraries it has imported when it ends."""
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{module!r}, *{words!r}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        f"    print('ended', end.code, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return ran.stdout + ran.stderr


def test_a_finished_sweep(finished, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    where = tmp_path.parent / f"{tmp_path.name}-where"
    said = run("bench.train", *finished, f"--sweep-dir-to={where}")
    assert "4 cells, 4 finished, 0 to run" in said
    assert said.splitlines()[-1] == "ended 0 []"
    assert where.read_text() == f"{tmp_path / 's'}\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_report_that_is_up_to_date(tmp_path):
    (tmp_path / "s" / "report").mkdir(parents=True)
    sources = (
        "from pathlib import Path; from analysis import RULES_FILE; from analysis.report.sources import *\n"
        f"print(digest_sources([Path({str(tmp_path / 's')!r})], RULES_FILE, (0, None, None)))"
    )
    digest = subprocess.run([sys.executable, "-c", sources], cwd=ROOT, capture_output=True, text=True, check=True)
    (tmp_path / "s" / "report" / "sources.sha256").write_text(digest.stdout)
    (tmp_path / "s" / "report" / "index.html").write_text("<html>")
    said = run("analysis.report", "--if-changed", str(tmp_path / "s"))
    assert said.splitlines() == [f"{tmp_path / 's' / 'report' / 'index.html'} is up to date", "ended 0 []"]
