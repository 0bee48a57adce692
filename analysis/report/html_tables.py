"""The report's tables: estimates with their intervals as text that a reader takes in at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep
from analysis.figures.style import variant_styles
from analysis.report.frames import cell_frame
from analysis.statistics.analyze import Analysis
from analysis.statistics.overoptimization import FORMS
from analysis.statistics.wording import interval_text, interval_words, number_text

MAX_CELL_ROWS = 500


class Column(NamedTuple):
    """A column's title, and whether it holds numbers (set flush right)."""

    title: str
    number: bool = True


@dataclass(frozen=True)
class HtmlTable:
    """A table as text; the first column names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[str, ...]]


def _table(caption: str, columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]]) -> HtmlTable:
    """Without the columns, such as notes and errors, in which no row says anything."""
    kept = [k for k in range(len(columns)) if not rows or any(row[k] for row in rows)]
    return HtmlTable(caption, tuple(columns[k] for k in kept), [tuple(row[k] for k in kept) for row in rows])


def budget_table(analysis: Analysis) -> HtmlTable:
    """Gold at every KL budget, one row per variant."""
    budgets, labels = analysis.frontiers.budgets, variant_labels(analysis)
    levels = sorted(budgets.loc[budgets["covered"].astype(bool), "kl"].unique())
    areas = {row.variant: row for row in analysis.frontiers.areas.itertuples()}
    rows = []
    for variant in filter(areas.__contains__, labels):
        at = {row.kl: interval_text(row, "gold", 2) for row in budgets[budgets["variant"] == variant].itertuples()}
        rows.append(
            (labels[variant], *(at.get(kl, "–") for kl in levels), interval_text(areas[variant], "mean_gold", 2))
        )
    titles = [*(f"KL {kl:g} nats" for kl in levels), f"mean up to {number_text(analysis.frontiers.common_kl)} nats"]
    caption = f"Gold reward (SD of π_ref) on the smoothed frontier. Brackets: {interval_words(budgets['kind'])}."
    return HtmlTable(caption, (Column("variant", False), *map(Column, titles)), rows)


def pairwise_table(analysis: Analysis) -> HtmlTable:
    """Every difference between two variants at equal KL, with its verdict."""
    pairwise, labels = analysis.frontiers.pairwise, variant_labels(analysis)
    rows = [
        (
            f"{labels[row.variant_a]} − {labels[row.variant_b]}",
            f"{row.kl:g}",
            interval_text(row, "difference", 2),
            row.verdict,
        )
        for row in pairwise.itertuples()
    ]
    caption = (
        f"Differences in gold reward (SD of π_ref) at equal KL. Brackets: {interval_words(pairwise['kind'])}. "
        f"Equivalent: the 90 % interval of that difference alone lies inside ±{analysis.frontiers.margin:g} SD; "
        "different: the bracket lies outside it."
    )
    columns = (Column("variants", False), Column("KL (nats)"), Column("difference"), Column("verdict", False))
    return HtmlTable(caption, columns, rows)


def share_table(analysis: Analysis) -> HtmlTable:
    """Share of the KL-constrained optimum's gold that each variant reaches."""
    columns = (Column("variant", False), Column("KL (nats)"), Column("gold"), Column("ceiling"), Column("share"))
    if analysis.ceiling is None:
        return HtmlTable("", columns, [])
    shares, labels = analysis.ceiling.shares, variant_labels(analysis)
    rows = [
        (
            labels[row.variant],
            f"{row.kl:g}",
            number_text(row.gold),
            number_text(row.ceiling),
            interval_text(row, "share", 2),
        )
        for row in shares.dropna(subset="share").itertuples()
    ]
    caption = (
        f"Gold of each variant over gold of the KL-constrained optimum at the same KL. {analysis.ceiling.rule} "
        f"Brackets: {interval_words(shares['kind'])}."
    )
    return HtmlTable(caption, columns, rows)


def optimal_beta_table(analysis: Analysis) -> HtmlTable:
    """The grid's best β and the fitted peak, per variant."""
    table, labels = analysis.optimal_betas.table.set_index("variant", drop=False), variant_labels(analysis)
    rows = []
    for row in table.loc[[variant for variant in labels if variant in table.index]].itertuples():
        edge = "" if row.edge == "none" else f" ({row.edge} edge of the grid)"
        spread = "" if pd.isna(row.grid_gold_sd) else f" ± {row.grid_gold_sd:.2f}"
        rows.append((
            labels[row.variant], f"{row.grid_beta:g}{edge}", f"{row.grid_gold:.2f}{spread}".replace("-", "−"),
            number_text(row.grid_kl), interval_text(row, "peak_beta"), interval_text(row, "peak_gold", 2),
            _words(row.note),
        ))  # fmt: skip
    caption = (
        f"Optimal β by final gold reward. ±: SD over seeds. Brackets: {interval_words(table['kind'])}; "
        "a limit of 0 or ∞ says that the interval leaves the grid."
    )
    titles = ("grid’s best β", "gold there (SD)", "KL there (nats)", "fitted peak β", "gold at the peak (SD)")
    return _table(caption, (Column("variant", False), *map(Column, titles), Column("note", False)), rows)


