"""What the faults are tried on: a finished sweep of eight cells, and its records as an undisturbed run writes them."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import find_processes
from sweep_process import ROOT, without_times
from tiny_world import TinyWorld, write_tiny_world

CHANGES = {"optim.steps": 40, "sweep": "t", "workers": 2}
GRID = ("loss=logistic,squared", "beta=0.1,1", "seed=0,1")
CELLS = 8
TIMEOUT = 120


@dataclass
class Tally:
    """Faults of one kind: how many were tried, and a sentence on each that was not survived."""

    kind: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    skipped: str = ""

    def count(self, fault: str, problem: str | None) -> None:
        """Count one fault; `problem` says what was lost by it."""
        self.tried += 1
        if problem:
            self.lost.append(f"{fault}: {problem}")


@dataclass(frozen=True)
class Ground:
    """A world, and the records that its sweep has when nothing happens to it."""

    root: Path
    world: TinyWorld
    records: dict[str, list[dict]]

    def arguments(self, runs: Path) -> list[str]:
        """Of ``python -m bench.train``."""
        return ["-m", *self.world.overrides(runs, CHANGES), *GRID]

    def start(
        self, runs: Path, prepare: Callable[[], None] = lambda: None, *, extra: Sequence[str] = (), **settings
    ) -> subprocess.Popen[str]:
        """Start the sweep below `runs`.

        Args:
            prepare: called in the child before Python starts, to take things away from it.
            extra: further arguments.
        """
        return subprocess.Popen(
            [sys.executable, "-m", "bench.train", *self.arguments(runs), *extra], cwd=ROOT, text=True,
            env={**os.environ, "GPO_FAULT": str(runs), "OMP_NUM_THREADS": "1", **settings.pop("env", {})},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=prepare, **settings,
        )  # fmt: skip

    def difference(self, runs: Path) -> str | None:
        """What the sweep's records have that an undisturbed one's have not, or the other way round."""
        there = read_measurements(runs / "t")
        if there.keys() != self.records.keys():
            return f"{len(there)} of {len(self.records)} cells have records"
        changed = [name for name, rows in there.items() if rows != self.records[name]]
        return f"other records in {len(changed)} cells, such as {changed[0]}" if changed else None

    def recovers(self, runs: Path) -> str | None:
        """Start again with nothing in the way; what is wrong then."""
        output, _ = (process := self.start(runs)).communicate(timeout=TIMEOUT)
        if process.returncode:
            return f"afterwards, status {process.returncode}: {last_line(output)}"
        return self.difference(runs)


def read_measurements(sweep_dir: Path) -> dict[str, list[dict]]:
    """The records of every cell, without times and without the commit, which may change while this runs."""
    cells = [path.parent for path in sweep_dir.glob("*/records.jsonl")]
    return {
        cell.name: [{key: value for key, value in row.items() if key != "git_commit"} for row in without_times(cell)]
        for cell in cells
    }


def last_line(output: str) -> str:
    """The last line of what a command has said."""
    lines = output.strip().splitlines()
    return lines[-1] if lines else "nothing"


def end(process: subprocess.Popen[str], seconds: float = TIMEOUT) -> tuple[str, str | None]:
    """Wait for a command; what it said, and what is wrong with the way it ended."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0], f"still running after {seconds:g} s"
    return output, f"a traceback: {last_line(output)}" if "Traceback (most" in output else None


def limit(what: int, value: int) -> Callable[[], None]:
    """A function for a child to limit itself with."""
    return lambda: resource.setrlimit(what, (value, value))


def processes_of(runs: Path) -> list[int]:
    """Everything that works on the sweep below `runs`."""
    return find_processes("python", environment=f"GPO_FAULT={runs}")


def make_ground(root: Path) -> Ground:
    """Write the world, run its sweep undisturbed, and keep the records."""
    ground = Ground(root, write_tiny_world(root / "world"), {})
    output, problem = end(ground.start(root / "undisturbed"))
    ground.records.update(read_measurements(root / "undisturbed" / "t"))
    assert (problem, len(ground.records)) == (None, CELLS), output
    return ground


def copy_of(ground: Ground, name: str, parts: Sequence[str] = ("undisturbed", "world")) -> Path:
    """A fresh copy of parts of the ground, in a directory of its own."""
    target = ground.root / name
    shutil.rmtree(target, ignore_errors=True)
    for part in parts:
        shutil.copytree(ground.root / part, target / part)
    return target
