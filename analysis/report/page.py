"""The report's page: what stands in each place, rendered into one self-contained HTML file."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline
from markupsafe import Markup

from analysis.figures.report_figures import ReportFigure
from analysis.figures.style import variant_styles
from analysis.report import html_tables
from analysis.report.html_tables import Column, HtmlTable
from analysis.report.interactive import page_data
from analysis.report.level_tables import level_tables
from analysis.report.practice_tables import practice_tables
from analysis.report.provenance import headline, provenance
from analysis.report.script_json import to_script_json
from analysis.statistics.analyze import Analysis
from analysis.statistics.claims import Claim
from analysis.statistics.comparison import differing_scales, matched_differences
from analysis.statistics.wording import interval_text, interval_words

GENERATOR = "gpo-bench report"
TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("core.js", "points.js", "frontier.js", "panels.js", "practice.js", "training.js", "samples.js", "main.js")
_CLAIM_NAMES = {
    "C1": "similar frontiers",
    "C2": "optimal β differs",
    "C3": "over-optimization",
    "C4": "E[ρ²] is not KL",
}
_TRAINING_PLOTS = (
    ("loss", "Loss"), ("rho", "Margin"), ("accuracy", "Accuracy"), ("gradient", "Gradient norm"),
    ("rate", "Learning rate"),
)  # fmt: skip
_VERDICT_SYMBOLS = {"supported": "✓", "not supported": "✗", "inconclusive": "?"}
# The legend's markers: the symbols of `analysis.figures.style` within ±6 units of the origin.
_SYMBOL_PATHS = {
    "circle": "M-5.5,0a5.5,5.5 0 1,0 11,0a5.5,5.5 0 1,0 -11,0Z",
    "square": "M-5,-5H5V5H-5Z",
    "triangle-up": "M0,-6L6,5H-6Z",
    "triangle-down": "M0,6L6,-5H-6Z",
    "diamond": "M0,-6.5L6.5,0L0,6.5L-6.5,0Z",
    "x": "M-6,-3.5L-3.5,-6L0,-2.5L3.5,-6L6,-3.5L2.5,0L6,3.5L3.5,6L0,2.5L-3.5,6L-6,3.5L-2.5,0Z",
    "cross": "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "star": "M0,-6.5L1.6,-2.2L6.2,-2L2.6,0.8L3.8,5.3L0,2.7L-3.8,5.3L-2.6,0.8L-6.2,-2L-1.6,-2.2Z",
    "pentagon": "M0,-6L5.7,-1.9L3.5,4.9H-3.5L-5.7,-1.9Z",
    "hexagon": "M0,-6L5.2,-3V3L0,6L-5.2,3V-3Z",
    "triangle-left": "M-6,0L5,-6V6Z",
    "triangle-right": "M6,0L-5,-6V6Z",
    "diamond-tall": "M0,-6.5L4,0L0,6.5L-4,0Z",
    "hexagon2": "M-6,0L-3,-5.2H3L6,0L3,5.2H-3Z",
}


def render_page(
    views: Mapping[str, Analysis],
    figures: Mapping[str, Mapping[str, ReportFigure]],
    figure_paths: Mapping[str, str],
    downloads: list[tuple[str, str]],
    output: Path | None = None,
) -> str:
    """The whole page as HTML.

    Args:
        views: the analyses by their titles; the first is shown first.
        figures: of each view, by name.
        figure_paths: directory of each view's figures, relative to the page.
        downloads: names and relative paths of further files.
        output: the report's directory, for links to the cells' files.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    data = page_data(views, output)
    contexts = []
    for (title, analysis), view_data in zip(views.items(), data["sweeps"], strict=True):
        paths = {
            name: {"title": figure.title, "path": f"{figure_paths[title]}/{name}"}
            for name, figure in figures[title].items()
        }
        context = _view_context(title, analysis, figures[title])
        contexts.append(context | {"figures": paths, "point_note": view_data["note"]["points"]})
    comparison = _comparison(views)
    strength_name = contexts[0]["strength_name"]
    styles = variant_styles(variant for analysis in views.values() for variant in analysis.sweep.variants)
    return environment.get_template("report.html").render(
        title=" and ".join(dict.fromkeys(analysis.sweep.name for analysis in views.values())),
        generator=GENERATOR,
        views=contexts,
        view_options=list(enumerate(views)),
        comparison=comparison,
        strength_name=strength_name,
        training_plots=_TRAINING_PLOTS,
        sections=_sections(
            strength_name, compared=comparison is not None, levels=any(view["levels"] for view in contexts)
        ),
        variants=[{"label": style.label, "path": _SYMBOL_PATHS[style.symbol]} for style in styles.values()],
        downloads=downloads,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in _SCRIPTS],
        plotly=Markup(plotly.offline.get_plotlyjs()),
        data=Markup(to_script_json(data)),
    )


