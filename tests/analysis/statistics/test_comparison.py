"""Differences between sweeps: limits against closed form and coverage by simulation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.statistics.comparison import _mover, differing_scales, matched_differences
from analysis.statistics.views import analyze_views


def test_limits_of_symmetric_intervals_add_in_quadrature():
    first, other = np.array([[1.0], [0.7], [1.3]]), np.array([[3.0], [2.6], [3.4]])
    difference, low, high = _mover(first, other)
    assert (difference, low, high) == (2.0, pytest.approx(1.5), pytest.approx(2.5))  # 0.3² + 0.4² = 0.5²


def test_asymmetric_limits_go_to_the_side_they_belong_to():
    # other − first falls when first rises: the long upper arm of first lengthens the lower arm of the difference.
    _, low, high = _mover(np.array([[0.0], [-1.0], [8.0]]), np.array([[0.0], [-6.0], [1.0]]))
    assert low == pytest.approx(-10)
    assert high == pytest.approx(np.sqrt(2))


def test_coverage_of_t_intervals_over_three_seeds():
    rng = np.random.default_rng(0)
    quantile = stats.t.ppf(0.975, 2) / np.sqrt(3)

    def draw(mean, sd):
        values = rng.normal(mean, sd, (3, 4000))
        center, half = values.mean(0), quantile * values.std(0, ddof=1)
        return np.stack([center, center - half, center + half])

    _, low, high = _mover(draw(1.0, 0.1), draw(1.5, 0.3))
    coverage = ((low < 0.5) & (high > 0.5)).mean()
    assert 0.945 < coverage < 0.985


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    base = Truth(losses=("logistic", "squared"), betas=(0.03, 0.1, 0.3), steps=(0, 24, 192), prompts=24)
    higher = replace(base, betas=(0.1, 0.3, 1.0), gold_shift={"squared": 1.0})
    sweeps = [load_sweep(write_sweep(runs / name, truth)) for name, truth in (("a", base), ("b", higher))]
    return list(analyze_views(sweeps).values())


def test_only_cells_of_both_are_compared_and_the_shift_is_found(two):
    differences = matched_differences(*two)
    assert set(zip(differences["variant"], differences["strength"], strict=True)) == {
        (variant, beta) for variant in ("logistic", "squared") for beta in (0.1, 0.3)
    }
    cells = [analysis.optimal_betas.cells.set_index(["variant", "strength"]) for analysis in two]
    for row in differences.itertuples():
        key = (row.variant, row.strength)
        assert row.gold == pytest.approx(cells[1].loc[key, "gold"] - cells[0].loc[key, "gold"])
        assert row.gold_low < row.gold < row.gold_high
    shifted = differences[differences["variant"] == "squared"]
    assert ((shifted["gold_low"] < 1) & (shifted["gold_high"] > 1) & (shifted["gold_low"] > 0)).all()
    assert (differences["kind"] == "seeds").all()


def test_scales_that_differ_are_named(two):
    first, other = two
    assert differing_scales(first, other) == []
    checkpoints = other.sweep.checkpoints.assign(gold_model="g2", preferences="p2")
    assert differing_scales(first, replace(other, sweep=replace(other.sweep, checkpoints=checkpoints))) == [
        "gold_model"
    ]


def test_one_seed_in_either_is_said(two):
    first, other = two
    cells = first.optimal_betas.cells.assign(kind="prompts")
    prompts_only = replace(first, optimal_betas=replace(first.optimal_betas, cells=cells))
    kinds = matched_differences(prompts_only, other)["kind"]
    assert isinstance(kinds, pd.Series)
    assert set(kinds) == {"prompts"}
