"""Which cells a worker looks at, and in which order."""

import os
from types import SimpleNamespace

import pytest

from bench.records import PLAN_FILE
from bench.sweep.plan import PlannedJobs
from bench.sweep.queue import CellQueue


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A function that plans cells of these names under a call; `reads` counts how often the plan was read."""
    plan = {"names": [], "call": "", "reads": 0}

    def read_planned(sweep_dir, call, *, to_run):
        plan["reads"] += 1
        return PlannedJobs(sweep_dir, list(plan["names"]), plan["call"], {}, {}, {}, {})

    def write(*names, call="1"):
        plan.update(names=names, call=call)
        (tmp_path / "new").write_text("as long as before")
        os.replace(tmp_path / "new", tmp_path / PLAN_FILE)
        return plan

    monkeypatch.setattr("bench.sweep.queue.read_planned", read_planned)
    return write


def round_of(queue):
    return list(queue)


def test_the_plan_is_read_when_it_has_changed(planned, tmp_path):
    plan = planned("a", "b")
    queue = CellQueue(tmp_path, None)
    for _ in range(3):
        queue.refresh()
    assert (plan["reads"], queue.call, round_of(queue)) == (1, "1", ["a", "b"])
    planned("a", "b", "c", call="2")
    queue.refresh()
    assert (plan["reads"], queue.call, sorted(round_of(queue))) == (2, "2", ["a", "b", "c"])


def test_a_driver_s_call_stays_that_of_its_workers(planned, tmp_path):
    planned("a", call="2")
    queue = CellQueue(tmp_path, "1")
    queue.refresh()
    assert queue.call == "1"


def test_what_is_settled_is_left_out_until_there_is_another_plan(planned, tmp_path):
    planned("a", "b", "c")
    queue = CellQueue(tmp_path, None)
    queue.refresh()
    for name in queue:
        if name != "b":
            queue.settle(name)
    queue.refresh()
    assert round_of(queue) == ["b"]
    planned("a", "b", "c", call="2")  # what failed under the first call is to be tried again
    queue.refresh()
    assert sorted(round_of(queue)) == ["a", "b", "c"]


def test_a_round_goes_on_where_the_last_one_was_left(planned, tmp_path):
    planned("a", "b", "c", "d")
    queue = CellQueue(tmp_path, None)
    queue.refresh()
    taken = iter(queue)
    assert [next(taken), next(taken)] == ["a", "b"]
    assert round_of(queue) == ["c", "d", "a", "b"]


def test_cells_that_others_were_faster_to_claim_shorten_no_round(planned, tmp_path):
    """A round that missed a cell would end a worker while there is work."""
    names = [f"{number:03}" for number in range(300)]
    planned(*names)
    queue = CellQueue(tmp_path, None)
    queue.refresh()
    seen = []
    for name in queue:
        seen.append(name)
        queue.lost()
    assert sorted(seen) == names
    assert seen[:1] == names[:1]


def test_workers_that_lose_every_race_spread_out(planned, tmp_path):
    """Eight losses in a row, one by one, would leave every worker at the ninth cell."""
    planned(*map(str, range(1000)))
    ninth = []
    for _ in range(200):
        queue = CellQueue(tmp_path, None)
        queue.refresh()
        for place, name in enumerate(queue):
            if place == 8:
                ninth.append(int(name))
                break
            queue.lost()
    assert min(ninth) >= 8
    assert len(set(ninth)) > 80  # the sum of draws below 2, 4, ..., 256: about 150 different ones of 200


def test_the_back_off_doubles_up_to_a_limit_and_ends_with_a_race_that_is_won(planned, tmp_path):
    planned("a")
    queue = CellQueue(tmp_path, None)
    below = []
    queue._draw = SimpleNamespace(randrange=lambda limit: below.append(limit) or 0)
    for _ in range(14):
        queue.lost()
    queue.won()
    queue.lost()
    assert below == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096, 2]