def _sections(strength_name: str, *, compared: bool, levels: bool) -> list[tuple[str, str]]:
    """Anchors and titles."""
    return [
        ("frontier", "Frontiers"), ("equal-kl", "Equal KL"), ("optimal-beta", f"Optimal {strength_name}"),
        ("choosing", f"Choosing {strength_name}"), ("overoptimization", "Over-optimization"),
        *([("levels", "Proxy and gold")] if levels else []),
        ("noise", "Noise and power"),
        ("regularization", "Regularization"), ("health", "Health"),
        ("training", "Training"), ("samples", "Samples"), *([("comparison", "Side by side")] if compared else []),
        ("cells", "Cells"), ("provenance", "Provenance"),
    ]  # fmt: skip


def _view_context(title: str, analysis: Analysis, figures: Mapping[str, ReportFigure]) -> dict[str, Any]:
    return {
        "title": title,
        "headline": headline(analysis),
        "command": shlex.join(analysis.sweep.plan.get("command", [])),
        "warnings": analysis.warnings,
        "standing": analysis.standing,
        "claims": [_claim_context(claim) for claim in analysis.claims],
        "frontier_caption": figures["frontier"].caption,
        "beta_caption": beta.caption
        if (beta := figures.get("gold_and_kl_against_beta"))
        else "No cell has a strength.",
        "budgets": html_tables.budget_table(analysis),
        "pairwise": html_tables.pairwise_table(analysis),
        "shares": html_tables.share_table(analysis),
        "optimal": html_tables.optimal_beta_table(analysis),
        "ratios": html_tables.ratio_table(analysis),
        "peaks": html_tables.peak_table(analysis),
        "strength_name": analysis.sweep.strength_name,
        "cells": html_tables.cell_table(analysis.sweep),
        "unfinished": len(analysis.sweep.unfinished),
        "provenance": provenance(analysis),
        "practice": practice_tables(analysis),
        "levels": level_tables(analysis),
        "level_figures": [figures[name] for name in ("levels", "best_of_n_coefficients") if name in figures],
    }


def _claim_context(claim: Claim) -> dict[str, Any]:
    numbers: list[tuple[str, str]] = []
    if claim.estimate is not None:
        interval = "" if claim.low is None or claim.high is None else f" [{claim.low:.3g}, {claim.high:.3g}]"
        numbers.append((claim.quantity, f"{claim.estimate:.3g}{interval}".replace("-", "−")))
    if claim.kind is not None:
        numbers.append(("interval", interval_words([claim.kind])))
    # Lists of many rows are in claims.json and the tables; here they would be a wall of numbers.
    short = {name: value for name, value in claim.numbers.items() if not isinstance(value, list) or len(value) <= 12}
    numbers += [(name.replace("_", " "), _value_text(value)) for name, value in short.items()]
    return {
        "id": claim.id,
        "short": _CLAIM_NAMES[claim.id],
        "verdict": claim.verdict,
        "symbol": _VERDICT_SYMBOLS[claim.verdict],
        "statement": claim.statement,
        "sentence": claim.sentence,
        "rule": claim.rule,
        "numbers": numbers,
    }


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−")
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _comparison(views: Mapping[str, Analysis]) -> dict[str, Any] | None:
    """Words and tables that compare every further view with the first; None for a single view."""
    (first_title, first), *others = views.items()
    if not others:
        return None
    words = [
        "Smoothed frontiers on the same axes, and differences of finished cells with the same variant and strength."
    ]
    tables = []
    for title, other in others:
        if unequal := differing_scales(first, other):
            words.append(
                f"{title} and {first_title} differ in {', '.join(unequal).replace('_', ' ')}: their gold rewards are "
                "on different scales, so no differences are given."
            )
            continue
        tables.append(_difference_table(first_title, title, first, other))
    return {"words": " ".join(words), "tables": tables}


def _difference_table(first_title: str, title: str, first: Analysis, other: Analysis) -> HtmlTable:
    differences = matched_differences(first, other)
    labels = {variant: style.label for variant, style in variant_styles(first.sweep.variants).items()}
    rows = [
        (labels[row.variant], f"{row.strength:g}", interval_text(row, "gold", 2), interval_text(row, "kl"),
         f"{row.seeds_first} and {row.seeds_other}")
        for row in differences.itertuples()
    ]  # fmt: skip
    caption = (
        f"{title} minus {first_title}, finished cells with the same variant and strength. Brackets: limits combined "
        f"from each sweep’s own ({interval_words(differences['kind'])}), as if the sweeps were independent."
    )
    titles = (first.sweep.strength_name, "Δ gold (SD)", "Δ KL (nats)", "seeds")
    return HtmlTable(caption, (Column("variant", False), *map(Column, titles)), rows)
