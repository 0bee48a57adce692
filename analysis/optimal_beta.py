"""Which β is best for each loss, and how β must move between losses.

Peak: a penalised cubic spline of final gold in log β whose penalty shrinks towards a parabola; where its maximum
lies at the grid's end there is no peak, only a bound. β at a matched KL: log KL made monotone in log β (isotonic
regression) and interpolated linearly. Both are recomputed in every version of the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from analysis.frontier import KL_BUDGETS
from analysis.intervals import Intervals, compare_all, interval
from analysis.resampling import Design, Draws
from analysis.smoothing import PENALTIES, Basis, held_out_errors, normal_equations

BASELINE = "logistic"
MIN_BETAS = 3  # a peak has a point on either side of it
_CURVE_POINTS = 201
_PENALTY_ORDER = 3
_KL_FLOOR = 1e-9  # nats; log KL of a policy that never moved


@dataclass(frozen=True)
class OptimalBetas:
    """Optimal β of all losses of a sweep, by final gold; β dimensionless, KL in nats, gold in SD units.

    Attributes:
        table: one row per loss: ``loss, betas, seeds, grid_beta, grid_gold, grid_gold_sd`` (over seeds; NaN with one),
            ``grid_kl, edge`` (low | high | none: where the grid's best β lies), ``peak_beta, peak_beta_low,
            peak_beta_high, peak_gold, peak_gold_low, peak_gold_high, kind, note``; peak_* by the smooth fit, NaN with
            a note where the fit has no peak inside the grid. A peak_beta_low of 0 or an infinite peak_beta_high
            says that the interval leaves the grid.
        cells: ``loss, beta, seeds, gold, gold_low, gold_high, gold_se, gold_sd, kl, kl_low, kl_high, kl_se, kind``;
            final checkpoints averaged over seeds.
        curves: ``loss, beta, gold, gold_low, gold_high, gold_se, kind``; the smooth fit in log β, inside the grid.
        at_kl: ``loss, kl, beta, beta_low, beta_high, kind``; β whose final KL is a budget, covered budgets only.
        ratios: ``loss, at, kl, ratio, ratio_low, ratio_high, kind, local, global_``; β(loss) / β(baseline); at is
            ``peak`` (kl NaN), ``kl`` (one row per budget that both cover) or ``kl_mean`` (geometric mean over those
            budgets, kl NaN); local and global_ are the theory's predictions, NaN when none are given.
        peak_pairs: ``loss_a, loss_b, ratio, ratio_low, ratio_high, kind``; β at the peak of a over that of b,
            simultaneous over all pairs of losses that have a peak.
        baseline: the loss that `ratios` compares with.
        warnings: sentences, the edge warnings among them.
    """

    table: pd.DataFrame
    cells: pd.DataFrame
    curves: pd.DataFrame
    at_kl: pd.DataFrame
    ratios: pd.DataFrame
    peak_pairs: pd.DataFrame
    baseline: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Grid:
    """Final checkpoints of one loss: means over seeds per β, in every version of the table."""

    groups: pd.DataFrame  # beta, seeds, gold_sd
    log_beta: np.ndarray  # [m]
    kl: np.ndarray  # [R, m]
    gold: np.ndarray  # [R, m]
    count: np.ndarray  # [R, m] cells behind each mean
    design: Design

    def without_gaps(self, values: np.ndarray) -> np.ndarray:
        """`values` with a β that a left-out seed empties taken from the full table (its weight is 0 there)."""
        return np.where(self.count > 0, values, values[0])


@dataclass(frozen=True)
class _Peak:
    """Smooth fit of gold in log β."""

    grid: np.ndarray  # [points] log β
    curve: np.ndarray  # [R, points]
    log_beta: np.ndarray  # [R], NaN everywhere when the full table has no peak inside
    gold: np.ndarray  # [R]
    side: str  # none | low | high: the end of the grid at which the maximum lies


def find_optimal_betas(
    draws: Draws,
    *,
    baseline: str = BASELINE,
    budgets: tuple[float, ...] = KL_BUDGETS,
    predictions: pd.DataFrame | None = None,
) -> OptimalBetas:
    """Locate the best β of every loss, and β at equal KL.

    Args:
        baseline: loss that the ratios are taken to; no ratios when it is not in the sweep.
        budgets: KLs in nats at which β is compared.
        predictions: ``loss, local, global_``: predicted β(loss) / β(baseline); NaN where theory has none.
    """
    grids = {loss: _grid(draws, loss) for loss in draws.losses}
    fitted = [loss for loss, grid in grids.items() if len(grid.log_beta) >= MIN_BETAS]
    penalty = _choose_penalty([grids[loss] for loss in fitted])
    peaks = {loss: _fit_peak(grids[loss], penalty) for loss in fitted}
    table = pd.DataFrame([_table_row(loss, grid, peaks.get(loss)) for loss, grid in grids.items()])
    at_kl = {
        (loss, kl): _log_beta_at(grid, kl)
        for loss, grid in grids.items()
        for kl in budgets
        if len(grid.log_beta) > 1 and _covers(grid, kl)
    }
    ratios = pd.DataFrame(_ratios(grids, peaks, at_kl, baseline), columns=_RATIO_COLUMNS)
    if predictions is None:
        ratios["local"], ratios["global_"] = np.nan, np.nan
    else:
        ratios = ratios.merge(predictions[["loss", "local", "global_"]], on="loss", how="left")
    warnings = [f"{row.loss}: {row.note}" for row in table.itertuples() if row.note]
    if baseline not in grids:
        warnings.append(f"No ratios of β: the sweep has no finished cell of the baseline loss {baseline!r}.")
    return OptimalBetas(
        table,
        pd.concat([_cells(loss, grid) for loss, grid in grids.items()], ignore_index=True),
        pd.concat([_curve(loss, peaks[loss], grids[loss]) for loss in fitted] or [pd.DataFrame()], ignore_index=True),
        pd.DataFrame(
            [_at_kl_row(*key, values, grids[key[0]]) for key, values in at_kl.items()], columns=_AT_KL_COLUMNS
        ),
        ratios,
        _peak_pairs(grids, peaks),
        baseline,
        tuple(warnings),
    )


_AT_KL_COLUMNS = ["loss", "kl", "beta", "beta_low", "beta_high", "kind"]
_RATIO_COLUMNS = ["loss", "at", "kl", "ratio", "ratio_low", "ratio_high", "kind"]


def _grid(draws: Draws, loss: str) -> _Grid:
    replicates = draws.of(loss, final_only=True)
    groups, kl, gold, count = replicates.means_by("beta")
    spread = replicates.rows.groupby("beta", sort=True)["gold"].std(ddof=1)
    groups["gold_sd"] = spread.to_numpy()
    return _Grid(groups, np.log(groups["beta"].to_numpy()), kl, gold, count, replicates.design)


def _choose_penalty(grids: list[_Grid]) -> float:
    """The penalty that predicts a left-out inner β best, the same for all losses."""
    errors = np.zeros(len(PENALTIES))
    for grid in grids:
        x = grid.log_beta
        errors += held_out_errors(_basis(x), x, grid.gold[0], x, _PENALTY_ORDER)
    return float(PENALTIES[len(PENALTIES) - 1 - np.argmin(errors[::-1])])


def _basis(log_beta: np.ndarray) -> Basis:
    return Basis(log_beta[0], log_beta[-1], segments=int(np.clip(len(log_beta) - 1, 3, 12)))


def _fit_peak(grid: _Grid, penalty: float) -> _Peak:
    basis = _basis(grid.log_beta)
    x = np.broadcast_to(grid.log_beta, grid.gold.shape)
    coefficients = normal_equations(basis, x, grid.without_gaps(grid.gold), grid.count).solve(penalty, _PENALTY_ORDER)
    points = np.linspace(basis.low, basis.high, _CURVE_POINTS)
    curve = coefficients @ basis.matrix(points).T
    best = curve.argmax(axis=1)
    side = {0: "low", _CURVE_POINTS - 1: "high"}.get(int(best[0]), "none")
    log_beta = _refine(points, curve, best)
    if side != "none":
        log_beta = np.full(len(curve), np.nan)
    return _Peak(points, curve, log_beta, curve.max(axis=1), side)


def _refine(points: np.ndarray, curve: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Vertex of the parabola through the highest point and its neighbours; an end point stays."""
    inner = np.clip(best, 1, len(points) - 2)
    rows = np.arange(len(curve))
    left, middle, right = (curve[rows, inner + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(bend < 0, 0.5 * (left - right) / bend, 0.0).clip(-1, 1)
    return np.where(inner == best, points[inner] + shift * (points[1] - points[0]), points[best])


def _table_row(loss: str, grid: _Grid, peak: _Peak | None) -> dict[str, object]:
    best = int(grid.gold[0].argmax())
    betas = len(grid.log_beta)
    edge = "none" if betas > 1 and 0 < best < betas - 1 else "low" if best == 0 else "high"
    group = grid.groups.iloc[best]
    row = {
        "loss": loss, "betas": betas, "seeds": grid.design.seed_count, "grid_beta": group["beta"],
        "grid_gold": grid.gold[0, best], "grid_gold_sd": group["gold_sd"], "grid_kl": grid.kl[0, best], "edge": edge,
    }  # fmt: skip
    if peak is None:
        note = f"{betas} β only: no peak can be located with fewer than {MIN_BETAS}"
        return row | dict.fromkeys(_PEAK_COLUMNS, np.nan) | {"kind": "none", "note": note}
    where, height = interval(peak.log_beta, grid.design), interval(peak.gold, grid.design)
    columns = (*_exp(where, peak.grid[0], peak.grid[-1]), float(height.estimate), float(height.low), float(height.high))
    smallest, largest = np.exp(grid.log_beta[[0, -1]])
    note = ""
    if peak.side != "none":
        bound = f"at or below {smallest:g}" if peak.side == "low" else f"at or above {largest:g}"
        note = f"no peak inside the grid of β: the best β is {bound}; extend the grid"
    elif edge != "none":
        note = (
            f"the grid's best β {group['beta']:g} is its {'smallest' if edge == 'low' else 'largest'}; extend the grid"
        )
    return row | dict(zip(_PEAK_COLUMNS, columns, strict=True)) | {"kind": str(where.kind), "note": note}


_PEAK_COLUMNS = ("peak_beta", "peak_beta_low", "peak_beta_high", "peak_gold", "peak_gold_low", "peak_gold_high")


def _exp(log: Intervals, grid_low: float = -np.inf, grid_high: float = np.inf) -> tuple[float, float, float]:
    """Estimate, low and high on the scale of β; an end outside the grid is 0 or infinite: the data do not bound it."""
    low = 0.0 if log.low < grid_low else float(np.exp(log.low))
    high = np.inf if log.high > grid_high else float(np.exp(log.high))
    return float(np.exp(log.estimate)), low, high


def _covers(grid: _Grid, kl: float) -> bool:
    return bool(grid.kl[0].min() <= kl <= grid.kl[0].max())


def _log_beta_at(grid: _Grid, kl: float) -> np.ndarray:
    """log β at which the final KL is `kl`, in every version, [R]."""
    log_kl = np.log(np.maximum(grid.without_gaps(grid.kl), _KL_FLOOR))
    result = np.empty(len(log_kl))
    for number, (values, weights) in enumerate(zip(log_kl, grid.count, strict=True)):
        # A β without cells in this version keeps a trace of weight, so that the fit stays defined there.
        fit = isotonic_regression(values, weights=np.maximum(weights, 1e-6), increasing=False).x
        result[number] = _interpolate(np.log(kl), fit[::-1], grid.log_beta[::-1])
    return result


def _interpolate(at: float, x: np.ndarray, y: np.ndarray) -> float:
    """Linear interpolation on ascending x; a version whose data end short of `at` continues its last slope."""
    keep = np.concatenate([[True], np.diff(x) > 0])
    x, y = x[keep], y[keep]
    if len(x) < 2:
        return float(y[0])
    left = int(np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2))
    slope = (y[left + 1] - y[left]) / (x[left + 1] - x[left])
    return float(y[left] + slope * (at - x[left]))


def _at_kl_row(loss: str, kl: float, log_beta: np.ndarray, grid: _Grid) -> dict[str, object]:
    result = interval(log_beta, grid.design)
    return dict(zip(_AT_KL_COLUMNS, (loss, kl, *_exp(result), str(result.kind)), strict=True))


def _ratios(
    grids: Mapping[str, _Grid],
    peaks: Mapping[str, _Peak],
    at_kl: Mapping[tuple[str, float], np.ndarray],
    baseline: str,
) -> list[tuple]:
    """One tuple of _RATIO_COLUMNS per loss and place of comparison."""
    rows = []
    for loss in grids:
        if loss == baseline or baseline not in grids:
            continue
        design = grids[loss].design.union(grids[baseline].design)
        logs: list[tuple[str, float, np.ndarray]] = []
        if loss in peaks and baseline in peaks:
            logs.append(("peak", np.nan, peaks[loss].log_beta - peaks[baseline].log_beta))
        shared = [kl for other, kl in at_kl if other == loss and (baseline, kl) in at_kl]
        at_budgets = [at_kl[loss, kl] - at_kl[baseline, kl] for kl in shared]
        logs += [("kl", kl, values) for kl, values in zip(shared, at_budgets, strict=True)]
        if shared:
            logs.append(("kl_mean", np.nan, np.mean(at_budgets, axis=0)))
        for place, kl, values in logs:
            result = interval(values, design)
            rows.append((loss, place, kl, *_exp(result), str(result.kind)))
    return rows


def _peak_pairs(grids: Mapping[str, _Grid], peaks: Mapping[str, _Peak]) -> pd.DataFrame:
    columns = ["loss_a", "loss_b", "ratio", "ratio_low", "ratio_high", "kind"]
    inside = [loss for loss, peak in peaks.items() if peak.side == "none"]
    if len(inside) < 2:
        return pd.DataFrame(columns=columns)
    values = np.stack([peaks[loss].log_beta for loss in inside], axis=1)
    pairs = compare_all(values, inside, [grids[loss].design for loss in inside])
    for name in ("", "_low", "_high"):
        pairs[f"ratio{name}"] = np.exp(pairs[f"difference{name}"])
    return pairs[columns]


def _cells(loss: str, grid: _Grid) -> pd.DataFrame:
    gold, kl = interval(grid.gold, grid.design), interval(grid.kl, grid.design)
    groups = grid.groups
    return pd.DataFrame({
        "loss": loss, "beta": groups["beta"], "seeds": groups["seeds"], **gold.columns("gold"),
        "gold_sd": groups["gold_sd"], **kl.columns("kl"), "kind": gold.kind,
    })  # fmt: skip


def _curve(loss: str, peak: _Peak, grid: _Grid) -> pd.DataFrame:
    band = interval(peak.curve, grid.design)
    return pd.DataFrame({"loss": loss, "beta": np.exp(peak.grid), **band.columns("gold"), "kind": band.kind})
