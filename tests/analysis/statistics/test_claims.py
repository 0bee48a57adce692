"""Every verdict of every claim, reached by sweeps built to deserve it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_draws import Noise, simulate

from analysis.statistics.claims import INCONCLUSIVE, NOT_SUPPORTED, STATEMENTS, SUPPORTED, assess_claims, write_claims
from analysis.statistics.discordance import Discordance, DiscordantPair
from analysis.statistics.frontier import fit_frontiers
from analysis.statistics.optimal_beta import find_optimal_betas
from analysis.statistics.overoptimization import fit_overoptimization

BETAS = (0.01, 0.03, 0.1, 0.3, 1.0)
STEPS = (0, 1, 2, 4)
LOSSES = ("logistic", "squared", "hinge")
STRENGTH = {"logistic": 0.5, "squared": 1.0, "hinge": 0.7}
LITTLE = Noise(seed=0.02, cell=0.01, prompt=0.3, sample=0.05, log_kl=0.02)
PREDICTIONS = pd.DataFrame({"variant": list(LOSSES), "local": [1.0, 0.5, np.nan], "global_": [1.0, 0.6, 0.7]})


def kl_of(variant, beta, step):
    return 0.5 / (STRENGTH[variant] * beta) ** 0.8 * step / STEPS[-1]  # hinge ends at 27 nats, squared at 20


def gao(variant, kl):
    d = np.sqrt(kl)
    return d * (1.2 - 0.6 * np.log(d)) if kl else 0.0  # peak 1.6 at KL 7.4


def rising(variant, kl):
    return 1.5 * (1 - np.exp(-np.sqrt(kl)))


def discordant(pairs=200, resolved=150, found=0, seeds=3):
    clearest = DiscordantPair("squared", 0.1, 4, "logistic", 1.0, 2, 0.5, 0.8, 2.0, 1.5, 2.6) if found else None
    counts = pd.DataFrame(
        [
            (name, pairs, resolved, found, found / resolved if resolved else np.nan)
            for name in ("within_variant", "all")
        ],
        columns=["pairs", "compared", "resolved", "discordant", "share"],
    )
    correlations = pd.DataFrame({"variant": ["all"], "cells": [2], "spearman": [np.nan], "kendall": [np.nan]})
    return Discordance(correlations, counts, clearest, seeds)


def assess(gold=gao, *, kl=kl_of, order=None, predictions=PREDICTIONS, **design):
    settings = {"variants": LOSSES, "betas": BETAS, "steps": STEPS, "noise": LITTLE, **design}
    draws = simulate(np.random.default_rng(0), kl, gold, **settings)
    frontiers = fit_frontiers(draws)
    betas = find_optimal_betas(draws, predictions=predictions)
    claims = assess_claims(frontiers, betas, fit_overoptimization(draws, frontiers.smoothed), order or discordant())
    return {claim.id: claim for claim in claims}


@pytest.fixture(scope="module")
def paper():
    """A sweep in which the paper is right."""
    return assess()


def test_a_sweep_as_the_paper_has_it(paper):
    assert {id_: claim.verdict for id_, claim in paper.items() if id_ != "C4"} == dict.fromkeys(
        ("C1", "C2", "C3"), SUPPORTED
    )
    assert {id_: claim.statement for id_, claim in paper.items()} == STATEMENTS
    for claim in list(paper.values())[:3]:
        assert claim.low <= claim.estimate <= claim.high
        numbers = f"{claim.estimate:.2f} [{claim.low:.2f}, {claim.high:.2f}]".replace("-", "−")
        assert numbers in claim.sentence


def test_frontiers_that_differ():
    claim = assess(lambda variant, kl: gao(variant, kl) + (0.6 if variant == "hinge" and kl else 0.0))["C1"]
    assert claim.verdict == NOT_SUPPORTED
    assert abs(claim.estimate) == pytest.approx(0.6, abs=0.1)
    assert claim.numbers["comparisons"] == 15  # three pairs at five budgets
    assert claim.numbers["different"] == 10
    assert claim.numbers["equivalent"] >= 4
    assert claim.numbers["nonzero"] >= 10


def test_frontiers_that_noise_hides():
    claim = assess(noise=Noise(cell=0.08), seeds=2)["C1"]
    assert claim.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("design", "reason"),
    [
        ({"variants": ("logistic",)}, "only one variant"),
        # squared ends at 0.02 nats, short of every budget
        ({"kl": lambda variant, *key: kl_of(variant, *key) * (0.001 if variant == "squared" else 1)}, "No KL budget"),
    ],
)
def test_frontiers_that_cannot_be_compared(design, reason):
    claim = assess(**design)["C1"]
    assert claim.verdict == INCONCLUSIVE
    assert reason in claim.sentence
    assert claim.estimate is None


def test_one_optimal_beta_for_all():
    still = Noise(0.005, 0.003, 0.3, 0.02, 0.005)
    claim = assess(kl=lambda variant, *key: kl_of("squared", *key), noise=still)["C2"]
    assert claim.verdict == NOT_SUPPORTED
    assert claim.low > 1 / 1.25
    assert claim.high < 1.25


def test_optimal_beta_against_the_prediction():
    claim = assess(predictions=PREDICTIONS.assign(local=1 / PREDICTIONS["local"], global_=2.0))["C2"]
    assert claim.verdict == NOT_SUPPORTED
    assert "0 differ that way and 2 the other" in claim.sentence


def test_optimal_beta_without_a_prediction_or_within_noise():
    assert assess(predictions=None)["C2"].verdict == INCONCLUSIVE
    assert assess(noise=Noise(cell=0.5), seeds=2)["C2"].verdict == INCONCLUSIVE


def test_ratios_are_relative_to_the_baseline_wherever_it_stands(paper):
    rows = pd.DataFrame(paper["C2"].numbers["at_peak"]).set_index("variant")
    assert rows["ratio"].to_dict() == pytest.approx({"squared": 0.5, "hinge": 0.5 / 0.7}, rel=0.15)
    assert rows["predicted"].to_dict() == {"squared": 0.5, "hinge": 0.7}  # hinge has no curvature at 0
    last = assess(variants=LOSSES[::-1])["C2"]
    assert last.verdict == SUPPORTED
    rows = pd.DataFrame(last.numbers["at_peak"]).set_index("variant")
    assert rows["ratio"].to_dict() == pytest.approx({"squared": 0.5, "hinge": 0.5 / 0.7}, rel=0.15)
    assert (rows["ratio_low"] < rows["ratio"]).all()
    assert (rows["ratio"] < rows["ratio_high"]).all()


def test_a_baseline_without_a_peak_leaves_nothing_to_compare():
    claim = assess(lambda variant, kl: rising(variant, kl) if variant == "logistic" else gao(variant, kl))["C2"]
    assert claim.verdict == INCONCLUSIVE
    assert claim.sentence.startswith("No variant beside logistic has a peak")
    assert claim.numbers["at_peak"] == []


def test_gold_that_never_falls():
    claim = assess(rising)["C3"]
    assert claim.verdict == NOT_SUPPORTED
    assert claim.sentence.startswith("0 of 3 variants fall")
    assert claim.estimate == pytest.approx(0, abs=0.05)


def test_one_loss_that_does_not_fall_where_others_have_peaked():
    claim = assess(lambda variant, kl: 0.5 * np.sqrt(kl) if variant == "hinge" else gao(variant, kl))["C3"]
    assert claim.verdict == NOT_SUPPORTED
    assert claim.sentence.startswith("2 of 3 variants fall")
    assert "1 stay within 0.1 SD of it" in claim.sentence


def test_data_that_end_before_the_peak():
    claim = assess(kl=lambda variant, *key: kl_of(variant, *key) * (0.1 if variant == "hinge" else 1))["C3"]
    assert claim.verdict == INCONCLUSIVE


def test_drops_are_those_of_the_truth(paper):
    rows = pd.DataFrame(paper["C3"].numbers["variants"]).set_index("variant")
    for variant in LOSSES:
        end = rows.loc[variant, "kl_max"]
        assert rows.loc[variant, "drop"] == pytest.approx(gao("", np.exp(2)) - gao("", end), abs=0.05)
        assert rows.loc[variant, "kl_peak"] == pytest.approx(np.exp(2), rel=0.1)


@pytest.mark.parametrize(
    ("order", "verdict", "words"),
    [
        (discordant(found=3), SUPPORTED, "3 (2.0%) have the two in opposite order"),
        (discordant(resolved=100), NOT_SUPPORTED, "none has"),
        (discordant(resolved=99), INCONCLUSIVE, "none has"),
        (discordant(resolved=0, seeds=1), INCONCLUSIVE, "one seed"),
    ],
)
def test_squared_loss_and_kl(order, verdict, words):
    claim = assess(betas=BETAS[::2], order=order)["C4"]
    assert claim.verdict == verdict
    assert words in claim.sentence
    assert claim.estimate == (2.0 if verdict == SUPPORTED else None)


def test_one_seed_and_few_betas_still_get_verdicts():
    for design in ({"seeds": 1}, {"betas": (0.1,), "seeds": 1}, {"variants": ("savage",), "kl": lambda *key: key[2]}):
        claims = assess(order=discordant(resolved=0, seeds=1), **design)
        assert {claim.verdict for claim in claims.values()} <= {SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE}


def test_the_file_holds_no_nan_and_every_field(paper, tmp_path):
    damaged = replace(paper["C1"], estimate=np.float64("nan"), low=-np.inf, numbers={"a": [np.nan, np.int64(3)]})
    write_claims([damaged, *list(paper.values())[1:]], tmp_path / "claims.json")

    def refuse(name):
        raise AssertionError(name)

    written = json.loads((tmp_path / "claims.json").read_text(), parse_constant=refuse)["claims"]
    assert [claim["id"] for claim in written] == ["C1", "C2", "C3", "C4"]
    assert (written[0]["estimate"], written[0]["low"], written[0]["numbers"]) == (None, None, {"a": [None, 3]})
    assert written[1]["estimate"] == paper["C2"].estimate
    assert written[2]["numbers"]["variants"][0]["variant"] == "logistic"
    assert written[3]["numbers"]["rank_correlations"][0]["spearman"] is None
