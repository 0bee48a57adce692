"""Many workers as processes: started, replaced when they are killed, and what others' claims do beside them."""

import gc
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.claims import STALE_SECONDS, Holder

_FORK = get_context("fork")  # 200 processes that import torch for themselves would take 60 GB
_BEAT_SECONDS = 20.0


def run_crowd(target: Callable[..., None], arguments: Sequence[Any], workers: int) -> set[int]:
    """Run `target` in so many processes, replacing those that are killed, until all have ended.

    Returns:
        Ids of the processes that were killed.
    Raises:
        RuntimeError: one ended in another way.
    """
    gc.freeze()  # or every child's first collection would copy all pages that it shares with this process
    killed: set[int] = set()
    running: dict[Any, Any] = {}

    def start() -> None:
        process = _FORK.Process(target=target, args=arguments)
        process.start()
        running[process.sentinel] = process

    try:
        for _ in range(workers):
            start()
        while running:
            for sentinel in wait(list(running)):
                process = running.pop(sentinel)
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    killed.add(process.pid)
                    start()
                elif process.exitcode != 0:
                    raise RuntimeError(f"worker {process.pid} ended with status {process.exitcode}")
    finally:
        for process in running.values():
            process.kill()
            process.join()
    return killed


def run_once(target: Callable[..., None], *arguments: Any) -> None:
    """Run `target` in a child, so that the threads that it starts are not in the process that forks workers."""
    run_crowd(target, arguments, 1)


def foreign_claim(cell_dir: Path, *, age_seconds: float) -> Path:
    """A claim as a worker of another host leaves it, last touched `age_seconds` ago; returns the file."""
    cell_dir.mkdir(parents=True)
    holder = Holder("another-host", 4242, 1, None, None, None, f"{random.getrandbits(64):x}", 1, boot="other")
    path = cell_dir / ".claim-000001"
    path.write_bytes(holder.to_json())
    at = time.time() - age_seconds
    os.utime(path, (at, at))
    return path


def let_die(claims: Sequence[Path]) -> None:
    """Make claims look as if their owners had died."""
    at = time.time() - STALE_SECONDS - 1
    for path in claims:
        os.utime(path, (at, at))


@contextmanager
def beating(claims: Sequence[Path]) -> Any:
    """Touch claims from a child process, as their owners would."""

    def beat() -> None:
        while True:
            for path in claims:
                os.utime(path)
            time.sleep(_BEAT_SECONDS)

    process = _FORK.Process(target=beat, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
