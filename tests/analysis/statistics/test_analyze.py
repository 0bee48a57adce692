"""All statistics of one sweep in one call: what goes where, reproducibility, variants that users bring."""

import shutil

import numpy as np
import pandas as pd
import pytest
import synthetic_runs
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.statistics.analyze import analyze
from analysis.statistics.claims.rules import BetaMoves, Rules, SameFrontier
from analysis.statistics.views import analyze_views

MINE = "my.variants:cubic"
TRUTH = Truth(losses=("logistic", MINE), betas=(0.01, 0.03, 0.1, 0.3, 1.0), seeds=(0, 1), steps=(0, 48, 192),
              prompts=24, seed_sd=0.02, noise_sd=0.1, reference_samples=64)  # fmt: skip


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic_runs.STRENGTHS, MINE, 1.0)
        return write_sweep(tmp_path_factory.mktemp("runs") / "mine", TRUTH)


@pytest.fixture(scope="module")
def result(sweep_dir):
    return analyze(load_sweep(sweep_dir), np.random.default_rng(0))


def test_a_users_loss_has_every_statistic(result):
    for frame in (result.frontiers.curves, result.frontiers.points, result.optimal_betas.table,
                  result.overoptimization.fits, result.overoptimization.peaks, result.ceiling.shares,
                  result.discordance.rank_correlations):  # fmt: skip
        assert {"logistic", MINE} <= set(frame["variant"])
    ratio = result.optimal_betas.ratios.set_index(["variant", "at"]).loc[(MINE, "kl_mean"), "ratio"]
    assert ratio == pytest.approx(0.5, rel=0.15)  # strength 1.0 against logistic's 0.5
    assert [claim.id for claim in result.claims] == ["C1", "C2", "C3", "C4"]


def test_a_users_loss_has_no_predicted_beta(sweep_dir):
    (view,) = analyze_views([load_sweep(sweep_dir)]).values()
    rows = view.optimal_betas.ratios
    assert (rows["variant"] == MINE).all()
    assert rows[["local", "global_"]].isna().all(axis=None)


def test_predictions_are_relative_to_the_baseline_of_the_rules(sweep_dir):
    sweep = load_sweep(sweep_dir)
    for baseline, known in (("squared", True), (MINE, False)):
        (view,) = analyze_views([sweep], rules=Rules(c2=BetaMoves(baseline=baseline))).values()
        local = view.optimal_betas.predictions.set_index("variant")["local"]
        assert local.to_dict() == ({"logistic": 2.0} if known else {})


def test_the_same_generator_gives_the_same_numbers(sweep_dir, result):
    sweep = load_sweep(sweep_dir)
    again, other = (analyze(sweep, np.random.default_rng(seed)) for seed in (0, 1))
    assert again.claims == result.claims
    pd.testing.assert_frame_equal(again.ceiling.shares, result.ceiling.shares)
    pd.testing.assert_frame_equal(again.overoptimization.fits, result.overoptimization.fits)
    curves = result.frontiers.curves
    pd.testing.assert_series_equal(other.frontiers.curves["gold"], curves["gold"])  # estimates are not resampled
    assert (other.frontiers.curves["gold_se"] != curves["gold_se"]).any()


def test_settings_reach_the_statistics(sweep_dir):
    predictions = pd.DataFrame({"variant": ["logistic"], "local": [2.0], "global_": [3.0]})
    rules = Rules(c1=SameFrontier(margin=0.25), c2=BetaMoves(budgets=(1.5, 3.0), baseline=MINE))
    result = analyze(load_sweep(sweep_dir), np.random.default_rng(0), predictions=predictions, budgets=(0.8, 3.0),
                     rules=rules)  # fmt: skip
    assert result.frontiers.margin == 0.25
    assert set(result.frontiers.budgets["kl"]) == {0.8, 3.0}
    assert set(result.optimal_betas.at_kl["kl"]) == {0.8, 1.5, 3.0}
    assert set(result.ceiling.shares["kl"]) <= {0.8, 3.0}
    rows = result.optimal_betas.ratios
    assert (rows["variant"] == "logistic").all()
    assert (rows["local"] == 2.0).all()
    assert f"relative to {MINE}, geometric mean over KL 1.5 and 3" in result.claims[1].quantity
    assert "±0.25 SD" in result.claims[0].rule


def test_another_fit_than_the_rules_say_is_exploratory(sweep_dir):
    sweep = load_sweep(sweep_dir)
    all_of_them = analyze(sweep, np.random.default_rng(0), ends_only=False)
    assert (all_of_them.standing.status, "last checkpoints" in all_of_them.standing.why) == ("exploratory", True)
    assert analyze(sweep, np.random.default_rng(0)).standing.why == "built in names no sweep."


def test_without_reference_samples_there_is_no_ceiling(sweep_dir, tmp_path):
    bare = shutil.copytree(sweep_dir, tmp_path / "bare", ignore=shutil.ignore_patterns("reference-*"))
    assert analyze(load_sweep(bare), np.random.default_rng(0)).ceiling is None


@pytest.mark.parametrize("samples", [1, 2])
def test_warnings_of_all_parts_are_gathered(tmp_path, samples):
    truth = Truth(
        losses=("squared",), betas=(0.1, 0.3), seeds=(0,), steps=(0, 24), prompts=8, reference_samples=samples
    )
    warnings = analyze(load_sweep(write_sweep(tmp_path / "little", truth)), np.random.default_rng(0)).warnings
    for words in (
        "One seed only",
        "2 β only",
        "baseline variant 'logistic'",
        "reference samples per prompt are too few",
    ):
        assert any(words in sentence for sentence in warnings), words
