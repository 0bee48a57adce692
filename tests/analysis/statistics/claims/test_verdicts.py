"""Every verdict of C1 to C3, reached by sweeps built to deserve it, and how often it is wrong."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_claims import BETAS, NOISE, PREDICTIONS, RULES, STRENGTH, assess, draw, gao, kl_of, rising, shifted
from synthetic_draws import Noise

from analysis.statistics.claims import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    STATEMENTS,
    SUPPORTED,
    Rules,
    assess_claims,
    gather_evidence,
    write_claims,
)  # fmt: skip
from analysis.statistics.claims.contrasts import Contrasts
from analysis.statistics.claims.rise_and_fall import pooled_variance
from analysis.statistics.claims.rules import BetaMoves, SameFrontier
from analysis.statistics.claims.squared_loss import squared_loss_is_not_kl
from analysis.statistics.claims.standing import Standing
from analysis.statistics.configurations import Configurations, DiscordantPair
from analysis.statistics.discordance import Discordance
from analysis.statistics.equal_rho import EqualRho
from analysis.statistics.falls import Fall
from analysis.statistics.frontier import fit_frontiers
from analysis.statistics.intervals import interval
from analysis.statistics.optimal_beta import find_optimal_betas
from analysis.statistics.overoptimization import fit_overoptimization
from analysis.statistics.resampling import Design


@pytest.fixture(scope="module")
def paper():
    """A sweep in which the paper is right."""
    return assess(draw())


def test_a_sweep_as_the_paper_has_it(paper):
    assert {id_: claim.verdict for id_, claim in paper.items()} == dict.fromkeys(paper, SUPPORTED)
    for id_, claim in paper.items():
        assert claim.statement == STATEMENTS[id_]
        assert claim.low <= claim.estimate <= claim.high
        numbers = f"{claim.estimate:.2f} [{claim.low:.2f}, {claim.high:.2f}]".replace("-", "−")
        assert numbers in claim.sentence
        assert claim.rule.startswith("Supported: ")


# C1


def test_equivalence_is_two_one_sided_tests_of_seed_differences(paper):
    """By scipy's paired t tests on what each seed alone measures at the budgets, where the spline is nearly linear."""
    pairs = pd.DataFrame(paper["C1"].numbers["pairs"])
    assert len(pairs) == 6 * 3
    assert (pairs["verdict"] == "equivalent").all()
    draws = draw()
    rows = draws.rows[draws.rows["is_final"]]
    frontiers = fit_frontiers(draws, ends_only=True).smoothed
    row = pairs.query("variant_a == 'logistic' and variant_b == 'squared' and kl == 1").iloc[0]
    values = [frontiers[name].gold(np.array([1.0]))[:, 0] for name in ("logistic", "squared")]
    seeds = 10
    own = [seeds * value[0] - (seeds - 1) * value[1 : 1 + seeds] for value in values]
    test = stats.ttest_rel(*own)
    low, high = test.confidence_interval(0.9)
    assert row["difference"] == pytest.approx(values[0][0] - values[1][0])
    # Prompts, shared by all cells, add next to nothing to a difference.
    assert row["equivalence_low"] == pytest.approx(low, abs=0.25 * (high - low))
    assert row["equivalence_high"] == pytest.approx(high, abs=0.25 * (high - low))
    assert len(rows) == len(BETAS) * len(STRENGTH) * seeds


def test_one_that_is_better_is_found_and_named():
    claim = assess(draw(gold=shifted(0.3)), only="C1")["C1"]
    assert claim.verdict == NOT_SUPPORTED
    assert "hinge" in claim.sentence
    assert abs(claim.estimate) == pytest.approx(0.3, abs=0.08)
    pairs = pd.DataFrame(claim.numbers["pairs"])
    different = pairs[pairs["verdict"] == "different"]
    assert ((different["variant_a"] == "hinge") | (different["variant_b"] == "hinge")).all()


