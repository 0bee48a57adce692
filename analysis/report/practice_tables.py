"""The report's tables for practitioners: choosing a strength, noise and power, length, runs below the reference."""

from collections.abc import Sequence

import pandas as pd

from analysis.report.html_tables import Column, HtmlTable, variant_labels
from analysis.statistics.analyze import Analysis
from analysis.statistics.practice import Practice
from analysis.statistics.practice.choosing import ORACLE
from analysis.statistics.wording import interval_text, interval_words, number_text

_SOURCES = {
    "seed": "seed (its pairs, order and draws)", "run": "run (what a seed does to one configuration)",
    "prompt": "choice of prompts", "sample": "sampling of responses",
}  # fmt: skip


def practice_tables(analysis: Analysis) -> dict[str, HtmlTable | None]:
    """Tables by name; None where the sweep's data do not allow one."""
    names = ("choosing", "variance", "detectable", "length", "implicit", "below", "improvement")
    if analysis.practice is None:
        return dict.fromkeys(names)
    builders = (_choosing, _variance, _detectable, _length, _implicit, _below, _improvement)
    tables = (build(analysis, analysis.practice) for build in builders)
    return {name: table if table.rows else None for name, table in zip(names, tables, strict=True)}


def _table(caption: str, first: Sequence[str], numbers: Sequence[str], rows: Sequence[tuple[str, ...]]) -> HtmlTable:
    return HtmlTable(caption, (*(Column(title, False) for title in first), *map(Column, numbers)), rows)


def _choosing(analysis: Analysis, practice: Practice) -> HtmlTable:
    table, labels, name = practice.choosing, variant_labels(analysis), analysis.sweep.strength_name
    rows = [
        (labels[row.variant], row.rule, number_text(row.strength), interval_text(row, "gold", 2),
         "–" if row.rule == ORACLE else interval_text(row, "regret", 2))
        for row in table.itertuples()
    ]  # fmt: skip
    caption = (
        f"What rules for choosing {name} get. “{ORACLE}” chooses by gold on one half of the evaluation prompts; every "
        "choice is reported on the half that did not make it, both ways round. Regret: the oracle’s gold minus the "
        f"rule’s, paired by seed. Brackets: {interval_words(table['kind'])}."
    )
    return _table(caption, ("variant", "rule"), (f"{name} chosen most", "gold (SD)", "regret (SD)"), rows)


def _variance(analysis: Analysis, practice: Practice) -> HtmlTable:
    rows = [
        (_SOURCES[row.source], number_text(row.sd), "–" if pd.isna(row.share) else f"{row.share:.0%}",
         "yes" if row.cancels else "no")
        for row in practice.variance.itertuples()
    ]  # fmt: skip
    caption = "Where the noise of one cell’s gold comes from: components of its variance, averaged over configurations."
    return _table(caption, ("source",), ("SD of gold", "share of variance", "cancels in paired differences"), rows)


def _detectable(analysis: Analysis, practice: Practice) -> HtmlTable:
    rows = [
        (row.purchase, str(row.seeds), str(row.prompts), str(row.samples), number_text(row.difference))
        for row in practice.detectable.itertuples()
    ]
    caption = (
        "The smallest difference in gold between two variants at one strength that a paired t test at 5 % finds in "
        "four of five sweeps, and what doubling one thing would make of it. Frontiers pool strengths and see less."
    )
    return _table(caption, ("sweep",), ("seeds", "prompts", "samples per prompt", "difference (SD)"), rows)


def _length(analysis: Analysis, practice: Practice) -> HtmlTable:
    table, labels = practice.length, variant_labels(analysis)
    rows = [
        (labels[row.variant], number_text(row.strength), number_text(row.kl), f"{row.length:.1f}", f"{row.gold:.2f}",
         interval_text(row, "controlled", 2))
        for row in table.itertuples()
    ]  # fmt: skip
    caption = (
        "Gold with the part that length buys taken out: minus the slope of gold in length among π_ref’s samples of one "
        "prompt, times the difference of lengths. Linear, and only as good as that line is beyond π_ref’s lengths."
    )
    titles = (analysis.sweep.strength_name, "KL (nats)", "tokens", "gold (SD)", "length-controlled (SD)")
    return _table(caption, ("variant",), titles, [tuple(text.replace("-", "−") for text in row) for row in rows])


def _implicit(analysis: Analysis, practice: Practice) -> HtmlTable:
    labels = variant_labels(analysis)
    rows = [
        (labels[row.variant], number_text(row.strength), number_text(row.with_gold), number_text(row.with_length))
        for row in practice.implicit.itertuples()
    ]
    caption = (
        "Implicit reward (β times a response’s log-ratio to π_ref) among a policy’s own samples: Spearman’s rank "
        "correlation with gold and with length, averaged over seeds."
    )
    return _table(caption, ("variant",), (analysis.sweep.strength_name, "with gold", "with length"), rows)


def _below(analysis: Analysis, practice: Practice) -> HtmlTable:
    table, labels = practice.below, variant_labels(analysis)
    by_seed = table[table["seed"].notna() & (table["below"] > 0)]
    rows = []
    for row in table[table["seed"].isna()].itertuples():
        own = by_seed[by_seed["variant"] == row.variant]
        seeds = ", ".join(f"{seed:.0f}" for seed in own["seed"])
        rows.append((labels[row.variant], str(row.cells), str(row.below), interval_text(row, "rate", 3), seeds or "–"))
    caption = (
        "Trained policies that score below π_ref beyond noise (97.5 %, over prompts). Brackets: Clopper and Pearson’s "
        "interval, as if runs were independent."
    )
    return _table(caption, ("variant",), ("policies", "below π_ref", "rate", "in seeds"), rows)


def _improvement(analysis: Analysis, practice: Practice) -> HtmlTable:
    labels = variant_labels(analysis)
    rows = [
        (
            f"{labels[row.variant_a]} over {labels[row.variant_b]}",
            number_text(row.kl),
            interval_text(row, "probability", 2),
        )
        for row in practice.improvement.itertuples()
    ]
    caption = (
        "Probability that a run of the first variant has more gold than a run of the second at equal KL (1/2: no "
        "difference), over all pairs of runs. Brackets: percentiles over seeds drawn anew."
    )
    return _table(caption, ("variants",), ("KL (nats)", "probability"), rows)
