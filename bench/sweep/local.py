"""Workers as processes of this machine: started, watched, replaced when they are killed, and ended with the driver."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench.checked import ConfigError
from bench.records import DEATHS_FILE, WORKERS_DIR

_POLL_SECONDS = 0.1
_SECONDS_TO_STOP = 30.0
# Workers killed this often in a row before they start a cell: they do not fit into memory.
MOST_IDLE_DEATHS = 3
BAD_INPUT = 2
# One thread each: workers are as many as cores, and a cell sets the number of torch's threads itself.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkersKilled(RuntimeError):
    """Workers are killed again and again before they start a cell."""


class LocalWorkers:
    """``python -m bench.worker`` in `count` processes, each in a session of its own: a terminal's signals reach the
    driver only, which passes them on."""

    def __init__(
        self,
        sweep_dir: Path,
        call: str,
        count: int,
        say: Callable[[str], None],
        *,
        devices: Sequence[str] = (),
    ) -> None:
        """
        Args:
            say: told when a worker was killed.
            devices: values of CUDA_VISIBLE_DEVICES, dealt out to the workers in turn; none: all see what there is.
        """
        self._sweep_dir, self._call, self._count, self._say = sweep_dir, call, count, say
        self._devices = devices
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._idle_deaths, self._seen_done = 0, -1

    def run(self, cells_left: Callable[[], int]) -> None:
        """Keep workers running until each has found nothing left to claim.

        Args:
            cells_left: number of cells that still have to be run.
        Raises:
            WorkersKilled: see there.
            ConfigError: a worker refused its input; holds what it said.
        """
        try:
            for slot in range(self._count):
                self._start(slot)
            while self._processes:
                time.sleep(_POLL_SECONDS)
                for slot, process in list(self._processes.items()):
                    if process.poll() is not None:
                        del self._processes[slot]
                        self._ended(slot, process, cells_left)
        finally:
            self._stop_all()

    def _start(self, slot: int) -> None:
        command = [
            sys.executable, "-m", "bench.worker", str(self._sweep_dir), "--call", self._call,
            "--driver-pid", str(os.getpid()),
        ]  # fmt: skip
        environment = {**dict.fromkeys(_THREADS, "1"), **os.environ}
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        # Appended: another driver's worker, or one that was killed, may have something to say there.
        with self._log(slot).open("ab") as log:
            self._processes[slot] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def _log(self, slot: int) -> Path:
        path = self._sweep_dir / WORKERS_DIR / f"{slot}.log"
        path.parent.mkdir(exist_ok=True)
        return path

    def _ended(self, slot: int, process: subprocess.Popen[bytes], cells_left: Callable[[], int]) -> None:
        if process.returncode == BAD_INPUT:
            log = self._log(slot)
            raise ConfigError(last_words(log) or f"a worker refused its input; see {log}")
        if process.returncode >= 0 and process.returncode != 130:
            if process.returncode > 1:
                self._say(f"worker {process.pid} ended with status {process.returncode}; see {self._log(slot)}")
            return
        if process.returncode < 0:
            self._note_death(process.pid, name_of_signal(-process.returncode))
        left = cells_left()
        self._idle_deaths = self._idle_deaths + 1 if left == self._seen_done else 1
        self._seen_done = left
        if self._idle_deaths > MOST_IDLE_DEATHS + self._count:
            raise WorkersKilled(
                f"workers are killed before they finish a cell (for lack of memory?); see {self._log(slot)}"
            )
        if left:
            self._start(slot)

    def _note_death(self, pid: int, name: str) -> None:
        largest = note_death(self._sweep_dir, pid, name)
        self._say(f"worker {pid} was ended by {name} (the largest so far took {largest} MB); its cell goes to another")

    def _stop_all(self) -> None:
        """Ask the workers to stop; kill those that do not within half a minute, or at once on another Ctrl-C."""
        try:
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    process.terminate()
            until = time.monotonic() + _SECONDS_TO_STOP
            for process in self._processes.values():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, until - time.monotonic()))
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
            self._processes = {}


def note_death(sweep_dir: Path, pid: int, name: str) -> int:
    """Note what a worker of this machine, a child of this process, has died of, for who takes its cell over.

    Returns:
        Memory in MB that the largest child so far has taken.
    """
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // unit
    death = {"host": socket.gethostname(), "pid": pid, "signal": name, "largest_worker_mb": largest}
    path = sweep_dir / WORKERS_DIR / DEATHS_FILE
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(death) + "\n")
    return largest


def name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def last_words(log: Path) -> str | None:
    """The last error that workers have written to their log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    return said[-1].removeprefix("error: ") if said else None
