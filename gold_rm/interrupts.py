"""Signals that ask a process to end, as KeyboardInterrupt, raised where it arrives.

In an import an exception may be caught by a library that tries what it can import, or abort the process in one of
torch's initializers; in a finalizer it is printed and dropped. There, the signal is sent once more a little later.
"""

import os
import signal
import threading
import time
from types import FrameType, TracebackType

_ASK_AGAIN_SECONDS = 0.05
_MOST_SECONDS = 10.0  # to wait for an import's end, as one may never end


class Interrupts:
    """Within, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; those that are ignored, as under nohup, stay so.

    Attributes:
        heard: whether one was raised.
    """

    def __init__(self) -> None:
        self.heard = False
        self._first = float("inf")
        self._again: threading.Timer | None = None

    def __enter__(self) -> "Interrupts":
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.getsignal(number) for number in numbers}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._again is not None:
            self._again.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._first = min(self._first, time.monotonic())
        if _loses_exceptions(frame) and time.monotonic() - self._first < _MOST_SECONDS:
            self._again = threading.Timer(_ASK_AGAIN_SECONDS, os.kill, (os.getpid(), number))
            self._again.daemon = True
            self._again.start()
            return
        self.heard = True
        raise KeyboardInterrupt


def _loses_exceptions(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
