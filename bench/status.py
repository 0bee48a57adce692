"""Show the state of a sweep, read from its files alone.

python -m bench.status runs/<sweep>
"""

import argparse
import sys
from pathlib import Path

from bench.checked import ConfigError
from bench.records import FAILED
from bench.sweep.status import status_table, summary_line, sweep_views
from gold_rm.command_line import run_with_messages, terminal


def main() -> int:
    """Entry point; exit status 1 where a cell has failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.status", description="Show the state of a sweep.")
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP")
    options = parser.parse_args()
    return run_with_messages(lambda: _show(options.sweep_dir))


def _show(sweep_dir: Path) -> int:
    views = sweep_views(sweep_dir)
    if not views:
        others = sorted(p.parent.name for p in sweep_dir.parent.glob("*/plan.json"))
        there = f"; sweeps there: {', '.join(others)}" if others else ""
        raise ConfigError(f"{sweep_dir}: no sweep (no plan.json){there}")
    console = terminal()
    console.print(status_table(views))
    console.print(summary_line(views))
    return 1 if any(view.state == FAILED for view in views) else 0


if __name__ == "__main__":
    sys.exit(main())