def test_a_difference_that_is_real_but_small_is_still_equivalent():
    quiet = Noise(seed=0.05, cell=0.003, prompt=0.2, sample=0.05, log_kl=0.01)
    claim = assess(draw(gold=shifted(0.05), noise=quiet), only="C1")["C1"]
    assert claim.verdict == SUPPORTED
    pairs = pd.DataFrame(claim.numbers["pairs"])
    assert ((pairs["difference_low"] > 0) | (pairs["difference_high"] < 0)).any()


def test_a_difference_as_large_as_the_margin_is_rarely_called_equivalent():
    """The size of the test at the edge of what it is to exclude; equal frontiers pass."""
    edge = [assess(draw((1, k), gold=shifted(0.1)), only="C1")["C1"].verdict for k in range(20)]
    equal = [assess(draw((2, k)), only="C1")["C1"].verdict for k in range(12)]
    assert Counter(edge)[SUPPORTED] <= 3  # P(4 or more of 20 at 5 %) = 1.6 %
    assert Counter(edge)[NOT_SUPPORTED] <= 3
    assert Counter(equal)[SUPPORTED] >= 10
    assert Counter(equal)[NOT_SUPPORTED] == 0


def test_noise_that_hides_the_frontiers_is_inconclusive():
    assert assess(draw(noise=replace(NOISE, cell=0.2)), only="C1")["C1"].verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("design", "reason"),
    [
        ({"variants": ("logistic",)}, "only one variant"),
        # squared ends below 1 nat
        ({"kl": lambda name, *key: kl_of(name, *key) * (0.04 if name == "squared" else 1)}, "KL 1 (squared)"),
    ],
)
def test_what_does_not_cover_the_budgets_supports_nothing(design, reason):
    claim = assess(draw(**design), only="C1")["C1"]
    assert claim.verdict == INCONCLUSIVE
    assert reason in claim.sentence


def identical_twins(draws, names, betas):
    """The second variant's cells at `betas` are the first's, to the last bit."""
    rows, kl, gold = draws.rows.copy(), draws.noise.kl.copy(), draws.noise.gold.copy()
    key = ["strength", "seed", "step"]
    of = {name: rows[(rows["variant"] == name) & rows["strength"].isin(betas)].sort_values(key).index for name in names}
    one, other = of.values()
    columns = ["kl", "kl_se", "gold", "gold_se"]
    rows.loc[other, columns] = rows.loc[one, columns].to_numpy()
    kl[other], gold[other] = kl[one], gold[one]
    return replace(draws, rows=rows, noise=replace(draws.noise, kl=kl, gold=gold))


def test_identical_runs_count_once():
    names = ("squared", "exponential")
    draws = identical_twins(draw(), names, BETAS[1:])  # the budgets lie between KL 0.24 and 8.3
    claim = assess(draws, only="C1")["C1"]
    assert claim.verdict == SUPPORTED
    assert claim.numbers["comparisons"] == 3 * 3  # three variants
    assert claim.numbers["identical_at"] == {kl: {"exponential": "squared"} for kl in ("0.5", "1", "2")}
    assert "squared and exponential are the same runs to the last bit in 60 of 70 cells" in claim.sentence
    assert len(claim.numbers["identical_cells"]) == 60
    beta = assess(draws, only="C2")["C2"]
    assert [row["variant"] for row in beta.numbers["at_equal_kl"]] == ["squared", "hinge"]
    assert beta.numbers["identical"] == {"exponential": "squared"}


def test_runs_identical_elsewhere_are_compared():
    draws = identical_twins(draw(), ("squared", "exponential"), BETAS[:2])
    claim = assess(draws, only="C1")["C1"]
    assert claim.numbers["comparisons"] == 6 * 3
    assert claim.numbers["identical_at"] == {}
    assert "in 20 of 70 cells" in claim.sentence


