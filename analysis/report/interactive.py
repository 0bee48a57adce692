"""The numbers and texts behind the interactive page, as one JSON value that templates/*.js reads.

Numbers are rounded to five digits, NaN and infinity become null. What is left out for the size of the page is
counted in ``note`` and said there; statistics are always made from all records.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from analysis.data.sample_texts import HOVER_PROMPTS, ShownTexts, TextPool, collect_texts, evenly_spaced
from analysis.data.sweep import Sweep
from analysis.data.training import cells_with_training, training_curve
from analysis.figures.style import variant_styles
from analysis.report.practice_data import practice_data
from analysis.report.script_json import by_variant, numbers
from analysis.statistics.analyze import Analysis
from analysis.statistics.best_of_n import Ceiling

MAX_POINTS = 6000  # checkpoints drawn; a browser redraws this many markers in well under a second
MAX_BROWSABLE = 150  # cells
MAX_ROWS = 9000  # sample rows over all cells
ROWS_PER_CELL = (10, 80)
MAX_TRAINING_CELLS = 450  # at 120 points of six numbers each, about 3 MB

_POINT_COLUMNS = {
    "strength": "strength", "lr": "lr", "seed": "seed", "step": "step", "kl": "kl", "kl_se": "kl_se", "gold": "gold",
    "gold_se": "gold_se", "win_rate": "win_rate", "win_rate_se": "win_rate_se", "rho_sq": "rho_sq_mean",
    "response_tokens": "response_tokens", "eos_rate": "eos_rate", "distinct_2": "distinct_2",
}  # fmt: skip


def page_data(views: Mapping[str, Analysis], output: Path | None = None) -> dict[str, Any]:
    """Everything that the page's scripts need, for every view (a sweep at one setting) by its title.

    Args:
        output: the report's directory, which links to cells' files are relative to; without it there are none.
    """
    styles = variant_styles(variant for analysis in views.values() for variant in analysis.sweep.variants)
    index = {variant: k for k, variant in enumerate(styles)}
    pool = TextPool()
    return {
        "variants": [
            {
                "name": variant,
                "label": style.label,
                "light": style.color,
                "dark": style.color_dark,
                "symbol": style.symbol,
            }
            for variant, style in styles.items()
        ],
        "sweeps": [_view(title, analysis, index, pool, len(views), output) for title, analysis in views.items()],
        "texts": pool.texts,
    }


def _view(
    title: str, analysis: Analysis, index: dict[str, int], pool: TextPool, views: int, output: Path | None
) -> dict[str, Any]:
    sweep = analysis.sweep
    steps = len(sweep.checkpoints) / len(sweep.final)
    ordered = sweep.final.assign(variant=sweep.final["variant"].map(index)).sort_values(
        ["variant", "strength", "lr", "seed"]
    )
    order = ordered["cell"].tolist()
    drawn = evenly_spaced(order, max(2, int(MAX_POINTS / views / steps)))
    browsable = min(len(drawn), MAX_BROWSABLE // views)
    rows = int(np.clip(MAX_ROWS // (browsable * views), *ROWS_PER_CELL))
    texts = collect_texts(sweep, drawn, pool, browsable=browsable, rows=rows)
    points = sweep.checkpoints
    if len(drawn) < len(order):
        points = points[points["cell"].isin(set(drawn))]
    return {
        "title": title,
        "strength_name": sweep.strength_name,
        "strengths": numbers(np.sort(analysis.optimal_betas.cells["strength"].unique())),
        "points": _points(points, index, texts),
        "folder": None if output is None else quote(os.path.relpath(sweep.path.resolve(), output.resolve())),
        "cell_names": points["cell"].drop_duplicates().tolist(),
        "hover_prompts": list(texts.prompts),
        "curves": by_variant(analysis.frontiers.curves, index, ("kl", "gold", "gold_low", "gold_high")),
        "reference_lines": [] if analysis.ceiling is None else _reference_lines(analysis.ceiling),
        "fits": _fits(analysis, index),
        "peaks": _peaks(analysis, index),
        "cells": _cells(analysis, index),
        "practice": practice_data(analysis, index),
        "optimal_beta": _optimal_beta(analysis, index),
        "training": _training(sweep, MAX_TRAINING_CELLS // views),
        "samples": _samples(texts),
        "note": _note(sweep.checkpoints, points, order, texts, rows),
    }


def _points(points: pd.DataFrame, index: dict[str, int], texts: ShownTexts) -> dict[str, Any]:
    columns: dict[str, Any] = {name: numbers(points[column]) for name, column in _POINT_COLUMNS.items()}
    columns["variant"] = points["variant"].map(index).tolist()
    columns["cell"] = pd.factorize(points["cell"])[0].tolist()
    columns["final"] = points["is_final"].astype(int).tolist()
    empty = (None,) * HOVER_PROMPTS
    shown = [texts.by_checkpoint.get(key, empty) for key in zip(points["cell"], points["step"], strict=True)]
    columns["texts"] = [list(column) for column in zip(*shown, strict=True)]
    return columns


def _reference_lines(ceiling: Ceiling) -> list[dict[str, Any]]:
    trusted = ceiling.tilted[ceiling.tilted["trusted"]].sort_values("kl")
    lines = (("KL-constrained optimum", "dash", trusted), ("best of n", "dot", ceiling.best_of_n))
    return [
        {"name": name, "dash": dash, "kl": numbers(line["kl"]), "gold": numbers(line["gold"])}
        for name, dash, line in lines
        if not line.empty
    ]


def _fits(analysis: Analysis, index: dict[str, int]) -> dict[int, dict[str, Any]]:
    curves = analysis.overoptimization.curves
    return by_variant(curves[curves["chosen"].astype(bool)], index, ("kl", "gold"))


def _peaks(analysis: Analysis, index: dict[str, int]) -> dict[int, dict[str, Any]]:
    peaks = analysis.overoptimization.peaks
    columns = ["kl_peak", "kl_peak_low", "kl_peak_high", "gold_peak"]
    return {index[row["variant"]]: _record(row, columns) for _, row in peaks[peaks["inside"].astype(bool)].iterrows()}


def _cells(analysis: Analysis, index: dict[str, int]) -> dict[int, dict[str, Any]]:
    cells = analysis.optimal_betas.cells.sort_values("strength", kind="stable")
    return by_variant(cells, index, ("strength", "gold", "gold_low", "gold_high", "kl", "kl_low", "kl_high"))


def _optimal_beta(analysis: Analysis, index: dict[str, int]) -> dict[int, dict[str, Any]]:
    table = analysis.optimal_betas.table.dropna(subset="peak_beta")
    columns = ["peak_beta", "peak_beta_low", "peak_beta_high", "peak_gold"]
    return {index[row["variant"]]: _record(row, columns) for _, row in table.iterrows()}


def _record(row: pd.Series, columns: list[str]) -> dict[str, Any]:
    return dict(zip(columns, numbers(row[columns]), strict=True))


def _training(sweep: Sweep, most: int) -> dict[str, Any]:
    """Curves of at most `most` cells, and a sentence that says what they are."""
    recorded = cells_with_training(sweep)
    shown = evenly_spaced(recorded, most)
    curves = [training_curve(sweep, cell) for cell in shown]
    if not curves:
        return {"cells": [], "note": "No steps of training are stored for this sweep."}
    left_out = f" Shown: {len(shown)} of {len(recorded):,} cells, evenly spaced." if len(shown) < len(recorded) else ""
    longest = max(curve.steps_per_point for curve in curves)
    averaged = f" Each point is the mean of up to {longest} steps." if longest > 1 else ""
    return {
        "cells": [
            {"name": curve.cell, "state": curve.state} | {key: numbers(column) for key, column in curve.columns.items()}
            for curve in curves
        ],
        "note": f"Measured on each step’s batch before the update.{averaged}{left_out}",
    }


def _samples(texts: ShownTexts) -> list[dict[str, Any]]:
    return [{"name": cell, "rows": rows} for cell, rows in texts.by_cell.items()]


def _note(
    checkpoints: pd.DataFrame, points: pd.DataFrame, cells: list[str], texts: ShownTexts, rows: int
) -> dict[str, str]:
    """What the page leaves out, in words; empty where nothing is."""
    note = {"points": "", "samples": "No samples are stored for this sweep."}
    if len(points) < len(checkpoints):
        drawn = len(points["cell"].unique())
        note["points"] = (
            f"For display, {len(points):,} of {len(checkpoints):,} checkpoints are drawn: those of {drawn:,} cells "
            f"evenly spaced over variant, strength and seed. Curves, bands and tables use all of them."
        )
    if texts.by_cell:
        of_cells = "" if len(texts.by_cell) == len(cells) else f"; {len(texts.by_cell)} of {len(cells):,} cells"
        note["samples"] = (
            f"Last checkpoint; {min(rows, texts.evaluation_prompts)} of {texts.evaluation_prompts} evaluation prompts, "
            f"evenly spaced in the order of gain{of_cells}. Gain: the policy's gold score minus that of π_ref's "
            "response to the same prompt, in SD of π_ref."
        )
    return note
