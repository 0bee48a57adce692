"""The report's tables for practitioners: choosing a strength, noise and power, length, runs below the reference."""

from collections.abc import Sequence

import pandas as pd

from analysis.report.html_tables import Column, HtmlTable, variant_labels
from analysis.statistics.analyze import Analysis
from analysis.statistics.overoptimization import FORMS
from analysis.statistics.practice import Practice
from analysis.statistics.practice.choosing import ORACLE
from analysis.statistics.wording import interval_text, interval_words, number_text

_SOURCES = {
    "seed": "seed", "run": "seed × variant", "prompt": "prompts", "sample": "sampling",
}  # fmt: skip


def practice_tables(analysis: Analysis) -> dict[str, HtmlTable | None]:
    """Tables by name; None where the sweep's data do not allow one."""
    builders = {
        "regret": _regret, "choosing": _choosing, "variance": _variance, "detectable": _detectable,
        "length": _length, "implicit": _implicit, "below": _below, "improvement": _improvement, "forms": _forms,
    }  # fmt: skip
    if analysis.practice is None:
        return dict.fromkeys(builders)
    tables = {name: build(analysis, analysis.practice) for name, build in builders.items()}
    return {name: table if table.rows else None for name, table in tables.items()}


def _table(caption: str, first: Sequence[str], numbers: Sequence[str], rows: Sequence[tuple[str, ...]]) -> HtmlTable:
    return HtmlTable(caption, (*(Column(title, False) for title in first), *map(Column, numbers)), rows)


def _regret(analysis: Analysis, practice: Practice) -> HtmlTable:
    """A row per rule, a column per variant."""
    table, labels, name = practice.choosing, variant_labels(analysis), analysis.sweep.strength_name
    there = [variant for variant in labels if variant in set(table["variant"])]
    rows = []
    for rule, part in table[table["rule"] != ORACLE].groupby("rule", sort=False):
        by_variant = {row.variant: interval_text(row, "regret", 2) for row in part.itertuples()}
        rows.append((rule_words(str(rule), name), *(by_variant.get(variant, "–") for variant in there)))
    caption = (
        f"Regret in gold (SD): what the best {name} by gold on one half of the evaluation prompts gets on the other "
        f"half, both ways round, minus what the rule gets there, paired by seed. Brackets: "
        f"{interval_words(table['kind'])}."
    )
    return _table(caption, ("rule",), [labels[variant] for variant in there], rows)


def rule_words(rule: str, strength_name: str) -> str:
    """A rule of `choosing.RULES` with the strength called by its name."""
    return rule.replace("strength", strength_name)


def _choosing(analysis: Analysis, practice: Practice) -> HtmlTable:
    table, labels, name = practice.choosing, variant_labels(analysis), analysis.sweep.strength_name
    rows = [
        (labels[row.variant], rule_words(row.rule, name), number_text(row.strength), interval_text(row, "gold", 2))
        for row in table.itertuples()
    ]
    caption = (
        f"What every rule chooses and gets, on prompts that did not choose. Brackets: {interval_words(table['kind'])}."
    )
    return _table(caption, ("variant", "rule"), (f"{name} chosen most", "gold (SD)"), rows)


def _variance(analysis: Analysis, practice: Practice) -> HtmlTable:
    """A row per strength, a column per source, and the smallest difference that can be seen."""
    table, name = practice.variance, analysis.sweep.strength_name
    seen = practice.detectable[practice.detectable["purchase"] == "as it is"].set_index("strength")["difference"]
    rows = [
        (number_text(strength), *(_sd_text(part.loc[source]) for source in _SOURCES), number_text(seen[strength], 2))
        for strength, part in ((strength, part.set_index("source")) for strength, part in table.groupby("strength"))
    ]
    caption = (
        "Standard deviation of one cell’s gold by source (SD of π_ref). Seed and prompts are shared by all variants "
        "and cancel in paired differences. Last column: the smallest difference between two variants at one "
        f"{name} that a paired t test at 5 % finds in four of five sweeps. Brackets: {interval_words(table['kind'])}."
    )
    return _table(caption, (name,), (*_SOURCES.values(), "smallest difference seen"), rows)


def _sd_text(row: pd.Series) -> str:
    """The square root of a variance component with its limits."""
    if pd.isna(row["variance"]):
        return "–"
    value, low, high = (number_text(float(row[f"variance{limit}"]) ** 0.5, 2) for limit in ("", "_low", "_high"))
    return value if "–" in (low, high) else f"{value} [{low}, {high}]"


def _detectable(analysis: Analysis, practice: Practice) -> HtmlTable:
    """Purchases at the strength with the highest gold, and what frontiers see."""
    table, name = practice.detectable, analysis.sweep.strength_name
    gold = analysis.sweep.final.groupby("strength")["gold"].mean()
    best = gold[gold.index.isin(table["strength"])].idxmax() if len(table) else None
    rows = [
        (f"{row.purchase}, {name} = {number_text(row.strength)}", str(row.seeds), str(row.prompts), str(row.samples),
         number_text(row.difference, 2))
        for row in table[table["strength"] == best].itertuples()
    ]  # fmt: skip
    if rows:
        as_it_is = rows[0][1:4]
        rows += [
            (f"as it is, frontiers at KL {number_text(row.kl)}", *as_it_is, number_text(row.difference, 2))
            for row in practice.visible.itertuples()
        ]
    caption = (
        f"What to buy next: the smallest difference seen in four of five sweeps at the {name} with the highest gold, "
        "and with twice as much of one thing. Frontiers borrow strength from neighboring policies."
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
    table, labels = practice.implicit, variant_labels(analysis)
    rows = [
        (labels[row.variant], number_text(row.strength), number_text(row.kl), f"{row.length:.1f}",
         *(interval_text(row, key, digits) for key, digits in (("reward", None), ("with_gold", 2), ("with_length", 2))))
        for row in table.itertuples()
    ]  # fmt: skip
    caption = (
        "Implicit reward (β times a response’s log-ratio to π_ref) of a policy’s own samples: its mean, and Spearman’s "
        f"rank correlation with gold and with length. Brackets: {interval_words(table['kind'])}."
    )
    titles = (analysis.sweep.strength_name, "KL (nats)", "tokens", "mean (nats)", "with gold", "with length")
    return _table(caption, ("variant",), titles, rows)


def _forms(analysis: Analysis, practice: Practice) -> HtmlTable:
    fits, labels = analysis.overoptimization.fits, variant_labels(analysis)
    squares = practice.residuals.assign(square=practice.residuals["residual"] ** 2)
    misses = squares.groupby(["variant", "line"])["square"].mean() ** 0.5
    rows = []
    for variant, label in labels.items():
        if (variant, "frontier") in misses.index:
            rows.append((label, "smoothed frontier", number_text(misses[variant, "frontier"], 2), "–", "–", ""))
        rows += [
            (label, FORMS[row.form], number_text(misses.get((variant, row.form), float("nan")), 2),
             number_text(row.held_out_rmse, 2), number_text(row.lack_of_fit, 2), "chosen" if row.chosen else "")
            for row in fits[fits["variant"] == variant].itertuples()
        ]  # fmt: skip
    caption = (
        "How far the lines pass by the data: root mean square over strengths of the mean residual of trained policies, "
        "the error on a left-out strength, and p of the lack-of-fit test against the spread between seeds (a form with "
        "p below 0.05 is not chosen)."
    )
    titles = ("residual (SD)", "held-out error (SD)", "lack of fit, p")
    columns = (Column("variant", False), Column("line", False), *map(Column, titles), Column("", False))
    return HtmlTable(caption, columns, rows)


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
