"""Workers that die: the rest runs on, suspects run alone, and only the one that dies again has failed.

`FakePool` does to the cells' files what joblib's pool does: its workers run two cells side by side, and when one
is killed the pool is lost with every cell in it.
"""

import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest

from bench.records import CellStatus, read_status, write_status
from bench.sweep.plan import PlannedCell
from bench.sweep.supervise import MOST_IDLE_DEATHS, supervise

DEAD = 2**22 + 1  # above the largest process id


class FakePool:
    """A launcher whose `killers` lose their worker: the number of times, by cell."""

    def __init__(self, killers: dict[str, int], *, failing: Sequence[str] = (), idle_deaths: int = 0) -> None:
        self.killers = dict(killers)
        self.failing = failing
        self.idle_deaths = idle_deaths
        self.calls: list[list[str]] = []

    def __call__(self, cells: Sequence[PlannedCell]) -> None:
        self.calls.append([cell.config.loss for cell in cells])
        if self.idle_deaths:
            self.idle_deaths -= 1
            raise BrokenProcessPool
        for pair in (cells[i : i + 2] for i in range(0, len(cells), 2)):
            for cell in pair:
                self._start(cell)
            if any(self._kills(cell) for cell in pair):
                raise BrokenProcessPool
            for cell in pair:
                state = "failed" if cell.config.loss in self.failing else "done"
                write_status(cell.directory, replace(read_status(cell.directory), state=state, updated_at=time.time()))

    def _start(self, cell: PlannedCell) -> None:
        cell.directory.mkdir(parents=True, exist_ok=True)
        earlier = read_status(cell.directory)
        attempts, now = (earlier.attempts if earlier else 0) + 1, time.time()
        write_status(
            cell.directory, CellStatus("running", cell.name, attempts, now, now, 0, 8, socket.gethostname(), DEAD)
        )

    def _kills(self, cell: PlannedCell) -> bool:
        left = self.killers.get(cell.config.loss, 0)
        self.killers[cell.config.loss] = left - 1
        return left > 0


LOSSES = ("logistic", "squared", "hinge", "exponential", "savage")


@pytest.fixture
def cells(tiny_world, tmp_path):
    return [tiny_world.cell(tmp_path, {"loss": loss}) for loss in LOSSES]


def outcome(cells):
    statuses = {cell.config.loss: read_status(cell.directory) for cell in cells}
    return {loss: (status.state, status.attempts) for loss, status in statuses.items()}


def test_without_deaths_there_is_one_launch(cells):
    supervise(cells, pool := FakePool({}))
    assert pool.calls == [list(LOSSES)]
    assert set(outcome(cells).values()) == {("done", 1)}


def test_one_death_costs_a_second_attempt_of_the_cells_that_were_running(cells):
    supervise(cells, pool := FakePool({"hinge": 1}))
    assert pool.calls == [list(LOSSES), ["savage"], ["hinge"], ["exponential"]]
    once, twice = ("done", 1), ("done", 2)
    assert outcome(cells) == dict(zip(LOSSES, (once, once, twice, twice, once), strict=True))


def test_a_cell_that_always_kills_its_worker_fails_alone(cells):
    supervise(cells, FakePool({"squared": 99}))
    assert outcome(cells) == {
        "logistic": ("done", 2), "squared": ("failed", 2), "hinge": ("done", 1), "exponential": ("done", 1),
        "savage": ("done", 1),
    }  # fmt: skip
    killed = read_status(cells[1].directory)
    assert killed.error.startswith("its worker was killed, and again when the cell ran alone")
    assert not killed.is_final, "with more memory, the next call may have better luck"


def test_several_killers(cells):
    supervise(cells, FakePool({"logistic": 99, "savage": 99, "hinge": 1}))
    assert {loss for loss, (state, _) in outcome(cells).items() if state == "failed"} == {"logistic", "savage"}


def test_a_cell_that_failed_by_itself_is_not_tried_again_because_of_anothers_death(cells):
    supervise(cells, FakePool({"hinge": 1}, failing=["logistic"]))
    assert outcome(cells)["logistic"] == ("failed", 1)


def test_workers_that_die_before_they_start_a_cell_are_given_a_few_more_chances(cells):
    supervise(cells, FakePool({}, idle_deaths=MOST_IDLE_DEATHS - 1))
    assert set(outcome(cells).values()) == {("done", 1)}


def test_workers_that_always_die_before_they_start_a_cell_end_the_sweep(cells):
    pool = FakePool({}, idle_deaths=99)
    with pytest.raises(BrokenProcessPool):
        supervise(cells, pool)
    assert len(pool.calls) == MOST_IDLE_DEATHS


def test_a_worker_that_dies_after_its_cell_is_done_fails_nothing(cells):
    pool = FakePool({"hinge": 1})

    def dies_late(batch):
        pool(batch)
        if len(batch) == 1:
            raise BrokenProcessPool

    supervise(cells, dies_late)
    assert {state for state, _ in outcome(cells).values()} == {"done"}


def test_a_failure_from_before_this_call_is_tried_again(cells):
    for cell in cells:
        cell.directory.mkdir(parents=True)
        long_ago = time.time() - 3600
        write_status(cell.directory, CellStatus("failed", cell.name, 1, long_ago, long_ago, 0, 8, "h", os.getpid()))
    supervise(cells, FakePool({"logistic": 1}))
    assert {state for state, _ in outcome(cells).values()} == {"done"}
