"""The state of a sweep from its files: every state, damage with its reason, and the time left."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic_runs
from rich.console import Console

from bench import status
from bench.records import (
    DONE,
    FAILED,
    RECORDS_FILE,
    STATUS_FILE,
    CellStatus,
    CellView,
    cell_checksums,
    cell_view,
    checksum,
    is_worked_on,
    read_plan,
    write_json,
    write_status,
)
from bench.sweep.status import format_seconds, print_status, seconds_left, summary_line, sweep_views, times_line

TRUTH = synthetic_runs.Truth(losses=("logistic",), betas=(0.1,), seeds=(0, 1, 2, 3, 4, 5), steps=(0, 96), prompts=8)


def a_status(state="done", *, started_at=0.0, updated_at=0.0, pid=1, host="elsewhere", **changes):
    return CellStatus(state, "c", 1, started_at, updated_at, 48, 96, host, pid, **changes)


@pytest.fixture
def dead_pid():
    """A process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def sweep_dir(tmp_path, dead_pid):
    """Six cells: done, running, failed, missing, interrupted, damaged."""
    sweep_dir = synthetic_runs.write_sweep(tmp_path / "sweep", TRUTH, with_samples=False)
    here, now = socket.gethostname(), time.time()
    cells = [sweep_dir / synthetic_runs.cell_name("logistic", 0.1, seed) for seed in TRUTH.seeds]
    done, running, failed, missing, interrupted, damaged = cells
    write_status(done, a_status(started_at=now - 30, updated_at=now - 20, warnings=("KL and k1 differ",)))
    write_status(running, a_status("running", host=here, pid=os.getpid(), updated_at=now))
    write_status(failed, a_status("failed", error="NonFiniteLoss: step 3: loss nan\nsecond line", diverged=True))
    shutil.rmtree(missing)
    write_status(interrupted, a_status("running", host=here, pid=dead_pid))
    for cut in (running, failed, interrupted, damaged):
        lines = (cut / RECORDS_FILE).read_bytes()
        (cut / RECORDS_FILE).write_bytes(lines[:-100])
    return sweep_dir


def test_every_state_in_the_plans_order(sweep_dir):
    views = sweep_views(sweep_dir)
    assert [view.state for view in views] == ["done", "running", "failed", "missing", "interrupted", "failed"]
    assert [view.name for view in views] == [synthetic_runs.cell_name("logistic", 0.1, seed) for seed in TRUTH.seeds]
    # A line that is cut off is left out where a cell was stopped; in a finished cell it is damage.
    assert [view.last and view.last["step"] for view in views] == [96, 0, 0, None, 0, None]
    assert [view.error for view in views[:5]] == ["", "", "NonFiniteLoss: step 3: loss nan", "", ""]
    assert "records.jsonl:2: not a complete JSON line" in views[5].error
    assert "move the cell's directory away" in views[5].error


@pytest.mark.parametrize("most_in_table", [500, 5], ids=["table", "plain lines"])
def test_the_table_and_the_summary(sweep_dir, monkeypatch, capsys, most_in_table):
    monkeypatch.setattr(sys, "argv", ["status", str(sweep_dir)])
    monkeypatch.setattr("bench.sweep.status.MOST_IN_TABLE", most_in_table)
    assert status.main() == 1, "a cell failed"
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    rows = {line.split()[0]: line for line in lines if line.startswith("loss=")}
    assert list(rows) == [view.name for view in sweep_views(sweep_dir)]
    done, running, failed, missing, *_ = rows.values()
    last = sweep_views(sweep_dir)[0].last
    for part in ("done", "48/96", f"{last['kl']:.2f} ± {last['kl_se']:.2f}", f"{last['gold']:+.2f}", "0:10",
                 "KL and k1 differ"):  # fmt: skip
        assert part in done
    assert "running" in running
    assert "NonFiniteLoss: step 3: loss nan" in failed
    assert "second line" not in failed
    assert missing.split() == [list(rows)[3], "missing"]
    # 10 s for each of ½ running + 1 missing + 1 interrupted, one at a time.
    assert lines[-1] == "6 cells: 1 done, 2 failed, 1 running, 1 interrupted, 1 missing; 0:25 left"


