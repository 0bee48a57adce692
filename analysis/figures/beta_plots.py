"""Everything against β, drawn by matplotlib; conventions as in `analysis.figures.frontier_plots`."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.frontier_plots import GOLD_LABEL, KL_LABEL, REFERENCE_COLOR, plain_log_axis
from analysis.figures.style import variant_styles

_LABELS = {"gold": GOLD_LABEL, "kl": KL_LABEL}


def against_beta(cells: pd.DataFrame, quantity: str, *, strength_name: str = "β", ax: Axes | None = None) -> Axes:
    """Final gold or KL against β per variant, averaged over seeds, with intervals.

    Args:
        cells: `analysis.statistics.optimal_beta.OptimalBetas.cells`.
        quantity: ``gold`` or ``kl``.
        strength_name: `analysis.data.sweep.Sweep.strength_name`.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    for variant, style in variant_styles(cells["variant"]).items():
        rows = cells[cells["variant"] == variant].sort_values("strength")
        value = rows[quantity]
        ax.errorbar(
            rows["strength"], value, yerr=[value - rows[f"{quantity}_low"], rows[f"{quantity}_high"] - value],
            fmt=f"{style.marker}-", color=style.color, linewidth=1.1, elinewidth=0.8, label=style.label,
        )  # fmt: skip
    plain_log_axis(ax, "x", cells["strength"].min() / 1.4, cells["strength"].max() * 1.4)
    if quantity == "kl":
        positive = cells.loc[cells["kl"] > 0, "kl"]
        plain_log_axis(ax, "y", positive.min() / 2, positive.max() * 2)
    ax.set_xlabel(strength_name)
    ax.set_ylabel(_LABELS[quantity])
    return ax


def mark_optima(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Each variant's optimal β by the smooth fit, with its interval along β, cut at the axis where it leaves the grid.

    Args:
        table: `analysis.statistics.optimal_beta.OptimalBetas.table`.
    """
    low_edge, high_edge = ax.get_xlim()
    styles = variant_styles(table["variant"])
    for row in table.dropna(subset="peak_beta").itertuples():
        style = styles[row.variant]
        interval = [
            [row.peak_beta - max(row.peak_beta_low, low_edge)],
            [min(row.peak_beta_high, high_edge) - row.peak_beta],
        ]
        ax.errorbar(
            row.peak_beta, row.peak_gold, xerr=interval, fmt=style.marker, color=style.color, markersize=6.5,
            markeredgecolor="#22262c", markeredgewidth=1, elinewidth=1.4, capsize=2.5, zorder=4,
        )  # fmt: skip
    ax.set_xlim(low_edge, high_edge)
    return ax


def beta_ratios(ratios: pd.DataFrame, baseline: str, *, ax: Axes | None = None) -> Axes:
    """Measured ratios of β to the baseline's, with intervals, beside the theory's two predictions.

    Args:
        ratios: `analysis.statistics.optimal_beta.OptimalBetas.ratios`; drawn are rows at the peak and the mean over KL
            budgets.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    styles = variant_styles(ratios["variant"])
    position = {variant: len(styles) - 1 - k for k, variant in enumerate(styles)}
    finite = ratios.replace(np.inf, np.nan)
    values = pd.concat(finite[name] for name in ("ratio", "ratio_low", "ratio_high", "local", "global_")).dropna()
    low, high = values[values > 0].min() / 1.6, values[values > 0].max() * 1.6
    for at, name, marker, shift in (("kl_mean", "at equal KL", "o", 0.16), ("peak", "at the peak", "s", -0.16)):
        rows = ratios[(ratios["at"] == at) & ratios["ratio"].notna()]
        y = rows["variant"].map(position).astype(float) + shift
        interval = [
            rows["ratio"] - rows["ratio_low"].clip(lower=low),
            rows["ratio_high"].clip(upper=high) - rows["ratio"],
        ]
        ax.errorbar(
            rows["ratio"], y, xerr=interval, fmt=marker, color="#22262c", elinewidth=1.1, label=f"measured {name}",
            markerfacecolor="#22262c" if at == "kl_mean" else "white",
        )  # fmt: skip
    predictions = finite.drop_duplicates("variant").set_index("variant").dropna(axis="columns", how="all")
    for column, name, marker in (("local", "theory, local", "|"), ("global_", "theory, global", "x")):
        if column not in predictions:
            continue
        ax.plot(
            predictions[column], predictions.index.map(position), marker, linestyle="", color="#b94421", markersize=8,
            markeredgewidth=1.4, label=name,
        )  # fmt: skip
    ax.axvline(1, color=REFERENCE_COLOR, linewidth=0.8)
    plain_log_axis(ax, "x", low, high)
    ax.set_ylim(-0.6, len(styles) - 0.4)
    ax.set_yticks(list(position.values()), [styles[variant].label for variant in position])
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"β(variant) / β({baseline})")
    return ax
