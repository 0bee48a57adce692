"""Optimal β against parabolas and power laws with known answers, and simulated coverage."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_draws import QUIET, Noise, simulate

from analysis.statistics.beta_fits import beta_grid, log_beta_at
from analysis.statistics.optimal_beta import find_optimal_betas

BETAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
STRENGTH = {"logistic": 0.5, "squared": 1.0, "hinge": 0.8}
PEAK_KL = 4.0  # where `parabola` peaks


def kl_of(variant, beta, step):
    """Power law in β: equal KL at equal STRENGTH · β."""
    return 2.0 / (STRENGTH[variant] * beta) ** 0.5 if step else 0.0


def parabola(variant, kl):
    """Gold is a parabola in log KL, hence in log β; peak 1.5 at PEAK_KL."""
    return 1.5 - 0.2 * np.log(kl / PEAK_KL) ** 2 if kl else 0.0


def beta_at(variant, kl):
    return (2.0 / kl) ** 2 / STRENGTH[variant]


def optimal(gold=parabola, *, seed=0, variants=("logistic", "squared"), betas=BETAS, fit=None, **design):
    draws = simulate(np.random.default_rng(seed), kl_of, gold, variants=variants, betas=betas, **design)
    return find_optimal_betas(draws, **(fit or {}))


def test_a_parabola_in_log_beta_is_recovered():
    result = optimal(noise=QUIET)
    table = result.table.set_index("variant")
    for variant in ("logistic", "squared"):
        assert table.loc[variant, "peak_beta"] == pytest.approx(beta_at(variant, PEAK_KL), rel=1e-3)
        assert table.loc[variant, "peak_gold"] == pytest.approx(1.5, abs=1e-3)
    curve = result.curves.query("variant == 'squared'")
    truth = [parabola("", kl_of("squared", beta, 1)) for beta in curve["strength"]]
    np.testing.assert_allclose(curve["gold"], truth, atol=1e-3)
    assert curve["strength"].iloc[[0, -1]].tolist() == pytest.approx([BETAS[0], BETAS[-1]])
    ratio = result.ratios.query("at == 'peak'").iloc[0]
    assert (ratio["variant"], ratio["ratio"]) == ("squared", pytest.approx(0.5, rel=1e-3))
    pair = result.peak_pairs.iloc[0]
    assert (pair["variant_a"], pair["variant_b"], pair["ratio"]) == (
        "logistic",
        "squared",
        pytest.approx(2.0, rel=1e-3),
    )


def test_the_grids_best_cell_and_its_spread():
    draws = simulate(np.random.default_rng(0), kl_of, parabola, variants=("squared",), betas=BETAS)
    row = find_optimal_betas(draws).table.iloc[0]
    final = draws.rows.query("is_final").groupby("strength")["gold"].agg(["mean", "std", "size"])
    assert row["grid_beta"] == final["mean"].idxmax()
    assert row["grid_gold"] == pytest.approx(final["mean"].max())
    assert row["grid_gold_sd"] == pytest.approx(final.loc[row["grid_beta"], "std"])
    assert (row["edge"], row["betas"], row["seeds"]) == ("none", 6, 3)
    cells = find_optimal_betas(draws).cells
    np.testing.assert_allclose(cells["gold"], final["mean"])
    np.testing.assert_allclose(cells["gold_sd"], final["std"])
    assert cells["seeds"].tolist() == final["size"].tolist()


@pytest.mark.parametrize(("betas", "edge", "bound"), [((0.5, 1.0, 2.0), "low", "at or below 0.5"),
                                                      ((0.01, 0.03, 0.1), "high", "at or above 0.1")])  # fmt: skip
def test_a_peak_outside_the_grid_is_a_bound_with_a_warning(betas, edge, bound):
    result = optimal(variants=("squared",), betas=betas, noise=Noise(cell=0.001, sample=0.01, prompt=0.01, seed=0.001))
    row = result.table.iloc[0]
    assert row["edge"] == edge
    assert np.isnan(row["peak_beta"])
    assert bound in row["note"]
    assert any(bound in sentence for sentence in result.warnings)
    assert result.peak_pairs.empty


def test_the_grids_edge_is_warned_of_although_the_fit_peaks_inside():
    # Two points share the top, so that the smooth peak lies between them.
    heights = dict(zip(BETAS, (1.0, 0.999, 0.5, 0.2, 0.0, -0.2), strict=True))
    by_kl = {round(kl_of("squared", beta, 1), 6): height for beta, height in heights.items()}
    result = optimal(lambda variant, kl: by_kl.get(round(kl, 6), 0.0), variants=("squared",), noise=QUIET)
    row = result.table.iloc[0]
    assert row["edge"] == "low"
    assert "0.01" in row["note"]
    assert "extend the grid" in row["note"]


def test_an_interval_that_leaves_the_grid_is_open():
    flat = optimal(lambda variant, kl: 0.0, seed=3, noise=Noise(cell=0.1), fit={"baseline": "squared"})
    inside = flat.table.dropna(subset=["peak_beta"])
    assert len(inside) > 0
    assert ((inside["peak_beta_low"] == 0) | np.isinf(inside["peak_beta_high"])).all()


@pytest.mark.parametrize("betas", [(0.1,), (0.1, 0.3)])
def test_too_few_betas_locate_no_peak(betas):
    result = optimal(variants=("squared", "logistic"), betas=betas)
    assert result.table["peak_beta"].isna().all()
    assert all(f"{len(betas)} β only" in note for note in result.table["note"])
    assert result.curves.empty
    assert result.ratios.query("at == 'peak'").empty


def test_beta_at_a_matched_kl_follows_the_power_law():
    result = optimal(noise=QUIET, fit={"budgets": (2.0, 3.0, 6.0, 100.0)})
    at = result.at_kl.set_index(["variant", "kl"])["beta"]
    assert len(at) == 6  # 100 nats lie outside the data
    for variant in ("logistic", "squared"):
        for kl in (2.0, 3.0, 6.0):
            assert at[variant, kl] == pytest.approx(beta_at(variant, kl), rel=1e-6)
    ratios = result.ratios.query("at != 'peak'")
    assert ratios["ratio"].to_numpy() == pytest.approx(0.5, rel=1e-6)
    assert ratios["at"].tolist() == ["kl"] * 3 + ["kl_mean"]


def test_the_mean_ratio_is_geometric_over_the_budgets():
    result = optimal(seed=5, noise=Noise(log_kl=0.3), fit={"budgets": (1.5, 3.0, 6.0)})
    ratios = result.ratios.query("at == 'kl'")["ratio"]
    mean = result.ratios.query("at == 'kl_mean'")["ratio"].iloc[0]
    assert mean == pytest.approx(np.exp(np.log(ratios).mean()))


def test_kl_that_is_not_monotone_is_averaged_until_it_is():
    kls = dict(zip(BETAS, (20.0, 5.0, 8.0, 2.0, 1.0, 0.5), strict=True))
    draws = simulate(
        np.random.default_rng(0),
        lambda variant, beta, step: kls[beta] if step else 0.0,
        parabola,
        betas=BETAS,
        noise=QUIET,
    )
    pooled = np.sqrt(5.0 * 8.0)  # isotonic in log KL: β = 0.03 and 0.1 share their mean
    log_beta = log_beta_at(beta_grid(draws, "logistic"), 10.0)[0]
    share = (np.log(10.0) - np.log(20.0)) / (np.log(pooled) - np.log(20.0))
    assert log_beta == pytest.approx(np.log(0.01) + share * np.log(3.0))


def test_predictions_stand_beside_the_measurements():
    predictions = pd.DataFrame({"variant": ["squared", "logistic"], "local": [0.5, 1.0], "global_": [0.4, 1.0]})
    ratios = optimal(fit={"predictions": predictions}).ratios
    assert (ratios["local"] == 0.5).all()
    assert (ratios["global_"] == 0.4).all()
    assert optimal().ratios[["local", "global_"]].isna().to_numpy().all()


def test_the_baseline_may_be_another_loss_or_missing():
    other = optimal(noise=QUIET, fit={"baseline": "squared"})
    assert other.ratios.query("at == 'peak'")["ratio"].iloc[0] == pytest.approx(2.0, rel=1e-3)
    missing = optimal(variants=("squared", "hinge"))
    assert missing.ratios.empty
    assert any("'logistic'" in sentence for sentence in missing.warnings)


def test_one_seed_is_named():
    result = optimal(seeds=1)
    assert set(result.table["kind"]) <= {"prompts", "none"}
    assert result.table["grid_gold_sd"].isna().all()


def test_a_beta_with_one_seed_of_three_does_not_stop_the_fit():
    draws = simulate(np.random.default_rng(0), kl_of, parabola, variants=("squared",), betas=BETAS)
    rows = draws.rows
    kept = rows[~((rows["strength"] == 1.0) & (rows["seed"] > 0))]  # the index still names the samples' rows
    result = find_optimal_betas(type(draws)(**{**vars(draws), "rows": kept}))
    row = result.table.iloc[0]
    # One seed beside the peak bounds it on neither side: an honest interval is open, the estimate stays.
    assert np.isfinite(row["peak_beta"])
    assert row["peak_beta_low"] < row["peak_beta"] < row["peak_beta_high"]
    lone = result.cells.set_index("strength").loc[1.0]
    assert (lone["seeds"], lone["kind"]) == (1, "prompts")


def test_coverage_of_the_peak_and_of_the_ratio_at_equal_kl():
    rng = np.random.default_rng(0)
    hits = {"peak": [], "ratio": [], "kl": []}
    for _ in range(60):
        draws = simulate(rng, kl_of, parabola, variants=("logistic", "squared"), betas=BETAS, draws=50)
        result = find_optimal_betas(draws, budgets=(1.5, 3.0, 6.0))
        row = result.table.set_index("variant").loc["squared"]
        hits["peak"].append(row["peak_beta_low"] <= beta_at("squared", PEAK_KL) <= row["peak_beta_high"])
        for name, place in (("ratio", "peak"), ("kl", "kl_mean")):
            ratio = result.ratios[result.ratios["at"] == place].iloc[0]
            hits[name].append(ratio["ratio_low"] <= 0.5 <= ratio["ratio_high"])
    assert {name: np.mean(found) >= 0.88 for name, found in hits.items()} == dict.fromkeys(hits, True)


def test_ratios_are_over_the_seeds_that_both_variants_have():
    """A seed that moves all its policies far cancels in a ratio, but only where both variants have it."""
    rng = np.random.default_rng(0)
    draws = simulate(rng, kl_of, parabola, variants=("logistic", "squared"), betas=BETAS, seeds=4)
    seed = draws.rows["seed"] == 2
    draws.rows.loc[seed, "kl"] *= 5
    draws.noise.kl[seed] *= 5
    whole = draws.rows
    lacking = replace(draws, rows=whole[~(seed & (whole["variant"] == "squared"))])
    result, expected = (
        find_optimal_betas(each, budgets=(2.0, 4.0)) for each in (lacking, replace(draws, rows=whole[~seed]))
    )
    columns = ["ratio", "ratio_low", "ratio_high"]
    at_kl = [each.ratios[each.ratios["at"] != "peak"][columns] for each in (result, expected)]
    np.testing.assert_allclose(*at_kl, rtol=0.02)
    np.testing.assert_allclose(result.matched["squared"][0][0], np.log(at_kl[1]["ratio"].iloc[-1]), rtol=1e-6)
    np.testing.assert_allclose(result.peak_pairs["ratio"], expected.peak_pairs["ratio"], rtol=0.02)
    # What is said of one variant rests on all its seeds.
    assert result.table.set_index("variant")["seeds"].to_dict() == {"logistic": 4, "squared": 3}


def test_kl_of_cells_has_no_interval_below_zero():
    draws = simulate(np.random.default_rng(1), kl_of, parabola, betas=BETAS, seeds=2, noise=Noise(log_kl=1.5))
    cells = find_optimal_betas(draws).cells
    assert (cells["kl_low"] > 0).all()
    assert (cells["kl_high"] > cells["kl"]).all()
