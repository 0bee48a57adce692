"""Verdicts on C1 to C3 of sweeps simulated in memory, with known truth."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from synthetic_draws import Noise, simulate

from analysis.statistics.claims import Claim, Rules, gather_evidence
from analysis.statistics.claims.beta_moves import beta_moves
from analysis.statistics.claims.rise_and_fall import rise_and_fall
from analysis.statistics.claims.same_frontier import same_frontier
from analysis.statistics.frontier import fit_frontiers
from analysis.statistics.optimal_beta import find_optimal_betas
from analysis.statistics.overoptimization import fit_overoptimization
from analysis.statistics.resampling import Draws

BETAS = (0.01, 0.03, 0.1, 0.2, 0.4, 1.0, 2.5)
STRENGTH = {"logistic": 0.5, "squared": 1.0, "hinge": 0.7, "exponential": 1.0}
PREDICTIONS = pd.DataFrame(
    {"variant": list(STRENGTH), "local": [1.0, 0.5, np.nan, 0.5], "global_": [1.0, 0.6, 0.7, 0.5]}
)
# As measured on the sweep's own noise: a seed shifts all its cells, a cell little more.
NOISE = Noise(seed=0.06, cell=0.015, prompt=0.3, sample=0.25, log_kl=0.05)
RULES = Rules()


def kl_of(variant: str, beta: float, step: int) -> float:
    """Up to 37 nats for `logistic`, 20 for `squared`."""
    return 0.5 / (STRENGTH[variant] * beta) ** 0.8 * step


def gao(variant: str, kl: float) -> float:
    """Peak 1.63 at KL e²."""
    d = np.sqrt(kl)
    return float(d * (1.2 - 0.6 * np.log(d))) if kl else 0.0


def rising(variant: str, kl: float) -> float:
    return float(1.5 * (1 - np.exp(-np.sqrt(kl))))


def shifted(by: float, variant: str = "hinge") -> Callable[[str, float], float]:
    """`variant` has more gold, by `by` from KL 0.4 on."""
    return lambda name, kl: gao(name, kl) + (by * min(kl / 0.4, 1.0) if name == variant else 0.0)


def draw(seed: object = 0, gold=gao, kl=kl_of, **design) -> Draws:
    settings = {"variants": tuple(STRENGTH), "betas": BETAS, "seeds": 10, "noise": NOISE, "draws": 40, **design}
    return simulate(np.random.default_rng(seed), kl, gold, **settings)


def assess(
    draws: Draws,
    rules: Rules = RULES,
    predictions: pd.DataFrame | None = PREDICTIONS,
    only: str = "C1 C2 C3",
) -> dict[str, Claim]:
    """Verdicts without the gate of `assess_claims`, which the tests of the evidence look at."""
    evidence, claims = gather_evidence(draws, rules), {}
    smoothed = {} if only == "C2" else fit_frontiers(draws, ends_only=True).smoothed
    if "C1" in only:
        claims["C1"] = same_frontier(smoothed, evidence, rules)
    if "C2" in only:
        c2 = rules.c2
        betas = find_optimal_betas(draws, baseline=c2.baseline, averaged=c2.budgets, predictions=predictions)
        claims["C2"] = beta_moves(betas, evidence, rules)
    if "C3" in only:
        overoptimization = fit_overoptimization(draws.at_ends(), smoothed, ends=rules.c3.ends)
        claims["C3"] = rise_and_fall(smoothed, overoptimization, evidence, rules)
    return claims
