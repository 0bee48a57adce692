"""Rules, variance components, length and probabilities against closed forms, scipy and simulations with known truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.statistics.analyze import analyze
from analysis.statistics.practice.choosing import ORACLE, compare_rules
from analysis.statistics.practice.length import control_length, implicit_reward, length_slope
from analysis.statistics.practice.noise import component, detectable, split_variance, visible_at_equal_kl
from analysis.statistics.practice.policies import Policies, over_seeds, read_policies
from analysis.statistics.practice.residuals import residuals
from analysis.statistics.practice.runs import below_reference, gold_by_seed, probability_of_improvement

STRENGTHS = (0.01, 0.1, 1.0)


def policies_of(gold, *, seeds, variants=("a",), strengths=STRENGTHS, length=None, within=0.0, samples=4, **columns):
    """Policies with `gold` [variants × strengths × seeds, prompts], in this order."""
    rows = pd.DataFrame(
        [(v, s, seed) for v in variants for s in strengths for seed in range(seeds)],
        columns=["variant", "strength", "seed"],
    )
    rows = rows.assign(gold=gold.mean(axis=1), gold_se=0.01, cell=[f"cell{k}" for k in range(len(rows))])
    defaults = {"kl": 1.0, "held_out_loss": 1.0, "pair_accuracy": 0.5}
    rows = rows.assign(**defaults | columns)
    length = np.full(gold.shape, 10.0) if length is None else length
    return Policies(rows, gold, length, np.full(len(rows), within), samples)


# Choosing


def test_rules_choose_as_they_say_and_regret_is_the_difference_by_hand():
    # Gold by strength: 1, 3, 2 on every prompt of both seeds; held-out loss is lowest first, accuracy highest last.
    gold = np.repeat([[1.0], [1.0], [3.0], [3.0], [2.0], [2.0]], 8, axis=1)
    policies = policies_of(
        gold, seeds=2, kl=np.repeat([4.0, 1.5, 0.5], 2), held_out_loss=np.repeat([0.1, 0.2, 0.3], 2),
        pair_accuracy=np.repeat([0.6, 0.7, 0.8], 2),
    )  # fmt: skip
    table = compare_rules(policies).set_index("rule")
    expected = {ORACLE: (0.1, 3.0, 0.0), "lowest held-out loss": (0.01, 1.0, 2.0),
                "highest pair accuracy": (1.0, 2.0, 1.0), "largest KL up to 1 nats": (1.0, 2.0, 1.0),
                "largest KL up to 2 nats": (0.1, 3.0, 0.0),
                "largest KL up to 5 nats": (0.01, 1.0, 2.0), "smallest strength": (0.01, 1.0, 2.0),
                "largest strength": (1.0, 2.0, 1.0),
                "strength 0.1": (0.1, 3.0, 0.0)}  # fmt: skip
    for rule, (strength, value, regret) in expected.items():
        assert table.loc[rule, ["strength", "gold", "regret"]].tolist() == [strength, value, regret], rule
    assert set(table.index) == set(expected)


def test_a_rule_that_cannot_choose_is_left_out():
    policies = policies_of(np.zeros((6, 8)), seeds=2, kl=3.0, held_out_loss=np.nan)
    rules = set(compare_rules(policies)["rule"])
    assert {"largest KL up to 1 nats", "lowest held-out loss"} & rules == set()
    assert "largest KL up to 5 nats" in rules


def test_the_oracle_is_not_flattered_by_the_noise_that_chooses():
    """All strengths are worth 0: a choice and a report on the same prompts would give the maximum of three noises."""
    rng = np.random.default_rng(0)
    policies = policies_of(rng.normal(0, 1, (3 * 400, 16)), seeds=400)
    table = compare_rules(policies).set_index("rule")
    naive = policies.rows.groupby("seed")["gold"].max().mean()
    assert naive > 0.15
    assert abs(table.loc[ORACLE, "gold"]) < 3 * 0.25 / np.sqrt(400)
    assert table.loc[ORACLE, "gold_low"] < 0 < table.loc[ORACLE, "gold_high"]


def test_intervals_over_seeds_are_scipys():
    values = np.array([0.3, 0.1, 0.4, 0.15])
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert over_seeds(values) == pytest.approx((values.mean(), *expected))
    assert np.isnan(over_seeds(values[:1])[1])


# Noise

TRUE_VARIANCE = {"seed": 0.004, "run": 0.001, "prompt": 0.3, "sample": 0.8}


def simulated(rng, *, variants=6, seeds=10, prompts=64, samples=4):
    """Policies of one strength with TRUE_VARIANCE; variants differ in their means too."""
    sd = {source: value**0.5 for source, value in TRUE_VARIANCE.items()}
    draws = rng.normal(0, sd["sample"], (variants, seeds, prompts, samples))
    gold = (
        rng.normal(0, 0.3, (variants, 1, 1)) + rng.normal(0, sd["seed"], (1, seeds, 1))
        + rng.normal(0, sd["run"], (variants, seeds, 1)) + rng.normal(0, sd["prompt"], prompts) + draws.mean(axis=-1)
    )  # fmt: skip
    names = tuple("abcdefgh"[:variants])
    policies = policies_of(gold.reshape(-1, prompts), seeds=seeds, variants=names, strengths=(0.1,), samples=samples)
    return replace(policies, within=draws.var(axis=-1, ddof=1).mean(axis=-1).ravel())


def test_variance_components_are_those_of_the_simulation_and_their_intervals_cover_them():
    rng = np.random.default_rng(1)
    truth = pd.Series(TRUE_VARIANCE) / [1, 1, 64, 64 * 4]
    found = [split_variance(simulated(rng)).set_index("source") for _ in range(300)]
    means = pd.DataFrame([each["variance"] for each in found]).mean()
    assert means["seed"] == pytest.approx(truth["seed"], rel=0.1)
    assert means["run"] == pytest.approx(truth["run"], rel=0.2)
    assert means["prompt"] == pytest.approx(truth["prompt"], rel=0.05)
    assert means["sample"] == pytest.approx(truth["sample"], rel=0.01)
    covered = pd.DataFrame([(each["variance_low"] <= truth) & (truth <= each["variance_high"]) for each in found])
    assert covered.mean().between(0.915, 0.985).all(), covered.mean()
    assert {(int(each["variants"].iloc[0]), int(each["seeds"].iloc[0])) for each in found} == {(6, 10)}
    assert found[0]["cancels"].to_dict() == {"seed": True, "run": False, "prompt": True, "sample": False}


def test_a_component_alone_has_the_chi_squared_interval():
    estimate, low, high = component(2.0, 9, 0.0, np.inf, 4)
    assert estimate == 0.5
    assert (low, high) == pytest.approx((9 * 2 / 4 / stats.chi2.ppf(0.975, 9), 9 * 2 / 4 / stats.chi2.ppf(0.025, 9)))
    known = component(2.0, 9, 0.5, np.inf, 1)
    assert known == pytest.approx((1.5, 9 * 1.5 / stats.chi2.ppf(0.975, 9), 9 * 1.5 / stats.chi2.ppf(0.025, 9)))
    assert component(1.0, 9, 4.0, 30, 1)[:2] == (0.0, 0.0)
    assert np.isnan(component(0.0, 9, 0.0, np.inf, 1)[1:]).all()


def test_strengths_are_split_apart_and_copies_count_once():
    rng = np.random.default_rng(6)
    quiet, loud = (rng.normal(0, scale, (2, 4, 8)) for scale in (0.1, 3.0))
    gold = np.concatenate([np.stack([quiet, loud], axis=1), np.stack([quiet, loud], axis=1)[:1]]).reshape(-1, 8)
    policies = policies_of(gold, seeds=4, variants=("a", "b", "copy_of_a"), strengths=(0.1, 1.0), within=0.0)
    table = split_variance(policies).set_index(["strength", "source"])
    assert (table["variants"] == 2).all()
    assert table.loc[(1.0, "run"), "variance"] > 100 * table.loc[(0.1, "run"), "variance"]


def test_the_detectable_difference_is_found_in_four_of_five_sweeps():
    rng, policies = np.random.default_rng(2), policies_of(np.zeros((30, 64)), seeds=10)
    components = pd.DataFrame({
        "strength": 0.1, "seeds": 10, "source": ["seed", "run", "prompt", "sample"],
        "variance": [0.01, 0.001, 0.01, 0.002],
    })  # fmt: skip
    table = detectable(policies, components).set_index("purchase")
    difference = table.loc["as it is", "difference"]
    each = np.sqrt(0.003)
    first, second = rng.normal(0, each, (2, 10, 4000))
    found = stats.ttest_rel(difference + first, second).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    assert table.loc["twice the seeds", "difference"] < difference / 1.35
    halved = table.loc[["twice the prompts", "twice the samples per prompt"], "difference"]
    assert halved.tolist() == pytest.approx([difference * np.sqrt(2 / 3)] * 2)


def test_what_frontiers_see_is_the_noncentral_t_of_their_standard_errors():
    pairwise = pd.DataFrame({"kl": [1.0, 1.0, 1.0, 2.0], "difference_se": [0.01, 0.02, 0.06, np.nan]})
    table = visible_at_equal_kl(pairwise, 10)
    assert table[["kl", "pairs"]].to_numpy().tolist() == [[1.0, 3]]
    power = stats.nct.sf(stats.t.ppf(0.975, 9), 9, table["difference"][0] / 0.02)
    assert power == pytest.approx(0.8)
    assert visible_at_equal_kl(pairwise, 1).empty


def test_one_seed_or_one_variant_has_no_components():
    for policies in (
        policies_of(np.zeros((6, 8)), seeds=1, variants=("a", "b")),
        policies_of(np.zeros((4, 8)), seeds=4, strengths=(1.0,)),
    ):
        assert split_variance(policies).empty
        assert detectable(policies, split_variance(policies)).empty


# Residuals


def test_residuals_are_gold_minus_the_line():
    class Line:  # gold 1 + KL, from KL 0.5 to 5
        kl_min, kl_max = 0.5, 5.0

        def gold(self, kl):
            return np.stack([1 + kl, 7 + kl])

    rows = pd.DataFrame({
        "variant": "a", "strength": [0.1, 0.1, 1.0, 1.0], "seed": [0, 1, 0, 1], "kl": [4.0, 1.0, 0.1, 9.0],
        "gold": [5.5, 2.1, 0.0, 0.0],
    })  # fmt: skip
    fits = pd.DataFrame({"variant": ["a"], "form": ["best_of_n"], "first": [2.0], "second": [0.5]})
    table = residuals(rows, {"a": Line()}, fits).set_index("line")
    assert set(table["strength"]) == {0.1}, "KL 0.1 and 9 lie beyond the curve"
    expected = {"frontier": [0.5, 0.1], "best_of_n": [5.5 - (2 * 2 - 0.5 * 4), 2.1 - (2 - 0.5)]}
    for line, values in expected.items():
        assert table.loc[line, ["residual", "residual_low", "residual_high"]].tolist() == pytest.approx(
            over_seeds(np.array(values))
        )


# Length


def test_the_slope_is_that_of_a_regression_with_a_level_per_prompt():
    rng = np.random.default_rng(3)
    prompt = np.repeat(np.arange(20), 16)
    length = rng.integers(3, 20, 320) + prompt
    gold = 0.07 * length - 0.5 * prompt + rng.normal(0, 0.2, 320)  # the level falls with the prompt's usual length
    frame = pd.DataFrame({"prompt_id": prompt, "length": length, "gold": gold})
    design = np.column_stack([length, prompt[:, None] == np.arange(20)])
    expected = np.linalg.lstsq(design.astype(float), gold, rcond=None)[0][0]
    assert length_slope(frame) == pytest.approx(expected)
    assert length_slope(frame.assign(length=5)) == 0


def test_gold_that_length_buys_is_gone_after_control():
    rng = np.random.default_rng(4)
    prompt = np.repeat(np.arange(12), 32)
    length = rng.integers(5, 15, len(prompt)).astype(float)
    reference = pd.DataFrame({"prompt_id": prompt, "length": length, "gold": 0.1 * length})
    usual = reference.groupby("prompt_id")["length"].mean().to_numpy()
    lengths = usual + np.array([0, 3, 6, 0, 3, 6])[:, None]  # strength by strength, two seeds each
    bought = 0.1 * lengths + np.array([0.0, 0.0, 0.0, 0.5, 0.5, 0.5])[:, None]
    table = control_length(policies_of(bought, seeds=2, length=lengths), reference)
    expected = (bought - 0.1 * (lengths - usual)).mean(axis=1).reshape(3, 2).mean(axis=1)
    assert table["controlled"].tolist() == pytest.approx(expected.tolist())
    assert control_length(policies_of(bought[:, :5], seeds=2, length=lengths[:, :5]), reference).empty


# Runs


def test_runs_below_the_reference_have_an_exact_interval():
    gold = np.array([-1.0, -0.05, -0.3, 0.2, 0.4, 0.6] * 2)[:, None] + np.zeros((12, 8))
    rows = policies_of(gold, seeds=6, strengths=(0.1, 1.0)).rows.assign(gold_se=0.1)
    table = below_reference(rows)
    total = table[table["seed"].isna()].iloc[0]
    assert (total["cells"], total["below"]) == (12, 4), "−0.05 is within noise"
    exact = stats.binomtest(4, 12).proportion_ci(0.95, "exact")
    assert (total["rate_low"], total["rate_high"]) == pytest.approx(tuple(exact))
    assert table[table["seed"].notna()].set_index("seed")["below"].to_dict() == {0: 2, 1: 0, 2: 2, 3: 0, 4: 0, 5: 0}


def test_gold_at_equal_kl_is_read_off_between_a_seeds_own_policies():
    rows = pd.DataFrame({"seed": 0, "kl": [0.25, 1.0, 4.0], "gold": [0.5, 1.0, 0.0]})
    assert gold_by_seed(rows, 2.25)[0] == pytest.approx(0.5)  # √KL 1.5, halfway between 1 and 2
    assert np.isnan(gold_by_seed(rows, 5.0)[0])


def test_probability_of_improvement_is_mann_whitneys():
    rng = np.random.default_rng(5)
    seeds, golds = 9, {}
    rows = []
    for variant, shift in (("a", 0.3), ("b", 0.0)):
        golds[variant] = rng.normal(shift, 0.3, seeds)
        for strength, kl in ((0.1, 1.5), (1.0, 0.1)):  # flat between, so gold at KL 0.5 and 1 is the seed's own
            rows += [(variant, strength, seed, kl, golds[variant][seed]) for seed in range(seeds)]
    frame = pd.DataFrame(rows, columns=["variant", "strength", "seed", "kl", "gold"])
    policies = Policies(frame, np.zeros((len(frame), 4)), np.zeros((len(frame), 4)), np.zeros(len(frame)), 1)
    table = probability_of_improvement(policies, np.random.default_rng(0))
    assert table["kl"].tolist() == [0.5, 1.0], "2 nats are reached by nobody"
    expected = stats.mannwhitneyu(golds["a"], golds["b"]).statistic / seeds**2
    assert table["probability"].tolist() == pytest.approx([expected] * 2)
    assert (table["probability_low"] <= expected).all()
    assert (expected <= table["probability_high"]).all()


# From a sweep on disk


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    truth = Truth(losses=("logistic", "squared"), prompts=24)
    return load_sweep(write_sweep(tmp_path_factory.mktemp("runs") / "practice", truth))


def test_a_sweep_is_studied_as_a_whole(sweep):
    policies = read_policies(sweep)
    first = sweep.samples(["prompt_id", "gold"]).groupby("cell", sort=False)["gold"].mean()
    np.testing.assert_allclose(policies.gold.mean(axis=1), first[policies.rows["cell"]])
    practice = analyze(sweep, np.random.default_rng(0)).practice
    assert set(practice.choosing["variant"]) == {"logistic", "squared"}
    strengths = sorted(policies.rows["strength"].unique())
    variance = practice.variance.set_index(["strength", "source"])["variance"]
    assert list(variance.index) == [(s, source) for s in strengths for source in ("seed", "run", "prompt", "sample")]
    assert variance.xs("sample", level="source").isna().all(), "one sample per prompt"
    assert len(practice.length) == 10
    assert practice.implicit["cells"].eq(3).all()
    assert set(practice.residuals["line"]) == {"frontier", "best_of_n", "rl", "saturating"}


def test_implicit_reward_is_beta_times_the_mean_log_ratio(sweep):
    table = implicit_reward(sweep, read_policies(sweep)).set_index(["variant", "strength"])
    samples = sweep.samples(["kl_k1", "gold"])
    for (variant, strength), part in samples.groupby(["variant", "strength"]):
        row = table.loc[variant, strength]
        rewards = (strength * part.groupby("seed")["kl_k1"].mean()).to_numpy()
        assert row[["reward", "reward_low", "reward_high"]].tolist() == pytest.approx(over_seeds(rewards))
        with_gold = [stats.spearmanr(own["kl_k1"], own["gold"]).statistic for _, own in part.groupby("seed")]
        assert row["with_gold"] == pytest.approx(np.mean(with_gold))


def test_without_samples_there_is_nothing_to_study(tmp_path):
    truth = Truth(losses=("logistic",), prompts=24)
    sweep = load_sweep(write_sweep(tmp_path / "runs", truth, with_samples=False))
    assert analyze(sweep, np.random.default_rng(0)).practice is None
