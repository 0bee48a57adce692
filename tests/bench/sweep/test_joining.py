"""Workers that do not see the sweep as it was planned, or are of other code, run nothing of it."""

import subprocess
import sys
import threading
import time

import pytest
from running import prepared_for
from sweep_process import ROOT

from bench.checked import ConfigError
from bench.provenance import code_hash, git_commit
from bench.records import PLAN_FILE, read_plan, read_status, write_checked_json
from bench.sweep.joining import wait_for_plan
from bench.sweep.plan import read_jobs, write_plan
from bench.sweep.stopping import StopRequest
from bench.sweep.workers import work


@pytest.fixture
def cell(tiny_world, tmp_path):
    """A planned cell; the call was "2"."""
    made = tiny_world.cell(tmp_path, {"seed": 41})
    write_plan(made.sweep_dir, [made], {made.name: prepared_for(made)}, ["typed"], "2")
    return made


def planned_by(cell, **code):
    plan = read_plan(cell.sweep_dir)
    plan.pop("sha256", None)
    write_checked_json(cell.sweep_dir / PLAN_FILE, plan | {"code": code})


def test_the_plan_names_the_code(cell):
    assert read_plan(cell.sweep_dir)["code"] == {"sha256": code_hash(), "commit": git_commit()}


def test_a_worker_of_other_code_is_refused_with_both_versions(cell):
    planned_by(cell, sha256="0123456789ab", commit="feed")
    with pytest.raises(ConfigError) as raised:
        work(cell.sweep_dir, StopRequest())
    for word in ("0123456789ab", "feed", code_hash(), git_commit()):
        assert word in str(raised.value)
    assert read_status(cell.directory) is None
    assert read_jobs(cell.sweep_dir), "to look at, it is still there"


def test_a_plan_from_before_code_was_noted_is_run(cell):
    planned_by(cell)
    assert work(cell.sweep_dir, StopRequest()).done == [cell.name]


def test_the_hash_is_of_every_source_file(tmp_path):
    """A copy has the same; a changed copy, and one with another file, have others."""
    command = [sys.executable, "-c", "from bench.provenance import code_hash; print(code_hash())"]

    def hash_in(root):
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    for package in ("bench", "gold_rm"):
        subprocess.run(["cp", "-r", ROOT / package, tmp_path], check=True)
    assert hash_in(tmp_path) == code_hash()
    edited = tmp_path / "gold_rm" / "texts.py"
    edited.write_text(edited.read_text() + "# other")
    changed = hash_in(tmp_path)
    (tmp_path / "bench" / "cells" / "new.py").touch()
    assert len({code_hash(), changed, hash_in(tmp_path)}) == 3


def test_a_worker_that_sees_another_folder_is_told_so(cell):
    with pytest.raises(ConfigError, match="sees another folder of that name"):
        wait_for_plan(cell.sweep_dir, "3", seconds=0)
    with pytest.raises(ConfigError, match="not there"):
        wait_for_plan(cell.sweep_dir.parent / "elsewhere", "3", seconds=0)


def test_a_worker_waits_until_a_late_file_system_shows_the_plan(cell):
    def plan_later():
        time.sleep(0.5)
        write_plan(cell.sweep_dir, [cell], {cell.name: prepared_for(cell)}, ["typed"], "3")

    late = threading.Thread(target=plan_later)
    late.start()
    wait_for_plan(cell.sweep_dir, "3", seconds=20)
    late.join()
    assert read_plan(cell.sweep_dir)["call"] == "3"
