"""Claim C4's statistic against a loop over all pairs, scipy's rank correlations and constructed orders."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.data.sweep import Sweep
from analysis.statistics import discordance
from analysis.statistics.discordance import compare_orders


def sweep_of(rows):
    """A sweep in memory; rows of (variant, beta, seed, step, kl, rho_sq_mean, is_final)."""
    columns = ["variant", "strength", "seed", "step", "kl", "rho_sq_mean", "is_final"]
    checkpoints = pd.DataFrame(rows, columns=columns)
    return Sweep(Path("made up"), {"cells": []}, checkpoints[["variant", "strength", "seed"]], checkpoints)


def simulated(rng, *, exponent=1.0, noise=0.05, seeds=3, variants=("logistic", "squared"), factor=1.0):
    """KL ∝ E[ρ²]^exponent along β and steps, times `factor` for every variant after the first."""
    rows = []
    for number, variant in enumerate(variants):
        for beta in (0.01, 0.1, 1.0):
            for seed in range(seeds):
                rows.append((variant, beta, seed, 0, 0.0, 0.0, False))
                for step in (1, 2):
                    rho_sq = step / beta * np.exp(rng.normal(0, noise))
                    kl = (step / beta) ** exponent * factor**number * np.exp(rng.normal(0, noise))
                    rows.append((variant, beta, seed, step, kl, rho_sq, step == 2))
    return sweep_of(rows)


def by_hand(sweep):
    """(compared, resolved, discordant) over all pairs, and the strongest discordant one, as the module defines them."""
    moved = sweep.checkpoints.query("step > 0")
    groups = {key: np.log(rows[["rho_sq_mean", "kl"]].to_numpy()) for key, rows in
              moved.groupby(["variant", "strength", "step"], sort=False)}  # fmt: skip
    freedom = sum(len(values) - 1 for values in groups.values())
    pooled = sum(((values - values.mean(0)) ** 2).sum(0) for values in groups.values()) / freedom
    pairs = list(combinations(groups, 2))
    critical = stats.t.isf(0.05 / len(pairs) / 2, freedom)
    counts = np.zeros((2, 3), dtype=int)
    strongest, strength = None, 0.0
    for first, other in pairs:
        gap = groups[first].mean(0) - groups[other].mean(0)
        variance = sum(np.maximum(groups[key].var(0, ddof=1), pooled) / len(groups[key]) for key in (first, other))
        t = gap / np.sqrt(variance)
        resolved = (np.abs(t) > critical).all()
        discordant = resolved and t[0] * t[1] < 0
        counts[int(first[0] != other[0])] += [1, resolved, discordant]
        if discordant and np.abs(t).min() > strength:
            order = (first, other) if gap[0] < 0 else (other, first)
            strongest, strength = (*order, np.abs(gap), critical * np.sqrt(variance)), np.abs(t).min()
    return counts, strongest


@pytest.mark.parametrize("block", [1, 5, 256])
@pytest.mark.parametrize("exponent", [1.0, -1.0])
def test_against_a_loop_over_all_pairs(monkeypatch, exponent, block):
    monkeypatch.setattr(discordance, "_BLOCK", block)
    sweep = simulated(np.random.default_rng(1), exponent=exponent, noise=0.2, factor=3.0)
    result = compare_orders(sweep)
    counts, strongest = by_hand(sweep)
    rows = result.pairs.set_index("pairs")[["compared", "resolved", "discordant"]]
    assert rows.loc["within_variant"].tolist() == counts[0].tolist()
    assert rows.loc["across_variants"].tolist() == counts[1].tolist()
    assert rows.loc["all"].tolist() == counts.sum(0).tolist()
    assert counts.sum(0)[0] == 12 * 11 / 2
    np.testing.assert_allclose(result.pairs["share"], result.pairs["discordant"] / result.pairs["resolved"])
    pair = result.clearest
    if exponent < 0:
        (first, other, gap, half) = strongest
        assert (pair.variant_a, pair.strength_a, pair.step_a) == first
        assert (pair.variant_b, pair.strength_b, pair.step_b) == other
        assert pair.rho_sq_ratio == pytest.approx(np.exp(-gap[0]))
        assert pair.rho_sq_ratio_high == pytest.approx(np.exp(-gap[0] + half[0]))
        assert pair.kl_ratio == pytest.approx(np.exp(gap[1]))
        assert (pair.kl_ratio_low, pair.kl_ratio_high) == pytest.approx(tuple(np.exp(gap[1] + [-half[1], half[1]])))
        assert pair.rho_sq_ratio_high < 1 < pair.kl_ratio_low


def test_equal_orders_have_no_discordant_pair():
    result = compare_orders(simulated(np.random.default_rng(0)))
    totals = result.pairs.set_index("pairs").loc["all"]
    assert totals["resolved"] > 40
    assert totals["discordant"] == 0
    assert result.clearest is None
    assert result.seeds == 3


def test_a_loss_that_spends_more_kl_is_discordant_across_losses_only():
    rows = compare_orders(simulated(np.random.default_rng(0), factor=50.0, noise=0.02)).pairs.set_index("pairs")
    assert rows.loc["within_variant", "discordant"] == 0
    assert rows.loc["across_variants", "discordant"] > 5


def test_false_discordance_stays_within_5_percent():
    # All checkpoints alike: every discordant pair would be false.
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(100):
        rows = [("logistic", beta, seed, 1, *np.exp(rng.normal(0, 0.2, 2)), True)
                for beta in (0.1, 0.2, 0.4, 0.8) for seed in range(3)]  # fmt: skip
        false += compare_orders(sweep_of(rows)).clearest is not None
    assert false / 100 <= 0.05


def test_one_seed_compares_nothing():
    result = compare_orders(simulated(np.random.default_rng(0), seeds=1))
    assert result.seeds == 1
    assert (result.pairs["compared"] == 0).all()
    assert result.pairs["share"].isna().all()


def test_rank_correlations_of_final_checkpoints():
    sweep = simulated(np.random.default_rng(3), noise=0.8)
    rows = compare_orders(sweep).rank_correlations.set_index("variant")
    assert rows["cells"].to_dict() == {"logistic": 9, "squared": 9, "all": 18}
    final = sweep.final
    for variant in ("logistic", "squared", "all"):
        cells = final if variant == "all" else final[final["variant"] == variant]
        x, y = (cells[key].to_numpy() for key in ("rho_sq_mean", "kl"))
        assert rows.loc[variant, "spearman"] == pytest.approx(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
        signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in combinations(range(len(x)), 2)]
        assert rows.loc[variant, "kendall"] == pytest.approx(np.mean(signs))


def test_two_cells_have_no_rank_correlation():
    rows = [("logistic", 0.1, seed, 1, 1.0 + seed, 2.0 + seed, True) for seed in range(2)]
    assert compare_orders(sweep_of(rows)).rank_correlations["spearman"].isna().all()
