"""A worker: claims the next unfinished cell of a planned sweep, runs it, and goes on until none is left."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.cells.folder import CellBusy
from bench.cells.inputs import InputCache
from bench.cells.run import Stopped, run_cell
from bench.cells.tracking import check_login
from bench.claims import ClaimLost, is_claimed, last_beat
from bench.policies.load import resolve_device
from bench.policies.ranks import ALONE, Ranks
from bench.records import DONE, CellStatus
from bench.sweep.plan import is_left
from bench.sweep.queue import CellQueue
from bench.sweep.stopping import StopRequest

Report = Callable[[CellStatus], None]


@dataclass
class Work:
    """What a worker has done: cells by their outcome."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def work(
    sweep_dir: Path,
    stop: StopRequest,
    *,
    call: str | None = None,
    device: str | None = None,
    max_cells: int | None = None,
    pool_since: float | None = None,
    ranks: Ranks = ALONE,
    report: Report = lambda status: None,
) -> Work:
    """Run cells of a planned sweep until none is left that nobody else works on, or `stop` says so.

    Args:
        call: of the driver, whose cells alone are run; None for those of every call. A cell that failed under the
            driver's call, or in the other case since the last call, is left.
        device: in place of the one that was planned.
        max_cells: stop after so many.
        pool_since: when the pool was started that ends with any of its workers, by the file server's clock. A cell
            whose worker has died since is left to a later one: this worker is about to be killed too, and the cell
            would be blamed for both.
        ranks: the worker's processes, of which this is the first; a group ends with the first cell that fails, as it
            may have lost a process.
        report: told of every cell that was run.
    Raises:
        DamagedRecord, DamagedArtifact: plan or prepared data cannot be read.
        ConfigError: a cell's directory was made with another configuration, or lacks device or W&B key here; or the
            sweep cannot be joined, see `bench.sweep.joining`.
    """
    cache, work, queue = InputCache(ranks), Work(), CellQueue(sweep_dir, call)
    with stop.listening():
        while not stop() and (max_cells is None or len(work.done) + len(work.failed) < max_cells):
            queue.refresh()
            status = _run_next(queue, device, cache, stop, pool_since)
            if status is None:
                break
            (work.done if status.state == DONE else work.failed).append(status.cell)
            report(status)
            if status.state != DONE and ranks.world_size > 1:
                return work
    ranks.tell(None)
    return work


def _run_next(
    queue: CellQueue,
    device: str | None,
    cache: InputCache,
    stop: StopRequest,
    pool_since: float | None,
) -> CellStatus | None:
    """Run the next cell that can be claimed; None when there is none, or on a request to stop."""
    for name in queue:
        directory = queue.plan.sweep_dir / name
        if not is_left(directory, queue.call):
            queue.settle(name)
            continue
        if is_claimed(directory):
            continue
        if pool_since is not None and (last_beat(directory) or 0.0) > pool_since:
            continue
        cell, prepared = queue.plan.job(name)
        cell = cell.on(cache.ranks.device(device or cell.config.device), cache.ranks.world_size)
        # Before the cell is claimed, which is not to blame for what this machine lacks.
        resolve_device(cell.config.device)
        check_login(cell.config)
        try:
            status = run_cell(cell, prepared, cache, call=queue.call, stop=stop)
            queue.won()
            if (status.host, status.pid) == (socket.gethostname(), os.getpid()):
                return status  # otherwise, another worker has settled the cell since we looked
        except (CellBusy, ClaimLost):  # another worker was faster, or has taken it over
            queue.lost()
        except Stopped:
            return None
    return None
