"""A cell's directory keeps the configuration it was made with."""

import errno
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from running import CACHE, prepared_for, run

from bench.cells.run import run_cell
from bench.cells.settings import check_cell_config, write_cell_config
from bench.checked import ConfigError
from bench.records import CONFIG_FILE, DONE, FAILED, CellStatus, write_status
from bench.sweep.plan import read_jobs, write_plan


@pytest.fixture
def cell(tiny_world, tmp_path):
    """A function from changed settings to a cell with an empty directory."""

    def make(**changes):
        cell = tiny_world.cell(tmp_path, changes)
        cell.directory.mkdir(parents=True, exist_ok=True)
        return cell

    return make


def test_the_same_settings_fit_their_directory_however_they_were_given(cell):
    made = cell(beta=1.0)
    check_cell_config(made)  # nothing there yet
    write_cell_config(made)
    check_cell_config(made)
    check_cell_config(replace(made, config=cell(beta=1).config))
    elsewhere = cell(beta=1.0, **{"device": "cpu", "tracking.wandb.mode": "offline", "save": "all"}).config
    check_cell_config(replace(made, config=elsewhere))  # where it runs does not move its results


def test_a_directory_from_before_a_setting_existed_fits_its_default(cell):
    made = cell()
    write_cell_config(made)
    written = yaml.safe_load((made.directory / CONFIG_FILE).read_text())
    for later in ("method", "save", "resume", "logits_mib", "workers"):
        del written[later]
    (made.directory / CONFIG_FILE).write_text(yaml.safe_dump(written))
    check_cell_config(made)


def test_other_settings_are_refused_by_key_and_nothing_is_touched(cell):
    made = cell(beta=0.3)
    write_cell_config(made)
    before = (made.directory / CONFIG_FILE).read_bytes()
    with pytest.raises(ConfigError) as caught:
        check_cell_config(replace(made, config=cell(**{"beta": 0.1, "optim.steps": 9}).config))
    for part in (str(made.directory), "beta: 0.3 there, 0.1 now", "optim.steps: 8 there, 9 now", "sweep=NAME"):
        assert part in str(caught.value)
    assert (made.directory / CONFIG_FILE).read_bytes() == before


@pytest.mark.parametrize("text", ["", "{beta: [", "beta: 0.1\nold_key: 3\n"])
def test_a_configuration_of_another_version_is_refused_with_a_way_out(cell, text):
    made = cell()
    (made.directory / CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"(?s)not a configuration of this version .* or use another sweep="):
        check_cell_config(made)


def test_a_disk_that_fills_up_leaves_no_half_configuration(cell, monkeypatch):
    """Half a configuration would be refused by the next call as one of another version."""
    made = cell()

    def half(self, text, **kwargs):
        with self.open("w") as stream:
            stream.write(text[:40])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="No space left"):
            write_cell_config(made)
    assert list(made.directory.iterdir()) == []
    write_cell_config(made)
    assert yaml.safe_load((made.directory / CONFIG_FILE).read_text())["optim"]["steps"] == 8


@pytest.mark.parametrize(
    ("state", "diverged", "finished"),
    [("done", False, True), ("failed", True, True), ("failed", False, False), ("running", False, False),
     ("interrupted", False, False)],
)  # fmt: skip
def test_which_cells_are_finished(cell, state, diverged, finished):
    made = cell()
    assert not made.is_finished
    write_status(made.directory, CellStatus(state, made.name, 1, 0.0, 1.0, 8, 8, "host", 1, diverged=diverged))
    assert made.is_finished == finished


def test_code_that_only_a_found_folder_names_is_not_run(cell, tmp_path, monkeypatch):
    """Of a folder that came from elsewhere, say."""
    (tmp_path / "trap.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = cell()
    write_cell_config(made)
    path = made.directory / CONFIG_FILE
    path.write_text(path.read_text().replace("loss: logistic", "loss: trap:f", 1))
    with pytest.raises(ConfigError, match="loss: 'trap:f' there, 'logistic' now"):
        check_cell_config(made)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n",  # gigabytes, with some more lines of that kind
        "[" * 5000 + "]" * 5000,
        "- 1\n",
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_no_mapping_of_plain_values_is_refused(cell, text):
    made = cell()
    path = made.directory / CONFIG_FILE
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match="not a configuration of this version"):
        check_cell_config(made)


def test_a_pipe_in_the_place_of_the_configuration_is_not_waited_for(cell):
    made = cell()
    os.mkfifo(made.directory / CONFIG_FILE)
    with pytest.raises(ConfigError, match="no regular file"):
        check_cell_config(made)


def test_a_loss_that_was_edited_since_is_refused(tiny_world, tmp_path, monkeypatch):
    """Its name is the same; records of two functions would be one curve."""
    monkeypatch.syspath_prepend(tmp_path)
    module = types.ModuleType("edited_since")
    module.f = lambda z: (1 - z) ** 2
    monkeypatch.setitem(sys.modules, "edited_since", module)
    made = tiny_world.cell(tmp_path, {"loss": "edited_since:f", "optim.steps": 1})
    assert run(made).state == DONE
    write_plan(made.sweep_dir, [made], {made.name: prepared_for(made)}, [], "0")
    check_cell_config(made)
    read_jobs(made.sweep_dir)
    module.f = lambda z: (2 - z) ** 2
    with pytest.raises(ConfigError, match="loss 'edited_since:f' was another function when it was trained"):
        check_cell_config(made)
    with pytest.raises(ConfigError, match="is another function here than the one that the sweep was planned with"):
        read_jobs(made.sweep_dir)


def test_a_loss_that_leaves_costs_its_cell_and_not_the_sweep(tiny_world, tmp_path, monkeypatch):
    module = types.ModuleType("leaving")
    module.is_training = False

    def f(z):
        if module.is_training:
            sys.exit(0)
        return (1 - z) ** 2

    module.f = f
    monkeypatch.setitem(sys.modules, "leaving", module)
    made = tiny_world.cell(tmp_path, {"loss": "leaving:f", "optim.steps": 1})
    prepared = prepared_for(made)
    assert made.config.fingerprint, "measured when it was planned"
    module.is_training = True
    status = run_cell(made, prepared, CACHE)
    assert (status.state, status.error) == (FAILED, "SystemExit: 0")
