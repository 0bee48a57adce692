"""ρ of held-out pairs: tidy rows with what the plan says of their cell, and the table that statistics use."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.held_out import held_out_rho, load_held_out
from analysis.data.load import load_sweep
from analysis.data.sweep import RefusedSweep

SMALL = Truth(losses=("logistic", "squared"), betas=(0.1, 1.0), seeds=(0, 1), steps=(0, 5, 10), prompts=8)
PAIRS = 6


@pytest.fixture
def sweep_dir(tmp_path):
    return write_sweep(tmp_path / "small", SMALL)


def write_rho(cell_dir, rng, *, pairs=PAIRS, steps=(5, 10)):
    """ρ of a cell; returns the values, [steps, pairs]."""
    rho = rng.normal(size=(len(steps), pairs)).astype(np.float32)
    table = {"step": np.repeat(steps, pairs), "pair": np.tile(np.arange(pairs), len(steps)), "rho": rho.ravel()}
    pd.DataFrame(table).to_parquet(cell_dir / "held_out.parquet", index=False)
    return rho


def all_cells(sweep_dir):
    rng = np.random.default_rng(0)
    return {cell: write_rho(sweep_dir / cell, rng) for cell in load_sweep(sweep_dir).cells["cell"]}


def test_a_row_per_pair_and_checkpoint_with_what_the_plan_says_of_the_cell(sweep_dir):
    written = all_cells(sweep_dir)
    chosen = [cell_name("squared", 1.0, 1), cell_name("logistic", 0.1, 0)]
    frame = load_held_out(sweep_dir, chosen)
    assert list(frame.columns) == ["variant", "strength", "seed", "step", "pair", "rho"]
    assert len(frame) == 2 * 2 * PAIRS
    assert frame["variant"].unique().tolist() == ["squared", "logistic"], "in the order that was asked for"
    for (variant, strength, seed, step, pair), rho in frame.set_index(list(frame.columns[:-1]))["rho"].items():
        assert rho == written[cell_name(variant, strength, seed)][(5, 10).index(step), pair]


def test_cells_of_older_sweeps_have_no_rows(sweep_dir):
    first, second = cell_name("squared", 1.0, 1), cell_name("logistic", 0.1, 0)
    assert load_held_out(sweep_dir, [first]).empty
    assert held_out_rho(load_sweep(sweep_dir)) is None
    write_rho(sweep_dir / first, np.random.default_rng(0))
    assert load_held_out(sweep_dir, [first, second])["variant"].unique().tolist() == ["squared"]


def test_the_table_has_a_row_per_checkpoint(sweep_dir):
    written, sweep = all_cells(sweep_dir), load_sweep(sweep_dir)
    table = held_out_rho(sweep)
    assert table.shape == (len(sweep.checkpoints), PAIRS)
    for row, (cell, step) in enumerate(zip(sweep.checkpoints["cell"], sweep.checkpoints["step"], strict=True)):
        expected = written[cell][(5, 10).index(step)] if step else np.full(PAIRS, np.nan)
        np.testing.assert_array_equal(table[row], expected)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda cell: (cell / "held_out.parquet").unlink(), "missing, while other cells have theirs"),
        (lambda cell: (cell / "held_out.parquet").write_bytes(b"PAR1 no more"), "cannot read ρ"),
        (lambda cell: pd.DataFrame({"step": [5]}).to_parquet(cell / "held_out.parquet"), "cannot read ρ"),
        (lambda cell: write_rho(cell, np.random.default_rng(1), pairs=3), "3 held-out pairs at step 5, 6 in the first"),
        (lambda cell: write_rho(cell, np.random.default_rng(1), steps=(5,)), "0 held-out pairs at step 10"),
    ],
)
def test_files_that_cannot_be_used_are_named(sweep_dir, damage, reason):
    all_cells(sweep_dir)
    cell = cell_name("squared", 1.0, 1)
    damage(sweep_dir / cell)
    with pytest.raises(RefusedSweep, match=reason) as refused:
        held_out_rho(load_sweep(sweep_dir))
    assert str(sweep_dir / cell / "held_out.parquet") in str(refused.value)


def test_a_cell_that_is_not_planned_is_refused(sweep_dir):
    with pytest.raises(RefusedSweep, match=r"plan.json: no cell 'loss=none' is planned there"):
        load_held_out(sweep_dir, ["loss=none"])
