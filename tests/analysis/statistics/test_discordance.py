"""Claim C4's statistics against scipy in a loop, under nulls that they must keep, and orders that they must find."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.statistics.configurations import compare_configurations
from analysis.statistics.discordance import compare_orders
from analysis.statistics.equal_rho import compare_at_equal_rho

PAIRS, PROMPTS = 60, 80


def measured(rng, policies, *, seeds=3):
    """Checkpoints in memory with ρ and KL of `policies`: (variant, strength, E[ρ²], KL), the same in every seed."""
    rows, rho, kl = [], [], []
    for seed in range(seeds):
        shared_rho, shared_kl = rng.normal(0, 1, PAIRS), rng.gamma(4, 0.25, PROMPTS)  # what pairs and prompts do to all
        for variant, strength, square, mean in policies:
            rho.append(np.sqrt(square) * (0.8 * shared_rho + 0.6 * rng.normal(0, 1, PAIRS)))
            kl.append(mean * shared_kl * rng.gamma(16, 1 / 16, PROMPTS))
            row = (variant, strength, seed, 8, kl[-1].mean(), (rho[-1] ** 2).mean(), True)
            rows.append(row)
    columns = ["variant", "strength", "seed", "step", "kl", "rho_sq_mean", "is_final"]
    checkpoints = pd.DataFrame(rows, columns=columns)
    return checkpoints, np.array(kl), np.array(rho)


@pytest.fixture
def compare():
    return lambda checkpoints, kl, rho: compare_orders(checkpoints, rho, kl)


POLICIES = [("logistic", 0.1, 4.0, 1.0), ("logistic", 0.01, 40.0, 4.0), ("squared", 0.1, 8.0, 0.5),
            ("squared", 0.01, 30.0, 9.0), ("hinge", 1.0, 1.0, 1.05)]  # fmt: skip


def by_hand(checkpoints, kl, rho, rate=0.05):
    """{(seed, a, b)}: pairs that scipy's paired t tests choose on even units, with p-values from odd ones."""
    p = {}
    for seed, rows in checkpoints.groupby("seed").groups.items():
        for i, j in combinations(rows, 2):
            for a, b in ((i, j), (j, i)):
                first = stats.ttest_rel(rho[a, ::2] ** 2, rho[b, ::2] ** 2), stats.ttest_rel(*kl[[a, b], ::2])
                if first[0].statistic < -2 and first[1].statistic > 2:
                    second = (
                        stats.ttest_rel(rho[a, 1::2] ** 2, rho[b, 1::2] ** 2, alternative="less").pvalue,
                        stats.ttest_rel(*kl[[a, b], 1::2], alternative="greater").pvalue,
                    )
                    p[seed, a, b] = max(second)
    ordered = sorted(p, key=p.get)
    # Benjamini and Yekutieli's step-up, as in their paper.
    harmonic = sum(1 / k for k in range(1, len(p) + 1))
    passed = [k for k, key in enumerate(ordered, 1) if p[key] <= k * rate / (len(p) * harmonic)]
    return p, set(ordered[: max(passed, default=0)])


def test_against_scipy_in_a_loop(compare):
    data = measured(np.random.default_rng(0), POLICIES)
    result = compare(*data)
    p, found = by_hand(*data)
    every = result.pairs.set_index("pairs").loc["all"]
    assert every[["compared", "chosen", "discordant"]].tolist() == [3 * 10, len(p), len(found)]
    assert 3 <= len(found) < len(p)
    variant = data[0]["variant"]
    within = sum(variant[a] == variant[b] for _, a, b in found)
    assert result.pairs.set_index("pairs").loc["within_variant", "discordant"] == within
    for seed, rows in result.by_seed.set_index("seed").iterrows():
        assert rows["discordant"] == sum(key[0] == seed for key in found)