@pytest.mark.parametrize("most_in_table", [500, 5], ids=["table", "plain lines"])
def test_errors_with_brackets_are_shown_as_they_are(sweep_dir, monkeypatch, most_in_table):
    """rich would read [/tmp] as the end of a style, and raise."""
    views = sweep_views(sweep_dir)
    error = "ConfigError: must lie in [pairs] or [/tmp] [red]"
    odd = CellView("loss=f,x=[a;b]", "failed", a_status("failed", error=error), None)
    monkeypatch.setattr("bench.sweep.status.MOST_IN_TABLE", most_in_table)
    console = Console(width=300, markup=False)
    with console.capture() as captured:
        print_status([*views, odd], console)
    assert error in captured.get()
    assert odd.name in captured.get()


def test_a_done_cell_without_its_records_is_no_result(sweep_dir):
    name = synthetic_runs.cell_name("logistic", 0.1, 0)
    (sweep_dir / name / RECORDS_FILE).unlink()
    view = cell_view(sweep_dir, name)
    assert view.state == "failed"
    assert "done, but records.jsonl is gone; move the cell's directory away" in view.error


def test_records_that_vanish_while_they_are_read_are_none_yet(sweep_dir, monkeypatch):
    """Another attempt clears them away between the reading of the status and of the records."""

    def gone(path, **kwargs):
        path.unlink()
        return open(path)

    monkeypatch.setattr("bench.records.status.read_records", gone)
    view = cell_view(sweep_dir, synthetic_runs.cell_name("logistic", 0.1, 1))
    assert (view.state, view.last) == ("running", None)


def test_a_damaged_status_is_a_failed_cell(sweep_dir):
    name = synthetic_runs.cell_name("logistic", 0.1, 0)
    (sweep_dir / name / STATUS_FILE).write_text('{"state": "do')
    view = cell_view(sweep_dir, name)
    assert (view.state, "status.json: not a cell status" in view.error) == ("failed", True)


def test_is_alive(dead_pid):
    here = socket.gethostname()
    assert is_worked_on(Path(), a_status(host=here, pid=os.getpid()))
    assert is_worked_on(Path(), a_status(host=here, pid=1)), "also a process that is not ours"
    assert not is_worked_on(Path(), a_status(host=here, pid=dead_pid))
    assert is_worked_on(Path(), a_status(host="elsewhere", pid=dead_pid, updated_at=time.time() - 500))
    assert not is_worked_on(Path(), a_status(host="elsewhere", pid=os.getpid(), updated_at=time.time() - 700))


def view(state, seconds=0.0):
    return CellView("c", state, a_status(started_at=100.0, updated_at=100.0 + seconds), None)


@pytest.mark.parametrize(
    ("states", "workers", "seconds"),
    [
        ([("running", 3), ("missing", 0)], 2, None),  # none is done yet
        ([("done", 10), ("done", 20), ("missing", 0), ("missing", 0)], 1, 30),
        ([("done", 10), ("done", 20), ("missing", 0), ("missing", 0)], 2, 15),
        ([("done", 10), ("running", 3), ("running", 3), ("interrupted", 9), ("missing", 0)], None, 15),
        ([("done", 10), ("failed", 99)], 2, 0),  # a failed cell is not tried again by itself
    ],
)
def test_time_left(states, workers, seconds):
    assert seconds_left([view(*each) for each in states], workers) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0, "0:00"), (59.6, "1:00"), (65, "1:05"), (3600 * 2 + 184, "2:03:04")]
)
def test_seconds_for_people(seconds, text):
    assert format_seconds(seconds) == text