def ratio_table(analysis: Analysis) -> HtmlTable:
    """Measured ratios of β to the baseline's beside the theory's."""
    optimal, labels = analysis.optimal_betas, variant_labels(analysis)
    rows = []
    for variant, label in labels.items():
        by_kind = {row.at: row for row in optimal.ratios[optimal.ratios["variant"] == variant].itertuples()}
        if not by_kind:
            continue
        measured = [interval_text(by_kind[at], "ratio") if at in by_kind else "–" for at in ("kl_mean", "peak")]
        any_row = next(iter(by_kind.values()))
        rows.append((label, *measured, number_text(any_row.local), number_text(any_row.global_)))
    caption = (
        f"β of each variant over β of {optimal.baseline}. Brackets: {interval_words(optimal.ratios['kind'])}. "
        "Theory, local: ratio of f''(0)/|f'(0)|; global: from where each loss stops pushing, with this sweep's labels."
    )
    titles = ("measured at equal KL", "measured at the peak", "theory, local", "theory, global")
    return HtmlTable(caption, (Column("variant", False), *map(Column, titles)), rows)


def peak_table(analysis: Analysis) -> HtmlTable:
    """Where gold peaks along KL and how far it falls after that, per variant."""
    peaks, labels = analysis.overoptimization.peaks, variant_labels(analysis)
    rows = [
        (labels[row.variant], FORMS.get(row.form, row.form), interval_text(row, "kl_peak"),
         interval_text(row, "gold_peak", 2), number_text(row.drop_kl), interval_text(row, "drop", 2), _words(row.note))
        for row in peaks.itertuples()
    ]  # fmt: skip
    caption = (
        "Peak of the smoothed frontier, its fall from there to the largest KL compared, and the form that fits best "
        "of those that the data do not reject. "
        f"Brackets: {interval_words(peaks['kind'])}."
    )
    titles = ("KL at the peak (nats)", "gold at the peak (SD)", "fall up to KL (nats)", "fall after the peak (SD)")
    columns = (Column("variant", False), Column("form", False), *map(Column, titles), Column("note", False))
    return _table(caption, columns, rows)


def cell_table(sweep: Sweep) -> HtmlTable:
    """State of every planned cell, unfinished ones first, with the last measurements of the finished."""
    cells = cell_frame(sweep)
    cells = pd.concat([cells[cells["state"] != "done"], cells[cells["state"] == "done"]])
    rows = []
    for row in cells.head(MAX_CELL_ROWS).itertuples():
        measured = ("–", "–", "–")
        if np.isfinite(row.kl):
            measured = (f"{row.kl:.3g} ± {row.kl_se:.1g}", f"{row.gold:.2f} ± {row.gold_se:.2f}", f"{row.win_rate:.2f}")
        steps = f"{row.steps_done} of {row.steps_total}" if row.steps_total else "–"
        numbers = tuple(
            text.replace("-", "−")
            for text in (number_text(row.strength), number_text(row.lr), str(row.seed), *measured)
        )
        rows.append((row.cell, row.state, *numbers, steps, _words(row.error)))
    shown = f" Shown: the first {len(rows)} of {len(cells):,}; all are in tables/." if len(rows) < len(cells) else ""
    caption = f"Cells, unfinished ones first. ±: standard error over evaluation prompts.{shown}"
    titles = (sweep.strength_name, "learning rate", "seed", "KL (nats)", "gold (SD)", "win rate", "steps")
    columns = (Column("cell", False), Column("state", False), *map(Column, titles), Column("error", False))
    return _table(caption, columns, rows)


def variant_labels(analysis: Analysis) -> dict[str, str]:
    """Variants of the sweep and what readers call them."""
    return {variant: style.label for variant, style in variant_styles(analysis.sweep.variants).items()}


def _words(value: object) -> str:
    """A note or an error; empty where pandas has made a missing one NaN."""
    return value if isinstance(value, str) else ""
