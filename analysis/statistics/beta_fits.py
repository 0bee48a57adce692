"""Fits of final gold and final KL in log β, in every version of the table.

Peak: a penalized cubic spline of gold in log β whose penalty shrinks towards a parabola. β at a given KL: log KL made
monotone in log β (isotonic regression) and interpolated linearly.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from analysis.statistics.peaks import highest_point
from analysis.statistics.resampling import Design, Draws
from analysis.statistics.smoothing import PENALTIES, Basis, held_out_errors, normal_equations

_CURVE_POINTS = 201
_PENALTY_ORDER = 3
_KL_FLOOR = 1e-9  # nats; log KL of a policy that never moved


@dataclass(frozen=True)
class BetaGrid:
    """Final checkpoints of one variant: means over seeds per β, in every version of the table."""

    groups: pd.DataFrame  # strength, seeds, gold_sd
    log_beta: np.ndarray  # [m]
    kl: np.ndarray  # [R, m]
    gold: np.ndarray  # [R, m]
    count: np.ndarray  # [R, m] cells behind each mean
    design: Design

    def without_gaps(self, values: np.ndarray) -> np.ndarray:
        """`values` with a β that a left-out seed empties taken from the full table (its weight is 0 there)."""
        return np.where(self.count > 0, values, values[0])

    def covers(self, kl: float) -> bool:
        """Whether some β ends below and some above `kl`."""
        return bool(self.kl[0].min() <= kl <= self.kl[0].max())


@dataclass(frozen=True)
class BetaPeak:
    """Smooth fit of gold in log β."""

    grid: np.ndarray  # [points] log β
    curve: np.ndarray  # [R, points]
    log_beta: np.ndarray  # [R], NaN everywhere when the full table has no peak inside
    gold: np.ndarray  # [R]
    side: str  # none | low | high: the end of the grid at which the maximum lies


def beta_grid(draws: Draws, variant: str) -> BetaGrid:
    """Average the final checkpoints of `variant` over seeds."""
    replicates = draws.of(variant, final_only=True)
    groups, kl, gold, count = replicates.means_by("strength")
    spread = replicates.rows.groupby("strength", sort=True)["gold"].std(ddof=1)
    groups["gold_sd"] = spread.to_numpy()
    return BetaGrid(groups, np.log(groups["strength"].to_numpy()), kl, gold, count, replicates.design)


def choose_penalty(grids: list[BetaGrid]) -> float:
    """The penalty that predicts a left-out inner β best, the same for all variants."""
    errors = np.zeros(len(PENALTIES))
    for grid in grids:
        x = grid.log_beta
        errors += held_out_errors(_basis(x), x, grid.gold[0], x, _PENALTY_ORDER)
    return float(PENALTIES[len(PENALTIES) - 1 - np.argmin(errors[::-1])])


def _basis(log_beta: np.ndarray) -> Basis:
    return Basis(log_beta[0], log_beta[-1], segments=int(np.clip(len(log_beta) - 1, 3, 12)))


def fit_peak(grid: BetaGrid, penalty: float) -> BetaPeak:
    """Smooth gold in log β and find the highest point, in every version."""
    basis = _basis(grid.log_beta)
    x = np.broadcast_to(grid.log_beta, grid.gold.shape)
    coefficients = normal_equations(basis, x, grid.without_gaps(grid.gold), grid.count).solve(penalty, _PENALTY_ORDER)
    points = np.linspace(basis.low, basis.high, _CURVE_POINTS)
    curve = coefficients @ basis.matrix(points).T
    best = int(curve[0].argmax())
    side = {0: "low", _CURVE_POINTS - 1: "high"}.get(best, "none")
    log_beta, _, _ = highest_point(points, curve)
    if side != "none":
        log_beta = np.full(len(curve), np.nan)
    return BetaPeak(points, curve, log_beta, curve.max(axis=1), side)


def log_beta_at(grid: BetaGrid, kl: float) -> np.ndarray:
    """log β at which the final KL is `kl`, in every version, [R]."""
    log_kl = np.log(np.maximum(grid.without_gaps(grid.kl), _KL_FLOOR))
    result = np.empty(len(log_kl))
    for number, (values, weights) in enumerate(zip(log_kl, grid.count, strict=True)):
        # A β without cells in this version keeps a trace of weight, so that the fit stays defined there.
        fit = isotonic_regression(values, weights=np.maximum(weights, 1e-6), increasing=False).x
        result[number] = _interpolate(np.log(kl), fit[::-1], grid.log_beta[::-1])
    return result


def _interpolate(at: float, x: np.ndarray, y: np.ndarray) -> float:
    """Linear interpolation on ascending x; a version whose data end short of `at` continues its last slope.

    Where x has a plateau, y jumps: each side is interpolated from the plateau's end on that side.
    """
    rising = np.flatnonzero(np.diff(x) > 0)  # left ends of the segments that have a length
    if len(rising) == 0:
        return float(y[0])
    left = rising[np.clip(np.searchsorted(x[rising], at, side="right") - 1, 0, len(rising) - 1)]
    slope = (y[left + 1] - y[left]) / (x[left + 1] - x[left])
    return float(y[left] + slope * (at - x[left]))