def test_two_variants_that_are_one_show_nothing():
    draws = identical_twins(draw(variants=("squared", "exponential")), ("squared", "exponential"), BETAS)
    claim = assess(draws, only="C1")["C1"]
    assert claim.verdict == INCONCLUSIVE
    assert "same runs at every budget" in claim.sentence


# C2


def test_ratios_at_equal_kl_are_those_of_the_truth(paper):
    rows = pd.DataFrame(paper["C2"].numbers["at_equal_kl"]).set_index("variant")
    assert rows["ratio"].to_dict() == pytest.approx({"squared": 0.5, "exponential": 0.5, "hinge": 0.5 / 0.7}, rel=0.08)
    assert rows["predicted"].dropna().to_dict() == {"squared": 0.5, "exponential": 0.5}
    assert rows["verdict"].to_dict() == {
        "squared": "as predicted", "exponential": "as predicted", "hinge": "no prediction"
    }  # fmt: skip
    by_kl = pd.DataFrame(paper["C2"].numbers["by_kl"])
    assert set(by_kl["kl"]) == {0.5, 1, 2, 5, 10}
    assert {row["variant"] for row in paper["C2"].numbers["at_peak"]} == {"squared", "exponential", "hinge"}


def test_ratios_at_equal_kl_are_narrower_than_at_the_peak(paper):
    def width(rows):
        return np.median([np.log(row["ratio_high"] / row["ratio_low"]) for row in rows])

    numbers = paper["C2"].numbers
    assert width(numbers["at_equal_kl"]) < 0.7 * width(numbers["at_peak"])


def test_beta_on_the_other_side_is_not_supported():
    claim = assess(draw(kl=lambda name, beta, step: 0.5 / (beta / STRENGTH[name]) ** 0.8 * step), only="C2")["C2"]
    assert claim.verdict == NOT_SUPPORTED
    assert "2 on the other" in claim.sentence


def test_one_beta_for_all_is_not_supported():
    claim = assess(draw(kl=lambda name, *key: kl_of("squared", *key)), only="C2")["C2"]
    assert claim.verdict == NOT_SUPPORTED
    assert "2 the same" in claim.sentence


def test_no_difference_is_seldom_taken_for_a_predicted_one():
    noisy = replace(NOISE, log_kl=0.4)
    same = [
        assess(draw((3, k), kl=lambda name, *key: kl_of("squared", *key), noise=noisy), only="C2")["C2"]
        for k in range(25)
    ]
    assert sum(claim.verdict == SUPPORTED for claim in same) <= 1
    wrong = sum(row["verdict"] in ("as predicted", "other side") for claim in same
                for row in claim.numbers["at_equal_kl"])  # fmt: skip
    assert wrong <= 5  # of 50 at 5 % together per sweep


def test_beta_without_a_prediction_or_baseline_or_within_noise():
    none = assess(draw(), predictions=None, only="C2")["C2"]
    assert (none.verdict, "predicts no variant" in none.sentence) == (INCONCLUSIVE, True)
    assert assess(draw(variants=("squared", "hinge")), only="C2")["C2"].verdict == INCONCLUSIVE
    assert assess(draw(noise=replace(NOISE, log_kl=1.0), seeds=3), only="C2")["C2"].verdict == INCONCLUSIVE
    only_hinge = PREDICTIONS[PREDICTIONS["variant"].isin(["logistic", "hinge"])]
    assert assess(draw(), predictions=only_hinge, only="C2")["C2"].verdict == INCONCLUSIVE


def test_a_predicted_variant_that_does_not_reach_the_budgets_leaves_the_claim_open():
    claim = assess(draw(kl=lambda name, *key: kl_of(name, *key) * (0.04 if name == "squared" else 1)), only="C2")["C2"]
    assert claim.verdict == INCONCLUSIVE
    assert "Data of squared do not cover" in claim.sentence


