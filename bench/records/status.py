"""The state of a cell: what its status says, and whether whoever works on it is alive. The one definition of both."""

import os
import socket
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench.claims import is_claimed, read_holder
from bench.records.files import (
    LARGEST_INT,
    RECORDS_FILE,
    RUN_AGAIN,
    STATUS_FILE,
    DamagedRecord,
    read_json,
    write_checked_json,
)
from bench.records.metrics import read_records

DONE, FAILED, RUNNING, INTERRUPTED, MISSING = "done", "failed", "running", "interrupted", "missing"
WRITTEN_STATES = (DONE, FAILED, RUNNING, INTERRUPTED)


@dataclass(frozen=True)
class CellStatus:
    """What status.json holds.

    A failed cell is tried again by the next call, unless it `diverged`: then it would fail the same way again.

    Attributes:
        state: ``running``, ``done``, ``failed`` (then with `error`), or ``interrupted``: given back unfinished.
        started_at, updated_at: seconds since the epoch, of this attempt.
        earlier_s: time that earlier attempts spent up to where this one went on.
        resumed_from: step at which this attempt went on; 0 from the beginning.
        deaths: workers that died while they held the cell: host, pid, call, and the step they had begun from.
        call: of the driver under which this attempt ran; see `is_settled`. Later calls compare as greater.
        peak_memory_mib: of a done cell, the most memory that its last attempt used: PyTorch's on a CUDA device, or else
            the whole process's; None in older sweeps.
        files: of a done cell, SHA-256 of its files by name; None in older sweeps.
    """

    state: str
    cell: str
    attempts: int
    started_at: float
    updated_at: float
    steps_done: int
    steps_total: int
    host: str
    pid: int
    error: str | None = None
    diverged: bool = False
    warnings: tuple[str, ...] = ()
    earlier_s: float = 0.0
    resumed_from: int = 0
    deaths: tuple[dict[str, Any], ...] = ()
    call: str | None = None
    peak_memory_mib: float | None = None
    files: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        """Done, or failed in a way that another attempt would repeat."""
        return self.state == DONE or (self.state == FAILED and self.diverged)

    def is_settled(self, call: str | None) -> bool:
        """Whether workers of `call` leave the cell: it is final, or has failed under this call or a later one."""
        failed_under = self.call if self.state == FAILED else None
        return self.is_final or (failed_under is not None and call is not None and failed_under >= call)


_KNOWN = {each.name for each in fields(CellStatus)}
_NUMBERS = ("attempts", "started_at", "updated_at", "steps_done", "steps_total", "pid")


def write_status(cell_dir: Path, status: CellStatus) -> None:
    """Write status.json atomically."""
    write_checked_json(cell_dir / STATUS_FILE, asdict(status))


def read_status(cell_dir: Path) -> CellStatus | None:
    """Read status.json; None when the cell was never started. Keys that this version does not know are left out.

    Raises:
        DamagedRecord: the file is not a status; or it is missing where there are records, which another attempt would
            clear away.
    """
    path = cell_dir / STATUS_FILE
    if not path.exists():
        if (cell_dir / RECORDS_FILE).exists():
            raise DamagedRecord(f"{path}: missing, but there are records beside it; {RUN_AGAIN}")
        return None
    values: dict[str, Any] = {k: v for k, v in read_json(path, "a cell status", RUN_AGAIN).items() if k in _KNOWN}
    try:
        status = CellStatus(**values | {k: tuple(values[k]) for k in ("warnings", "deaths") if k in values})
    except TypeError as error:
        raise DamagedRecord(f"{path}: not a cell status ({error}); {RUN_AGAIN}") from error
    if status.state not in WRITTEN_STATES:
        raise DamagedRecord(f"{path}: state {status.state!r}, known are {', '.join(WRITTEN_STATES)}; {RUN_AGAIN}")
    for key in _NUMBERS:
        if not isinstance(value := getattr(status, key), int | float) or not abs(value) < LARGEST_INT:
            raise DamagedRecord(f"{path}: not a cell status ({key} = {value!r:.80} is no number); {RUN_AGAIN}")
    if not isinstance(status.files, dict | None) or not all(isinstance(x, str) for x in (status.files or {}).values()):
        raise DamagedRecord(f"{path}: not a cell status (files = {status.files!r:.80} are no checksums); {RUN_AGAIN}")
    if not isinstance(value := status.peak_memory_mib, int | float | None):
        raise DamagedRecord(f"{path}: not a cell status (peak_memory_mib = {value!r:.80} is no number); {RUN_AGAIN}")
    for key in ("error", "call"):
        if not isinstance(value := getattr(status, key), str | None):
            raise DamagedRecord(f"{path}: not a cell status ({key} = {value!r:.80} is no text); {RUN_AGAIN}")
    return status


@dataclass(frozen=True)
class CellView:
    """One planned cell as its files show it.

    `state` is that of its status, or ``missing`` if it was never started, or ``interrupted`` if it says
    ``running`` but nobody alive works on it; `last` is its last checkpoint record.
    """

    name: str
    state: str
    status: CellStatus | None
    last: dict[str, Any] | None

    @property
    def error(self) -> str:
        """First line of the error, empty without one."""
        return (self.status.error or "").split("\n")[0] if self.status is not None else ""


def cell_view(sweep_dir: Path, name: str) -> CellView:
    """Read one cell's status and last record; a damaged file makes it ``failed`` with the damage as error."""
    cell_dir = sweep_dir / name
    try:
        status = read_status(cell_dir)
        if status is None:
            return CellView(name, MISSING, None, None)
        state = INTERRUPTED if status.state == RUNNING and not is_worked_on(cell_dir, status) else status.state
        # Any other cell may be in the middle of a line, or have stopped there; only a finished one must be whole.
        rows = _read_rows(cell_dir, allow_partial=state != DONE)
        if state == DONE and not rows:
            raise DamagedRecord(f"{cell_dir}: done, but {RECORDS_FILE} is gone; {RUN_AGAIN}")
        return CellView(name, state, status, rows[-1] if rows else None)
    except DamagedRecord as error:
        damaged = CellStatus(FAILED, name, 0, 0.0, 0.0, 0, 0, "", 0, error=str(error))
        return CellView(name, FAILED, damaged, None)


def _read_rows(cell_dir: Path, *, allow_partial: bool) -> list[dict[str, Any]]:
    try:
        return read_records(cell_dir / RECORDS_FILE, allow_partial=allow_partial)
    except FileNotFoundError:  # no checkpoint yet, or another attempt has just cleared them away
        return []


def is_worked_on(cell_dir: Path, status: CellStatus) -> bool:
    """Whether a running cell is claimed by somebody alive.

    In sweeps from before there were claims, whether its process exists; one of another host is believed for ten
    minutes.
    """
    if read_holder(cell_dir) is not None:
        return is_claimed(cell_dir)
    if status.host != socket.gethostname():
        return time.time() - status.updated_at < 600
    try:
        os.kill(status.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
