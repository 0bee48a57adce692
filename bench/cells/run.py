"""One cell from its configuration to its records; judged by what it leaves in its folder."""

import os
import sys
from collections.abc import Callable

import torch

from bench.cells.best_of_n import measure_best_of_n
from bench.cells.cell import Cell
from bench.cells.evaluation import checkpoint_steps
from bench.cells.folder import CellFolder, Stopped
from bench.cells.imported import measure_imported
from bench.cells.inputs import InputCache
from bench.cells.resume import ResumePoint
from bench.cells.saving import SavedPolicies
from bench.cells.tracking import Tracker
from bench.cells.training import CellTraining
from bench.claims import ClaimLost
from bench.data.artifacts import DamagedArtifact
from bench.data.prepared import Prepared
from bench.methods import METHODS
from bench.methods.trainer import NonFiniteLoss
from bench.policies.load import resolve_device
from bench.policies.memory import forget_peak, peak_memory_mib
from bench.records import CellStatus, CheckpointRecord

GROUP_LOST = 3  # exit status of a worker whose group has lost a process
OnRecord = Callable[[CheckpointRecord], None]


def run_cell(
    cell: Cell,
    prepared: Prepared,
    cache: InputCache,
    *,
    call: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_record: OnRecord = lambda record: None,
) -> CellStatus:
    """Run one cell unless it is settled; failures end up in its status, not in an exception.

    A cell that was interrupted goes on from its resume point, or starts again from its beginning, with the same
    records in the end.

    Args:
        prepared: what the cell stands on.
        cache: of the worker; keeps what the next cell needs as well.
        call: of the driver that started this process.
        stop: asked between steps; once it is true, the cell is given back.
    Raises:
        CellBusy: another process holds the cell.
        ConfigError: the directory was made with another configuration.
        ClaimLost: the cell was taken over by another process, as this one had been stopped for long.
        DamagedArtifact: what was prepared is not there, or is something else.
        Stopped: `stop` said so.
        OSError: the folder cannot be written.
    """
    with CellFolder(cell, data=prepared.fingerprint, call=call, sinks=[Tracker(cell)]) as folder:
        if folder.status is not None and folder.status.is_settled(call):
            return folder.status
        torch.set_num_threads(cell.config.cpu_threads)
        try:
            point = folder.begin()
            forget_peak(resolve_device(cell.config.device))
            if folder.killer:
                folder.fail(folder.killer)
            elif cell.config.external is not None:
                measure_imported(folder, prepared, cache, stop, on_record)
            elif METHODS[cell.config.method].trainer is None:
                measure_best_of_n(folder, prepared, cache, stop, on_record)
            else:
                _Run(folder, prepared, cache, stop, on_record).execute(point)
        # What this machine lacks, another may have: the cell is given back.
        except (Stopped, ClaimLost, DamagedArtifact):
            raise
        # Whatever a cell dies of, the sweep goes on; the error is kept with the cell and shown by bench.status.
        except (Exception, SystemExit) as error:  # a user's loss may call sys.exit()
            if not folder.has_begun:
                raise
            if cache.ranks.has_lost_one(error):
                _end_as_if_killed(error)
            folder.fail(error, diverged=isinstance(error, NonFiniteLoss))
        assert folder.status is not None
        return folder.status


def _end_as_if_killed(error: BaseException) -> None:
    """The claim stays behind: whoever takes the cell over counts the death, and a second one is the cell's fault."""
    print(f"a process of this worker's group is gone: {error}", file=sys.stderr, flush=True)
    os._exit(GROUP_LOST)


class _Run:
    """One attempt at a cell."""

    def __init__(
        self, folder: CellFolder, prepared: Prepared, cache: InputCache, stop: Callable[[], bool], on_record: OnRecord
    ) -> None:
        self._folder, self._stop, self._on_record = folder, stop, on_record
        self._prepared, self._cache, self._config = prepared, cache, folder.cell.config
        self._schedule = checkpoint_steps(self._config.optim.steps, self._config.evaluation.checkpoints)

    def execute(self, point: ResumePoint | None) -> None:
        config, folder = self._config, self._folder
        training = CellTraining(folder.cell, self._prepared, self._cache)
        saved = SavedPolicies(folder)
        if point is None:
            folder.add_step(training.preview())
        else:
            training.load_state_dict(point.tensors)
        self._checkpoint_if_due(training, saved)
        while training.steps_done < config.optim.steps:
            if self._stop():
                folder.write_resume_point(training.steps_done, training.state_dict())
                raise Stopped
            folder.add_step(training.step())
            self._checkpoint_if_due(training, saved)
            if config.resume.every and training.steps_done % config.resume.every == 0:
                self._keep(training)
        folder.finish(peak_memory_mib=peak_memory_mib(resolve_device(config.device)))

    def _checkpoint_if_due(self, training: CellTraining, saved: SavedPolicies) -> None:
        step, folder = training.steps_done, self._folder
        measured = folder.recorded.records
        if step not in self._schedule or (measured and measured[-1]["step"] >= step):
            return
        since = measured[-1]["step"] if measured else -1
        recent = [each for each in folder.recorded.steps if each.step > since]
        checkpoint = training.measure(recent, wall_s=folder.elapsed_s)
        saved.offer(checkpoint, training.save)
        folder.add_checkpoint(checkpoint)
        self._on_record(checkpoint.record)
        if self._config.resume.every is None:
            self._keep(training)

    def _keep(self, training: CellTraining) -> None:
        if training.steps_done < self._config.optim.steps:
            self._folder.write_resume_point(training.steps_done, training.state_dict())