def test_orders_that_agree_have_no_discordant_pair(compare):
    agreeing = [("logistic", 1 / k, float(k), 0.3 * k) for k in range(1, 6)] + [
        ("squared", 1 / k, k * 1.1, 0.33 * k) for k in range(1, 6)
    ]
    result = compare(*measured(np.random.default_rng(0), agreeing))
    assert result.pairs.set_index("pairs").loc["all", "discordant"] == 0
    assert (result.configurations.compared, result.configurations.discordant) == (45, 0)
    assert result.tested


def test_no_more_false_discoveries_than_allowed_where_kl_is_equal(compare):
    """The hardest null: E[ρ²] differs clearly, KL not at all, so any discordant pair is false."""
    policies = [("logistic", 1 / (k + 1), 2.0**k, 1.0) for k in range(4)]
    rng = np.random.default_rng(3)
    results = [compare(*measured(rng, policies, seeds=2)).pairs.set_index("pairs") for _ in range(200)]
    false = sum(table.loc["all", "discordant"] > 0 for table in results)
    assert false <= stats.binom.ppf(0.999, 200, 0.05)


def test_copies_are_not_discordant_with_each_other(compare):
    checkpoints, kl, rho = measured(np.random.default_rng(0), POLICIES[:2] * 2)
    for table in (kl, rho):
        for seed in range(3):
            table[4 * seed + 2 : 4 * seed + 4] = table[4 * seed : 4 * seed + 2]
    assert compare(checkpoints, kl, rho).pairs.set_index("pairs").loc["all", "chosen"] == 0


def test_without_single_pairs_or_prompts_nothing_is_tested(compare):
    checkpoints, kl, rho = measured(np.random.default_rng(0), POLICIES)
    for result in (compare(checkpoints, kl, None), compare(checkpoints, None, rho)):
        assert not result.tested
        assert result.pairs["compared"].tolist() == [0, 0, 0]
    assert len(result.rank_correlations) == 4


def scattered(rng, *, scatter, seeds=10):
    """Four variants whose KL and E[ρ²] agree at each of three strengths; runs scatter in both, independently."""
    rows = [
        (f"v{number}", beta, seed, 8, *(level * np.exp(scatter * rng.normal(size=2))))
        for number in range(4)
        for beta, level in ((1.0, 1.0), (0.1, 3.0), (0.01, 9.0))
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["variant", "strength", "seed", "step", "kl", "rho_sq_mean"])


def test_weak_discordance_among_many_pairs_is_not_found():
    """Single pairs pass at 5 %; of 132 tested at once, none does."""
    table = scattered(np.random.default_rng(0), scatter=0.05, seeds=6)
    table.loc[table["variant"] == "v0", "kl"] *= 1.07
    table.loc[table["variant"] == "v0", "rho_sq_mean"] /= 1.07
    of = {key: np.log(rows[["rho_sq_mean", "kl"]].to_numpy()) for key, rows in table.groupby(["variant", "strength"])}
    single = [
        max(
            stats.ttest_rel(of[a][:, 0], of[b][:, 0], alternative="less").pvalue,
            stats.ttest_rel(of[a][:, 1], of[b][:, 1], alternative="greater").pvalue,
        )
        for a, b in permutations(of, 2)
    ]
    assert sum(p <= 0.05 for p in single) > 0
    assert compare_configurations(table, false_discovery_rate=0.05).discordant == 0


