"""Training curves: read from the cell, averaged until they are short, of whatever the method measures."""

import json

import numpy as np
import pytest
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.data.training import MAX_POINTS, QUANTITIES, cells_with_training, training_curve
from bench import records

TRUTH = Truth(losses=("logistic",), betas=(0.1,), seeds=(0, 1), steps=(0, 5), prompts=4)


@pytest.fixture
def sweep(tmp_path):
    return load_sweep(write_sweep(tmp_path / "s", TRUTH, with_samples=False))


def write_steps(sweep, cell, rows):
    path = sweep.path / cell / records.TRAINING_FILE
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def steps(count):
    return [
        {"step": k, "loss": 1 / (k + 1), "pair_accuracy": 0.5, "rho": 0.1 * k, "grad_norm": 2.0, "lr": 1e-3}
        for k in range(count)
    ]


def test_a_short_training_is_shown_step_by_step(sweep):
    cell = sweep.cells["cell"][1]
    assert cells_with_training(sweep) == []
    write_steps(sweep, cell, steps(7))
    assert cells_with_training(sweep) == [cell]
    curve = training_curve(sweep, cell)
    assert (curve.state, curve.steps_per_point) == ("done", 1)
    assert curve.columns["step"].tolist() == list(range(7))
    np.testing.assert_allclose(curve.columns["loss"], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 7])


@pytest.mark.parametrize("count", [MAX_POINTS + 1, 1000, 12 * MAX_POINTS])
def test_a_long_one_is_averaged_and_no_step_is_left_out(sweep, count):
    cell = sweep.cells["cell"][0]
    write_steps(sweep, cell, steps(count))
    curve = training_curve(sweep, cell)
    assert all(len(column) <= MAX_POINTS for column in curve.columns.values())
    every = np.array([row["loss"] for row in steps(count)])
    parts = [every[start : start + curve.steps_per_point] for start in range(0, count, curve.steps_per_point)]
    np.testing.assert_allclose(curve.columns["loss"], [part.mean() for part in parts])
    sizes = [len(part) for part in parts]
    assert np.average(curve.columns["step"], weights=sizes) == pytest.approx((count - 1) / 2)


def test_what_a_method_does_not_measure_is_nan_and_an_empty_file_is_no_curve(sweep):
    first, second = sweep.cells["cell"]
    write_steps(sweep, first, [{"step": 0, "loss": 0.5, "lr": 1e-3}])
    curve = training_curve(sweep, first)
    assert {key: np.isnan(curve.columns[key]).all() for key in QUANTITIES} == {
        "loss": False, "rho": True, "pair_accuracy": True, "grad_norm": True, "lr": False,
    }  # fmt: skip
    write_steps(sweep, second, [])
    assert training_curve(sweep, second).columns == {}


def test_a_damaged_line_is_named(sweep):
    cell = sweep.cells["cell"][0]
    (sweep.path / cell / records.TRAINING_FILE).write_text('{"step": 0\n{"step": 1}\n')
    with pytest.raises(records.DamagedRecord, match=r"training\.jsonl:1"):
        training_curve(sweep, cell)
