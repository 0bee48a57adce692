"""Show the state of a sweep, read from its files alone.

python -m bench.status runs/<sweep> [--check]

With --check, every file of every finished cell is compared with its SHA-256 in the cell's status.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from bench.checked import ConfigError
from bench.records import (
    COPY_AGAIN,
    DONE,
    FAILED,
    RUN_AGAIN,
    CellView,
    DamagedRecord,
    damages,
    read_plan,
    read_status,
)
from bench.sweep.status import print_status, summary_line, sweep_views
from gold_rm.command_line import run_with_messages, terminal


def main() -> int:
    """Entry point; exit status 1 where a cell has failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.status", description="Show the state of a sweep.")
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP")
    parser.add_argument("--check", action="store_true", help="compare every file with what it was when it was finished")
    options = parser.parse_args()
    return run_with_messages(lambda: _show(options.sweep_dir, check=options.check))


def _show(sweep_dir: Path, *, check: bool) -> int:
    views = sweep_views(sweep_dir)
    if not views:
        others = sorted(p.parent.name for p in sweep_dir.parent.glob("*/plan.json"))
        there = f"; sweeps there: {', '.join(others)}" if others else ""
        raise ConfigError(f"{sweep_dir}: no sweep (no plan.json){there}")
    console = terminal()
    print_status(views, console)
    console.print(summary_line(views))
    damaged = _check(sweep_dir, views, console) if check else False
    return 1 if damaged or any(view.state == FAILED for view in views) else 0


def _check(sweep_dir: Path, views: Sequence[CellView], console: Console) -> bool:
    """Print what is not as it was; whether there is anything."""
    done: dict[Path, dict[str, str] | None] = {}
    for cell_dir in (sweep_dir / view.name for view in views):
        with suppress(DamagedRecord):  # the table shows it
            if (status := read_status(cell_dir)) is not None and status.state == DONE:
                done[cell_dir] = status.files
    files = [(cell_dir, known, RUN_AGAIN) for cell_dir, known in done.items() if known is not None]
    files.append((sweep_dir, read_plan(sweep_dir)["published"], COPY_AGAIN))
    found = damages(files)
    for message in found:
        console.print(message, style="red", soft_wrap=True)
    unknown = sum(known is None for known in done.values())
    older = f"; {unknown} cells of an older version have no checksums" if unknown else ""
    console.print(f"{sum(len(known) for _, known, _ in files)} files checked, {len(found)} damaged or missing{older}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