def test_configurations_against_scipy_in_a_loop():
    rng = np.random.default_rng(0)
    table = scattered(rng, scatter=0.05, seeds=6)
    table.loc[table["variant"] == "v0", "kl"] *= 2
    table.loc[table["variant"] == "v0", "rho_sq_mean"] /= 2
    result = compare_configurations(table, false_discovery_rate=0.05)
    of = {key: np.log(rows[["rho_sq_mean", "kl"]].to_numpy()) for key, rows in table.groupby(["variant", "strength"])}
    p = {
        (a, b): max(
            stats.ttest_rel(of[a][:, 0], of[b][:, 0], alternative="less").pvalue,
            stats.ttest_rel(of[a][:, 1], of[b][:, 1], alternative="greater").pvalue,
        )
        for a, b in permutations(of, 2)
    }
    harmonic, ordered = sum(1 / k for k in range(1, len(p) + 1)), sorted(p.values())
    found = max((k for k, value in enumerate(ordered, 1) if value <= k * 0.05 / (len(p) * harmonic)), default=0)
    assert (result.compared, result.discordant) == (66, found)
    assert found > 0
    pair, (a, b) = result.clearest, min(p, key=p.get)
    assert (pair.variant_a, pair.strength_a, pair.variant_b, pair.strength_b) == (*a, *b)
    difference = of[a][:, 1] - of[b][:, 1]
    limits = stats.t.interval(0.95, 5, difference.mean(), stats.sem(difference))
    assert (pair.kl_ratio_low, pair.kl_ratio_high) == pytest.approx(np.exp(limits))
    assert pair.kl_ratio == pytest.approx(stats.gmean(np.exp(difference)))
    assert (pair.seeds, pair.of_seeds) == (int(((difference > 0) & (of[a][:, 0] < of[b][:, 0])).sum()), 6)


def test_runs_that_scatter_make_no_configuration_discordant():
    """Pairs of single runs are discordant in several seeds then; that says nothing about their configurations."""
    rng = np.random.default_rng(1)
    results = [compare_configurations(scattered(rng, scatter=0.3), false_discovery_rate=0.05) for _ in range(200)]
    assert sum(result.discordant > 0 for result in results) <= stats.binom.ppf(0.999, 200, 0.05)


def test_configurations_that_a_seed_lacks_or_that_are_copies_are_not_discordant():
    table = scattered(np.random.default_rng(2), scatter=0.2)
    table.loc[table["variant"] == "v0", "kl"] *= 3
    lacking = table[(table["variant"] != "v0") | (table["seed"] > 0)]
    assert compare_configurations(lacking, false_discovery_rate=0.05).compared == 36
    copy = table[table["variant"] == "v1"].assign(variant="copy")
    both = pd.concat([table[table["variant"] == "v1"], copy])
    assert compare_configurations(both, false_discovery_rate=0.05).discordant == 0
    assert compare_configurations(table[table["seed"] == 0], false_discovery_rate=0.05).compared == 0


def test_rank_correlations_of_final_checkpoints(compare):
    checkpoints, kl, rho = measured(np.random.default_rng(0), POLICIES)
    rows = compare(checkpoints, kl, rho).rank_correlations.set_index("variant")
    own = checkpoints.query("variant == 'squared'")
    assert rows.loc["squared", "spearman"] == pytest.approx(stats.spearmanr(own["rho_sq_mean"], own["kl"]).statistic)
    assert rows.loc["all", "kendall"] == pytest.approx(
        stats.kendalltau(checkpoints["rho_sq_mean"], checkpoints["kl"]).statistic
    )


def at_equal_rho(rng, factor, *, seeds=6, noise=0.05):
    """Variants whose KL at equal E[ρ²] differs by `factor`, at other E[ρ²] in each seed."""
    rows = [
        (variant, 8, seed, scale * square**0.7 * np.exp(rng.normal(0, noise)), square)
        for variant, scale in (("logistic", 1.0), ("squared", factor))
        for seed in range(seeds)
        for square in np.geomspace(1, 50, 6) * np.exp(rng.uniform(-0.2, 0.2))
    ]
    return compare_at_equal_rho(pd.DataFrame(rows, columns=["variant", "step", "seed", "kl", "rho_sq_mean"]))


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.0])
def test_kl_at_equal_rho_finds_a_known_factor(factor):
    exact = at_equal_rho(np.random.default_rng(0), factor, noise=0.0)
    np.testing.assert_allclose(exact.ratios["ratio"].astype(float), 1 / factor, rtol=1e-6)
    true = max(factor, 1 / factor)
    assert (exact.largest, exact.low, exact.high) == pytest.approx((true, true, true))
    assert true < at_equal_rho(np.random.default_rng(0), factor).high < 1.3 * true


