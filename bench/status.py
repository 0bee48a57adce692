"""Show the state of a sweep, read from its files alone.

python -m bench.status runs/<sweep>
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench.records import FAILED, DamagedRecord
from bench.sweep.status import status_table, summary_line, sweep_views


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.status", description="Show the state of a sweep.")
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP")
    sweep_dir: Path = parser.parse_args().sweep_dir
    try:
        views = sweep_views(sweep_dir)
    except DamagedRecord as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not views:
        others = sorted(p.parent.name for p in sweep_dir.parent.glob("*/plan.json"))
        there = f"; sweeps there: {', '.join(others)}" if others else ""
        print(f"error: {sweep_dir}: no sweep (no plan.json){there}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(status_table(views))
    console.print(summary_line(views), highlight=False)
    return 1 if any(view.state == FAILED for view in views) else 0


if __name__ == "__main__":
    sys.exit(main())
