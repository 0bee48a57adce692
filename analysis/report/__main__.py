"""``python -m analysis.report runs/<sweep> [runs/<other> …]``: the report of a sweep, or of several side by side."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from analysis import RULES_FILE
from analysis.report.sources import PAGE, digest_sources, is_current
from gold_rm.command_line import run_with_messages

NOTEBOOK_CELLS = 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0, or 2 with one line on stderr when the input cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write the report of a sweep.")
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="RUNS/SWEEP", help="the first is the main one")
    parser.add_argument("--output", type=Path, help="default: <first sweep>/report")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    parser.add_argument(
        "--fit", choices=("last", "all"),
        help="checkpoints that frontiers are fitted to: the last of each cell, or those on the way too (default: "
        "as the rules say)",
    )  # fmt: skip
    parser.add_argument(
        "--notebooks", action=argparse.BooleanOptionalAction,
        help=f"also execute the notebooks (default: up to {NOTEBOOK_CELLS:,} cells; beyond, they double the time)",
    )  # fmt: skip
    parser.add_argument("--rules", type=Path, default=RULES_FILE, help="of the verdicts (default: conf/claims.yaml)")
    parser.add_argument("--if-changed", action="store_true", help="leave a report alone that is up to date")
    options = parser.parse_args(arguments)
    return run_with_messages(lambda: _report(options), if_interrupted="the earlier report, if there is one, is kept")


def _report(options: argparse.Namespace) -> int:
    output: Path = options.output or options.sweeps[0] / "report"
    sources = digest_sources(options.sweeps, options.rules, (options.seed, options.fit, options.notebooks))
    if options.if_changed and is_current(output, sources):
        print(f"{output / PAGE} is up to date")
        return 0
    return _make(options, output, sources)


def _make(options: argparse.Namespace, output: Path, sources: str) -> int:
    # pandas, scipy and matplotlib: seconds, which a report that is up to date need not wait for
    from nbclient.exceptions import CellExecutionError

    from analysis.data.load import load_sweep
    from analysis.report.build import build_report
    from analysis.statistics.claims import read_rules

    started = time.monotonic()
    try:
        rules = read_rules(options.rules)
        sweeps = [load_sweep(path) for path in options.sweeps]
        notebooks = options.notebooks
        if notebooks is None and not (notebooks := len(sweeps[0].cells) <= NOTEBOOK_CELLS):
            print(f"notebooks are left out, for more than {NOTEBOOK_CELLS:,} cells; --notebooks makes them")
        ends_only = None if options.fit is None else options.fit == "last"
        page = build_report(
            sweeps, output, seed=options.seed, ends_only=ends_only, notebooks=notebooks, sources=sources, rules=rules
        )
    except CellExecutionError as error:
        print(f"error: a notebook failed on {options.sweeps[0]}:\n{error}", file=sys.stderr)
        return 1
    print(f"report {time.monotonic() - started:.0f} s")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
