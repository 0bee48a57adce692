"""One simulated worker: the real one, whose cells write records without training, and which may be killed at a cell."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import bench.cells.folder
import bench.cells.run
from bench.cells.folder import CellFolder
from bench.cells.measure import Checkpoint
from bench.claims import Claim, try_claim
from bench.records import DONE, HELD_OUT_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, CheckpointRecord
from bench.sweep.stopping import StopRequest
from bench.sweep.workers import work

# Python's audit events are its file operations in pure Python. A cell of no work makes some more than this number.
_OPERATIONS_OF_A_CELL = 60
_AUDITED = ("open", "os.")


class Ground(NamedTuple):
    """Where the simulation keeps its notes, apart from the sweep.

    Attributes:
        doomed: by cell, the number of the file operation at which its first worker is killed.
    """

    notes: Path
    doomed: dict[str, int]

    @classmethod
    def make(cls, notes: Path, doomed: dict[str, int]) -> "Ground":
        for name in ("killed", "inside", "costs"):
            (notes / name).mkdir(parents=True)
        return cls(notes, doomed)

    def note(self, kind: str, **what: Any) -> None:
        """One write of one line, which the kernel appends as a whole."""
        with (self.notes / f"{kind}.jsonl").open("ab", buffering=0) as stream:
            stream.write(json.dumps(what).encode() + b"\n")

    def read(self, kind: str) -> list[dict[str, Any]]:
        path = self.notes / f"{kind}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def deadly_operation(draw: Any) -> int:
    """A file operation of a cell, drawn from a `random.Random`."""
    return draw.randint(1, _OPERATIONS_OF_A_CELL)


class _Executioner:
    """Kills this process at the n-th file operation from now, in whatever code that is."""

    def __init__(self) -> None:
        self._left: int | None = None
        sys.addaudithook(self._hear)

    def arm(self, operations: int) -> None:
        self._left = operations

    def disarm(self) -> None:
        self._left = None

    @property
    def is_armed(self) -> bool:
        return self._left is not None

    def _hear(self, event: str, arguments: Any) -> None:
        if self._left is not None and event.startswith(_AUDITED):
            self._left -= 1
            if self._left <= 0:
                self._left = None  # os.kill is one of these operations
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class _Costs:
    """What a worker has spent: processor seconds, and how often it tried to claim."""

    claims: float = 0.0
    cells: float = 0.0
    tries: int = 0
    won: int = 0
    wall_claims: float = 0.0
    started: float = field(default_factory=time.process_time)


def run_worker(sweep_dir: Path, ground: Ground) -> None:
    """Work until nothing is left, in this process, which is a child made for it."""
    costs, executioner = _Costs(), _Executioner()
    bench.cells.folder.try_claim = _timed(try_claim, costs)  # type: ignore[assignment]
    bench.cells.run.CellFolder = _folder_class(ground, executioner, costs)  # type: ignore[misc]
    bench.cells.run._Run = _NoWork  # type: ignore[assignment, misc]
    work(sweep_dir, StopRequest())
    spent = time.process_time() - costs.started
    ground.note(
        "costs", pid=os.getpid(), claims=costs.claims, wall_claims=costs.wall_claims, cells=costs.cells,
        tries=costs.tries, won=costs.won, all=spent,
    )  # fmt: skip


def _timed(claim: Callable[..., Claim | None], costs: _Costs) -> Callable[..., Claim | None]:
    def measured(*arguments: Any, **settings: Any) -> Claim | None:
        cpu, wall = time.thread_time(), time.perf_counter()
        held = claim(*arguments, **settings)
        costs.tries += 1
        if held is not None:
            costs.won += 1
            release = held.release

            def timed_release() -> None:
                cpu, wall = time.thread_time(), time.perf_counter()
                release()
                costs.claims += time.thread_time() - cpu
                costs.wall_claims += time.perf_counter() - wall

            held.release = timed_release  # type: ignore[method-assign]
        costs.claims += time.thread_time() - cpu
        costs.wall_claims += time.perf_counter() - wall
        return held

    return measured


def _folder_class(ground: Ground, executioner: _Executioner, costs: _Costs) -> type[CellFolder]:
    class SimulatedFolder(CellFolder):
        """The real folder, with notes of who is in it, and a worker that is killed at some cells."""

        def __init__(self, cell: Any, **settings: Any) -> None:
            self._entered, self._mark = time.thread_time(), ground.notes / "killed" / cell.name
            if cell.name in ground.doomed and _is_first(self._mark):
                executioner.arm(ground.doomed[cell.name])
            try:
                super().__init__(cell, **settings)
            except BaseException:  # it is another's cell
                self._survive()
                raise

        def _survive(self) -> None:
            if executioner.is_armed:
                executioner.disarm()
                self._mark.unlink()

        def begin(self) -> Any:
            if self.status is not None and self.status.state == DONE:
                ground.note("violations", what=f"{self.cell.name} was begun again after it was finished")
            self._inside = ground.notes / "inside" / self.cell.name
            if not _is_first(self._inside, str(os.getpid())) and _is_running(int(self._inside.read_text() or 0)):
                ground.note("violations", what=f"two workers were in {self.cell.name}")
            self._inside.write_text(str(os.getpid()))
            return super().begin()

        def finish(self) -> None:
            super().finish()
            ground.note("finished", cell=self.cell.name, pid=os.getpid())
            self._inside.unlink()

        def __exit__(self, *error: Any) -> None:
            super().__exit__(*error)
            if executioner.is_armed and self.has_begun:
                ground.note("violations", what=f"{self.cell.name} should have killed its worker")
            self._survive()  # also a cell that another worker had finished since this one looked
            costs.cells += time.thread_time() - self._entered

    return SimulatedFolder


def _is_first(path: Path, text: str = "") -> bool:
    try:
        with path.open("x") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class _NoWork:
    """In the place of training: two checkpoints of two made-up responses each."""

    def __init__(self, folder: CellFolder, *others: Any) -> None:
        self._folder = folder

    def execute(self, point: object) -> None:
        for step in (0, self._folder.cell.config.optim.steps):
            self._folder.add_checkpoint(_checkpoint(self._folder.cell, step))
        self._folder.finish()


def _checkpoint(cell: Any, step: int) -> Checkpoint:
    config = cell.config
    kl = 0.0 if step == 0 else 0.5 / config.beta
    record = CheckpointRecord(
        schema=SCHEMA_VERSION, cell_id=cell.id, sweep=config.sweep, world=config.world.name, method=config.method,
        variant=config.variant, strength=config.strength, seed=config.seed, step=step, loss=config.loss,
        beta=config.beta, lr=config.optim.lr, kl=kl, kl_se=0.1, kl_k1=kl, kl_k1_se=0.1, gold=kl**0.5, gold_se=0.1,
        gold_raw=0.0, win_rate=0.5, win_rate_se=0.1, response_tokens=4.0, eos_rate=1.0, distinct_2=1.0,
        samples_per_prompt=1, wall_s=0.0, config=config.fingerprint, gold_model="none", reference="none",
        preferences="none", git_commit="none", versions={},
    )  # fmt: skip
    row = dict.fromkeys(SAMPLE_COLUMNS, 0.0)
    row |= {"step": step, "sample_id": 0, "prompt": "a", "response": "b", "reference_response": "b", "kl": kl}
    samples = pd.DataFrame([row | {"prompt_id": prompt} for prompt in (0, 1)])
    held_out = pd.DataFrame([{"step": step, "pair": 0, "rho": 0.0}][: int(step > 0)], columns=[*HELD_OUT_COLUMNS])
    return Checkpoint(record, samples, held_out, [])
