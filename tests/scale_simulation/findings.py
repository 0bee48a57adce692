"""What a simulation has left: whether anything is lost, what it cost, and how long commands take on it."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from bench.records import DONE, read_status
from scale_simulation.worker import Ground

ROOT = Path(__file__).resolve().parents[2]


def lost_cells(sweep_dir: Path, names: Sequence[str], ground: Ground, killed: Collection[int]) -> list[str]:
    """A sentence for every cell that is not finished, or was finished other than once."""
    problems = [each["what"] for each in ground.read("violations")]
    finished = Counter(each["cell"] for each in ground.read("finished"))
    for name in names:
        status = read_status(sweep_dir / name)
        if status is None or status.state != DONE:
            problems.append(f"{name} is lost: {'never begun' if status is None else f'{status.state} {status.error}'}")
        # A worker that was killed after the cell's end and before its note of it has finished the cell, too.
        elif finished[name] != 1 and not (finished[name] == 0 and status.pid in killed):
            problems.append(f"{name} was finished {finished[name]} times")
    return problems


def cost_lines(ground: Ground, took: float, workers: int, killed: int) -> list[str]:
    """What the workers that lived to their end have spent."""
    costs = ground.read("costs")
    finished = len(ground.read("finished"))
    won, tries = (sum(each[key] for each in costs) for key in ("won", "tries"))

    def per_cell(key: str) -> float:
        return 1000 * sum(each[key] for each in costs) / max(1, won)

    scanning = per_cell("all") - per_cell("cells")
    return [
        f"workers: {workers}, {killed} of them killed and replaced; {finished} cells in {took:.0f} s, "
        f"{finished / took:.1f} claims per second",
        f"processor time per cell: {per_cell('all'):.1f} ms, of which claim and release {per_cell('claims'):.2f} ms, "
        f"the cell's folder {per_cell('cells') - per_cell('claims'):.1f} ms, finding it {scanning:.1f} ms",
        f"tries per claim: {tries / max(1, won):.2f}; a claim takes {per_cell('wall_claims'):.1f} ms of the clock",
    ]


def totals(sweep_dir: Path, cells: int) -> list[str]:
    """Files and bytes per cell, as they lie there."""
    found = [path.lstat() for folder, _, files in os.walk(sweep_dir) for path in (Path(folder) / f for f in files)]
    size, blocks = sum(each.st_size for each in found), sum(512 * each.st_blocks for each in found)
    plan = (sweep_dir / "plan.json").stat().st_size
    return [
        f"files: {len(found)}, {len(found) / cells:.2f} per cell; {size / 1e6:.0f} MB, on disk {blocks / 1e6:.0f} MB; "
        f"plan.json {plan / 1e6:.1f} MB"
    ]


def time_commands(sweep_dir: Path, overrides: Sequence[str]) -> list[str]:
    """Seconds that commands take on the finished sweep."""
    load = f"from analysis.data.load import load_sweep; print(len(load_sweep({str(sweep_dir)!r}).checkpoints))"
    commands = {
        "python -m bench.status": ["-m", "bench.status", str(sweep_dir)],
        "python -m bench.train -m, nothing to do": ["-m", "bench.train", *overrides],
        "reading the sweep for a report": ["-c", load],
    }
    return [f"{name}: {_seconds(command):.1f} s" for name, command in commands.items()]


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"{command[:3]} ended with status {ran.returncode}: {ran.stderr or ran.stdout}"[-2000:])
    return time.perf_counter() - started