def test_another_baseline():
    rules = Rules(c2=BetaMoves(baseline="squared"))
    local = PREDICTIONS.assign(local=[2.0, 1.0, np.nan, 1.0])
    claim = assess(draw(), rules, local, only="C2")["C2"]
    assert claim.verdict == SUPPORTED
    assert next(row["variant"] for row in claim.numbers["at_equal_kl"]) == "logistic"
    assert claim.estimate == pytest.approx(2.0, rel=0.1)


# C3


def test_falls_are_those_of_the_truth(paper):
    rows = pd.DataFrame(paper["C3"].numbers["variants"]).set_index("variant")
    for variant in STRENGTH:
        end = rows.loc[variant, "kl_end"]
        assert end == (28 if variant in ("logistic", "hinge") else 20)
        assert rows.loc[variant, "fall"] == pytest.approx(gao("", np.exp(2)) - gao("", end), abs=0.08)
        assert rows.loc[variant, "rise"] == pytest.approx(gao("", np.exp(2)), abs=0.1)


def test_gold_that_never_falls_is_not_supported():
    claim = assess(draw(gold=rising), only="C3")["C3"]
    assert claim.verdict == NOT_SUPPORTED
    assert claim.sentence.startswith("0 of 4 variants fall")


def test_one_that_does_not_fall_where_the_data_reach():
    claim = assess(draw(gold=lambda name, kl: 0.4 * np.sqrt(kl) if name == "hinge" else gao(name, kl)), only="C3")["C3"]
    assert claim.verdict == NOT_SUPPORTED
    assert "1 are shown to stay within 0.1 SD" in claim.sentence


@pytest.mark.parametrize("gold", [gao, rising])
def test_data_that_end_early_show_neither(gold):
    for k in range(5):
        claim = assess(draw((4, k), gold=gold, kl=lambda *key: 0.1 * kl_of(*key)), only="C3")["C3"]
        assert claim.verdict == INCONCLUSIVE
        assert "reach KL 5 nats" in claim.sentence
    one = assess(draw(gold=gold, kl=lambda name, *key: (0.1 if name == "hinge" else 1) * kl_of(name, *key)), only="C3")[
        "C3"
    ]
    assert one.verdict == INCONCLUSIVE
    assert "Data of hinge do not reach KL 5 nats" in one.sentence


def test_data_that_end_just_after_the_peak_do_not_show_that_nothing_falls():
    """Gold peaks at KL 7.4 and has lost 0.02 SD at KL 10, where data end."""
    for k in range(5):
        claim = assess(draw((6, k), kl=lambda name, *key: 0.5 * kl_of("squared", *key)), only="C3")["C3"]
        assert {row["kl_end"] for row in claim.numbers["variants"]} <= {7, 10}
        assert claim.verdict == INCONCLUSIVE


def test_noise_alone_is_no_fall():
    flat = [assess(draw((5, k), gold=lambda name, kl: min(kl, 1.0), noise=replace(NOISE, cell=0.1)), only="C3")["C3"]
            for k in range(15)]  # fmt: skip
    assert all(claim.verdict != SUPPORTED for claim in flat)
    falls = [row["fall_low"] > 0 for claim in flat for row in claim.numbers["variants"]]
    assert np.mean(falls) <= 0.08  # 2.5 % expected


def seed_falls(own):
    design = Design(np.ones(len(own[0]), dtype=bool), 2, 40)
    return {f"v{k}": Fall(np.array([values.mean()]), values, values, design, 5.0) for k, values in enumerate(own)}


def test_variances_are_pooled_where_they_agree():
    rng = np.random.default_rng(0)
    own = rng.normal(0, 1, (6, 10))
    variance, freedom = pooled_variance(seed_falls(own))
    assert variance == pytest.approx(own.var(axis=1, ddof=1).mean() / 10)
    assert 20 < freedom < 54  # of 6 · 9, fewer for chance correlations
    shared = own + 10 * rng.normal(0, 1, 10)  # one seed effect for all: six copies of one estimate
    assert pooled_variance(seed_falls(shared))[1] == pytest.approx(9, rel=0.1)
    assert pooled_variance(seed_falls(own * np.array([1, 1, 1, 1, 1, 6.0])[:, None])) is None
    assert pooled_variance(seed_falls(own[:, :2])) is None
    assert pooled_variance(seed_falls(own[:1])) is None


