"""Which β is best for each loss, and how β must move between losses (estimators: `analysis.statistics.beta_fits`)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.beta_fits import BetaGrid, BetaPeak, beta_grid, choose_penalty, fit_peak, log_beta_at
from analysis.statistics.frontier import KL_BUDGETS
from analysis.statistics.intervals import Intervals, compare_all, interval
from analysis.statistics.resampling import Draws

BASELINE = "logistic"
MIN_BETAS = 3  # a peak has a point on either side of it


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
    grids = {loss: beta_grid(draws, loss) for loss in draws.losses}
    fitted = [loss for loss, grid in grids.items() if len(grid.log_beta) >= MIN_BETAS]
    penalty = choose_penalty([grids[loss] for loss in fitted])
    peaks = {loss: fit_peak(grids[loss], penalty) for loss in fitted}
    table = pd.DataFrame([_table_row(loss, grid, peaks.get(loss)) for loss, grid in grids.items()])
    at_kl = {
        (loss, kl): log_beta_at(grid, kl)
        for loss, grid in grids.items()
        for kl in budgets
        if len(grid.log_beta) > 1 and grid.covers(kl)
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


def _table_row(loss: str, grid: BetaGrid, peak: BetaPeak | None) -> dict[str, object]:
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


def _at_kl_row(loss: str, kl: float, log_beta: np.ndarray, grid: BetaGrid) -> dict[str, object]:
    result = interval(log_beta, grid.design)
    return dict(zip(_AT_KL_COLUMNS, (loss, kl, *_exp(result), str(result.kind)), strict=True))


def _ratios(
    grids: Mapping[str, BetaGrid],
    peaks: Mapping[str, BetaPeak],
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


def _peak_pairs(grids: Mapping[str, BetaGrid], peaks: Mapping[str, BetaPeak]) -> pd.DataFrame:
    columns = ["loss_a", "loss_b", "ratio", "ratio_low", "ratio_high", "kind"]
    inside = [loss for loss, peak in peaks.items() if peak.side == "none"]
    if len(inside) < 2:
        return pd.DataFrame(columns=columns)
    values = np.stack([peaks[loss].log_beta for loss in inside], axis=1)
    pairs = compare_all(values, inside, [grids[loss].design for loss in inside])
    for name in ("", "_low", "_high"):
        pairs[f"ratio{name}"] = np.exp(pairs[f"difference{name}"])
    return pairs[columns]


def _cells(loss: str, grid: BetaGrid) -> pd.DataFrame:
    gold, kl = interval(grid.gold, grid.design), interval(grid.kl, grid.design)
    groups = grid.groups
    return pd.DataFrame({
        "loss": loss, "beta": groups["beta"], "seeds": groups["seeds"], **gold.columns("gold"),
        "gold_sd": groups["gold_sd"], **kl.columns("kl"), "kind": gold.kind,
    })  # fmt: skip


def _curve(loss: str, peak: BetaPeak, grid: BetaGrid) -> pd.DataFrame:
    band = interval(peak.curve, grid.design)
    return pd.DataFrame({"loss": loss, "beta": np.exp(peak.grid), **band.columns("gold"), "kind": band.kind})
