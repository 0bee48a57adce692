"""Proxy, gold and truth against KL, and Gao et al.'s coefficients against the size of the proxy and of its data."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.data.best_of_n import LABELLER
from analysis.figures.frontier_plots import KL_LABEL, sqrt_kl_axis
from analysis.figures.style import variant_styles
from analysis.statistics.levels import Levels

LEVEL_STYLES = {  # name, color, line: as in Gao et al.'s figure 1, gold solid and proxy dashed
    "proxy": ("proxy", "#b94421", "--"),
    "gold": ("gold", "#1f4e79", "-"),
    "utility": ("truth (the hidden rater)", "#2f5d2a", ":"),
}
SCORE_LABEL = "score (SD of π_ref)"
PUBLISHED = Path(__file__).parents[1] / "data" / "public" / "gao2023_best_of_n.csv"
_COEFFICIENTS = {"alpha": "α", "beta": "β"}


def policy_levels(policies: pd.DataFrame, *, ax: Axes) -> Axes:
    """Every level of one variant's trained policies against KL; a marker per strength, with its interval.

    Args:
        policies: rows of one variant of `Levels.policies`.
    """
    for level, rows in policies.groupby("level", sort=False):
        label, color, line = LEVEL_STYLES[str(level)]
        rows = rows.sort_values("kl")
        errors = [rows["score"] - rows["score_low"], rows["score_high"] - rows["score"]]
        ax.errorbar(rows["kl"], rows["score"], yerr=errors, fmt="o", linestyle=line, color=color, label=label,
                    markersize=3, linewidth=1.2, elinewidth=0.7)  # fmt: skip
    sqrt_kl_axis(ax)
    score = policies["score"]
    margin = 0.15 * ((score.max() - min(score.min(), 0)) or 1.0)
    ax.set_ylim(min(score.min(), 0) - margin, score.max() + margin)  # intervals of far runs may leave the plot
    return ax


def best_of_n_levels(curves: pd.DataFrame, *, ax: Axes) -> Axes:
    """Every level of best-of-n by one kind of labeller against KL (the bound), with intervals as bands.

    Args:
        curves: rows of one labeller of `Levels.best_of_n`.
    """
    for level, rows in curves.groupby("level", sort=False):
        label, color, line = LEVEL_STYLES[str(level)]
        ax.plot(rows["kl"], rows["score"], linestyle=line, color=color, label=label, linewidth=1.3)
        ax.fill_between(rows["kl"], rows["score_low"], rows["score_high"], color=color, alpha=0.12, linewidth=0)
    sqrt_kl_axis(ax)
    return ax


def levels_figure(levels: Levels, width: float) -> Figure:
    """A panel per variant and per kind of labeller of best-of-n."""
    styles = variant_styles(levels.policies["variant"])
    labellers = list(levels.best_of_n.groupby(LABELLER, sort=False, dropna=False))
    columns = min(5, max(3, len(labellers))) if labellers else min(3, len(styles))
    rows = -(-len(styles) // columns) + -(-len(labellers) // columns)
    figure = Figure(figsize=(width, 1.75 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey="row", squeeze=False)
    first = -(-len(styles) // columns) * columns
    for ax, (variant, style) in zip(axes.flat, styles.items(), strict=False):
        policy_levels(levels.policies[levels.policies["variant"] == variant], ax=ax).set_title(style.label)
    for ax, (labeller, curves) in zip(axes.flat[first:], labellers, strict=False):
        best_of_n_levels(curves, ax=ax).set_title(
            _labeller_name(dict(zip(LABELLER, labeller, strict=True))), fontsize="small"
        )
    for number, ax in enumerate(axes.flat):
        is_used = number < len(styles) or first <= number < first + len(labellers)
        ax.set_visible(is_used)
        ax.set_xlabel("")
        if is_used and number % columns == 0:
            ax.set_ylabel(SCORE_LABEL if number < first else f"best of n: {SCORE_LABEL}")
    figure.supxlabel(KL_LABEL, fontsize="medium")
    return figure


def coefficients_figure(levels: Levels, width: float) -> Figure:
    """α and β of best-of-n against the proxy's size and its data, beside those published for large models."""
    table, published = levels.coefficients, pd.read_csv(PUBLISHED)
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    axes = figure.subplots(2, 3, sharex="col")
    by_size, by_data = _varied(table, "size"), _varied(table, "pairs")
    for row, (name, symbol) in enumerate(_COEFFICIENTS.items()):
        for ax, part, key in ((axes[row, 0], by_size, "size"), (axes[row, 1], by_data, "pairs")):
            _coefficients(part, name, key, ax=ax)
        axes[row, 2].plot(published["parameters"], published[f"{name}_bon"], "o-", color="#6b7280", markersize=3)
        axes[row, 0].set_ylabel(f"{symbol} (SD per √nat)" if name == "alpha" else f"{symbol} (SD per nat)")
    axes[0, 2].set_xscale("log")
    titles = ("size of the proxy", "pairs it was fitted to", "Gao et al. 2023: parameters")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    return figure


