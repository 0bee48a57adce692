"""A worker in the test's own process: what it runs, what it leaves, and what it does not blame a cell for."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from running import prepared_for
from scale_simulation.crowd import foreign_claim

from bench.checked import ConfigError
from bench.claims import STALE_SECONDS, server_time
from bench.data.artifacts import DamagedArtifact
from bench.records import CellStatus, cell_view, read_status, write_status
from bench.sweep.plan import write_plan
from bench.sweep.stopping import StopRequest
from bench.sweep.workers import work


@pytest.fixture
def plan(tiny_world, tmp_path):
    """A function from lists of changed settings to planned cells."""

    def write(*changes, call="1", world=tiny_world):
        cells = [world.cell(tmp_path / "runs", each) for each in changes]
        write_plan(cells[0].sweep_dir, cells, {cell.name: prepared_for(cell) for cell in cells}, ["typed"], call)
        return cells

    return write


def test_a_machine_without_the_device_fails_no_cell(plan):
    (cell,) = plan({})
    with pytest.raises(ConfigError, match=r"device='cuda:99'"):
        work(cell.sweep_dir, StopRequest(), device="cuda:99")
    assert read_status(cell.directory) is None
    assert work(cell.sweep_dir, StopRequest()).done == [cell.name]


def test_a_machine_without_a_key_for_w_and_b_fails_no_cell(plan, monkeypatch, tmp_path):
    (cell,) = plan({"tracking.wandb.mode": "online"})
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no API key"):
        work(cell.sweep_dir, StopRequest())
    assert read_status(cell.directory) is None


@pytest.mark.parametrize("what", ["gone", "another"])
def test_a_machine_without_the_prepared_data_fails_no_cell(plan, tiny_world, tmp_path, what):
    (cell,) = plan({}, world=tiny_world._replace(artifacts=tmp_path / "artifacts"))
    kept = tmp_path / "kept"
    shutil.move(tmp_path / "artifacts" / "preferences", kept)
    if what == "another":
        shutil.copytree(kept, tmp_path / "artifacts" / "preferences")
        (facts,) = (tmp_path / "artifacts" / "preferences").glob("*/facts.json")
        facts.write_text("{}")
    with pytest.raises(DamagedArtifact, match=r"not there, and the sweep|does not match its checksum"):
        work(cell.sweep_dir, StopRequest())
    assert read_status(cell.directory).state == "interrupted"
    assert not list(cell.directory.glob(".claim-*"))
    shutil.rmtree(tmp_path / "artifacts" / "preferences", ignore_errors=True)
    shutil.move(kept, tmp_path / "artifacts" / "preferences")
    assert work(cell.sweep_dir, StopRequest()).done == [cell.name]


def test_workers_of_a_call_run_what_it_asked_for_and_workers_by_hand_run_everything(plan):
    """The first call was interrupted; the second asks for less, and must not do the rest of the first."""
    first, both = plan({"beta": 0.1}, {"beta": 0.2}, call="1")
    (second, _) = plan({"beta": 0.3}, {"beta": 0.2}, call="2")
    assert work(first.sweep_dir, StopRequest(), call="2").done == [both.name, second.name]
    (later,) = plan({"beta": 0.4}, call="3")
    assert work(first.sweep_dir, StopRequest(), call="1", max_cells=1).done == [first.name]
    assert work(first.sweep_dir, StopRequest()).done == [later.name]


def test_cells_that_are_planned_while_a_worker_runs_are_run_by_it(plan):
    (first,) = plan({"beta": 0.1})
    added = []

    def extend(status):
        if not added:
            added.extend(plan({"beta": 0.2}))

    assert work(first.sweep_dir, StopRequest(), report=extend).done == [first.name, added[0].name]


def failed_under(cell, call):
    return CellStatus("failed", cell.name, 1, 0.0, 0.0, 0, 8, "host", 1, error="E", call=call)


def test_a_cell_that_failed_under_a_later_call_is_not_tried_by_an_earlier_one(plan):
    """Two drivers at once would otherwise try it in turns."""
    (cell,) = plan({}, call="2")
    cell.directory.mkdir()
    write_status(cell.directory, failed_under(cell, "2"))
    for call in ("1", "2", None):
        assert work(cell.sweep_dir, StopRequest(), call=call).done == []
    plan({}, call="3")
    assert work(cell.sweep_dir, StopRequest(), call="3").done == [cell.name]


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_cell_that_another_worker_settles_meanwhile_is_left_to_it(plan, monkeypatch, state):
    (cell,) = plan({}, call="1")
    cell.directory.mkdir()

    def settle(directory):
        write_status(directory, replace(failed_under(cell, "1"), state=state))
        return False

    monkeypatch.setattr("bench.sweep.workers.is_claimed", settle)
    told = []
    result = work(cell.sweep_dir, StopRequest(), report=told.append)
    assert (result.done, result.failed, told) == ([], [], [])
    assert read_status(cell.directory).attempts == 1


def test_a_worker_of_a_pool_leaves_the_cell_of_a_killed_sibling_to_the_next_pool(plan):
    """A pool ends with any of its workers: one that took the cell over would be killed on it as well."""
    dead, other = plan({}, {"beta": 0.3})
    dead.directory.mkdir()
    before = server_time(dead.sweep_dir)
    time.sleep(0.05)  # the clock that stamps files ticks every few milliseconds
    claim_and_die = f"import os; from pathlib import Path; from bench.claims import try_claim; \
try_claim(Path({str(dead.directory)!r}), call='1'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", claim_and_die], check=False).returncode == 9
    assert work(dead.sweep_dir, StopRequest(), call="1", pool_since=before).done == [other.name]
    assert read_status(dead.directory) is None
    time.sleep(0.05)
    assert work(dead.sweep_dir, StopRequest(), call="1", pool_since=server_time(dead.sweep_dir)).done == [dead.name]
    assert len(read_status(dead.directory).deaths) == 1


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_worker_whose_clock_is_wrong_leaves_the_living_and_takes_over_from_the_dead(plan, monkeypatch, hours):
    """On other hosts only heartbeats tell them apart; the file server's clock stamps and judges them."""
    living, dead, free = plan({"beta": 0.1}, {"beta": 0.2}, {"beta": 0.3})
    for cell, age in ((living, STALE_SECONDS - 60), (dead, STALE_SECONDS + 60)):
        claim = foreign_claim(cell.directory, age_seconds=age)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600 * hours)
    assert work(dead.sweep_dir, StopRequest()).done == [dead.name, free.name]
    assert [path.name for path in living.directory.iterdir()] == [claim.name], "nothing of it was touched"
    assert not list(dead.directory.glob(".claim-*"))
    assert read_status(dead.directory).deaths[0]["host"] == "another-host"
    assert [cell_view(cell.sweep_dir, cell.name).state for cell in (dead, free)] == ["done", "done"]