def test_pooled_degrees_of_freedom_are_those_of_correlated_estimates():
    """Var(mean of variances) = 2 σ⁴ / df, by simulation."""
    rng = np.random.default_rng(1)
    table = np.sqrt(0.5) * (rng.normal(0, 1, (20_000, 1, 10)) + rng.normal(0, 1, (20_000, 4, 10)))  # correlation 1/2
    pooled = table.var(axis=2, ddof=1).mean(axis=1)
    expected = 2 / pooled.var()
    found = np.median([pooled_variance(seed_falls(own))[1] for own in table[:300] if pooled_variance(seed_falls(own))])
    assert found == pytest.approx(expected, rel=0.15)
    assert found < expected  # chance correlations cost a little


# The multiplicity rules


def test_holm_and_bonferroni_as_by_hand():
    p = np.array([0.001, 0.012, 0.02, 0.04, 0.6])  # Holm at 5 %: .01, .0125, .0167, ... two rejections; Bonferroni: one
    t = stats.t.ppf(1 - p / 2, 9)
    rng = np.random.default_rng(0)
    contrasts = Contrasts()
    for number, statistic in enumerate(t):
        own = rng.normal(0, 1, 10)
        own = (own - own.mean()) / own.std(ddof=1) * np.sqrt(10)  # standard error 1
        values = np.concatenate([[0], (own.sum() - own) / 9, np.zeros(4)]) + statistic * (-1) ** number
        contrasts.add(values, Design(np.ones(10, dtype=bool), 2, 40), number=number)
    assert contrasts.beyond(0, 0, level=0.95, multiplicity="holm").tolist() == [1, -1, 0, 0, 0]
    assert contrasts.beyond(0, 0, level=0.95, multiplicity="bonferroni").tolist() == [1, 0, 0, 0, 0]
    assert contrasts.beyond(-9, 9, level=0.95, multiplicity="holm").tolist() == [0] * 5
    inside = contrasts.inside(-4.0, 4.0, level=0.95)
    assert inside.tolist() == [bool(4 - abs(x) > stats.t.ppf(0.95, 9)) for x in t]
    table = contrasts.table("x", contrasts.each_level(0.95))
    alone = interval(contrasts.replicates[0], contrasts.designs[0], level=0.99)
    assert table["x_low"][0] == pytest.approx(float(alone.low))


# C4 as it stands, the gate and the file


def discordant(found=0, equal=1.0, tested=True):
    """`found` discordant configurations; KL at equal E[ρ²] differs by a factor of up to `equal` at most."""
    pair = DiscordantPair("squared", 0.1, 4, "logistic", 1.0, 2, 9, 10, 0.5, 0.4, 0.8, 2.0, 1.5, 2.6)
    configurations = Configurations(60 * tested, found, pair if found else None)
    counts = pd.DataFrame(
        [("all", 200 * tested, 10, found, 0.0)], columns=["pairs", "compared", "chosen", "discordant", "share"]
    )
    correlations = pd.DataFrame({"variant": ["all"], "cells": [2], "spearman": [np.nan], "kendall": [np.nan]})
    ratios = pd.DataFrame({"variant_a": ["squared"], "ratio": [equal]}) if equal else pd.DataFrame()
    at_equal = EqualRho(ratios, equal, equal, 2 * equal, equal)
    return Discordance(correlations, counts, counts, at_equal, configurations, tested)


