"""The plan of a sweep grows and is never half written; workers read from it what was planned."""

import json
import os
from dataclasses import replace

import pytest
from running import prepared_for

from bench.cells.cell import Cell
from bench.checked import ConfigError
from bench.records import PLAN_FILE, CellStatus, DamagedRecord, read_plan, write_status
from bench.sweep.compose import Job
from bench.sweep.plan import plan_cells, read_jobs, read_planned, write_plan


@pytest.fixture
def cell(tiny_world, tmp_path):
    """A function from changed settings to a planned cell."""
    return lambda **changes: tiny_world.cell(tmp_path, changes)


def write(cells, command=("typed",), call="call"):
    write_plan(cells[0].sweep_dir, cells, {cell.name: prepared_for(cell) for cell in cells}, command, call)
    return cells[0].sweep_dir


def test_a_row_holds_every_key_of_the_cells_name(tiny_world, tmp_path):
    config = tiny_world.config(tmp_path, {"beta": 0.3, "optim.batch_pairs": 4, "loss": "hinge"})
    cell = Cell.of(config, ["world", "loss", "optim.batch_pairs"])
    assert cell.name == "loss=hinge,beta=0.3,seed=0,optim.batch_pairs=4,world=tiny"
    assert cell.summary() == {
        "cell": cell.name, "config": cell.config.fingerprint, "method": "gpo", "variant": "hinge", "strength": 0.3,
        "lr": 1e-2, "loss": "hinge", "beta": 0.3, "seed": 0, "optim.batch_pairs": 4, "world": "tiny",
    }  # fmt: skip


def test_a_later_call_adds_to_the_plan(cell):
    first, second = cell(seed=0), cell(seed=1)
    assert read_plan(first.sweep_dir)["cells"] == []
    write([first], ["first"])
    plan = read_plan(write([second, first], ["second"]))
    assert [row["cell"] for row in plan["cells"]] == [first.name, second.name]
    assert (plan["sweep"], plan["command"]) == ("default", ["second"])


def test_a_call_that_adds_nothing_and_has_nothing_to_run_leaves_the_file_untouched(cell):
    planned = cell(**{"optim.lr": 3e-4})
    path = planned.sweep_dir / PLAN_FILE
    write([planned], call="first")
    planned.directory.mkdir(parents=True)
    write_status(planned.directory, CellStatus("done", planned.name, 1, 0.0, 1.0, 8, 8, "host", 1))
    os.utime(path, ns=(1, 1))
    write([planned], call="second")
    assert path.stat().st_mtime_ns == 1
    write([planned], ["another", "command"], call="third")
    assert path.stat().st_mtime_ns > 1


def test_a_plan_of_an_older_version_is_added_to(cell):
    """Its settings lack the keys that came later, a whole section of them too."""
    first, second = cell(seed=0), cell(seed=1, **{"proxy.size": "xs"})
    sweep_dir = write([first])
    plan = read_plan(sweep_dir)
    (base,) = plan["settings"].values()
    del base["proxy"], base["labels"]["by"], base["watch"]
    (sweep_dir / PLAN_FILE).write_text(json.dumps(plan))
    write([second], call="later")
    old, new = read_jobs(sweep_dir)
    assert (old[0].config.fingerprint, new[0].config) == (first.config.fingerprint, second.config)


def test_workers_read_what_was_planned(cell, tiny_world, tmp_path):
    """Of cells that differ in every kind of setting, and of two worlds, in one file without repeats."""
    cells = [
        cell(seed=0), cell(loss="hinge", beta=3.0, seed=1), cell(**{"optim.micro_batch_pairs": 2, "save": "best"}),
        cell(**{"world.name": "other", "world.max_new_tokens": 5, "labels.flip_rate": 0.25}),
    ]  # fmt: skip
    sweep_dir = write(cells, call="a call")
    jobs = read_jobs(sweep_dir)
    assert read_planned(sweep_dir).call == "a call"
    assert [(job.name, job.config) for job, _ in jobs] == [(each.name, each.config) for each in cells]
    assert [job.directory for job, _ in jobs] == [each.directory for each in cells]
    assert [prepared.preferences.fingerprint for _, prepared in jobs] == [
        prepared_for(each).preferences.fingerprint for each in cells
    ]
    plan = json.loads((sweep_dir / PLAN_FILE).read_text())
    assert (len(plan["settings"]), len(plan["prepared"])) == (2, 2)


