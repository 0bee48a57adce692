"""The folder of a cell and its only writer."""

import os
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from torch import Tensor

from bench.cells.cell import Cell
from bench.cells.deaths import killer_of
from bench.cells.measure import Checkpoint
from bench.cells.resume import ResumePoint, read_resume_point, write_resume_point
from bench.cells.settings import check_cell_config, write_cell_config
from bench.cells.sink import Sink
from bench.cells.stored import Recorded, take_all_back, take_back
from bench.checked import fingerprint_of
from bench.claims import try_claim
from bench.records import (
    DONE,
    ERROR_FILE,
    FAILED,
    HELD_OUT_FILE,
    INTERRUPTED,
    POLICY_DIR,
    RECORDS_FILE,
    RESUME_DIR,
    RUNNING,
    SAMPLES_FILE,
    CellStatus,
    DamagedRecord,
    StepMetrics,
    append_record,
    append_steps,
    cell_checksums,
    read_status,
    remove_temporaries,
    write_atomically,
    write_status,
)
from gold_rm.permissions import follow_umask


class CellBusy(RuntimeError):
    """Another process works on the cell."""


class Stopped(Exception):
    """The process was asked to stop; the cell has been given back, to go on from what it has kept."""


class CellFolder:
    """``runs/<sweep>/<cell>/``, claimed: everything in it is written here, and only while the claim is held.

    A context manager: on leaving, a cell that is neither done nor failed is marked as interrupted, and the claim is
    given back. Several may be open in one process.

    Attributes:
        status: what status.json says; None for a cell that was never started.
        recorded: what the cell has recorded so far, this attempt and what it goes on from.
    """

    def __init__(self, cell: Cell, *, data: str = "", call: str | None = None, sinks: Sequence[Sink] = ()) -> None:
        """Claim the folder, creating it.

        Args:
            data: fingerprint of what the cell stands on; a resume point from other data is not taken up.
            call: of the driver that started this process.
        Raises:
            CellBusy: somebody alive holds it.
            ConfigError: it was made with another configuration; nothing in it is touched.
            DamagedRecord: its status cannot be read.
        """
        cell.directory.mkdir(parents=True, exist_ok=True)
        claim = try_claim(cell.directory, call=call)
        if claim is None:
            raise CellBusy(f"{cell.name} is being worked on by another process")
        self._claim, self._call = claim, call
        self._origin = fingerprint_of([cell.config.fingerprint, data])
        try:
            check_cell_config(cell)
            self.status = read_status(cell.directory)
        except BaseException:
            claim.release()
            raise
        self.cell, self.path, self.recorded = cell, cell.directory, Recorded()
        self._sinks, self._unwritten, self._started = list(sinks), list[StepMetrics](), False

    def __enter__(self) -> "CellFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._started and self._running.state == RUNNING and self._claim.held():
                self._update(state=INTERRUPTED)
        finally:
            try:
                if self._started:
                    for sink in self._sinks:
                        sink.finish(0 if self._running.state == DONE else 1)
            finally:
                self._claim.release()

    @property
    def _running(self) -> CellStatus:
        assert self.status is not None  # begin() has been called
        return self.status

    @property
    def has_begun(self) -> bool:
        """Whether `begin` has got as far as the status, which is where an error can be kept."""
        return self._started

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on the cell, over all attempts that this one goes on from."""
        return self._running.earlier_s + time.time() - self._running.started_at

    def begin(self) -> ResumePoint | None:
        """Start an attempt, from the cell's resume point where there is one.

        Returns:
            That point; None where the cell starts from its beginning, of which nothing was left.
        """
        self._claim.require_held()
        remove_temporaries(self.path)
        point, unreadable = self._read_resume_point()
        step, earlier_s = (0, 0.0) if point is None else (point.step, point.elapsed_s)
        write_cell_config(self.cell)
        now, before = time.time(), self.status
        dead = self._claim.previous
        at = 0 if before is None else before.resumed_from
        deaths = () if dead is None else ({"host": dead.host, "pid": dead.pid, "call": dead.call, "from_step": at},)
        self.status = CellStatus(
            RUNNING, self.cell.name, 1, now, now, step, self.cell.config.last_step, socket.gethostname(), os.getpid(),
            earlier_s=earlier_s, resumed_from=step, deaths=deaths, call=self._call,
        )  # fmt: skip
        if before is not None:
            warnings = before.warnings if point is not None else unreadable
            deaths = (*before.deaths, *deaths)
            self.status = replace(self.status, attempts=before.attempts + 1, warnings=warnings, deaths=deaths)
        write_status(self.path, self.status)
        self._started = True
        for sink in self._sinks:
            sink.start(self.recorded)
        return point

    @property
    def killer(self) -> str | None:
        """What is known, if the cell has killed its workers; see `bench.cells.deaths`."""
        return killer_of(self._running, self.cell.sweep_dir)

    def _read_resume_point(self) -> tuple[ResumePoint | None, tuple[str, ...]]:
        """The resume point, with the folder taken back to it; or None, and what could not be read."""
        try:
            point = read_resume_point(self.path, self._origin)
            self.recorded = take_all_back(self.path) if point is None else take_back(self.path, point.step)
        # The cell itself is all that is needed to run it again. (TypeError: steps of another version.)
        except (DamagedRecord, OSError, ValueError, KeyError, TypeError) as error:
            self.recorded = take_all_back(self.path)
            return None, (f"started from the beginning, as the resume point is of no use: {error}",)
        return point, ()

    def add_step(self, metrics: StepMetrics) -> None:
        """Keep a training step; it reaches the disk with the next checkpoint or resume point."""
        self._unwritten.append(metrics)
        self.recorded.steps.append(metrics)

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write one evaluation: its frames and steps, then the record, which makes it count."""
        self._claim.require_held()
        record, recorded = checkpoint.record, self.recorded
        recorded.samples.append(checkpoint.samples)
        recorded.held_out.append(checkpoint.held_out)
        for name, frames in ((SAMPLES_FILE, recorded.samples), (HELD_OUT_FILE, recorded.held_out)):
            so_far = pd.concat(frames, ignore_index=True)
            write_atomically(self.path / name, partial(so_far.to_parquet, index=False), to_disk=True)
        self._write_steps()
        append_record(self.path / RECORDS_FILE, record)
        self.recorded.records.append(asdict(record))
        self._update(steps_done=record.step, warnings=(*self._running.warnings, *checkpoint.warnings))
        for sink in self._sinks:
            sink.log(record)

    def write_resume_point(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep a trainer's state after `step` steps, in place of an earlier one."""
        self._claim.require_held()
        self._write_steps()
        point = ResumePoint(step, self.elapsed_s, dict(state))
        write_resume_point(self.path, point, self._origin)

    def save_policy(self, name: str, write: Callable[[Path], None]) -> None:
        """Let `write` fill ``policy/<name>`` (``policy`` itself for an empty name), in place of an earlier one."""
        self._claim.require_held()
        target = self.path / POLICY_DIR / name
        new, old = (self.path / f".{POLICY_DIR}-{word}" for word in ("new", "old"))
        for debris in (new, old):
            shutil.rmtree(debris, ignore_errors=True)
        new.mkdir()
        write(new)
        follow_umask(new)
        self._claim.require_held()
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def finish(self, *, peak_memory_mib: float | None = None) -> None:
        """Mark the cell as done; it needs no resume point any more."""
        self._claim.require_held()
        self._write_steps()
        self._update(state=DONE, peak_memory_mib=peak_memory_mib, files=cell_checksums(self.path))
        shutil.rmtree(self.path / RESUME_DIR, ignore_errors=True)

    def fail(self, error: BaseException | str, *, diverged: bool = False) -> None:
        """Mark the cell as failed, with the error and, for an exception, its traceback in error.txt."""
        self._claim.require_held()
        self._write_steps()
        if isinstance(error, BaseException):
            (self.path / ERROR_FILE).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            error = f"{type(error).__name__}: {error}"
        self._update(state=FAILED, error=error, diverged=diverged)

    def _update(self, **changes: Any) -> None:
        self.status = replace(self._running, updated_at=time.time(), **changes)
        write_status(self.path, self.status)

    def _write_steps(self) -> None:
        if self._unwritten:
            append_steps(self.path, self._unwritten)
            for sink in self._sinks:
                sink.log_steps(self._unwritten)
            self._unwritten = []
