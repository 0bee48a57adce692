"""A sweep through the real command line, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import find_processes

from bench.records import RECORDS_FILE, read_status

ROOT = Path(__file__).resolve().parents[1]
LOSSES, BETAS = ("logistic", "squared"), ("0.1", "1e0", "1")  # the last two are one β


class SweepProcess:
    """``python -m bench.train -m`` on the tiny world, in a process group of its own."""

    def __init__(self, world, runs: Path, *extra: str) -> None:
        arguments = [
            *world.overrides(runs, {"optim.steps": 40}), f"loss={','.join(LOSSES)}", f"beta={','.join(BETAS)}",
            "seed=0,1", "sweep=t", "workers=2", *extra,
        ]  # fmt: skip
        self.directory = runs / "t"
        self.mark = f"GPO_TEST={runs}"
        self.process = start("bench.train", "-m", *arguments, mark=self.mark)

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=240)
        return output

    def wait_for(self, state: str, *, count: int = 1) -> list[Path]:
        """Wait until `count` cells are in `state`; returns their directories."""
        deadline = time.time() + 240
        while time.time() < deadline and self.process.poll() is None:
            found = [path.parent for path in self.directory.glob("*/status.json") if state_of(path.parent) == state]
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"never {count} cells {state}; status {self.process.poll()}: {self.finish()}")

    def left_over(self, *, within: float = 20.0) -> list[int]:
        """Processes of the sweep that are still there after so many seconds."""
        deadline = time.time() + within
        while (left := find_processes("python", environment=self.mark)) and time.time() < deadline:
            time.sleep(0.1)
        return left


def _listen() -> None:
    """Where the tests run in the background of a shell, or under nohup, these are ignored, also by what they start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(module: str, *arguments: str, mark: str) -> subprocess.Popen[str]:
    """Start a command of ours in a session of its own; `mark` (NAME=VALUE) is in its environment and its children's."""
    name, _, value = mark.partition("=")
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, text=True,
        env={**os.environ, name: value, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=_listen,
    )  # fmt: skip


def state_of(cell_dir: Path) -> str | None:
    status = read_status(cell_dir)
    return None if status is None else status.state


def stamps(cell_dirs) -> dict[str, int]:
    return {path.name: (path / RECORDS_FILE).stat().st_mtime_ns for path in cell_dirs}


def without_times(cell_dir: Path) -> list[dict]:
    lines = (cell_dir / RECORDS_FILE).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "wall_s"} for line in lines]


def wait_for(what, *, seconds=180):
    """What `what()` returns, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "never"
        time.sleep(0.1)
    return found


def cells_in(directory, state):
    """Directories of a sweep's cells in this state."""
    return [path.parent for path in sorted(directory.glob("*/status.json")) if state_of(path.parent) == state]