def test_the_folder_of_a_sweep_may_have_moved(cell, tmp_path):
    sweep_dir = write([cell()])
    moved = tmp_path / "moved"
    sweep_dir.rename(moved)
    ((job, _),) = read_jobs(moved)
    assert job.directory.parent == moved


@pytest.mark.parametrize("text", ['{"schema": 1, "cel', "[]", "{}", '{"schema": 1, "cells": [{}]}', '{"schema": 99}'])
def test_a_damaged_plan_is_refused_by_name(tmp_path, text):
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(DamagedRecord, match=r"plan\.json: "):
        read_plan(tmp_path)


def test_a_cell_that_is_planned_twice_is_refused(cell):
    path = write([cell()]) / PLAN_FILE
    plan = read_plan(path.parent)  # without its checksum
    path.write_text(json.dumps(plan | {"cells": plan["cells"] * 2}))
    with pytest.raises(DamagedRecord, match="is planned twice"):
        read_plan(path.parent)


@pytest.mark.parametrize("missing", ["settings", "prepared", "call"])
def test_a_plan_without_what_workers_need_says_so(cell, missing):
    path = write([cell()]) / PLAN_FILE
    plan = read_plan(path.parent)  # without its checksum
    plan[missing] = {}
    if missing == "call":
        del plan["call"]
    path.write_text(json.dumps(plan))
    with pytest.raises(DamagedRecord, match=r"plan\.json: lacks what workers need .*; plan the sweep again"):
        read_jobs(path.parent)


def test_no_plan_and_an_old_plan_say_how_to_go_on(tmp_path):
    with pytest.raises(DamagedRecord, match=r"has no plan\.json; plan it with python -m bench\.train"):
        read_jobs(tmp_path)
    (tmp_path / PLAN_FILE).write_text('{"schema": 1, "cells": [{"cell": "c", "loss": "hinge", "beta": 1, "seed": 0}]}')
    with pytest.raises(DamagedRecord, match="was planned by an older version"):
        read_jobs(tmp_path)


def job(tiny_world, tmp_path, *overrides, **changes):
    from dataclasses import asdict

    return Job(asdict(tiny_world.config(tmp_path, changes)), overrides)


def test_two_spellings_of_one_value_are_one_cell(tiny_world, tmp_path):
    jobs = [job(tiny_world, tmp_path, f"beta={text}", beta=1.0) for text in ("1", "1e0", "1.0")]
    assert [cell.name for cell in plan_cells(jobs)] == ["loss=logistic,beta=1,seed=0"]


def test_different_settings_of_one_name_are_refused(tiny_world, tmp_path):
    jobs = [job(tiny_world, tmp_path, f"experiment={n}", **{"optim.steps": n}) for n in (3, 4)]
    with pytest.raises(ConfigError, match="experiment=3 and experiment=4 are different settings of one cell"):
        plan_cells(jobs)


@pytest.mark.parametrize(
    ("key", "values"),
    [("sweep", ("a", "b")), ("device", ("cpu", "auto")), ("save", ("none", "best")),
     ("tracking.wandb.mode", ("offline", "disabled")), ("resume.every", (1, 2)), ("workers", (1, 2))],
)  # fmt: skip
def test_several_values_of_a_key_that_is_in_no_name_are_refused(tiny_world, tmp_path, key, values):
    """One of them would win, and nobody would hear of the other."""
    jobs = [job(tiny_world, tmp_path, f"{key}={value}", **{key: value}) for value in values]
    with pytest.raises(ConfigError, match=f"^{key}: several values, but a cell is not named by"):
        plan_cells(jobs)


def test_a_directory_of_other_settings_is_refused_before_anything_is_run(tiny_world, tmp_path, cell):
    from bench.cells.settings import write_cell_config

    made = cell(beta=0.3)
    made.directory.mkdir(parents=True)
    write_cell_config(replace(made, config=cell(**{"beta": 0.3, "optim.steps": 9}).config))
    with pytest.raises(ConfigError, match=r"optim\.steps: 9 there, 8 now"):
        plan_cells([job(tiny_world, tmp_path, "beta=0.3", beta=0.3)])
