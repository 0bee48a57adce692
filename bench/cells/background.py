"""Calls that somebody else may never answer: made on a thread of their own, and waited for as long as one likes."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Background:
    """Makes calls one after the other on a daemon thread, which holds up neither its caller nor the process's end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, action: Callable[[], object]) -> None:
        """Make a call once those before it have ended; it must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._calls.put(action)

    def wait(self, seconds: float) -> bool:
        """Whether all calls so far have ended, within so many seconds."""
        ended = threading.Event()
        self.call(ended.set)
        return ended.wait(seconds)

    def _work(self) -> None:
        while True:
            self._calls.get()()
