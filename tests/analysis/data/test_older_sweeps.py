"""A sweep written before records had a method, variant and strength is read as what it is."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.data.load import load_sweep
from analysis.report.build import build_report

SWEEP = Path(__file__).parents[2] / "fixtures" / "sweep_before_variants"


@pytest.fixture(scope="module")
def sweep():
    return load_sweep(SWEEP)


def raw_records():
    """(cell, record) of every finished cell, without any code of ours."""
    done = [path.parent for path in SWEEP.glob("*/status.json") if json.loads(path.read_text())["state"] == "done"]
    return [
        (cell.name, json.loads(line)) for cell in done for line in (cell / "records.jsonl").read_text().splitlines()
    ]


def test_states(sweep):
    states = sweep.cells.set_index("cell")["state"]
    assert states.value_counts().to_dict() == {"done": 9, "failed": 1, "interrupted": 1, "missing": 1}
    assert states["loss=exponential,beta=0.1,seed=1"] == "interrupted"
    assert states["loss=exponential,beta=1,seed=0"] == "failed"


def test_every_number_is_that_of_the_records(sweep):
    raw = raw_records()
    assert len(raw) == len(sweep.checkpoints) > 9
    rows = sweep.checkpoints.set_index(["cell", "step"])
    for cell, record in raw:
        row = rows.loc[cell, record["step"]]
        for key in record.keys() - {"step"}:
            assert row[key] == record[key], (cell, key)
        assert (row["method"], row["variant"], row["strength"]) == ("gpo", record["loss"], record["beta"])
    assert sweep.cells["strength"].tolist() == [row["beta"] for row in sweep.plan["cells"]]
    assert sweep.strength_name == "β"


def test_it_has_a_report(tmp_path, one_format):
    copy = shutil.copytree(SWEEP, tmp_path / SWEEP.name)
    page = build_report([load_sweep(copy)], tmp_path / "report", notebooks=False)
    text = page.read_text()
    assert "9 of 12 cells done · 1 failed · 1 interrupted · 1 missing" in text
    assert "exponential: 1 trained policy, too few for a curve." in text
    cells = pd.read_csv(page.parent / "tables" / "cells.csv").set_index("cell")
    raw = {cell: record["gold"] for cell, record in raw_records() if record["step"] == 8}
    assert cells["gold"].dropna().to_dict() == pytest.approx(raw)
