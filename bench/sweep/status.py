"""State of a sweep, read from its files alone."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.records import DONE, FAILED, INTERRUPTED, MISSING, RUNNING, CellStatus, CellView, cell_view, read_plan

_STYLES = {DONE: "green", FAILED: "red", RUNNING: "cyan", INTERRUPTED: "yellow", MISSING: "dim"}
_HEADINGS = ("cell", "state", "step", "KL (nats)", "gold (SD)", "time", "error or warning")
MOST_IN_TABLE = 500


def sweep_views(sweep_dir: Path) -> list[CellView]:
    """Every planned cell of a sweep, in the plan's order."""
    return [cell_view(sweep_dir, row["cell"]) for row in read_plan(sweep_dir)["cells"]]


def times_line(views: Sequence[CellView], preparing_s: float, running_s: float) -> str:
    """What a call took, and its finished cells: their median and quartiles."""
    line = f"preparing {format_seconds(preparing_s)}, cells {format_seconds(running_s)}"
    durations = [_duration(view.status) for view in views if view.status and view.state == DONE]
    if not durations:
        return line
    lower, middle, upper = quantiles(durations, n=4, method="inclusive") if len(durations) > 1 else durations * 3
    return f"{line}; a cell {middle:.1f} s (quartiles {lower:.1f} to {upper:.1f})"


def _duration(status: CellStatus) -> float:
    return status.updated_at - status.started_at


def seconds_left(views: Sequence[CellView], workers: int | None = None) -> float | None:
    """Mean duration of the finished cells × cells to go / cells side by side; None before the first is done."""
    durations = [_duration(view.status) for view in views if view.status and view.state == DONE]
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


def print_status(views: Sequence[CellView], console: Console) -> None:
    """One row per cell: a table, or for more than `MOST_IN_TABLE` cells plain lines, which take a tenth of the time."""
    if len(views) <= MOST_IN_TABLE:
        console.print(status_table(views))
    else:
        console.out("\n".join(plain_lines(views)), highlight=False)


def status_table(views: Sequence[CellView]) -> Table:
    """One row per cell, for a console without markup."""
    table = Table(*_HEADINGS, box=None)
    for view in views:
        name, state, *others = _row(view)
        table.add_row(name, Text(state, style=_STYLES[view.state]), *others)
    return table


def plain_lines(views: Sequence[CellView]) -> list[str]:
    """The same in columns, neither colored nor folded to a width."""
    rows = [_HEADINGS, *map(_row, views)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(view: CellView) -> tuple[str, ...]:
    status = view.status
    kl, gold = format_measurement(view.last)
    steps = f"{status.steps_done}/{status.steps_total}" if status else ""
    took = format_seconds(_duration(status)) if status else ""
    note = view.error or ("; ".join(status.warnings) if status else "")
    return view.name, view.state, steps, kl, gold, took, note


def summary_line(views: Sequence[CellView]) -> str:
    """Counts per state and the time left."""
    states = Counter(view.state for view in views)
    counts = ", ".join(f"{states[state]} {state}" for state in _STYLES if states[state])
    left = seconds_left(views)
    unfinished = len(views) - states[DONE] - states[FAILED]
    return f"{len(views)} cells: {counts}" + (f"; {format_seconds(left)} left" if unfinished and left else "")
