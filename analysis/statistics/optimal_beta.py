"""Which β is best for each variant, and how β must move between them (estimators: `analysis.statistics.beta_fits`).

Written for β; of variants of other methods it is the strength, such as the weight of KL, that stands in its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.beta_fits import BetaGrid, BetaPeak, beta_grid, choose_penalty, fit_peak, log_beta_at
from analysis.statistics.frontier import KL_BUDGETS
from analysis.statistics.intervals import Intervals, compare_all, interval, log_interval
from analysis.statistics.resampling import Design, Draws
from analysis.statistics.stacking import stack, stack_rows

BASELINE = "logistic"
MIN_BETAS = 3  # a peak has a point on either side of it


@dataclass(frozen=True)
class OptimalBetas:
    """Optimal β of all variants of a sweep, by final gold; β dimensionless, KL in nats, gold in SD units.

    Attributes:
        table: one row per variant: ``variant, betas, seeds, grid_beta, grid_gold, grid_gold_sd`` (over seeds; NaN with
            one), ``grid_kl, edge`` (low | high | none: where the grid's best β lies), ``peak_beta, peak_beta_low,
            peak_beta_high, peak_gold, peak_gold_low, peak_gold_high, kind, note``; peak_* by the smooth fit, NaN with
            a note where the fit has no peak inside the grid. A peak_beta_low of 0 or an infinite peak_beta_high
            says that the interval leaves the grid.
        cells: ``variant, strength, seeds, gold, gold_low, gold_high, gold_se, gold_sd, kl, kl_low, kl_high, kl_se,
            kind``; final checkpoints averaged over seeds; KL's intervals are made on its logarithm.
        curves: ``variant, strength, gold, gold_low, gold_high, gold_se, kind``; the smooth fit in log β, inside the
            grid.
        at_kl: ``variant, kl, beta, beta_low, beta_high, kind``; β whose final KL is a budget, covered budgets only.
        ratios: ``variant, at, kl, ratio, ratio_low, ratio_high, kind, local, global_``; β(variant) / β(baseline); at is
            ``peak`` (kl NaN), ``kl`` (one row per budget that both cover) or ``kl_mean`` (geometric mean over those
            of the budgets to be averaged that both cover, kl NaN); local and global_ are the theory's predictions, NaN
            when none are given.
        matched: by variant, log of the ``kl_mean`` ratio in every version of the table, [R], and its design; only where
            both cover every budget to be averaged.
        predictions: ``variant, local, global_`` as given, without rows when none are.
        peak_pairs: ``variant_a, variant_b, ratio, ratio_low, ratio_high, kind``; β at the peak of a over that of b,
            simultaneous over all pairs of variants that have a peak.
        baseline: the variant that `ratios` compares with.
        warnings: sentences, the edge warnings among them.
    """

    table: pd.DataFrame
    cells: pd.DataFrame
    curves: pd.DataFrame
    at_kl: pd.DataFrame
    ratios: pd.DataFrame
    matched: Mapping[str, tuple[np.ndarray, Design]]
    predictions: pd.DataFrame
    peak_pairs: pd.DataFrame
    baseline: str
    warnings: tuple[str, ...]


def find_optimal_betas(
    draws: Draws,
    *,
    baseline: str = BASELINE,
    budgets: tuple[float, ...] = KL_BUDGETS,
    averaged: Sequence[float] | None = None,
    predictions: pd.DataFrame | None = None,
) -> OptimalBetas:
    """Locate the best β of every variant, and β at equal KL.

    Args:
        baseline: variant that the ratios are taken to; no ratios when it is not in the sweep.
        budgets: KLs in nats at which β is compared.
        averaged: KLs that the mean ratio at equal KL is taken over; `budgets` by default.
        predictions: ``variant, local, global_``: predicted β(variant) / β(baseline); NaN where theory has none.
    """
    averaged = budgets if averaged is None else averaged
    kls = sorted({*budgets, *averaged})
    fits = _fit(draws, kls)
    ratios, matched = [], {}
    for variant in draws.variants:
        if variant == baseline or baseline not in draws.variants:
            continue
        pair = draws.paired((variant, baseline))
        fit = fits if pair is draws else _fit(pair, kls, fits.penalty)
        mean = _mean_ratio(fit, variant, baseline, averaged)
        ratios += _ratios(fit, variant, baseline, mean)
        if mean is not None and len(mean[1]) == len(averaged):
            matched[variant] = mean[0], fit.design(variant, baseline)
    rows = [_table_row(variant, grid, fits.peaks.get(variant)) for variant, grid in fits.grids.items()]
    table = stack_rows(rows, _TABLE_COLUMNS)
    if predictions is None:
        predictions = stack([], ["variant", "local", "global_"])
    predictions = predictions[["variant", "local", "global_"]]
    warnings = [f"{row.variant}: {row.note}" for row in table.itertuples() if row.note]
    if draws.variants and baseline not in draws.variants:
        warnings.append(f"No ratios of β: the sweep has no finished cell of the baseline variant {baseline!r}.")
    return OptimalBetas(
        table,
        stack([_cells(variant, grid) for variant, grid in fits.grids.items()], _CELL_COLUMNS),
        stack([_curve(variant, peak, fits.grids[variant]) for variant, peak in fits.peaks.items()], _CURVE_COLUMNS),
        pd.DataFrame(
            [_at_kl_row(*key, values, fits.grids[key[0]]) for key, values in fits.at_kl.items()], columns=_AT_KL_COLUMNS
        ),
        pd.DataFrame(ratios, columns=_RATIO_COLUMNS).merge(predictions, on="variant", how="left"),
        matched,
        predictions,
        _peak_pairs(draws, kls, fits),
        baseline,
        tuple(warnings),
    )


@dataclass(frozen=True)
class _Fits:
    """Grids and peaks by variant, log β at a KL by variant and KL, each in every version of the table."""

    grids: dict[str, BetaGrid]
    peaks: dict[str, BetaPeak]
    at_kl: dict[tuple[str, float], np.ndarray]
    penalty: float

    def design(self, a: str, b: str) -> Design:
        return self.grids[a].design.union(self.grids[b].design)


def _fit(draws: Draws, kls: Sequence[float], penalty: float | None = None) -> _Fits:
    grids = {variant: beta_grid(draws, variant) for variant in draws.variants}
    fitted = {variant: grid for variant, grid in grids.items() if len(grid.log_beta) >= MIN_BETAS}
    if penalty is None:
        penalty = choose_penalty(list(fitted.values()))
    at_kl = {
        (variant, kl): log_beta_at(grid, kl)
        for variant, grid in grids.items()
        for kl in kls
        if len(grid.log_beta) > 1 and grid.covers(kl)
    }
    return _Fits(grids, {variant: fit_peak(grid, penalty) for variant, grid in fitted.items()}, at_kl, penalty)


_PEAK_COLUMNS = ("peak_beta", "peak_beta_low", "peak_beta_high", "peak_gold", "peak_gold_low", "peak_gold_high")
_TABLE_COLUMNS = ["variant", "betas", "seeds", "grid_beta", "grid_gold", "grid_gold_sd", "grid_kl", "edge",
                  *_PEAK_COLUMNS, "kind", "note"]  # fmt: skip
_GOLD = ["gold", "gold_low", "gold_high", "gold_se"]
_CELL_COLUMNS = ["variant", "strength", "seeds", *_GOLD, "gold_sd", "kl", "kl_low", "kl_high", "kl_se", "kind"]
_CURVE_COLUMNS = ["variant", "strength", *_GOLD, "kind"]
_AT_KL_COLUMNS = ["variant", "kl", "beta", "beta_low", "beta_high", "kind"]
_RATIO_COLUMNS = ["variant", "at", "kl", "ratio", "ratio_low", "ratio_high", "kind"]


def _table_row(variant: str, grid: BetaGrid, peak: BetaPeak | None) -> dict[str, object]:
    best = int(grid.gold[0].argmax())
    betas = len(grid.log_beta)
    edge = "none" if betas > 1 and 0 < best < betas - 1 else "low" if best == 0 else "high"
    group = grid.groups.iloc[best]
    row = {
        "variant": variant, "betas": betas, "seeds": grid.design.seed_count, "grid_beta": group["strength"],
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
        end = "smallest" if edge == "low" else "largest"
        note = f"the grid's best β {group['strength']:g} is its {end}; extend the grid"
    return row | dict(zip(_PEAK_COLUMNS, columns, strict=True)) | {"kind": str(where.kind), "note": note}


def _exp(log: Intervals, grid_low: float = -np.inf, grid_high: float = np.inf) -> tuple[float, float, float]:
    """Estimate, low and high on the scale of β; an end outside the grid is 0 or infinite: the data do not bound it."""
    low = 0.0 if log.low < grid_low else float(np.exp(log.low))
    high = np.inf if log.high > grid_high else float(np.exp(log.high))
    return float(np.exp(log.estimate)), low, high


def _at_kl_row(variant: str, kl: float, log_beta: np.ndarray, grid: BetaGrid) -> dict[str, object]:
    result = interval(log_beta, grid.design)
    return dict(zip(_AT_KL_COLUMNS, (variant, kl, *_exp(result), str(result.kind)), strict=True))


def _mean_ratio(
    fits: _Fits, variant: str, baseline: str, averaged: Sequence[float]
) -> tuple[np.ndarray, list[float]] | None:
    """Mean log ratio to the baseline over the KLs of `averaged` that both cover, [R], and these KLs; None without."""
    shared = [kl for kl in averaged if (variant, kl) in fits.at_kl and (baseline, kl) in fits.at_kl]
    if not shared:
        return None
    return np.mean([fits.at_kl[variant, kl] - fits.at_kl[baseline, kl] for kl in shared], axis=0), shared


def _ratios(
    fits: _Fits, variant: str, baseline: str, mean: tuple[np.ndarray, list[float]] | None
) -> list[tuple[object, ...]]:
    """One tuple of _RATIO_COLUMNS per place of comparison."""
    logs: list[tuple[str, float, np.ndarray]] = []
    if variant in fits.peaks and baseline in fits.peaks:
        logs.append(("peak", np.nan, fits.peaks[variant].log_beta - fits.peaks[baseline].log_beta))
    shared = [kl for other, kl in fits.at_kl if other == variant and (baseline, kl) in fits.at_kl]
    logs += [("kl", kl, fits.at_kl[variant, kl] - fits.at_kl[baseline, kl]) for kl in shared]
    if mean is not None:
        logs.append(("kl_mean", np.nan, mean[0]))
    results = [(place, kl, interval(values, fits.design(variant, baseline))) for place, kl, values in logs]
    return [(variant, place, kl, *_exp(result), str(result.kind)) for place, kl, result in results]


def _peak_pairs(draws: Draws, kls: Sequence[float], fits: _Fits) -> pd.DataFrame:
    columns = ["variant_a", "variant_b", "ratio", "ratio_low", "ratio_high", "kind"]
    inside = [variant for variant, peak in fits.peaks.items() if peak.side == "none"]
    paired = draws.paired(inside)
    if paired is not draws:
        fits = _fit(paired, kls, fits.penalty)
        inside = [variant for variant in inside if fits.peaks[variant].side == "none"]
    if len(inside) < 2:
        return pd.DataFrame(columns=columns)
    values = np.stack([fits.peaks[variant].log_beta for variant in inside], axis=1)
    pairs = compare_all(values, inside, [fits.grids[variant].design for variant in inside])
    for name in ("", "_low", "_high"):
        pairs[f"ratio{name}"] = np.exp(pairs[f"difference{name}"])
    return pairs[columns]


def _cells(variant: str, grid: BetaGrid) -> pd.DataFrame:
    gold, kl = interval(grid.gold, grid.design), log_interval(grid.kl, grid.design)
    groups = grid.groups
    return pd.DataFrame({
        "variant": variant, "strength": groups["strength"], "seeds": groups["seeds"], **gold.columns("gold"),
        "gold_sd": groups["gold_sd"], **kl.columns("kl"), "kind": gold.kind,
    })  # fmt: skip


def _curve(variant: str, peak: BetaPeak, grid: BetaGrid) -> pd.DataFrame:
    band = interval(peak.curve, grid.design)
    return pd.DataFrame({"variant": variant, "strength": np.exp(peak.grid), **band.columns("gold"), "kind": band.kind})
