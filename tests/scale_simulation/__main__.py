"""Plan a sweep of cells without work, let a crowd of workers at it, check what is left, and print what it cost.

    PYTHONPATH=tests python -m scale_simulation [--cells 10000] [--workers 200] [--deaths 100] [--hosts 50]

Ends with status 1 if anything was lost, run twice or disturbed. The folder is removed at the end, but for --keep.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from bench.records import read_plan
from scale_simulation.crowd import beating, foreign_claim, let_die, run_crowd, run_once
from scale_simulation.findings import cost_lines, lost_cells, time_commands, totals
from scale_simulation.plan import overrides_of, plan_sweep
from scale_simulation.worker import Ground, deadly_operation, run_worker


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m scale_simulation", description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000, help="a multiple of 20")
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--deaths", type=int, default=100, help="cells whose first worker is killed")
    parser.add_argument(
        "--hosts", type=int, default=50, help="claims of dead workers elsewhere, and as many of living ones"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to put everything")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return _simulate(root, options.cells, options.workers, options.deaths, options.hosts)


def _simulate(root: Path, cells: int, workers: int, deaths: int, hosts: int) -> int:
    run_once(plan_sweep, root, cells)
    sweep_dir = root / "runs" / "s"
    names = [row["cell"] for row in read_plan(sweep_dir)["cells"]]
    draw = random.Random(0)
    chosen = draw.sample(names, deaths + 2 * hosts)
    doomed, elsewhere = chosen[:deaths], chosen[deaths:]
    ground = Ground.make(root / "notes", {name: deadly_operation(draw) for name in doomed})
    for name in elsewhere[:hosts]:
        foreign_claim(sweep_dir / name, age_seconds=3600.0)
    living = [foreign_claim(sweep_dir / name, age_seconds=0.0) for name in elsewhere[hosts:]]

    started = time.monotonic()
    with beating(living):
        killed = run_crowd(run_worker, (sweep_dir, ground), workers)
    took = time.monotonic() - started
    problems = [
        f"{name}: a living claim was disturbed" for name in elsewhere[hosts:] if _is_disturbed(sweep_dir / name)
    ]
    lines = cost_lines(ground, took, workers, len(killed)) + totals(sweep_dir, cells - hosts)
    let_die(living)
    killed |= run_crowd(run_worker, (sweep_dir, ground), min(workers, 8))

    problems += lost_cells(sweep_dir, names, ground, killed)
    # Fewer than were to be: some lost the race for the cell that was to kill them.
    if len(killed) != (marked := len(list((ground.notes / "killed").iterdir()))):
        problems.append(f"{len(killed)} workers were killed, not {marked}")
    if not problems:  # or the commands would go on with what is lost
        lines += time_commands(sweep_dir, overrides_of(root, cells))
    for line in lines:
        print(line, flush=True)
    for problem in problems:
        print(f"error: {problem}")
    print(f"{cells} cells, {len(killed)} workers killed, {len(problems)} problems")
    return 1 if problems else 0


def _is_disturbed(cell_dir: Path) -> bool:
    return [path.name for path in cell_dir.iterdir()] != [".claim-000001"]


if __name__ == "__main__":
    sys.exit(main())
