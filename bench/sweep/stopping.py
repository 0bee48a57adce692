"""Asking a process to stop: by signal, by time, or because the driver that started it is gone."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What schedulers send before they take a machine away, and what a person sends.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """True once the process shall stop; asked between steps, so that nothing is left half done.

    Attributes:
        by_signal: whether a signal asked for it, or the end of the driver.
    """

    def __init__(self, *, seconds: float | None = None, driver_pid: int | None = None) -> None:
        """
        Args:
            seconds: from now on.
            driver_pid: parent process whose end is a request to stop.
        """
        self._until = float("inf") if seconds is None else time.monotonic() + seconds
        self._driver_pid = driver_pid
        self.by_signal = False

    def __call__(self) -> bool:
        if self._driver_pid is not None and os.getppid() != self._driver_pid:
            self.by_signal = True
        return self.by_signal or time.monotonic() > self._until

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, signals of `STOP_SIGNALS` set the request; a second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():  # Python allows no other to set handlers
            yield
            return
        heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup, or `&`
        with _handled(heard, self._note):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.by_signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.by_signal = True


@contextmanager
def deaf() -> Iterator[None]:
    """Within, signals of `STOP_SIGNALS` are ignored: another process of the group hears them, and says when to stop."""
    with _handled(STOP_SIGNALS, signal.SIG_IGN):
        yield


@contextmanager
def _handled(numbers: Iterable[signal.Signals], handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
