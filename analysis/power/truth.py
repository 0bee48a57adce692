"""What is true in a simulated sweep: frontiers, KL against β, E[ρ²] against KL, and the sizes of the noise."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

STRENGTHS = (0.01, 0.03, 0.1, 0.2, 0.4, 1.0, 2.5)
# β · f''(0)/|f'(0)| is what regularizes locally: at equal KL these act as `logistic` at β times so much.
REGULARIZATION = {"logistic": 0.5, "squared": 1.0, "exponential": 1.0, "truncated_quadratic": 1.0}
PREDICTED = {name: 0.5 / value for name, value in REGULARIZATION.items()}
PEAK_KL = float(np.exp(2 * (1.35 / 0.95 - 1)))  # of `rise_and_fall`


def rise_and_fall(kl: float) -> float:
    """Gold in SD, √KL (1.35 − 0.95 ln √KL) (the form of Gao et al. 2023): a peak of 1.45 at 2.3 nats."""
    d = np.sqrt(kl)
    return float(d * (1.35 - 0.95 * np.log(d))) if kl > 0 else 0.0


def rise(kl: float) -> float:
    """Gold that saturates and never falls."""
    return float(1.5 * (1 - np.exp(-np.sqrt(kl))))


@dataclass(frozen=True)
class Noise:
    """Variance components; gold in SD², log KL in nats².

    As measured on the default world by retraining ten configurations with six samples per prompt: a seed shifts all its
    cells, a run little more, prompts all cells, and samples of one prompt differ most.
    """

    seed: float = 0.0045
    run: float = 0.00025
    prompt: float = 0.077
    sample: float = 0.83
    log_kl: float = 0.0025


@dataclass(frozen=True)
class Truth:
    """A scenario.

    Attributes:
        gold: SD of a policy at a KL, for every variant alike; `better` is added to `squared` from 0.4 nats on.
        ratio: β at equal KL over that of `logistic`, by variant.
        largest_kl: of `logistic` at the smallest β, nats.
        kl_factor: KL of `squared` at equal E[ρ²], over that of the others.
        scatter: how much more a run's own SD is at 10 nats than near π_ref, in multiples of that.
        rho_scatter: SD of log E[ρ²] between runs of equal KL.
        seeds: None takes what is asked for.
        spoil: what is wrong with the sweep beside noise; see `analysis.power.simulate`.
        expected: verdicts that are right, by claim; others than these are errors, `inconclusive` never is.
    """

    gold: Callable[[float], float] = rise_and_fall
    better: float = 0.0
    ratio: dict[str, float] = field(default_factory=lambda: dict(PREDICTED))
    largest_kl: float = 18.0
    kl_factor: float = 1.0
    scatter: float = 0.0
    rho_scatter: float = 0.0
    seeds: int | None = None
    spoil: str = ""
    noise: Noise = Noise()
    expected: dict[str, str] = field(default_factory=dict)

    def kl(self, variant: str, beta: float) -> float:
        """Nats of a trained policy: a power of β, `largest_kl` for `logistic` at the smallest."""
        return float(self.largest_kl * (beta / self.ratio[variant] / STRENGTHS[0]) ** -0.75)

    def gold_of(self, variant: str, kl: float) -> float:
        """SD of a variant's policy at a KL."""
        return self.gold(kl) + (self.better * min(kl / 0.4, 1.0) if variant == "squared" else 0.0)

    def rho_sq(self, variant: str, kl: float) -> float:
        """E[ρ²] in nats² of a policy with this KL."""
        return float(6.0 * (kl / (self.kl_factor if variant == "squared" else 1.0)) ** 1.3)


_S, _N = "supported", "not supported"
_EQUAL = Truth(expected={"C1": _S, "C2": _S, "C3": _S, "C4": _N})
SCENARIOS: dict[str, Truth] = {
    "all equal, β as predicted": _EQUAL,
    "far runs scatter": replace(_EQUAL, scatter=20.0),
    "one better by .05": replace(_EQUAL, better=0.05),
    "one better by .2": replace(_EQUAL, better=0.2, expected={**_EQUAL.expected, "C1": _N}),
    "β the same for all": replace(_EQUAL, ratio=dict.fromkeys(PREDICTED, 1.0), expected={**_EQUAL.expected, "C2": _N}),
    "never falls": replace(_EQUAL, gold=rise, largest_kl=40.0, expected={**_EQUAL.expected, "C3": _N}),
    "data end at 2 nats": replace(_EQUAL, largest_kl=2.0),
    "KL differs at equal E[ρ²]": replace(_EQUAL, kl_factor=0.5, expected={**_EQUAL.expected, "C4": _S}),
    "E[ρ²] scatters at equal KL": replace(_EQUAL, rho_scatter=0.3),  # C4 is about configurations, not about runs
    "one seed": replace(_EQUAL, seeds=1, expected={}),
    "three cells left": replace(_EQUAL, spoil="three cells", expected={}),
    "constant gold": replace(_EQUAL, gold=lambda kl: 0.0, noise=Noise(0, 0, 0, 0, 0.0025), expected={}),
    "a copied cell": replace(_EQUAL, spoil="copy", expected={}),
    "a loss lacks a seed": replace(_EQUAL, spoil="lacks a seed", expected={}),
}