def test_two_seeds_that_differ_say_nothing_and_warn_of_nothing():
    """One degree of freedom and many points: the interval goes from 0 to infinity."""
    seen = at_equal_rho(np.random.default_rng(0), 2.0, seeds=2, noise=20.0)
    assert (seen.ratios["ratio_low"].min(), seen.ratios["ratio_high"].max()) == (0, np.inf)
    assert seen.high == np.inf
    assert np.isfinite(seen.largest)


def test_its_intervals_cover_all_points_at_once():
    rng = np.random.default_rng(5)
    covered = [
        bool(((seen["ratio_low"] < 0.5) & (seen["ratio_high"] > 0.5)).all())
        for seen in (at_equal_rho(rng, 2.0).ratios for _ in range(200))
    ]
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)


def test_nothing_in_common_is_compared_nowhere():
    rows = [("a", 8, s, kl, kl) for s in (0, 1) for kl in (1.0, 2.0)]
    rows += [("b", 8, s, kl, 4 + kl) for s in (0, 1) for kl in (1.0, 2.0)]
    seen = compare_at_equal_rho(pd.DataFrame(rows, columns=["variant", "step", "seed", "kl", "rho_sq_mean"]))
    assert seen.ratios.empty
    assert np.isnan(seen.high)


def test_policies_on_the_way_count_at_equal_rho():
    """One variant whose early checkpoints reach three times the KL at the same E[ρ²]."""
    rng = np.random.default_rng(0)
    rows = [
        ("logistic", step, seed, scale * square**0.7 * np.exp(rng.normal(0, 0.02)), square)
        for step, scale in ((80, 3.0), (160, 1.0))
        for seed in range(6)
        for square in np.geomspace(1, 50, 6)
    ]
    seen = compare_at_equal_rho(pd.DataFrame(rows, columns=["variant", "step", "seed", "kl", "rho_sq_mean"]))
    assert (seen.low < 3 < seen.high, seen.largest) == (True, pytest.approx(3, rel=0.05))
    assert set(seen.ratios[["step_a", "step_b"]].itertuples(index=False, name=None)) == {(80, 160)}
    assert f"up to {seen.largest:.2f}" in seen.sentence


def test_kl_at_or_below_zero_is_no_policy_that_moved(compare):
    checkpoints, kl, rho = measured(np.random.default_rng(0), POLICIES)
    checkpoints.loc[:1, "kl"] = [0.0, -1e-6]
    kl[:2] -= kl[:2].mean(axis=1, keepdims=True)
    result = compare(checkpoints, kl, rho)
    assert result.by_seed["compared"].tolist() == [3, 10, 10]
    assert np.isfinite(result.at_equal_rho.ratios["ratio"].astype(float)).all()


def test_the_bound_at_equal_rho_keeps_its_level_and_can_be_met():
    """At a true factor of 1.25 the bound lies below it in no more than 5 % of sweeps; at none nearly always."""
    rng = np.random.default_rng(6)
    edge = [at_equal_rho(rng, 1.25, seeds=3).bound < 1.25 for _ in range(300)]
    assert np.mean(edge) <= stats.binom.ppf(0.999, 300, 0.05) / 300
    # Each point needs to pass, so few seeds rarely do; ten do.
    assert np.mean([at_equal_rho(rng, 1.0, seeds=10).bound < 1.25 for _ in range(50)]) > 0.9


def test_bound_is_scipys_one_sided_limit():
    rows = [("a", 8, seed, kl * (1.1 + 0.1 * seed), kl) for seed in range(3) for kl in (1.0, 2.0)]
    rows += [("b", 8, seed, kl, kl) for seed in range(3) for kl in (1.0, 2.0)]
    seen = compare_at_equal_rho(pd.DataFrame(rows, columns=["variant", "step", "seed", "kl", "rho_sq_mean"]))
    logs = np.log([1.1, 1.2, 1.3])
    limit = stats.ttest_1samp(logs, 0, alternative="less").confidence_interval(0.95).high
    assert seen.bound == pytest.approx(np.exp(limit))
