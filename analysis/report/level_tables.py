"""The report's tables on proxy, gold and truth."""

from typing import Any

import pandas as pd

from analysis.report.html_tables import Column, HtmlTable, variant_labels
from analysis.statistics.analyze import Analysis
from analysis.statistics.intervals import KINDS
from analysis.statistics.wording import interval_text, number_text

_NAMES = {"proxy": "proxy", "gold": "gold", "utility": "truth"}


def level_tables(analysis: Analysis) -> list[HtmlTable]:
    """Where each level peaks, and Gao's coefficients; those that there are."""
    levels = analysis.levels
    if levels is None:
        return []
    tables = (
        _peaks(analysis, levels.peaks),
        _budgets(analysis),
        coefficient_table(levels.coefficients),
        fit_table(levels.fits),
    )
    return [table for table in tables if table.rows]


def _peaks(analysis: Analysis, peaks: pd.DataFrame) -> HtmlTable:
    labels, name = variant_labels(analysis), analysis.sweep.strength_name
    in_order = peaks.sort_values("variant", key=lambda column: column.map(list(labels).index), kind="stable")
    rows = [
        (labels[row.variant], _NAMES[row.level], interval_text(row, "kl_peak", 2), interval_text(row, "gold_peak", 2),
         interval_text(row, "peak_beta"))
        for row in in_order.itertuples()
    ]  # fmt: skip
    caption = (
        f"Where each level of a variant peaks on its smoothed frontier, and at which {name}; – where it does not peak "
        f"inside the data, ∞ where the interval leaves them. Brackets: 95 % {KINDS['seeds']}."
    )
    columns = (Column("variant", False), Column("level", False), Column("KL at the peak (nats)"), Column("score (SD)"),
               Column(f"{name} at the peak"))  # fmt: skip
    return HtmlTable(caption, columns, rows)


def _budgets(analysis: Analysis) -> HtmlTable:
    """What training has cost, by variant: samples, gold scores, optimizer steps."""
    labels, final = variant_labels(analysis), analysis.sweep.final
    known = final[final["samples_drawn"].notna()]
    rows = []
    for variant, part in known.groupby("variant", sort=False):
        by_strength = part.groupby("strength")[["gold", "kl"]].mean()
        best = by_strength.loc[by_strength["gold"].idxmax()]
        costs = (f"{part[key].mean():,.0f}" for key in ("samples_drawn", "labels_bought", "step"))
        rows.append((labels[variant], *costs, number_text(best["gold"]), number_text(best["kl"])))
    caption = (
        "What a policy's training has cost: responses sampled for it, gold scores behind its labels (of these "
        "responses, or of the comparisons that the proxy was fitted to), and optimizer steps. Scores at equal KL "
        "compare policies of one kind of optimization; across kinds compare them at equal cost."
    )
    columns = (
        Column("variant", False),
        *map(
            Column,
            ("samples drawn", "gold scores bought", "steps", "gold at the best strength (SD)", "KL there (nats)"),
        ),
    )
    return HtmlTable(caption, columns, rows)


def coefficient_table(table: pd.DataFrame) -> HtmlTable:
    """Gao's coefficients of best-of-n, a row per labeller and level."""
    rows = [
        (*_labeller(row), _NAMES[row.level], interval_text(row, "alpha", 3), interval_text(row, "beta", 3),
         number_text(row.peak_kl), str(row.proxies))
        for row in table.itertuples()
    ]  # fmt: skip
    caption = (
        "Best of n, R(d) = d (α − β d) with d = √KL, fitted to each proxy's curve. Brackets: 95 % t intervals over "
        "proxies that differ in data, initial weights and order."
    )
    columns = (*_LABELLER, Column("level", False), Column("α"), Column("β"), Column("KL at the form's peak (nats)"),
               Column("proxies"))  # fmt: skip
    return HtmlTable(caption, columns, rows)


def fit_table(table: pd.DataFrame) -> HtmlTable:
    """How good the proxies are on held-out gold labels."""
    rows = [
        (*_labeller(row), interval_text(row, "proxy_agreement", 3), interval_text(row, "proxy_calibration", 3),
         interval_text(row, "proxy_log_loss", 3), str(row.proxies))
        for row in table.itertuples()
    ]  # fmt: skip
    caption = (
        "Proxies on held-out pairs: share that they order as gold does (as gold, not as labels that noise has turned), "
        "and calibration after their scores were put on one half's scale (one factor), on the other half. Brackets: "
        "95 % t intervals over proxies."
    )
    columns = (
        *_LABELLER,
        *map(Column, ("agreement", "calibration error", "log loss (nats)", "proxies")),
    )
    return HtmlTable(caption, columns, rows)


_LABELLER = (Column("labeller", False), Column("pairs"), Column("f", False), Column("labels turned"))


def _labeller(row: Any) -> tuple[str, str, str, str]:
    if row.by == "gold":
        return ("gold", "–", "–", "–")
    return (f"proxy {row.size}", f"{row.pairs:,.0f}", row.loss, f"{row.flip_rate:g}")
