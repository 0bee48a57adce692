"""A worker in the test's own process: what it runs, what it leaves, and what it does not blame a cell for."""

import shutil

import pytest
from running import prepared_for

from bench.checked import ConfigError
from bench.data.artifacts import DamagedArtifact
from bench.records import read_status
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
    with pytest.raises(DamagedArtifact, match="not there, and the sweep was planned on it|does not match its checksum"):
        work(cell.sweep_dir, StopRequest())
    assert read_status(cell.directory).state == "interrupted"
    assert not list(cell.directory.glob(".claim-*"))
    shutil.rmtree(tmp_path / "artifacts" / "preferences", ignore_errors=True)
    shutil.move(kept, tmp_path / "artifacts" / "preferences")
    assert work(cell.sweep_dir, StopRequest()).done == [cell.name]
