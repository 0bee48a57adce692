"""The report of one or several sweeps: page, figures, tables, claims and notebooks.

The report is made in a temporary directory beside its place and renamed into it, so that a reader finds the old one
or the new one, never half of either.
"""

import glob
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil

from analysis.data.csv_files import write_csv
from analysis.data.sweep import Sweep
from analysis.figures.report_figures import ReportFigure, report_figures, save_figure
from analysis.report.frames import csv_frames
from analysis.report.notebook_runs import execute_notebooks
from analysis.report.page import GENERATOR, render_page
from analysis.report.sources import PAGE, SOURCES_FILE
from analysis.statistics.analyze import Analysis
from analysis.statistics.claims import Rules, write_claims
from analysis.statistics.views import analyze_views
from gold_rm.errors import UserError


class RefusedOutput(UserError):
    """The output directory holds something that is not a report."""


def build_report(
    sweeps: Sequence[Sweep],
    output: Path,
    *,
    seed: int = 0,
    ends_only: bool | None = None,
    notebooks: bool = True,
    sources: str = "",
    rules: Rules | None = None,
) -> Path:
    """Analyze sweeps and write the report; returns the page's path.

    Args:
        sweeps: the first is the main one; every setting (learning rate, ...) of each becomes a view of its own.
        output: directory to create or, if it holds an earlier report, to replace.
        seed: of the resampling; the same seed gives the same report.
        ends_only: see `analysis.statistics.analyze.analyze`; the notebooks do as by default.
        notebooks: also execute the notebooks on the first sweep.
        sources: digest of what the sweeps were read from, kept beside the page.
        rules: of the verdicts; those of conf/claims.yaml by default, which the notebooks use.
    Raises:
        RefusedSweep, TooManyVariants: sweeps that cannot be analyzed or drawn.
        RefusedOutput: `output` exists and is not a report.
        CellExecutionError: a notebook failed.
    """
    _require_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _remove_debris(output)
    with tempfile.TemporaryDirectory(prefix=f"{_scratch_prefix(output)}{os.getpid()}-", dir=output.parent) as scratch:
        draft = Path(scratch) / "report"
        draft.mkdir()
        with ThreadPoolExecutor(1) as pool:
            executed = pool.submit(execute_notebooks, sweeps[0].path, draft) if notebooks else None
            views = analyze_views(sweeps, seed=seed, ends_only=ends_only, rules=rules)
            _write_views(views, draft, executed, output)
        (draft / SOURCES_FILE).write_text(f"{sources}\n", encoding="utf-8")
        _replace(output, draft, Path(scratch) / "replaced")
    return output / PAGE


def _write_views(views: Mapping[str, Analysis], draft: Path, executed: Future | None, output: Path) -> None:
    # The first view's files lie where a reader of one sweep expects them, each further view's in a folder of its own.
    folders = dict(zip(views, _folders(views), strict=True))
    figures: dict[str, dict[str, ReportFigure]] = {}
    for title, analysis in views.items():
        folder = draft / folders[title]
        (folder / "figures").mkdir(parents=True)
        (folder / "tables").mkdir()
        figures[title] = {figure.name: figure for figure in report_figures(analysis)}
        for figure in figures[title].values():
            save_figure(figure, folder / "figures")
        for name, frame in csv_frames(analysis).items():
            write_csv(frame, folder / "tables" / f"{name}.csv")
            frame.to_parquet(folder / "tables" / f"{name}.parquet", index=False)
        write_claims(analysis.claims, folder / "claims.json", analysis.standing)
    downloads = [
        (f"{folder}/{name}".removeprefix("./"),) * 2
        for folder in folders.values()
        for name in ("claims.json", "tables/")
    ]
    if executed is not None:
        downloads += [(path.name, path.name) for path in executed.result()]
    paths = {title: f"{folder}/figures".removeprefix("./") for title, folder in folders.items()}
    (draft / PAGE).write_text(render_page(views, figures, paths, downloads, output), encoding="utf-8")


def _scratch_prefix(output: Path) -> str:
    return f".{output.name}-{socket.gethostname()}-"


def _remove_debris(output: Path) -> None:
    """Remove what reports of this machine that were killed have left."""
    prefix = _scratch_prefix(output)
    for path in output.parent.glob(f"{glob.escape(prefix)}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _folders(titles: Iterable[str]) -> list[str]:
    """A folder for each view, and no folder for two: the first title's is the report's own.

    >>> _folders(["main", "lr = 1", "a/b", "a-b"])
    ['.', 'lr=1', 'a-b', 'a-b-2']
    """
    folders: list[str] = []
    for title in titles:
        name, count = _slug(title), 1
        while (folder := name if count == 1 else f"{name}-{count}") in folders:
            count += 1
        folders.append(folder if folders else ".")
    return folders


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
