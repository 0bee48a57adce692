"""Gold against KL, drawn by matplotlib: one function per plot.

Every function takes estimates with intervals (frames of the statistics modules), draws on `ax` (a new one by
default) and returns it; nothing is saved and no global state is touched. Colors and markers: `analysis.figures.style`.
"""

from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from analysis.figures.style import VariantStyle, variant_styles
from analysis.statistics.best_of_n import Ceiling
from analysis.statistics.frontier import Frontiers
from analysis.statistics.overoptimization import Overoptimization

KL_LABEL = "KL(π‖π_ref) (nats per sequence)"
GOLD_LABEL = "gold reward (SD of π_ref)"
REFERENCE_COLOR = "#6b7280"
_KL_TICKS = (0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def frontier(
    frontiers: Frontiers,
    ceiling: Ceiling | None = None,
    *,
    highlight: str | None = None,
    checkpoints: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Smoothed gold against KL with its band, the checkpoints behind it, best-of-n and the ceiling.

    Args:
        ceiling: best-of-n and the KL-constrained optimum; left out when None.
        highlight: draw this variant in full and the others as gray lines; all in full by default.
        checkpoints: `analysis.data.sweep.Sweep.checkpoints`, to show every seed by itself (filled, open and pale
            markers in turn); by default checkpoints are averaged over seeds.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    for variant, style in variant_styles(frontiers.points["variant"]).items():
        curve = frontiers.curves[frontiers.curves["variant"] == variant]
        if highlight not in (None, variant):
            ax.plot(curve["kl"], curve["gold"], color="#c9ced6", linewidth=0.9, zorder=1)
            continue
        ax.fill_between(curve["kl"], curve["gold_low"], curve["gold_high"], color=style.color, alpha=0.1, linewidth=0)
        ax.plot(curve["kl"], curve["gold"], color=style.color, zorder=3)
        if checkpoints is None:
            points = frontiers.points[frontiers.points["variant"] == variant]
            # A policy that no line leads to would be overlooked.
            _markers_by_stage(ax, points, style, **({"markersize": 6.5} if curve.empty else {}))
        else:
            _markers_by_seed(ax, checkpoints[checkpoints["variant"] == variant], style)
        line = "" if curve.empty else "-"
        ax.plot([], [], style.marker, linestyle=line, color=style.color, label=style.label)
    if ceiling is not None:
        draw_ceiling(ax, ceiling, label=highlight is None)
    sqrt_kl_axis(ax)
    _fit_y_to_lines(ax)
    ax.set_ylabel(GOLD_LABEL)
    return ax


def _fit_y_to_lines(ax: Axes) -> None:
    """Room for points and lines; a band that is wide because few seeds reach so far may leave the plot."""
    y = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    low, high = np.nanmin(y), np.nanmax(y)
    margin = 0.06 * ((high - low) or 1.0)
    ax.set_ylim(low - margin, high + margin)


def _markers(ax: Axes, x: pd.Series, y: pd.Series, style: VariantStyle, **look: Any) -> None:
    ax.plot(x, y, style.marker, color=style.color, **{"markeredgewidth": 0.4, "zorder": 2} | look)


def _markers_by_stage(ax: Axes, points: pd.DataFrame, style: VariantStyle, **look: Any) -> None:
    """Trained policies in full, checkpoints on the way pale."""
    for is_final, rows in points.groupby("is_final"):
        alpha = 0.85 if is_final else 0.25
        _markers(ax, rows["kl"], rows["gold"], style, markeredgecolor="white", alpha=alpha, **look)


def _markers_by_seed(ax: Axes, checkpoints: pd.DataFrame, style: VariantStyle) -> None:
    pale = mpl.colors.to_rgba(style.color, 0.35)
    for face, (_, rows) in zip(cycle((style.color, "white", pale)), checkpoints.groupby("seed"), strict=False):
        for is_final, stage in rows.groupby("is_final"):
            alpha = 1.0 if is_final else 0.3
            _markers(ax, stage["kl"], stage["gold"], style, markerfacecolor=face, markersize=2.6, alpha=alpha)


def draw_ceiling(ax: Axes, ceiling: Ceiling, *, label: bool) -> None:
    """Best-of-n and the trusted part of the KL-constrained optimum as gray lines, named at their ends."""
    trusted = ceiling.tilted[ceiling.tilted["trusted"]].sort_values("kl")
    lines = (("KL-constrained optimum", trusted, (0, (5, 2)), "right"),
             ("best of n", ceiling.best_of_n, (0, (1, 1.5)), "left"))  # fmt: skip
    for name, line, dashes, side in lines:
        if line.empty:
            continue
        ax.fill_between(line["kl"], line["gold_low"], line["gold_high"], color=REFERENCE_COLOR, alpha=0.15, linewidth=0)
        ax.plot(line["kl"], line["gold"], color=REFERENCE_COLOR, linestyle=dashes, linewidth=1.2, zorder=2.5)
        if label:
            end = line.iloc[-1]
            ax.annotate(
                name, (end["kl"], end["gold"]), xytext=(4 if side == "left" else -4, 0), textcoords="offset points",
                ha=side, va="center", color=REFERENCE_COLOR, fontsize="small",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip


def sqrt_kl_axis(ax: Axes) -> None:
    """KL in nats on a √ scale, on which a frontier's steep beginning and long tail are both legible."""
    ax.set_xscale("function", functions=(lambda kl: np.sqrt(np.clip(kl, 0, None)), np.square))
    high = max(ax.dataLim.xmax, 1e-3)
    width = ax.get_window_extent().width / ax.figure.dpi
    ticks = [0.0]
    for tick in _KL_TICKS:
        if tick <= high * 1.05 and np.sqrt(tick / high) - np.sqrt(ticks[-1] / high) > 0.3 / width:
            ticks.append(tick)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(0, high * 1.08)
    ax.set_xlabel(KL_LABEL)


def plain_log_axis(ax: Axes, name: Literal["x", "y"], low: float, high: float) -> None:
    """A log axis with plain numbers as labels: decades, with 2 and 5 between them where the range is short."""
    per_decade = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in per_decade if low <= step * 10.0**decade <= high]
    ax.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = {"x": ax.xaxis, "y": ax.yaxis}[name]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def frontier_differences(pairwise: pd.DataFrame, margin: float, kl: float, *, ax: Axes | None = None) -> Axes:
    """Differences of gold between every two variants at one KL budget, with simultaneous intervals and the margin.

    Args:
        pairwise: `analysis.statistics.frontier.Frontiers.pairwise`.
        margin: differences within ±margin (shaded) count as equivalent, SD units.
        kl: the budget, nats.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    rows = pairwise[pairwise["kl"] == kl].sort_values("difference").reset_index(drop=True)
    looks = {"equivalent": ("#1d6b45", "o"), "different": ("#a3322a", "D"), "unclear": (REFERENCE_COLOR, "s")}
    ax.axvspan(-margin, margin, color="#e8edf3", zorder=0, label=f"margin ±{margin:g} SD")
    ax.axvline(0, color=REFERENCE_COLOR, linewidth=0.8)
    for verdict, group in rows.groupby("verdict"):
        color, marker = looks[str(verdict)]
        below, above = group["difference"] - group["difference_low"], group["difference_high"] - group["difference"]
        ax.errorbar(
            group["difference"],
            group.index,
            xerr=[below, above],
            fmt=marker,
            color=color,
            elinewidth=1.1,
            label=verdict,
        )
    labels = variant_styles({*rows["variant_a"], *rows["variant_b"]})
    ax.set_yticks(
        range(len(rows)),
        [f"{labels[a].label} − {labels[b].label}" for a, b in zip(rows["variant_a"], rows["variant_b"], strict=True)],
    )
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"difference in gold reward at KL = {kl:g} nats (SD of π_ref)")
    return ax


def overoptimization(fits: Overoptimization, frontiers: Frontiers, *, ax: Axes | None = None) -> Axes:
    """The chosen form of every variant against KL (the frontier if none fits), with peaks and their intervals."""
    ax = ax or Figure(layout="constrained").add_subplot()
    chosen = fits.curves[fits.curves["chosen"].astype(bool)]
    for variant, style in variant_styles(frontiers.points["variant"]).items():
        curve = chosen[chosen["variant"] == variant]
        points = frontiers.points[frontiers.points["variant"] == variant]
        _markers_by_stage(ax, points, style)
        ax.plot(curve["kl"], curve["gold"], color=style.color, zorder=3)
        ax.plot([], [], style.marker, linestyle="-", color=style.color, label=style.label)
    highest = fits.curves["kl"].max()
    for peak in fits.peaks[fits.peaks["inside"].astype(bool)].itertuples():
        style = variant_styles([peak.variant])[peak.variant]
        interval = [[peak.kl_peak - max(peak.kl_peak_low, 0)], [min(peak.kl_peak_high, highest) - peak.kl_peak]]
        ax.errorbar(
            peak.kl_peak, peak.gold_peak, xerr=interval, fmt=style.marker, color=style.color, markersize=6,
            markeredgecolor="#22262c", elinewidth=1.2, capsize=2, zorder=4,
        )  # fmt: skip
    sqrt_kl_axis(ax)
    ax.set_ylabel(GOLD_LABEL)
    return ax


def regularization(checkpoints: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """KL against the μ-weighted squared loss E[ρ²] of held-out pairs, one point per checkpoint after step 0.

    Args:
        checkpoints: `analysis.data.sweep.Sweep.checkpoints`.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    trained = measured_on_pairs(checkpoints)
    _scatter_by_variant(ax, trained, "rho_sq_mean", "kl")
    plain_log_axis(ax, "x", trained["rho_sq_mean"].min() / 1.3, trained["rho_sq_mean"].max() * 1.3)
    plain_log_axis(ax, "y", trained["kl"].min() / 1.3, trained["kl"].max() * 1.3)
    ax.set_xlabel("E[ρ²] on held-out pairs (nats²)")
    ax.set_ylabel(KL_LABEL)
    return ax


def measured_on_pairs(checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Checkpoints after step 0 with an E[ρ²] and a KL that a log axis can show."""
    return checkpoints[(checkpoints["step"] > 0) & (checkpoints["kl"] > 0) & (checkpoints["rho_sq_mean"] > 0)]


HEALTH_LABELS = {
    "response_tokens": "response length (tokens)",
    "eos_rate": "share of responses that end",
    "distinct_2": "distinct-2 (share of bigrams)",
}


def health(checkpoints: pd.DataFrame, quantity: str, *, ax: Axes | None = None) -> Axes:
    """One of `HEALTH_LABELS` against KL, one point per checkpoint: shows a gain bought by length or repetition."""
    ax = ax or Figure(layout="constrained").add_subplot()
    _scatter_by_variant(ax, checkpoints, "kl", quantity)
    sqrt_kl_axis(ax)
    ax.set_ylim(0, 1.05 if quantity == "eos_rate" else None)
    ax.set_ylabel(HEALTH_LABELS[quantity])
    return ax


def _scatter_by_variant(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    for variant, style in variant_styles(frame["variant"]).items():
        rows = frame[frame["variant"] == variant]
        _markers(ax, rows[x], rows[y], style, alpha=0.6, label=style.label, markeredgecolor="white")
