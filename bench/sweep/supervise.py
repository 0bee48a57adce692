"""Run the cells of a sweep to the end although workers may be killed; judged by the cells' own files."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from bench.records import FAILED, INTERRUPTED, RUNNING, cell_view, read_status, write_status
from bench.sweep.plan import PlannedCell

Launch = Callable[[Sequence[PlannedCell]], None]

# Workers killed this often in a row before they start a cell: they do not fit into memory.
MOST_IDLE_DEATHS = 3


def supervise(cells: Sequence[PlannedCell], launch: Launch) -> None:
    """Launch `cells` until each has had its turn, though workers may be killed meanwhile.

    When a worker dies, joblib's pool and all cells in it die with it, and nothing says which cell was to blame.
    The cells that were running then wait until the rest is through, and get a second turn one by one: one that
    loses its worker again is marked as failed, the others finish.

    Raises:
        BrokenProcessPool: workers are killed again and again before they start a cell.
    """
    since = time.time()
    waiting, suspects = list(cells), []
    idle_deaths = 0
    while waiting:
        try:
            launch(waiting)
            waiting = []
        except BrokenProcessPool:
            lost = [cell for cell in waiting if _was_interrupted(cell)]
            left = [cell for cell in waiting if cell not in lost and not _had_its_turn(cell, since)]
            idle_deaths = idle_deaths + 1 if left == waiting else 0
            if idle_deaths == MOST_IDLE_DEATHS:
                raise
            suspects += lost
            waiting = left
    for cell in suspects:
        try:
            launch([cell])
        except BrokenProcessPool:
            if _was_interrupted(cell):
                _mark_killed(cell)


def _was_interrupted(cell: PlannedCell) -> bool:
    return cell_view(cell.config.sweep_dir, cell.name).state in (RUNNING, INTERRUPTED)


def _had_its_turn(cell: PlannedCell, since: float) -> bool:
    status = read_status(cell.directory)
    return status is not None and (status.is_final or (status.state == FAILED and status.updated_at >= since))


def _mark_killed(cell: PlannedCell) -> None:
    status = read_status(cell.directory)
    if status is not None:
        error = "its worker was killed, and again when the cell ran alone (by the kernel, for lack of memory?)"
        write_status(cell.directory, replace(status, state=FAILED, error=error, updated_at=time.time()))
