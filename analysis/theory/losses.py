"""What theory says of the six losses: f and its derivatives, tails, links, and how β must move between losses.

Sources: f from Tang et al. 2024 (arXiv 2402.05749), Table 1; the local prediction from its section 4; derivatives,
links and the global prediction are derived here. numpy only: ``tests/analysis/test_theory.py`` holds these
declarations against the torch losses that train.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

Array = NDArray[np.float64]
ArrayFunction = Callable[[Array], Array]

# Past this margin a population minimizer counts as infinite: logit p of the largest double below 1 is 36.7.
_UNBOUNDED = 50.0
GRADIENT_SHARE = 0.1


@dataclass(frozen=True)
class LossTheory:
    """f(z) with z = βρ (dimensionless), elementwise on float64 arrays of any shape.

    Attributes:
        value, slope, curvature: f, f', f''. At the kink z = 1 of ``hinge`` and ``truncated_quadratic`` slope and
            curvature are those from the right.
        link: closed form of `population_minimizer`, label probability p ↦ βρ*; ±inf where there is none.
        convex_from: f'' ≥ 0 for every z at or above this, f'' < 0 below.
        right_tail, left_tail: behavior for z → +∞ and z → −∞.
    """

    name: str
    value: ArrayFunction
    slope: ArrayFunction
    curvature: ArrayFunction
    link: ArrayFunction
    right_tail: str
    left_tail: str
    convex_from: float = -np.inf

    @property
    def local_strength(self) -> float:
        """f''(0)/|f'(0)|: regularization per unit of β near the reference (Tang et al. 2024, section 4)."""
        zero = np.zeros(1)
        return float(self.curvature(zero)[0] / abs(self.slope(zero)[0]))


def _savage_curvature(z: Array) -> Array:
    s = expit(-z)
    return 2 * s**2 * (1 - s) * (2 - 3 * s)


LOSS_THEORY: dict[str, LossTheory] = {
    theory.name: theory
    for theory in (
        LossTheory(
            "logistic",
            value=lambda z: np.logaddexp(0.0, -z),
            slope=lambda z: -expit(-z),
            curvature=lambda z: expit(z) * expit(-z),
            link=logit,
            right_tail="slope → 0, never 0",
            left_tail="slope → −1",
        ),
        LossTheory(
            "squared",
            value=lambda z: (z - 1) ** 2,
            slope=lambda z: 2 * (z - 1),
            curvature=lambda z: np.full_like(z, 2.0),
            link=lambda p: 2 * p - 1,
            right_tail="rises: pulls back to 1",
            left_tail="slope → −∞",
        ),
        LossTheory(
            "hinge",
            value=lambda z: np.maximum(0.0, 1 - z),
            slope=lambda z: np.where(z < 1, -1.0, 0.0),
            curvature=np.zeros_like,
            link=lambda p: np.sign(p - 0.5),
            right_tail="exactly flat past 1",
            left_tail="slope −1",
        ),
        LossTheory(
            "exponential",
            value=lambda z: np.exp(-z),
            slope=lambda z: -np.exp(-z),
            curvature=lambda z: np.exp(-z),
            link=lambda p: logit(p) / 2,
            right_tail="slope → 0, never 0",
            left_tail="slope → −∞, exponentially",
        ),
        LossTheory(
            "truncated_quadratic",
            value=lambda z: np.maximum(0.0, 1 - z) ** 2,
            slope=lambda z: -2 * np.maximum(0.0, 1 - z),
            curvature=lambda z: np.where(z < 1, 2.0, 0.0),
            link=lambda p: 2 * p - 1,
            right_tail="exactly flat past 1",
            left_tail="slope → −∞",
        ),
        LossTheory(
            "savage",
            value=lambda z: expit(-z) ** 2,
            slope=lambda z: -2 * expit(-z) ** 2 * expit(z),
            curvature=_savage_curvature,
            link=logit,
            right_tail="slope → 0, never 0",
            left_tail="slope → 0: bounded",
            convex_from=-np.log(2),
        ),
    )
}


def loss_facts() -> pd.DataFrame:
    """One row per loss: loss, f(0), f'(0), f''(0), local_strength, convex_from, right_tail, left_tail."""
    zero = np.zeros(1)
    return pd.DataFrame([
        {
            "loss": t.name, "f(0)": t.value(zero)[0], "f'(0)": t.slope(zero)[0], "f''(0)": t.curvature(zero)[0],
            "local_strength": t.local_strength, "convex_from": t.convex_from,
            "right_tail": t.right_tail, "left_tail": t.left_tail,
        }
        for t in LOSS_THEORY.values()
    ])  # fmt: skip