def _coefficients(table: pd.DataFrame, name: str, key: str, *, ax: Axes) -> None:
    places = {value: number for number, value in enumerate(dict.fromkeys(table["size"]))}
    for level, rows in table.groupby("level", sort=False):
        label, color, line = LEVEL_STYLES[str(level)]
        rows = rows.sort_values("pairs") if key == "pairs" else rows
        x = rows["size"].map(places) if key == "size" else rows[key].astype(float)
        errors = [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
        ax.errorbar(x, rows[name], yerr=errors, fmt="o", linestyle=line, color=color, label=label, markersize=3)
    if key == "size":
        ax.set_xticks(list(places.values()), list(places))
    else:
        there = sorted(set(table[key].astype(float)))
        ax.set_xscale("log")
        ax.set_xticks(there, [f"{value:,.0f}" for value in there])
        ax.minorticks_off()


def _varied(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Rows of proxies that differ in `key` and in nothing else: the largest such group."""
    others = [name for name in LABELLER if name != key]
    groups = [rows for _, rows in table[table["by"] != "gold"].groupby(others, sort=False, dropna=False)]
    return max(groups, key=lambda rows: rows[key].nunique(), default=table.iloc[:0])


def _labeller_name(labeller: dict[str, Any]) -> str:
    if labeller["by"] == "gold":
        return "gold"
    loss = "" if labeller["loss"] == "logistic" else f", {labeller['loss']}"
    turned = f", {labeller['flip_rate']:.0%} turned" if labeller["flip_rate"] else ""
    return f"proxy {labeller['size']}, {labeller['pairs']:,} pairs{loss}{turned}"


def fits_figure(fits: pd.DataFrame, width: float) -> Figure:
    """Agreement with gold and calibration of proxies by loss, a marker per share of turned labels."""
    losses = list(dict.fromkeys(fits["loss"]))
    styles = variant_styles(losses)
    figure = Figure(figsize=(width, 0.9 + 0.32 * len(losses)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    titles = {
        "proxy_agreement": "agreement",
        "proxy_calibration": "calibration error",
        "proxy_log_loss": "log loss (nats)",
    }
    rates = sorted(fits["flip_rate"].unique())
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for number, rate in enumerate(rates):
            rows = fits[fits["flip_rate"] == rate]
            y = rows["loss"].map(losses.index) + 0.18 * (number - (len(rates) - 1) / 2)
            errors = [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
            face = "white" if number else "#22262c"
            ax.errorbar(
                rows[name], y, xerr=errors, fmt="os^D"[number % 4], color="#22262c", markersize=4, elinewidth=1,
                markerfacecolor=face, label=f"{rate:.0%} of labels turned",
            )  # fmt: skip
        ax.set_xlabel(title)
    axes[0].set_yticks(range(len(losses)), [styles[loss].label for loss in losses])
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rates))
    return figure
