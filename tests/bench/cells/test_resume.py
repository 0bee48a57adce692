"""A cell that was stopped anywhere goes on to the records of one that was not, bit for bit."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from running import prepared_for, run
from safetensors import safe_open
from tiny_world import write_gold

import bench.cells.folder
from bench import records
from bench.cells.resume import ResumePoint, read_resume_point, write_resume_point
from bench.cells.run import Stopped
from bench.claims import ClaimLost
from bench.records import DamagedRecord

STEPS = 8
ALWAYS = {"resume.every": 1}


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    def make(sweep="default", **changes):
        return tiny_world.cell(tmp_path / "runs", {"sweep": sweep, "evaluation.checkpoints": 3, **changes})

    return make


def left_by(cell):
    """What a cell has recorded, without what is about this run of it."""
    without = ("wall_s", "sweep", "cell_id")
    rows = records.read_records(cell.directory / "records.jsonl")
    plain = [{key: value for key, value in row.items() if key not in without} for row in rows]
    names = ("samples.parquet", "held_out.parquet", "training.jsonl")
    return plain, {name: (cell.directory / name).read_bytes() for name in names}


def assert_same(one, other):
    (rows, files), (other_rows, other_files) = left_by(one), left_by(other)
    assert rows == other_rows
    assert [name for name in files if files[name] != other_files[name]] == []


def stop_after(calls):
    """A request to stop that comes with the call number `calls` (one call before each step)."""
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > calls

    return stop


@pytest.fixture(scope="module")
def smooth(tiny_world, tmp_path_factory):
    """A cell that nothing has interrupted."""
    cell = tiny_world.cell(tmp_path_factory.mktemp("smooth"), {"sweep": "smooth", "evaluation.checkpoints": 3})
    assert run(cell).state == "done"
    return cell


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 7])
def test_a_cell_that_was_asked_to_stop_goes_on_where_it_was(make_cell, smooth, step):
    """Before the first step, at a checkpoint, and between two."""
    cell = make_cell(f"stopped-{step}")
    with pytest.raises(Stopped):
        run(cell, stop=stop_after(step))
    status = records.read_status(cell.directory)
    assert (status.state, status.attempts) == ("interrupted", 1)
    seen = []
    status = run(cell, seen.append)
    assert (status.state, status.attempts, status.resumed_from) == ("done", 2, step)
    assert all(record.step >= step for record in seen), "nothing is measured twice"
    assert_same(cell, smooth)
    assert not (cell.directory / "resume").exists()


def test_a_cell_that_is_stopped_again_and_again_ends_all_the_same(make_cell, smooth):
    cell = make_cell("often")
    for _ in range(STEPS - 1):
        with pytest.raises(Stopped):
            run(cell, stop=stop_after(1))
    status = run(cell)
    assert (status.state, status.attempts, status.resumed_from) == ("done", STEPS, STEPS - 1)
    assert_same(cell, smooth)


class Killed(BaseException):
    """What no handler catches: as SIGKILL would, it ends the attempt where it is."""


@pytest.mark.parametrize("name", ["append_record", "append_steps", "write_status", "write_atomically"])
@pytest.mark.parametrize("call", [1, 4, 9])
def test_a_cell_that_was_killed_in_a_write_goes_on_from_its_last_resume_point(
    make_cell, smooth, monkeypatch, name, call
):
    """Records, steps and samples that were written after the resume point are taken back and made again."""
    cell, calls = make_cell(f"killed-{name}-{call}", **ALWAYS), []
    write = getattr(bench.cells.folder, name)

    def kill(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == call:
            raise Killed
        return write(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(bench.cells.folder, name, kill)
        try:
            run(cell)
        except Killed:
            assert len(calls) >= call
    assert run(cell).state == "done"
    assert_same(cell, smooth)


@pytest.mark.parametrize("at", [4, 8])
def test_a_cell_that_was_killed_in_an_evaluation_measures_it_again(make_cell, smooth, monkeypatch, at):
    cell = make_cell(f"evaluation-{at}", **ALWAYS)

    def kill(record):
        if record.step == at:
            raise Killed

    with pytest.raises(Killed):
        run(cell, kill)
    with (cell.directory / "records.jsonl").open("a") as stream:
        stream.write('{"schema": 1, "cell_id": "half a li')  # as a kill in the middle of a write leaves it
    assert run(cell).state == "done"
    assert_same(cell, smooth)


@pytest.mark.parametrize("damage", ["state", "samples", "held_out", "training", "records"])
def test_a_resume_point_without_what_it_stands_on_is_not_taken_up(make_cell, smooth, damage):
    cell = make_cell(f"damaged-{damage}")
    with pytest.raises(Stopped):
        run(cell, stop=stop_after(3))
    path = {"state": "resume/state.safetensors", "samples": "samples.parquet", "training": "training.jsonl",
            "records": "records.jsonl", "held_out": "held_out.parquet"}[damage]  # fmt: skip
    file = cell.directory / path
    file.write_bytes(file.read_bytes()[:20])
    status = run(cell)
    assert (status.state, status.resumed_from) == ("done", 0)
    assert "started from the beginning, as the resume point is of no use" in status.warnings[0]
    assert_same(cell, smooth)


def test_training_steps_of_another_version_are_not_gone_on_from(make_cell, smooth):
    cell = make_cell("other-version")
    with pytest.raises(Stopped):
        run(cell, stop=stop_after(3))
    file = cell.directory / "training.jsonl"
    file.write_text(file.read_text().replace('"rho"', '"rho_nats"'))
    status = run(cell)
    assert (status.state, status.resumed_from) == ("done", 0)
    assert_same(cell, smooth)


def point_of(cell):
    with safe_open(cell.directory / "resume" / "state.safetensors", framework="pt") as stored:
        return stored.metadata()


def test_a_resume_point_from_other_data_is_not_taken_up(tiny_world, tmp_path):
    """The gold model was exchanged in its place between two calls: same settings, other labels."""
    gold = write_gold(tmp_path / "gold", seed=5)
    world = tiny_world._replace(gold=gold, artifacts=tmp_path / "artifacts")
    cell = world.cell(tmp_path / "runs")
    with pytest.raises(Stopped):
        run(cell, stop=stop_after(5))
    assert int(point_of(cell)["step"]) == 5
    write_gold(gold, seed=6)
    status = run(cell)
    assert (status.state, status.attempts, status.resumed_from) == ("done", 2, 0)
    fresh = world.cell(tmp_path / "fresh")
    assert run(fresh).state == "done"
    assert_same(cell, fresh)


def test_a_resume_point_of_other_settings_is_not_taken_up(tmp_path):
    point = ResumePoint(3, 1.5, {"a.b": torch.arange(3), "step": torch.tensor(3)})
    write_resume_point(tmp_path, point, "this")
    assert read_resume_point(tmp_path, "other") is None
    again = read_resume_point(tmp_path, "this")
    assert (again.step, again.elapsed_s) == (3, 1.5)
    assert torch.equal(again.tensors["a.b"], torch.arange(3))
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["state.safetensors"], "one generation, whole"
    (tmp_path / "resume" / "state.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DamagedRecord, match="not a resume point"):
        read_resume_point(tmp_path, "this")


def test_how_often_points_are_kept(make_cell, monkeypatch):
    kept = []
    monkeypatch.setattr(bench.cells.folder, "write_resume_point", lambda path, point, origin: kept.append(point.step))
    for every, expected in ((3, [3, 6]), (0, []), (None, [0, 2, 4])):  # none at the end: nothing is left to do
        kept.clear()
        assert run(make_cell(f"every-{every}", **{"resume.every": every})).state == "done"
        assert kept == expected, every


def test_time_is_counted_over_attempts(make_cell, monkeypatch):
    cell = make_cell()
    with pytest.raises(Stopped):
        run(cell, stop=stop_after(4))
    elapsed = float(point_of(cell)["elapsed_s"])
    run(cell)
    rows = records.read_records(cell.directory / "records.jsonl")
    assert 0 < rows[0]["wall_s"] < elapsed < rows[-1]["wall_s"]
    assert [row["wall_s"] for row in rows] == sorted(row["wall_s"] for row in rows)


def test_a_worker_that_lost_its_cell_writes_nothing_more(make_cell, smooth):
    """It was stopped for long; another has taken the cell over, as the claim's next generation shows."""
    cell, writes = make_cell("lost"), []

    def lose(record):
        if record.step == 2:
            (claim,) = cell.directory.glob(".claim-*")
            taken = claim.with_name(".claim-000002")
            owner = json.loads(claim.read_text())
            taken.write_text(json.dumps({**owner, "token": "another", "replaces": owner["token"]}))
            claim.unlink()
            writes.append({path: path.read_bytes() for path in cell.directory.rglob("*") if path.is_file()})

    with pytest.raises(ClaimLost):
        run(cell, lose)
    assert {path: path.read_bytes() for path in cell.directory.rglob("*") if path.is_file()} == writes[0]
    (cell.directory / ".claim-000002").unlink()
    assert run(cell).state == "done"
    assert_same(cell, smooth)