@pytest.mark.parametrize(
    ("order", "verdict", "words"),
    [
        (discordant(found=3), SUPPORTED, "Of 60 pairs of configurations, 3 (5.0%) have"),
        (discordant(found=3), SUPPORTED, "Clearest, in 9 of 10 seeds: squared at strength 0.1, step 4 has 0.50 ["),
        (discordant(found=3), SUPPORTED, "Of 200 pairs of single policies of one seed, 3 have"),
        (discordant(equal=1.2), NOT_SUPPORTED, "none has"),
        (discordant(equal=1.3), INCONCLUSIVE, "up to 1.30"),
        (discordant(equal=0), INCONCLUSIVE, "none has"),
        (discordant(equal=1.0, tested=False), INCONCLUSIVE, "Of 0 pairs"),
    ],
)
def test_squared_loss_and_kl(order, verdict, words):
    claim = squared_loss_is_not_kl(order, RULES)
    assert (claim.verdict, words in claim.sentence) == (verdict, True), claim.sentence
    assert (claim.estimate == 2.0) == bool(order.configurations.clearest)


def all_four(draws, rules=RULES):
    frontiers = fit_frontiers(draws, ends_only=True)
    betas = find_optimal_betas(draws, averaged=rules.c2.budgets, predictions=PREDICTIONS)
    fits = fit_overoptimization(draws.at_ends(), frontiers.smoothed, ends=rules.c3.ends)
    evidence = gather_evidence(draws, rules)
    return assess_claims(frontiers, betas, fits, discordant(found=3), evidence, rules)


@pytest.mark.parametrize(
    ("design", "words"),
    [
        ({"seeds": 2}, "2 seeds, 3 are needed"),
        ({"seeds": 1}, "1 seed, 3 are needed"),
        ({"betas": (0.03, 0.1, 1.0)}, "3 strengths, 4 are needed"),
        ({"betas": (0.1,), "seeds": 1}, "1 strength, 4 are needed"),
        ({"gold": lambda name, kl: 0.0, "noise": Noise(0, 0, 0, 0, 0.05)}, "gold is the same in all cells"),
    ],
)
def test_too_little_gets_no_verdict_and_says_why(design, words):
    claims = all_four(draw(**design))
    assert [claim.verdict for claim in claims] == [INCONCLUSIVE] * 4
    for claim in claims:
        assert claim.sentence.startswith("No verdict, as ")
        assert words in claim.sentence
        assert any(words in sentence for sentence in claim.numbers["obstacles"])


def test_enough_gets_a_verdict():
    claims = all_four(draw(seeds=10))
    assert [claim.verdict for claim in claims] == [SUPPORTED] * 4


def test_the_file_holds_no_nan_and_every_field(paper, tmp_path):
    damaged = replace(paper["C1"], estimate=np.float64("nan"), low=-np.inf, numbers={"a": [np.nan, np.int64(3)]})
    standing = Standing("exploratory", "Few cells.", "claims.yaml (123)")
    write_claims([damaged, *list(paper.values())[1:]], tmp_path / "claims.json", standing)

    def refuse(name):
        raise AssertionError(name)

    content = json.loads((tmp_path / "claims.json").read_text(), parse_constant=refuse)
    assert (content["status"], content["why"], content["rules"]) == ("exploratory", "Few cells.", "claims.yaml (123)")
    written = content["claims"]
    assert [claim["id"] for claim in written] == ["C1", "C2", "C3"]
    assert (written[0]["estimate"], written[0]["low"], written[0]["numbers"]) == (None, None, {"a": [None, 3]})
    assert written[1]["estimate"] == paper["C2"].estimate
    assert written[2]["numbers"]["variants"][0]["variant"] == "logistic"
    assert all(claim["rule"] for claim in written)


def test_the_margin_and_budgets_are_those_of_the_rules():
    claim = assess(draw(), Rules(c1=SameFrontier(budgets=(1.5,), margin=0.001)), only="C1")["C1"]
    assert claim.verdict != SUPPORTED
    assert claim.numbers["kl_budgets"] == [1.5]
    assert "±0.001 SD" in claim.rule
