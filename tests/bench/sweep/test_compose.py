"""Command lines become configurations as Hydra would have composed them, before anything else is done."""

import shutil
import sys
from collections import Counter

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bench.checked import ConfigError
from bench.sweep.compose import (
    CONFIG_DIR,
    CONFIG_NAME,
    asks_for_sweep,
    compose_one,
    compose_sweep,
    launch_with_hydra,
)


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["loss=logistic,savage", "beta=0.1,1", "optim.lr=1e-3"], 4),
        (["experiment=oracle", "loss=squared", "seed=0,1", "pairs.held_out=64"], 10),  # the file sets held_out too
        (["world=reviews,reviews_tiny,oracle", "optim={steps: 7, lr: 0.5}", "world.max_new_tokens=9"], 3),
        (["+world.gold.width=32,64", "world.params.policy.layers=1", "+hydra.launcher.x=1", "cpu_threads=1,2"], 4),
        (["experiment=frontier,smoke", "loss=logistic", "beta=0.1", "seed=range(3)"], 6),
    ],
)
def test_jobs_are_composed_as_by_hydra(overrides, count):
    """Against Hydra's own composition of every job."""
    jobs = compose_sweep(["-m", *overrides]).jobs
    assert len(jobs) == count
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for job in jobs:
            composed = compose(CONFIG_NAME, overrides=list(job.overrides))
            assert job.settings | {"also": []} == OmegaConf.to_container(composed, resolve=True)


def test_hydra_looks_up_each_override_once_not_once_a_job(monkeypatch):
    """A lookup takes 10 ms: with 420 jobs of 12 of them, most of a minute."""
    asked = []
    monkeypatch.setattr("bench.sweep.compose._sets_value", lambda override: asked.append(override.input_line) or True)
    assert len(compose_sweep(["-m", "beta=0.1,0.2,0.3", "seed=range(5)", "sweep=s"]).jobs) == 15
    values = ["beta=0.1", "beta=0.2", "beta=0.3", *(f"seed={seed}" for seed in range(5)), "sweep=s"]
    assert sorted(asked) == sorted(values)


def test_one_configuration_is_composed_as_by_hydra():
    overrides = ["experiment=smoke", "loss=hinge", "+world.gold.seed=8", "optim.lr=1e-3"]
    job = compose_one(overrides)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = OmegaConf.to_container(compose(CONFIG_NAME, overrides=overrides), resolve=True)
    assert job.settings | {"also": []} == composed, "also is said to the driver, not of a cell"
    assert job.overridden == ("experiment", "loss", "world.gold.seed", "optim.lr")


def test_what_a_sweep_says_of_its_launcher():
    request = compose_sweep(["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"])
    assert (request.launcher, request.launcher_settings["n_jobs"]) == ("joblib", 3)
    assert compose_sweep(["-m", "seed=0,1"]).launcher == "local"


def test_a_launcher_that_another_configuration_chooses_is_the_one_that_runs(tmp_path, monkeypatch):
    shutil.copytree(CONFIG_DIR, tmp_path / "conf")
    (tmp_path / "conf" / "mine.yaml").write_text(
        "defaults:\n  - train\n  - override hydra/launcher: basic\n  - _self_\nbeta: 0.7\n"
    )
    monkeypatch.setattr("bench.sweep.compose.CONFIG_DIR", tmp_path / "conf")
    request = compose_sweep(["-m", "-cn", "mine", "seed=0,1"])
    assert (request.launcher, [job.settings["beta"] for job in request.jobs]) == ("basic", [0.7, 0.7])
    ran = []
    launch_with_hydra(request.fixed, lambda: ran.append(1), 2)
    assert len(ran) == 2


def test_a_folder_of_ones_own_adds_to_the_configurations(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nsweep: mine\nhydra:\n  sweeper:\n    params:\n      beta: 0.1,1\n"
    )
    jobs = compose_sweep(["-m", "--config-dir", str(tmp_path), "experiment=mine", "world=oracle"]).jobs
    assert [(job.settings["sweep"], job.settings["beta"]) for job in jobs] == [("mine", 0.1), ("mine", 1)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1,2", "optim.lrr: no such key; did you mean 'optim.lr'?"),
        ("world=revews,oracle", "world=revews: no such file in conf/world; did you mean 'reviews'?"),
        ("beta=glob(*)", "lists no value"),
        ("beta=range(0,0)", "lists no value"),
        ("beta=interval(0,1)", "an interval has no list of values"),
        ("beta=[1", "not in Hydra's grammar"),
    ],
)
def test_what_cannot_be_composed_is_one_sentence(override, message):
    with pytest.raises(ConfigError) as caught:
        compose_sweep(["-m", override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sweep"),
    [(["-m", "a=1"], True), (["a=1", "--multirun"], True), (["a=1"], False), (["-m", "--cfg", "job"], False),
     (["-m", "-cd", "somewhere", "a=1"], True), (["-m", "--info", "defaults"], False)],
)  # fmt: skip
def test_which_command_lines_ask_for_a_sweep(arguments, sweep):
    assert asks_for_sweep(arguments) == sweep


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_multirun_by_another_name_is_refused(tmp_path, launcher):
    """Otherwise the first of its cells would be trained, and nobody would hear of the others."""
    with pytest.raises(ConfigError, match=r"hydra\.mode: a sweep is asked for with -m"):
        compose_one(["hydra.mode=MULTIRUN", f"hydra/launcher={launcher}", "beta=0.1,1", f"runs_dir={tmp_path}"])


def test_a_configuration_that_is_only_printed_trains_nothing(capsys):
    before = list(sys.argv)
    assert compose_one(["--cfg", "job", "loss=hinge"]) is None
    assert "loss: hinge" in capsys.readouterr().out
    assert sys.argv == before
    with pytest.raises(ConfigError, match="Only one of"):
        compose_one(["-m", "--cfg", "job"])


def test_an_experiment_brings_the_experiments_that_it_names(tmp_path):
    """Each with its own grid, and all with what was typed."""
    jobs = compose_sweep(["-m", "experiment=gao", "seed=0", "optim.steps=8"]).jobs
    of_method = Counter(job.settings["method"] for job in jobs)
    assert of_method == {"gpo": 2 * 6, "rloo": 5, "best_of_n": 5 * 5 + 2 * 5}
    assert {job.settings["optim"]["steps"] for job in jobs} == {8}
    assert {job.settings["sweep"] for job in jobs} == {"gao"}
    assert {job.settings["labels"]["by"] for job in jobs} == {"proxy"}