def test_a_cell_that_kills_its_workers_is_given_up_with_what_is_known(make_cell, dead_owner):
    """Two workers under one call, neither of which got further than the other."""
    cell = make_cell("killer")
    prepared_for(cell)
    cell.directory.mkdir(parents=True)
    for death in (1, 2):
        dead_owner(cell.directory, call="1")
        if death == 1:
            records.write_status(cell.directory, a_status(cell))
            with pytest.raises(Stopped):
                run(cell, call="1", stop=stop_after(0))
            shutil.rmtree(cell.directory / "resume")
    (cell.sweep_dir / "workers").mkdir()
    dead = records.read_status(cell.directory).deaths[0]
    note = {"host": dead["host"], "pid": dead["pid"], "signal": "SIGKILL", "largest_worker_mb": 812}
    (cell.sweep_dir / "workers" / "deaths.jsonl").write_text(json.dumps(note) + "\n")
    status = run(cell, pytest.fail, call="1")
    assert (status.state, status.is_final) == ("failed", False)
    assert "its worker was killed 2 times while it ran" in status.error
    assert "ended by SIGKILL (the largest worker so far took 812 MB)" in status.error
    assert run(cell, call="2").state == "done", "another call tries again"


def a_status(cell):
    return records.CellStatus("running", cell.name, 1, 0.0, 0.0, 0, STEPS, "host", 1)


@pytest.fixture
def dead_owner():
    """A function that leaves a claim whose process is gone."""

    def leave(directory, call):
        code = (
            "import sys, os\nfrom pathlib import Path\nfrom bench.claims import try_claim\n"
            f"assert try_claim(Path({str(directory)!r}), call={call!r})\nos._exit(9)"
        )
        subprocess.run([sys.executable, "-c", code], check=False)
        assert list(directory.glob(".claim-*"))

    return leave
