"""The plan of a sweep grows and is never half written; a cell's directory keeps the configuration it was made with."""

import errno
import os
from pathlib import Path

import pytest
import yaml

from bench.cells.cell import cell_name
from bench.checked import ConfigError
from bench.records import CONFIG_FILE, PLAN_FILE, CellStatus, DamagedRecord, read_plan, write_status
from bench.sweep.plan import PlannedCell, check_cell_config, overridden_keys, write_cell_config, write_plan


@pytest.fixture
def cell(tiny_world, tmp_path):
    """A function from changed settings to a planned cell with an empty directory."""

    def make(**changes):
        cell = tiny_world.cell(tmp_path, changes)
        cell.directory.mkdir(parents=True, exist_ok=True)
        return cell

    return make


def test_a_row_holds_every_key_of_the_cells_name(tiny_world, tmp_path):
    config = tiny_world.config(tmp_path, {"beta": 0.3, "optim.batch_pairs": 4, "loss": "hinge"})
    overrides = ("+world=tiny", "loss=hinge", "optim.batch_pairs=4")
    cell = PlannedCell(cell_name(config, overridden_keys(overrides)), config, overrides)
    assert cell.name == "loss=hinge,beta=0.3,seed=0,optim.batch_pairs=4,world=tiny"
    assert cell.summary() == {
        "cell": cell.name, "config": cell.config.fingerprint, "lr": 1e-2, "loss": "hinge", "beta": 0.3, "seed": 0,
        "optim.batch_pairs": 4, "world": "tiny",
    }  # fmt: skip


def test_a_later_call_adds_to_the_plan(cell):
    first, second = cell(seed=0), cell(seed=1)
    sweep_dir = first.config.sweep_dir
    assert read_plan(sweep_dir)["cells"] == []
    write_plan(sweep_dir, [first], ["first"])
    write_plan(sweep_dir, [second, first], ["second"])
    plan = read_plan(sweep_dir)
    assert [row["cell"] for row in plan["cells"]] == [first.name, second.name]
    assert (plan["sweep"], plan["command"]) == ("default", ["second"])


def test_the_same_call_again_leaves_the_file_untouched(cell):
    planned = cell(**{"optim.lr": 3e-4})
    path = planned.config.sweep_dir / PLAN_FILE
    write_plan(path.parent, [planned], ["first"])
    os.utime(path, ns=(1, 1))
    write_plan(path.parent, [planned], ["first"])
    assert path.stat().st_mtime_ns == 1
    write_plan(path.parent, [planned], ["second"])
    assert path.stat().st_mtime_ns > 1


@pytest.mark.parametrize("text", ['{"schema": 1, "cel', "[]", "{}", '{"schema": 1, "cells": [{}]}', '{"schema": 99}'])
def test_a_damaged_plan_is_refused_by_name(tmp_path, text):
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(DamagedRecord, match=r"plan\.json: "):
        read_plan(tmp_path)


def test_the_same_settings_fit_their_directory_however_they_were_given(cell):
    made = cell(beta=1.0)
    check_cell_config(made)  # nothing there yet
    write_cell_config(made.directory, made.config)
    check_cell_config(made)
    check_cell_config(PlannedCell(made.name, cell(beta=1).config))
    elsewhere = cell(beta=1.0, **{"device": "cpu", "tracking.wandb.mode": "offline"}).config
    check_cell_config(PlannedCell(made.name, elsewhere))  # where it runs does not move its results


def test_other_settings_are_refused_by_key_and_nothing_is_touched(cell):
    made = cell(beta=0.3)
    write_cell_config(made.directory, made.config)
    before = (made.directory / CONFIG_FILE).read_bytes()
    with pytest.raises(ConfigError) as caught:
        check_cell_config(PlannedCell(made.name, cell(**{"beta": 0.1, "optim.steps": 9}).config))
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
            write_cell_config(made.directory, made.config)
    assert list(made.directory.iterdir()) == []
    write_cell_config(made.directory, made.config)
    assert yaml.safe_load((made.directory / CONFIG_FILE).read_text())["optim"]["steps"] == 8


@pytest.mark.parametrize(
    ("state", "diverged", "finished"),
    [("done", False, True), ("failed", True, True), ("failed", False, False), ("running", False, False)],
)
def test_which_cells_are_finished(cell, state, diverged, finished):
    made = cell()
    assert not made.is_finished
    write_status(made.directory, CellStatus(state, made.name, 1, 0.0, 1.0, 8, 8, "host", 1, diverged=diverged))
    assert made.is_finished == finished