def test_what_a_call_took_and_the_quartiles_of_its_cells():
    """1, 2, 3, 4 and 5 s have median 3 and quartiles 2 and 4; cells that are not done do not count."""
    views = [
        CellView("c", state, a_status(state, started_at=100.0, updated_at=100.0 + seconds), None)
        for state, seconds in [(DONE, 5), (DONE, 1), (FAILED, 50), (DONE, 3), (DONE, 2), (DONE, 4)]
    ]
    assert times_line(views, 65.2, 3.4) == "preparing 1:05, cells 0:03; a cell 3.0 s (quartiles 2.0 to 4.0)"
    assert times_line(views[1:2], 0, 1).endswith("a cell 1.0 s (quartiles 1.0 to 1.0)")
    assert times_line(views[2:3], 1, 2) == "preparing 0:01, cells 0:02"


def test_a_finished_sweep_has_no_time_left_and_status_0(tmp_path, monkeypatch, capsys):
    sweep_dir = synthetic_runs.write_sweep(tmp_path / "sweep", TRUTH, with_samples=False)
    assert summary_line(sweep_views(sweep_dir)) == "6 cells: 6 done"
    monkeypatch.setattr(sys, "argv", ["status", str(sweep_dir)])
    assert status.main() == 0


def test_no_sweep_is_answered_with_those_there_are(tmp_path, monkeypatch, capsys):
    synthetic_runs.write_sweep(tmp_path / "frontier", TRUTH, with_samples=False)
    for name, there in (("frontie", "; sweeps there: frontier"), ("x/y", "")):
        monkeypatch.setattr(sys, "argv", ["status", str(tmp_path / name)])
        assert status.main() == 2
        assert capsys.readouterr().err == f"error: {tmp_path / name}: no sweep (no plan.json){there}\n"
    write_json(tmp_path / "frontier" / "plan.json", {"schema": 99})
    monkeypatch.setattr(sys, "argv", ["status", str(tmp_path / "frontier")])
    assert status.main() == 2
    assert "plan.json: schema 99, this version reads 1" in capsys.readouterr().err


def test_records_without_a_status_are_not_an_unstarted_cell(sweep_dir):
    """Another attempt would clear them away."""
    name = synthetic_runs.cell_name("logistic", 0.1, 0)
    (sweep_dir / name / STATUS_FILE).unlink()
    view = cell_view(sweep_dir, name)
    assert view.state == "failed"
    assert "status.json: missing, but there are records beside it" in view.error


def flip(path):
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))


@pytest.mark.parametrize(
    ("damage", "told"), [(flip, "not what it was when it was finished"), (Path.unlink, "missing, but it was there")]
)
def test_every_file_is_checked_against_what_its_cell_has_written(sweep_dir, monkeypatch, capsys, damage, told):
    cell = sweep_dir / synthetic_runs.cell_name("logistic", 0.1, 0)
    write_status(cell, a_status(started_at=1.0, updated_at=2.0, files=cell_checksums(cell)))
    shared = next(sweep_dir.glob("reference-*.parquet"))
    plan = read_plan(sweep_dir) | {"published": {shared.name: checksum(shared)}}
    write_json(sweep_dir / "plan.json", plan)

    def check():
        monkeypatch.setattr(sys, "argv", ["status", "--check", str(sweep_dir)])
        status.main()
        return capsys.readouterr().out.splitlines()

    files = len(cell_checksums(cell)) + 1
    assert check()[-1] == f"{files} files checked, 0 damaged or missing; 1 cells of an older version have no checksums"
    damage(cell / RECORDS_FILE)
    shared.write_bytes(shared.read_bytes()[:-1])
    said = check()
    assert said[-1] == f"{files} files checked, 2 damaged or missing; 1 cells of an older version have no checksums"
    assert f"{cell / RECORDS_FILE}: {told}" in said[-3]
    assert f"{shared}: not what it was" in said[-2]


@pytest.mark.parametrize("name", [RECORDS_FILE, STATUS_FILE])
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_damage(sweep_dir, name, put):
    """A pipe would be waited for."""
    cell = sweep_dir / synthetic_runs.cell_name("logistic", 0.1, 0)
    (cell / name).unlink()
    put(cell / name)
    view = cell_view(sweep_dir, cell.name)
    assert view.state == "failed"
    assert f"{name}: not a file" in view.error
