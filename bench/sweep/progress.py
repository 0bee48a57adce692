"""What the terminal shows while a sweep runs: finished cells as lines, the rest as one bar."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.records import DONE, FAILED, RUNNING, CellView, cell_view
from bench.sweep.status import format_measurement, format_seconds, seconds_left

_POLL_SECONDS = 0.5


class SweepProgress:
    """Follows the files of a sweep's cells from a thread of its own, whatever launcher runs them."""

    def __init__(self, sweep_dir: Path, pending: Sequence[str], *, total: int, workers: int, console: Console) -> None:
        self._sweep_dir = sweep_dir
        self._pending = list(pending)
        # Not the time of day: the clocks of the machines that write statuses may be wrong.
        self._before = {name: cell_view(sweep_dir, name).status for name in pending}
        self._views: dict[str, CellView] = {}
        self._total = total
        self._workers = workers
        self._console = console
        self._bar = Progress(
            BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False),
            console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total, completed=total - len(pending))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "SweepProgress":
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._update()
        self._bar.stop()

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._update()

    def _update(self) -> None:
        for name in list(self._pending):
            view = self._views[name] = cell_view(self._sweep_dir, name)
            # A failure that was there before this call is about to be tried again.
            if view.state in (DONE, FAILED) and view.status != self._before[name]:
                self._pending.remove(name)
                self._report(view)
        running = [view for view in self._views.values() if view.state == RUNNING]
        parts = [f"{self._time_left()} left", *(_running_text(view) for view in running)]
        completed = self._total - len(self._pending)
        self._bar.update(self._task, completed=completed, description="  ·  ".join(parts))

    def _report(self, view: CellView) -> None:
        assert view.status is not None
        count = f"{self._total - len(self._pending):>{len(str(self._total))}}/{self._total}"
        if view.state == FAILED:
            text, style = f"{count}  {view.name}  FAILED: {view.error}", "red"
        else:
            kl, gold = format_measurement(view.last)
            took = view.status.updated_at - view.status.started_at
            style = ""
            text = f"{count}  {view.name}  KL {kl}  gold {gold}  {took:.1f} s  ({self._time_left()} left)"
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def _time_left(self) -> str:
        return format_seconds(seconds_left(list(self._views.values()), self._workers))


def _running_text(view: CellView) -> str:
    step = f"{view.status.steps_done}/{view.status.steps_total}" if view.status else ""
    kl, gold = format_measurement(view.last)
    return f"{view.name} step {step} KL {kl} gold {gold}"


def progress_to(console: Console) -> Callable[[str], None]:
    """Says what is being done."""
    return lambda message: console.print(message, highlight=False, markup=False, soft_wrap=True)


def warnings_to(console: Console) -> Callable[[str], None]:
    """Says what is not as it should be."""
    return lambda message: console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)
