"""Write the W&B runs of finished cells anew where they are incomplete, offline and from the records.

    python -m bench.mirror runs/<sweep>

A cell says so itself, in wandb-incomplete.txt: W&B's server or service did not answer. `make sync SWEEP=NAME` calls
this, and uploads.

Exit status: 0 all are complete, 1 some still are not.
"""

import argparse
import sys
from pathlib import Path

from gold_rm.command_line import run_with_messages


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.mirror", description="Complete the W&B runs of a sweep.")
    parser.add_argument("sweep_dir", type=Path, metavar="RUNS/SWEEP")
    options = parser.parse_args()
    return run_with_messages(lambda: _complete(options.sweep_dir))


def _complete(sweep_dir: Path) -> int:
    from bench.cells.tracking import MIRROR_FILE, write_mirror
    from bench.sweep.plan import read_jobs

    waiting = [cell for cell, _ in read_jobs(sweep_dir) if (cell.directory / MIRROR_FILE).exists()]
    waiting = [cell for cell in waiting if cell.is_finished]
    failed = [cell for cell in waiting if write_mirror(cell) is not None]
    print(f"{sweep_dir}: {len(waiting) - len(failed)} of {len(waiting)} incomplete W&B runs written from the records")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