def settled_margin(theory: LossTheory, label_probability: ArrayLike, *, gradient_share: float = 0.0) -> Array:
    """The margin βρ at which a pair has (almost) stopped being pushed, found by bisection.

    A response preferred with probability p has the population risk p f(z) + (1 − p) f(−z). Returned is the z
    nearest 0, where training starts, at which the size of its slope has fallen to `gradient_share` of the size
    at z = 0. With a share of 0 that is the population minimizer, the link; it is ±inf where no finite z is one.

    Args:
        label_probability: p in [0, 1], any shape.
        gradient_share: in [0, 1); 0 for the minimizer itself.
    Returns:
        βρ, of p's shape, odd about p = 1/2.
    Raises:
        ValueError: a probability or share outside its range.
    """
    p = _checked_probability(label_probability)
    if not 0 <= gradient_share < 1:
        raise ValueError(f"gradient_share={gradient_share}: must lie in [0, 1)")
    likely = np.maximum(p, 1 - p)  # solve on z ≥ 0, restore the sign at the end
    allowed = gradient_share * (2 * likely - 1) * theory.slope(np.zeros(1))

    def settled(z: Array) -> NDArray[np.bool_]:
        return likely * theory.slope(z) - (1 - likely) * theory.slope(-z) >= allowed

    low, high = np.zeros_like(likely), np.full_like(likely, _UNBOUNDED)
    unbounded = ~settled(high)
    for _ in range(60):  # 50 / 2^60 is below a double's resolution near 1
        middle = (low + high) / 2
        reached = settled(middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    margin = np.where(likely == 0.5, 0.0, np.where(unbounded, np.inf, high))
    return np.where(p >= 0.5, margin, -margin)


def predicted_beta_ratios(
    label_probability: ArrayLike, *, baseline: str = "logistic", gradient_share: float = GRADIENT_SHARE
) -> pd.DataFrame:
    """By what factor β must move from `baseline` to each loss to give the same KL, by two arguments.

    *Local* (Tang et al. 2024, section 4): near the reference the regularizer's weight relative to the preference
    term is β f''(0)/|f'(0)|, so equal weights need β ∝ |f'(0)|/f''(0). NaN for a loss without curvature at 0.

    *Global* (derived): at the population optimum a pair sits at ρ = link(p)/β, and to second order KL is
    E[ρ²]/4, so equal KL needs β ∝ RMS of link(p) over the pairs. Where a link is infinite (labels that are
    certain, p = 1, under ``logistic``, ``exponential`` or ``savage``) there is no such optimum; then every loss
    takes instead the margin at which a pair's gradient has fallen to `gradient_share` of its size at 0, which
    is finite and marks where training in effect stops. The share is ours.

    Args:
        label_probability: of every pair of the sweep's preference data (the probability that its label agrees
            with the gold order), any shape.
    Returns:
        One row per loss: ``loss``; ``local``, ``global_`` (β_loss/β_baseline at equal KL); ``global_rule``, which is
        ``link`` or ``gradient share <share>``.
    Raises:
        ValueError: no pairs, a probability outside [0, 1], or labels without any preference (all p = 1/2).
    """
    p = _checked_probability(label_probability).ravel()
    if p.size == 0 or (p == 0.5).all():
        raise ValueError(f"{p.size} label probabilities, none other than 1/2: such labels settle no margin")
    # Many pairs share a probability (deterministic labels: all); solve once for each.
    values, counts = np.unique(p, return_counts=True)
    share = 0.0 if all(np.isfinite(t.link(values)).all() for t in LOSS_THEORY.values()) else gradient_share

    def root_mean_square(theory: LossTheory) -> float:
        margin = settled_margin(theory, values, gradient_share=share)
        return float(np.sqrt(np.average(margin**2, weights=counts)))

    size = {name: root_mean_square(theory) for name, theory in LOSS_THEORY.items()}
    strength = {name: theory.local_strength for name, theory in LOSS_THEORY.items()}
    return pd.DataFrame({
        "loss": list(LOSS_THEORY),
        "local": [strength[baseline] / s if s > 0 else np.nan for s in strength.values()],
        "global_": [size[name] / size[baseline] for name in LOSS_THEORY],
        "global_rule": "link" if share == 0 else f"gradient share {share:g}",
    })  # fmt: skip


def _checked_probability(label_probability: ArrayLike) -> Array:
    p = np.asarray(label_probability, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        bad = p[~((p >= 0) & (p <= 1))].flat[0]
        raise ValueError(f"label probability {bad}: must lie in [0, 1]")
    return p
