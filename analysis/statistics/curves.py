"""Smooth curves of gold against KL, in every version of the table.

The smoother is a penalized cubic spline in log(1 + √KL) over the checkpoints of all β and seeds of a variant: gold
starts out linear in √KL (Gao et al. 2023, arXiv 2210.10760), and the logarithm keeps a few policies at KL 50 from
taking the flexibility away from the many below 5. A spline, because a frontier may rise, peak and fall or not; its
second-order penalty shrinks towards a line, which has no peak of its own. It goes through gold 0 at KL 0, which is
π_ref's by definition and is not fitted. The penalty is the same for all variants and minimizes the error on checkpoints
of a β that the fit has not seen. Runs that have gone far scatter ten times as much as those near π_ref, so every
checkpoint counts by its precision: the variance between seeds as a log-linear function of the place along the axis. A
curve speaks only of KLs with data near on both sides, a policy or the start: it
ends before the first gap in which 1 + √KL doubles and no policy lies (from KL 1 to 9, 4 to 25), and leaves out a gap
between the start and the first policy. Policies beyond are not fitted.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from analysis.statistics.resampling import Design, Draws, VariantReplicates
from analysis.statistics.smoothing import PENALTIES, Basis, NormalEquations, held_out_errors, normal_equations

GAP = 2.0  # factor in 1 + √KL: between KL 4 and 25, or 1 and 9
CURVE_POINTS = 80
_PENALTY_ORDER = 2
_CONFIGURATIONS = 6  # with fewer, how the spread changes along KL is not known


@dataclass(frozen=True)
class SmoothedFrontier:
    """One variant's spline in every version of the table.

    Attributes:
        coefficients: [R, K].
        kl_min, kl_max: from 0 (from the first policy, after a gap) to where at least two seeds reach (one, if there is
            only one), nats.
    """

    basis: Basis
    coefficients: np.ndarray
    design: Design
    kl_min: float
    kl_max: float

    def covers(self, kl: float) -> bool:
        """Whether `kl` lies inside the data."""
        return self.kl_min <= kl <= self.kl_max

    def gold(self, kl: np.ndarray) -> np.ndarray:
        """Gold at KLs [m] in every version, [R, m]."""
        return self.coefficients @ self.basis.matrix(_place(kl)).T

    def grid(self, points: int = CURVE_POINTS) -> np.ndarray:
        """KLs inside the data, equally spaced in √KL."""
        return np.linspace(np.sqrt(self.kl_min), np.sqrt(self.kl_max), points).clip(0) ** 2


def smooth_all(draws: Draws, variants: tuple[str, ...]) -> tuple[dict[str, SmoothedFrontier], float, list[str]]:
    """Curves of `variants`, the penalty that they share, and sentences about data that a curve does not reach."""
    moved = replace(draws, rows=draws.rows[draws.rows["step"] > 0])  # at step 0 a policy is π_ref
    steepness = _steepness(moved.rows[moved.rows["variant"].isin(variants)])
    errors = np.zeros(len(PENALTIES))
    bases: dict[str, Basis] = {}
    spans: dict[str, tuple[float, float]] = {}
    warnings = []
    for variant in variants:
        rows = moved.rows[moved.rows["variant"] == variant]
        spans[variant], warning = _span(variant, rows["kl"].to_numpy())
        warnings += warning
        rows = rows[rows["kl"] <= spans[variant][1]]
        x = _place(rows["kl"].to_numpy())
        bases[variant] = basis = Basis(0.0, max(x.max(), 1e-6))
        fold = rows["strength" if len(rows["strength"].unique()) > 2 else "seed"].to_numpy()
        if len(np.unique(fold)) > 1:
            known = partial(NormalEquations.through_zero, basis=basis)
            weight = np.exp(-steepness * x)
            errors += held_out_errors(basis, x, rows["gold"].to_numpy(), fold, _PENALTY_ORDER, known, weight)
    # The smoothest of the best where nothing could be held out.
    penalty = float(PENALTIES[len(PENALTIES) - 1 - np.argmin(errors[::-1])])
    curves = {
        variant: _smooth(moved.of(variant), bases[variant], penalty, spans[variant], steepness) for variant in variants
    }
    return curves, penalty, warnings


def _span(variant: str, kl: np.ndarray) -> tuple[tuple[float, float], list[str]]:
    """The KLs without a gap in the data, from the start or else the first policy; a sentence on policies beyond."""
    kl = np.sort(kl)
    wide = np.diff(_place(kl), prepend=0.0) > np.log(GAP)
    low = float(kl[0]) if wide[0] else 0.0
    end = int(np.argmax(wide[1:])) if wide[1:].any() else len(kl) - 1
    if not (beyond := len(kl) - 1 - end):
        return (low, float(kl[-1])), []
    return (low, float(kl[end])), [
        f"{variant}: no policy between KL {kl[end]:.3g} and {kl[end + 1]:.3g}; its curve ends at the first, without "
        f"{beyond} {'policy' if beyond == 1 else 'policies'} beyond."
    ]


def _steepness(rows: pd.DataFrame) -> float:
    """How fast the log of gold's variance between seeds grows along the axis, over all variants; never negative."""
    groups = rows.groupby(["variant", "strength", "step"])
    variance, place = groups["gold"].var(ddof=1).to_numpy(), _place(groups["kl"].mean().to_numpy())
    known = variance > 0  # NaN with one seed
    if known.sum() < _CONFIGURATIONS or np.ptp(place[known]) == 0:
        return 0.0
    return max(0.0, float(np.polyfit(place[known], np.log(variance[known]), 1)[0]))


def _smooth(
    replicates: VariantReplicates, basis: Basis, penalty: float, span: tuple[float, float], steepness: float
) -> SmoothedFrontier:
    inside = (replicates.rows["kl"] <= span[1]).to_numpy()
    # Drawn prompts can push the largest KL past the basis; it then counts as the end.
    x = np.minimum(_place(replicates.kl[:, inside]), basis.high)
    # Of the full table, so that a version that moves a policy does not make it count for more.
    precision = np.exp(-steepness * _place(replicates.rows.loc[inside, "kl"].to_numpy()))
    equations = normal_equations(basis, x, replicates.gold[:, inside], replicates.weight[:, inside] * precision)
    coefficients = equations.through_zero(basis).solve(penalty, _PENALTY_ORDER)
    by_seed = replicates.rows[inside].groupby("seed")["kl"].max()
    kl_max = by_seed.nlargest(min(2, len(by_seed))).iloc[-1]
    return SmoothedFrontier(basis, coefficients, replicates.design, min(span[0], float(kl_max)), float(kl_max))


def _place(kl: np.ndarray) -> np.ndarray:
    """Where a KL in nats lies on the spline's axis."""
    return np.log1p(np.sqrt(np.maximum(kl, 0)))
