"""Intervals against analysis of variance, scipy's t tests, and simulated coverage."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.intervals import KINDS, compare_all, interval, log_interval
from analysis.statistics.resampling import Design


def mean_replicates(table, rng, draws=100):
    """The mean of ``table`` [seeds, prompts] in every version, and its design; drawn straight from the definition."""
    seeds, prompts = table.shape
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=(1 + seeds, draws)) / prompts
    without = [np.delete(table, s, axis=0).mean() for s in range(seeds)] if seeds > 1 else [np.nan]
    joint = weights[0] @ table.mean(0)
    within = np.mean([weights[1 + s if seeds > 1 else 0] @ table[s] for s in range(seeds)], axis=0)
    values = np.concatenate([[table.mean()], without, joint, within])
    return values, Design(np.ones(seeds, dtype=bool), draws, prompts)


def crossed(rng, seeds, prompts, seed_sd=0.1, prompt_sd=0.5, sample_sd=0.5):
    """Two-way crossed effects around 0."""
    return (
        rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, prompt_sd, prompts)
        + rng.normal(0, sample_sd, (seeds, prompts))
    )


def test_variance_is_that_of_a_crossed_analysis_of_variance():
    rng = np.random.default_rng(1)
    seeds, prompts = 4, 30
    table = crossed(rng, seeds, prompts, seed_sd=0.3)
    grand = table.mean()
    by_seed, by_prompt = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    ms_seed = prompts * ((by_seed - grand) ** 2).sum() / (seeds - 1)
    ms_prompt = seeds * ((by_prompt - grand) ** 2).sum() / (prompts - 1)
    ms_both = ((table - by_seed - by_prompt + grand) ** 2).sum() / ((seeds - 1) * (prompts - 1))
    expected = (ms_seed + ms_prompt - ms_both) / (seeds * prompts)
    values, design = mean_replicates(table, rng, draws=40_000)
    assert interval(values, design).se ** 2 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_without_prompt_variance_it_is_the_t_interval_of_the_seed_means(seeds):
    rng = np.random.default_rng(seeds)
    means = rng.normal(1, 0.2, seeds)
    values, design = mean_replicates(np.repeat(means[:, None], 20, axis=1), rng)
    low, high = stats.t.interval(0.95, seeds - 1, means.mean(), stats.sem(means))
    result = interval(values, design)
    assert (float(result.low), float(result.high)) == pytest.approx((low, high), rel=1e-9)
    assert result.kind == "seeds"


def test_one_seed_gives_the_t_interval_of_the_prompts_and_says_so():
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (1, 50))
    values, design = mean_replicates(table, rng, draws=40_000)
    low, high = stats.t.interval(0.95, 49, table.mean(), stats.sem(table[0]))
    result = interval(values, design)
    assert (float(result.low), float(result.high)) == pytest.approx((low, high), abs=0.01)
    assert result.kind == "prompts"
    assert "does not cover the variation between runs" in KINDS["prompts"]


def test_a_value_that_one_seed_alone_determines_falls_back_to_prompts():
    values, design = mean_replicates(crossed(np.random.default_rng(0), 3, 20), np.random.default_rng(1))
    values[2] = np.nan  # undefined without the second seed
    result = interval(values, design)
    assert result.kind == "prompts"
    assert result.low < result.estimate < result.high


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_no_interval_has_zero_width(seeds):
    values, design = mean_replicates(np.full((seeds, 10), 0.7), np.random.default_rng(0))
    result = interval(values, design)
    assert result.estimate == pytest.approx(0.7)
    assert np.isnan(result.low)
    assert np.isnan(result.high)
    assert result.kind == "none"


def test_identical_seeds_still_leave_the_prompts_variance():
    rng = np.random.default_rng(0)
    table = np.repeat(rng.normal(0, 1, (1, 40)), 2, axis=0)
    values, design = mean_replicates(table, rng, draws=20_000)
    assert float(interval(values, design).se) == pytest.approx(stats.sem(table[0]), rel=0.05)


def test_shapes_and_levels():
    rng = np.random.default_rng(0)
    values, design = mean_replicates(crossed(rng, 3, 20), rng)
    grid = np.stack([values, values + 1], axis=1)
    result = interval(grid, design)
    assert result.low.shape == (2,)
    assert result.low[1] == pytest.approx(result.low[0] + 1)
    narrow = interval(values, design, level=0.5)
    assert narrow.high - narrow.low < result.high[0] - result.low[0]


def coverage(seeds, repetitions, method, **sizes):
    rng = np.random.default_rng([seeds, repetitions])
    hits = [method(crossed(rng, seeds, 40, **sizes), rng) for _ in range(repetitions)]
    return np.mean(hits)


def t_covers_zero(table, rng):
    result = interval(*mean_replicates(table, rng))
    return bool(result.low <= 0 <= result.high)


def bootstrap_covers_zero(table, rng):
    """Two-level percentile bootstrap: seeds with replacement, then prompts, as in PITFALLS 20."""
    seeds, prompts = table.shape
    chosen = rng.integers(seeds, size=(300, seeds))
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=300) / prompts
    low, high = np.quantile(((table[chosen].mean(1)) * weights).sum(1), [0.025, 0.975])
    return bool(low <= 0 <= high)


@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize("seed_sd", [0.05, 0.15, 0.5])
def test_coverage_over_seeds_and_prompts(seeds, seed_sd):
    # 600 repetitions: standard error 0.009 at 95 %; Howe's interval errs on the wide side.
    assert 0.925 <= coverage(seeds, 600, t_covers_zero, seed_sd=seed_sd) <= 0.995


def test_coverage_of_one_seed_over_prompts():
    assert 0.925 <= coverage(1, 800, t_covers_zero, seed_sd=0.0) <= 0.975


def test_the_percentile_bootstrap_over_few_seeds_is_why_t_is_used():
    assert coverage(3, 800, bootstrap_covers_zero, seed_sd=0.5) < 0.85
    assert coverage(2, 800, bootstrap_covers_zero, seed_sd=0.5) < 0.75


def loss_replicates(tables, rng, draws=60):
    """Means of [variants, seeds, prompts] in every version, [R, variants]; one set of prompt weights for all."""
    state = rng.integers(2**32)
    columns = [mean_replicates(table, np.random.default_rng(state), draws) for table in tables]
    return np.stack([values for values, _ in columns], axis=1), [design for _, design in columns]


def test_two_losses_are_compared_by_the_paired_t_test():
    rng = np.random.default_rng(5)
    means = rng.normal(0, 1, (2, 6))
    values, designs = loss_replicates(np.repeat(means[:, :, None], 10, axis=2), rng)
    row = compare_all(values, ["a", "b"], designs).iloc[0]
    expected = stats.ttest_rel(means[0], means[1]).confidence_interval(0.95)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(expected), rel=1e-6)
    assert row["kind"] == "simultaneous"


def test_pairs_of_many_losses_are_tukeys():
    rng = np.random.default_rng(6)
    variants, seeds = 4, 5
    means = rng.normal(0, 1, (variants, seeds)) + rng.normal(0, 3, seeds)  # seeds as blocks
    values, designs = loss_replicates(np.repeat(means[:, :, None], 10, axis=2), rng)
    pairs = compare_all(values, list("abcd"), designs)
    # Least squares on block and variant indicators, an independent way to the residual mean square.
    block, variant = np.meshgrid(np.arange(seeds), np.arange(variants))
    indicators = np.column_stack([np.eye(seeds)[block.ravel()], np.eye(variants)[variant.ravel()]])
    residual = means.ravel() - indicators @ np.linalg.lstsq(indicators, means.ravel())[0]
    freedom = variants * seeds - np.linalg.matrix_rank(indicators)
    half = stats.studentized_range.ppf(0.95, variants, freedom) * np.sqrt((residual**2).sum() / freedom / seeds)
    np.testing.assert_allclose(pairs["difference_high"] - pairs["difference"], half, rtol=1e-6)
    np.testing.assert_allclose(pairs["difference"], [means[a].mean() - means[b].mean() for a, b in
                                                     [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]])  # fmt: skip


def test_families_shown_together_share_the_level():
    rng = np.random.default_rng(7)
    values, designs = loss_replicates(crossed(rng, 3, 10) + np.zeros((3, 1, 1)), rng)
    values += rng.normal(0, 0.1, values.shape)
    one = compare_all(values, list("abc"), designs)
    five = compare_all(values, list("abc"), designs, comparisons=5, level=0.95)
    strict = compare_all(values, list("abc"), designs, level=0.99)
    assert (five["difference_high"] > one["difference_high"]).all()
    np.testing.assert_allclose(five["difference_high"], strict["difference_high"])


@pytest.mark.parametrize(("spread", "lowest"), [((0.1, 0.1, 0.1, 0.1), 0.925), ((0.05, 0.1, 0.1, 0.2), 0.88)])
def test_simultaneous_coverage(spread, lowest):
    """All six differences of four equal variants at once; unequal seed variances cost some coverage, as documented."""
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(400):
        shared = crossed(rng, 3, 30, seed_sd=0.2)
        own = np.array([crossed(rng, 3, 30, seed_sd=sd, prompt_sd=0.1, sample_sd=0.5) for sd in spread])
        pairs = compare_all(*reorder(loss_replicates(shared + own, rng)))
        hits.append(((pairs["difference_low"] <= 0) & (pairs["difference_high"] >= 0)).all())
    assert lowest <= np.mean(hits) <= 0.99


def reorder(values_and_designs):
    values, designs = values_and_designs
    return values, list("abcd"), designs


def test_one_seed_compares_over_prompts_and_says_so():
    rng = np.random.default_rng(9)
    tables = rng.normal(0, 1, (2, 1, 50))
    values, designs = loss_replicates(tables, rng, draws=20_000)
    row = compare_all(values, ["a", "b"], designs).iloc[0]
    expected = stats.ttest_rel(tables[0, 0], tables[1, 0]).confidence_interval(0.95)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(expected), abs=0.02)
    assert row["kind"] == "simultaneous_prompts"


def test_logarithmic_intervals_are_scipys_of_the_logs_and_never_below_zero():
    rng = np.random.default_rng(3)
    means = np.exp(rng.normal(0, 1.5, 3))
    values, design = mean_replicates(np.repeat(means[:, None], 20, axis=1), rng)
    plain, logs = interval(values, design), log_interval(values, design)
    assert plain.low < 0 < logs.low < logs.estimate < logs.high
    assert logs.estimate == pytest.approx(means.mean())
    # By hand: jackknife of the log of the mean.
    without = np.log([np.delete(means, seed).mean() for seed in range(3)])
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert np.log([logs.low, logs.high]) == pytest.approx([np.log(means.mean()) - half, np.log(means.mean()) + half])
    assert logs.kind == "seeds"


@pytest.mark.parametrize("value", [0.0, -1e-5])
def test_a_kl_of_nothing_has_no_logarithmic_interval(value):
    values, design = mean_replicates(np.full((3, 10), value), np.random.default_rng(0))
    result = log_interval(values, design)
    assert (float(result.estimate), str(result.kind)) == (pytest.approx(value), "none")
    assert np.isnan([result.low, result.high, result.se]).all()


def test_variants_with_other_seeds_have_no_interval_of_their_difference():
    rng = np.random.default_rng(0)
    values, designs = loss_replicates(rng.normal(0, 1, (2, 3, 20)), rng)
    designs[1] = replace(designs[1], seeds_used=np.array([True, True, False]))
    row = compare_all(values, ["a", "b"], designs).iloc[0]
    assert np.isnan(row["difference_low"])
    assert row["kind"] == "none"


@pytest.mark.parametrize(("seeds", "prompts", "samples"), [(3, 64, 4), (10, 64, 4)])
def test_coverage_of_paired_differences_with_several_samples_per_prompt(seeds, prompts, samples):
    """Two variants on the same prompts and seeds: both effects cancel, and their variance is not in the interval."""
    rng = np.random.default_rng([seeds, samples])
    hits, halves = [], []
    for _ in range(500):
        shared = rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.5, prompts)
        own = rng.normal(0, 0.05, (2, 1, prompts)) + rng.normal(0, 0.9 / np.sqrt(samples), (2, seeds, prompts))
        values, designs = loss_replicates(shared + rng.normal(0, 0.02, (2, seeds, 1)) + own, rng, draws=100)
        result = interval(values[:, 0] - values[:, 1], designs[0].union(designs[1]))
        hits.append(result.low <= 0 <= result.high)
        halves.append(result.se)
    variance = 2 * (0.02**2 / seeds + 0.05**2 / prompts + 0.9**2 / samples / seeds / prompts)
    # 500 repetitions: standard error 0.01.
    assert 0.93 <= np.mean(hits) <= 0.98
    assert np.mean(np.square(halves)) == pytest.approx(variance, rel=0.2)
