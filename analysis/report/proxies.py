"""Tables and a figure of proxies alone, for a sweep of best-of-n that trains no policy.

    python -m analysis.report.proxies RUNS/SWEEP [--output DIR]

Writes CSV files and figures to RUNS/SWEEP/proxies, and prints the tables.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.data.best_of_n import load_best_of_n
from analysis.data.csv_files import write_csv
from analysis.data.sweep import RefusedSweep
from analysis.figures.level_figures import fits_figure
from analysis.figures.report_figures import ReportFigure, save_figure
from analysis.figures.style import TEXT_WIDTH, publication
from analysis.report.html_tables import HtmlTable
from analysis.report.level_tables import coefficient_table, fit_table
from analysis.statistics.levels import study_best_of_n
from bench.records import read_plan
from gold_rm.command_line import run_with_messages, terminal


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 2 with a one-line message for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report.proxies", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("sweep", type=Path, help="runs/<sweep> with cells of method best_of_n")
    parser.add_argument("--output", type=Path, help="directory to write to (default: SWEEP/proxies)")
    options = parser.parse_args(arguments)

    def action() -> int:
        write_proxies(options.sweep, options.output or options.sweep / "proxies", terminal())
        return 0

    return run_with_messages(action)


def write_proxies(sweep: Path, output: Path, console: Console) -> None:
    """Print the tables; write them and the figure.

    Raises:
        RefusedSweep: the sweep has no finished cell of best-of-n by a proxy.
    """
    studied = study_best_of_n(load_best_of_n(sweep, read_plan(sweep)))
    if studied.fits.empty:
        raise RefusedSweep(f"{sweep}: no finished cell of method best_of_n by a proxy")
    output.mkdir(parents=True, exist_ok=True)
    for name, frame in (("proxies", studied.fits), ("coefficients", studied.coefficients)):
        write_csv(frame, output / f"{name}.csv")
    with publication():
        figure = fits_figure(studied.fits, TEXT_WIDTH)
    save_figure(ReportFigure("proxy_fits", "Proxies on held-out pairs", "", figure, studied.fits), output)
    for table in (fit_table(studied.fits), coefficient_table(studied.coefficients)):
        console.print(_printed(table))
    console.print(str(output), highlight=False, soft_wrap=True)


def _printed(table: HtmlTable) -> Table:
    printed = Table(caption=table.caption)
    for column in table.columns:
        printed.add_column(column.title, justify="right" if column.number else "left")
    for row in table.rows:
        printed.add_row(*row)
    return printed


if __name__ == "__main__":
    sys.exit(main())
