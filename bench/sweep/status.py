"""State of a sweep, read from its files alone."""

import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bench.records import RECORDS_FILE, RUN_AGAIN, CellStatus, DamagedRecord, read_records, read_status
from bench.sweep.plan import read_plan

DONE, FAILED, RUNNING, INTERRUPTED, MISSING = "done", "failed", "running", "interrupted", "missing"
_STYLES = {DONE: "green", FAILED: "red", RUNNING: "cyan", INTERRUPTED: "yellow", MISSING: "dim"}


@dataclass(frozen=True)
class CellView:
    """One planned cell as its files show it.

    `state` is that of its status, or ``missing`` if it was never started, or ``interrupted`` if it says
    ``running`` but its process is gone; `last` is its last checkpoint record.
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
        state = INTERRUPTED if status.state == RUNNING and not is_alive(status) else status.state
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


def sweep_views(sweep_dir: Path) -> list[CellView]:
    """Every planned cell of a sweep, in the plan's order."""
    return [cell_view(sweep_dir, row["cell"]) for row in read_plan(sweep_dir)["cells"]]


def is_alive(status: CellStatus) -> bool:
    """Whether the process of a running cell exists; that of another host is believed for ten minutes."""
    if status.host != socket.gethostname():
        return time.time() - status.updated_at < 600
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def seconds_left(views: Sequence[CellView], workers: int | None = None) -> float | None:
    """Mean duration of the finished cells × cells to go / cells side by side; None before the first is done."""
    durations = [v.status.updated_at - v.status.started_at for v in views if v.status and v.state == DONE]
    if not durations:
        return None
    states = Counter(view.state for view in views)
    to_go = states[RUNNING] / 2 + states[MISSING] + states[INTERRUPTED]
    return sum(durations) / len(durations) * to_go / max(1, workers or states[RUNNING])


def format_seconds(seconds: float | None) -> str:
    """Such as ``1:05`` or ``2:03:04``; ``–`` for None."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_measurement(record: dict[str, Any] | None) -> tuple[str, str]:
    """KL and gold of a record with their standard errors."""
    if record is None:
        return "", ""
    return (
        f"{record['kl']:.2f} ± {record['kl_se']:.2f}",
        f"{record['gold']:+.2f} ± {record['gold_se']:.2f}",
    )


def status_table(views: Sequence[CellView]) -> Table:
    """One row per cell."""
    table = Table("cell", "state", "step", "KL (nats)", "gold (SD)", "time", "error or warning", box=None)
    for view in views:
        status = view.status
        kl, gold = format_measurement(view.last)
        steps = f"{status.steps_done}/{status.steps_total}" if status else ""
        took = format_seconds(status.updated_at - status.started_at) if status else ""
        note = view.error or ("; ".join(status.warnings) if status else "")
        style = _STYLES[view.state]
        table.add_row(escape(view.name), f"[{style}]{view.state}[/]", steps, kl, gold, took, escape(note))
    return table


def summary_line(views: Sequence[CellView]) -> str:
    """Counts per state and the time left."""
    states = Counter(view.state for view in views)
    counts = ", ".join(f"{states[state]} {state}" for state in _STYLES if states[state])
    left = seconds_left(views)
    unfinished = len(views) - states[DONE] - states[FAILED]
    return f"{len(views)} cells: {counts}" + (f"; {format_seconds(left)} left" if unfinished and left else "")
