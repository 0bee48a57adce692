"""``python -m analysis.report runs/<sweep> [runs/<other> …]``: page, figures, tables, claims and notebooks.

The report is made in a temporary directory beside its place and renamed into it, so that a reader finds the old one
or the new one, never half of either.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from nbclient.exceptions import CellExecutionError

from analysis import tables
from analysis.analyse import Analysis
from analysis.claims import write_claims
from analysis.figures import ReportFigure, report_figures, save_figure
from analysis.load import RefusedSweep, Sweep, load_sweep
from analysis.notebooks import execute_notebooks
from analysis.page import GENERATOR, render_page
from analysis.sources import SOURCES_FILE, digest_sources, is_current
from analysis.style import TooManyLosses
from analysis.views import analyse_views
from bench.records import DamagedRecord

PAGE = "index.html"
NOTEBOOK_CELLS = 2_000


class RefusedOutput(ValueError):
    """The output directory holds something that is not a report."""


def build_report(
    sweeps: Sequence[Sweep],
    output: Path,
    *,
    seed: int = 0,
    ends_only: bool = True,
    notebooks: bool = True,
    sources: str = "",
) -> Path:
    """Analyse sweeps and write the report; returns the page's path.

    Args:
        sweeps: the first is the main one; every setting (learning rate, ...) of each becomes a view of its own.
        output: directory to create or, if it holds an earlier report, to replace.
        seed: of the resampling; the same seed gives the same report.
        ends_only: see `analysis.analyse.analyse`; the notebooks do as by default.
        notebooks: also execute the notebooks on the first sweep.
        sources: digest of what the sweeps were read from, kept beside the page.
    Raises:
        RefusedSweep, TooManyLosses: sweeps that cannot be analysed or drawn.
        RefusedOutput: `output` exists and is not a report.
        CellExecutionError: a notebook failed.
    """
    _require_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        draft = Path(scratch) / "report"
        draft.mkdir()
        with ThreadPoolExecutor(1) as pool:
            executed = pool.submit(execute_notebooks, sweeps[0].path, draft) if notebooks else None
            views = analyse_views(sweeps, seed=seed, ends_only=ends_only)
            _write_views(views, draft, executed)
        (draft / SOURCES_FILE).write_text(f"{sources}\n", encoding="utf-8")
        _replace(output, draft, Path(scratch) / "replaced")
    return output / PAGE


def _write_views(views: Mapping[str, Analysis], draft: Path, executed: Future | None) -> None:
    # The first view's files lie where a reader of one sweep expects them, each further view's in a folder of its own.
    folders = {title: _slug(title) if number else "." for number, title in enumerate(views)}
    figures: dict[str, dict[str, ReportFigure]] = {}
    for title, analysis in views.items():
        folder = draft / folders[title]
        (folder / "figures").mkdir(parents=True)
        (folder / "tables").mkdir()
        figures[title] = {figure.name: figure for figure in report_figures(analysis)}
        for figure in figures[title].values():
            save_figure(figure, folder / "figures")
        for name, frame in csv_tables(analysis).items():
            frame.to_csv(folder / "tables" / f"{name}.csv", index=False)
        write_claims(analysis.claims, folder / "claims.json")
    downloads = [
        (f"{folder}/{name}".removeprefix("./"),) * 2
        for folder in folders.values()
        for name in ("claims.json", "tables/")
    ]
    if executed is not None:
        downloads += [(path.name, path.name) for path in executed.result()]
    paths = {title: f"{folder}/figures".removeprefix("./") for title, folder in folders.items()}
    (draft / PAGE).write_text(render_page(views, figures, paths, downloads), encoding="utf-8")


def csv_tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Every frame of an analysis by the name of its CSV file."""
    betas, frontiers, ceiling = analysis.optimal_betas, analysis.frontiers, analysis.ceiling
    frames = {
        "cells": tables.cell_table(analysis.sweep),
        "checkpoints": analysis.sweep.checkpoints.drop(columns="versions"),
        "frontier": tables.frontier_table(frontiers),
        "frontier_pairwise": frontiers.pairwise,
        "frontier_points": frontiers.points,
        "optimal_beta": tables.optimal_beta_table(betas),
        "beta_cells": betas.cells,
        "beta_at_kl": betas.at_kl,
        "beta_ratios": betas.ratios,
        "overoptimisation_fits": analysis.overoptimisation.fits,
        "overoptimisation_peaks": analysis.overoptimisation.peaks,
    }
    if ceiling is not None:
        frames |= {
            "best_of_n": ceiling.best_of_n,
            "kl_constrained_optimum": ceiling.tilted,
            "ceiling_shares": ceiling.shares,
        }
    return frames


def _slug(title: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", title.replace(" = ", "=")).strip("-.")


def _require_replaceable(output: Path) -> None:
    if not output.exists():
        return
    page = output / PAGE
    is_report = page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:2000]
    if not output.is_dir() or not (is_report or not any(output.iterdir())):
        raise RefusedOutput(f"{output} exists and is not a report of this program; name another --output")


def _replace(output: Path, draft: Path, replaced: Path) -> None:
    """Put `draft` in the place of `output`: two renames, the gap between them too short to matter to a reader."""
    if output.exists():
        output.rename(replaced)
    draft.rename(output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0, or 2 with one line on stderr when the input cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write the report of a sweep.")
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="RUNS/SWEEP", help="the first is the main one")
    parser.add_argument("--output", type=Path, help="default: <first sweep>/report")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    parser.add_argument(
        "--fit", choices=("last", "all"), default="last",
        help="checkpoints that frontiers are fitted to: the last of each cell (default), or those on the way too",
    )  # fmt: skip
    parser.add_argument(
        "--notebooks", action=argparse.BooleanOptionalAction,
        help=f"also execute the notebooks (default: up to {NOTEBOOK_CELLS:,} cells; beyond, they double the time)",
    )  # fmt: skip
    parser.add_argument("--if-changed", action="store_true", help="leave a report alone that is up to date")
    options = parser.parse_args(arguments)
    output = options.output or options.sweeps[0] / "report"
    sources = digest_sources(options.sweeps, (options.seed, options.fit, options.notebooks))
    if options.if_changed and (output / PAGE).is_file() and is_current(output, sources):
        print(f"{output / PAGE} is up to date")
        return 0
    try:
        sweeps = [load_sweep(path) for path in options.sweeps]
        notebooks = options.notebooks
        if notebooks is None and not (notebooks := len(sweeps[0].cells) <= NOTEBOOK_CELLS):
            print(f"notebooks are left out, for more than {NOTEBOOK_CELLS:,} cells; --notebooks makes them")
        page = build_report(
            sweeps, output, seed=options.seed, ends_only=options.fit == "last", notebooks=notebooks, sources=sources
        )
    except (RefusedSweep, DamagedRecord, RefusedOutput, TooManyLosses) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except CellExecutionError as error:
        print(f"error: a notebook failed on {options.sweeps[0]}:\n{error}", file=sys.stderr)
        return 1
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
