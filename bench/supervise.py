"""Run the cells of a sweep to the end although workers may be killed; judged by the cells' own files."""

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from bench.plan import PlannedCell
from bench.records import read_status, write_status
from bench.status import FAILED, INTERRUPTED, RUNNING, cell_view

Launch = Callable[[Sequence[PlannedCell]], None]


def supervise(cells: Sequence[PlannedCell], launch: Launch) -> None:
    """Launch `cells` until each has had its turn, though workers may be killed meanwhile.

    When a worker dies, joblib's pool and all cells in it die with it, and nothing says which cell was to blame.
    The cells that were running then wait until the rest is through, and get a second turn one by one: one that
    loses its worker again is marked as failed, the others finish.
    """
    waiting, suspects = list(cells), []
    while waiting:
        try:
            launch(waiting)
            waiting = []
        except BrokenProcessPool:
            lost = [cell for cell in waiting if _was_interrupted(cell)]
            if not lost:
                raise
            suspects += lost
            waiting = [cell for cell in waiting if cell not in lost and not cell.is_finished]
    for cell in suspects:
        try:
            launch([cell])
        except BrokenProcessPool:
            _mark_killed(cell)


def _was_interrupted(cell: PlannedCell) -> bool:
    return cell_view(cell.config.sweep_dir, cell.name).state in (RUNNING, INTERRUPTED)


def _mark_killed(cell: PlannedCell) -> None:
    status = read_status(cell.directory)
    if status is not None:
        error = f"its worker was killed {status.attempts} times (by the kernel, for lack of memory?)"
        write_status(cell.directory, replace(status, state=FAILED, error=error))
