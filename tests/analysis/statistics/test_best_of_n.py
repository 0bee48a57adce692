"""Best-of-n and the KL-constrained optimum against subsets, order statistics, exact tilting and the Gaussian case."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_draws import QUIET, Noise, simulate

from analysis.data.load import RefusedSweep
from analysis.statistics.best_of_n import (
    MIN_EFFECTIVE_SAMPLES,
    TEMPERATURES,
    best_of_n_gold,
    find_ceiling,
    pool_matrix,
    tilt,
)
from analysis.statistics.frontier import fit_frontiers
from bench.records import best_of_n_kl

PROMPTS = 40
BETAS = (0.02, 0.1, 0.5)


def tilted_exactly(gold, probability, temperature):
    """Gold and KL of π ∝ p exp(gold / temperature) on a finite set."""
    optimum = probability * np.exp(gold / temperature)
    optimum /= optimum.sum()
    return optimum @ gold, optimum @ np.log(optimum / probability)


def plug_in(pool, temperature):
    """The same of the empirical distribution of each row."""
    uniform = np.full(pool.shape[1], 1 / pool.shape[1])
    return np.array([tilted_exactly(row, uniform, temperature) for row in pool]).T


def reference_frame(pool):
    prompts, size = pool.shape
    return pd.DataFrame(
        {"prompt_id": np.repeat(np.arange(prompts), size), "sample_id": np.tile(np.arange(size), prompts),
         "gold": pool.ravel()}
    )  # fmt: skip


@pytest.mark.parametrize("n", range(1, 8))
def test_best_of_n_is_the_mean_over_all_subsets(n):
    pool = np.sort(np.random.default_rng(n).normal(size=(3, 7)), axis=1)
    expected = [np.mean([max(subset) for subset in combinations(row, n)]) for row in pool]
    np.testing.assert_allclose(best_of_n_gold(pool, n), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 8, 64, 500, 512])
def test_best_of_n_of_expected_order_statistics_is_the_expected_maximum(n):
    # Linear in the order statistics and unbiased, so their expectations give that of the best of n without error.
    size = 512
    uniform = np.arange(1, size + 1) / (size + 1)
    exponential = np.cumsum(1 / np.arange(size, 0, -1))
    uniform_best, exponential_best = best_of_n_gold(np.stack([uniform, exponential]), n)
    assert uniform_best == pytest.approx(n / (n + 1), rel=1e-9)
    assert exponential_best == pytest.approx((1 / np.arange(1, n + 1)).sum(), rel=1e-9)  # harmonic number


@pytest.mark.parametrize("n", [1, 2, 4, 64])
def test_kl_of_best_of_n_is_reached_without_ties_and_a_bound_with_them(n):
    assert best_of_n_kl(1) == 0
    for atoms, ties in ((200_000, False), (5, True)):
        share = np.diff(np.linspace(0, 1, atoms + 1) ** n)  # of the best of n over equally likely, ordered responses
        share = share[share > 0]
        kl = (share * np.log(share * atoms)).sum()
        if ties and n > 1:
            assert kl < 0.99 * best_of_n_kl(n)
        else:
            assert kl == pytest.approx(best_of_n_kl(n), abs=1e-3)


@pytest.mark.parametrize("temperature", [30.0, 1.0, 0.2])
def test_tilting_is_the_jackknife_of_the_self_normalized_estimates(temperature):
    pool = np.sort(np.random.default_rng(0).normal(size=(4, 9)), axis=1)
    size = pool.shape[1]
    full = plug_in(pool, temperature)
    without = np.mean([plug_in(np.delete(pool, one, axis=1), temperature) for one in range(size)], axis=0)
    gold, kl = size * full - (size - 1) * without
    result = tilt(pool, temperature)
    np.testing.assert_allclose(result.gold, gold, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.kl, kl, rtol=1e-7, atol=1e-11)
    weights = np.exp(pool / temperature)
    np.testing.assert_allclose(result.ess, weights.sum(1) ** 2 / (weights**2).sum(1))


def test_a_sample_that_carries_nearly_all_weight_leaves_finite_numbers():
    result = tilt(np.array([[-1.0, 0.0, 4.0]]), 0.05)  # weight 1 − e⁻⁸⁰ on the last
    assert np.isfinite([result.gold, result.kl]).all()
    assert result.ess == pytest.approx(1)


def test_tilting_a_discrete_distribution():
    values, probability = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2])
    pool = np.repeat(values, (probability * 10_000).astype(int))[None]
    for temperature in (3.0, 1.0, 0.4):
        result = tilt(pool, temperature)
        gold, kl = tilted_exactly(values, probability, temperature)
        assert result.gold[0] == pytest.approx(gold, rel=1e-3)
        assert result.kl[0] == pytest.approx(kl, rel=2e-3)
        ratio = np.exp(values / temperature)
        share = (probability @ ratio) ** 2 / (probability @ ratio**2)  # E[w]² / E[w²]
        assert result.ess[0] == pytest.approx(10_000 * share, rel=1e-6)


@pytest.mark.parametrize("temperature", [2.0, 0.7])
def test_the_correction_takes_off_most_of_the_bias(temperature):
    # Gold 0 or 1: the expectation over pools of 24 is a sum over the binomial number of ones.
    size, one = 24, 0.3
    count = np.arange(size + 1)
    pools = (np.arange(size) >= size - count[:, None]).astype(float)
    chance = stats.binom.pmf(count, size, one)
    truth = np.array(tilted_exactly(np.array([0.0, 1.0]), np.array([1 - one, one]), temperature))
    result = tilt(pools, temperature)
    corrected = np.array([chance @ result.gold, chance @ result.kl])
    uncorrected = plug_in(pools, temperature) @ chance
    assert (np.abs(corrected - truth) < 0.15 * np.abs(uncorrected - truth)).all()


def test_gaussian_gold_in_the_limit():
    # π* ∝ N(0, 1) exp(g / T) is N(1/T, 1): gold 1/T, KL 1/(2 T²), ESS/N = exp(−1/T²).
    pool = stats.norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)[None]
    for temperature in (10.0, 2.0, 1.0):
        result = tilt(pool, temperature)
        assert result.gold[0] == pytest.approx(1 / temperature, rel=2e-3)
        assert result.kl[0] == pytest.approx(1 / (2 * temperature**2), rel=5e-3)
        assert result.ess[0] / 1e6 == pytest.approx(np.exp(-1 / temperature**2), rel=2e-2)


@pytest.mark.parametrize(("samples", "reach"), [(64, 2.2), (256, 3.5)])
def test_the_trusted_ceiling_of_gaussian_gold_is_within_4_percent_at_equal_kl(samples, reach):
    # Gold √(2 KL) is the most that any policy gets at that KL.
    pool = np.sort(np.random.default_rng(0).normal(size=(4_000, samples)), axis=1)
    ends = []
    for temperature in TEMPERATURES[(TEMPERATURES < 2) & (TEMPERATURES > 0.2)][::3]:
        result = tilt(pool, temperature)
        if result.ess.mean() >= MIN_EFFECTIVE_SAMPLES:
            ends.append(result.kl.mean())
            ratio = result.gold.mean() / np.sqrt(2 * ends[-1])
            assert 0.96 < ratio < 1.005
    assert max(ends) > reach


def test_pool_is_ordered_within_prompts():
    frame = pd.DataFrame({"prompt_id": [7, 3, 7, 3], "gold": [2.0, 5.0, 1.0, 4.0]})
    pool, prompt_ids = pool_matrix(frame)
    assert prompt_ids.tolist() == [3, 7]
    assert pool.tolist() == [[4.0, 5.0], [1.0, 2.0]]
    with pytest.raises(RefusedSweep, match="between 1 and 2 samples"):
        pool_matrix(frame.iloc[:3])


def kl_of(variant, beta, step):
    return 0.1 / beta * step


def half_of_the_gaussian_ceiling(variant, kl):
    return 0.5 * np.sqrt(2 * kl)


def gaussian_ceiling(*, samples=4000, noise=QUIET, budgets=(0.2, 0.5, 1.0, 50.0)):
    rng = np.random.default_rng(0)
    draws = simulate(rng, kl_of, half_of_the_gaussian_ceiling, betas=BETAS, noise=noise, prompts=PROMPTS)
    pool = rng.normal(size=(PROMPTS, samples))
    smoothed = fit_frontiers(draws).smoothed
    return find_ceiling(reference_frame(pool), draws, smoothed, budgets=budgets), np.sort(pool, axis=1)


def test_best_of_n_rows_average_over_prompts():
    ceiling, pool = gaussian_ceiling(samples=100)
    rows = ceiling.best_of_n.set_index("n")
    assert rows.index.tolist() == [1, 2, 4, 8, 16, 32, 64, 100]
    assert ceiling.pool_size == 100
    assert rows.loc[1, "gold"] == pytest.approx(pool.mean())
    assert rows.loc[100, "gold"] == pytest.approx(pool.max(1).mean())
    gain = stats.ttest_1samp(pool.max(1) - pool.mean(1), 0).confidence_interval(0.95)  # over π_ref on the same prompts
    test = gain._replace(low=gain.low + pool.mean(), high=gain.high + pool.mean())
    assert rows.loc[100, ["gold_low", "gold_high"]].tolist() == pytest.approx([test.low, test.high])
    assert rows.loc[100, "gold_se"] == pytest.approx(stats.sem(pool.max(1) - pool.mean(1)))
    assert rows.loc[8, "kl"] == pytest.approx(np.log(8) - 7 / 8)


def test_tilted_rows_follow_the_gaussian_where_trusted():
    ceiling, _ = gaussian_ceiling()
    rows = ceiling.tilted
    assert rows["trusted"].tolist() == (rows["ess"] >= MIN_EFFECTIVE_SAMPLES).tolist()
    assert 0 < rows["trusted"].sum() < len(rows)
    near = rows[(rows["ess"] > 400) & (rows["temperature"] < 5)]
    np.testing.assert_allclose(near["gold"], 1 / near["temperature"], rtol=0.03)
    np.testing.assert_allclose(near["kl"], 1 / (2 * near["temperature"] ** 2), rtol=0.05)
    half = stats.t.ppf(0.975, PROMPTS - 1) * near["kl_se"]
    np.testing.assert_allclose(near["kl_high"], near["kl"] * np.exp(half / near["kl"]))  # on the logarithm
    assert (rows["kl_low"] > 0).all()
    assert ceiling.ends_at == rows.loc[rows["trusted"], "kl"].max()
    assert f"drawn to KL {ceiling.ends_at:.2g}" in ceiling.rule
    assert "5 of 4000 reference samples" in ceiling.rule


def test_share_of_the_ceiling_at_equal_kl():
    ceiling, _ = gaussian_ceiling()
    rows = ceiling.shares.set_index("kl")
    assert rows.index.tolist() == [0.2, 0.5, 1.0]  # neither side covers 50 nats
    np.testing.assert_allclose(rows["ceiling"], np.sqrt(2 * rows.index), rtol=0.02)
    np.testing.assert_allclose(rows["gold"], 0.5 * np.sqrt(2 * rows.index), rtol=0.015)  # the spline's
    np.testing.assert_allclose(rows["share"], 0.5, rtol=0.02)
    assert ceiling.warnings == ()


def test_share_of_the_ceiling_has_an_interval_over_seeds():
    # Without an effect of the seed on gold at every KL alike, which no policy can have at KL 0.
    ceiling, _ = gaussian_ceiling(noise=Noise(seed=0.0))
    rows = ceiling.shares
    assert (rows["kind"] == "seeds").all()
    assert ((rows["share_low"] < 0.5) & (rows["share_high"] > 0.5)).all()
    np.testing.assert_allclose(rows["share"], rows["gold"] / rows["ceiling"])


def test_a_pool_that_is_too_small_gives_no_ceiling_and_says_so():
    ceiling, _ = gaussian_ceiling(samples=4)
    assert not ceiling.tilted["trusted"].any()
    assert ceiling.shares.empty
    assert "4 reference samples per prompt are too few" in ceiling.warnings[0]
