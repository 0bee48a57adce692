"""Bad input on the real command line: one message that says what is wrong and what is allowed, and nothing written."""

import sys

import pytest
from tiny_models import write_policy
from tiny_world import POSITIONS, WORDS, write_gold

from bench import train


@pytest.fixture
def run(monkeypatch, capsys, tiny_world, tmp_path):
    """Call ``python -m bench.train`` with arguments; returns its exit status and what it said on stderr."""

    def call(*arguments, changes=None):
        fresh = tiny_world._replace(artifacts=tmp_path / "artifacts")
        changed = {**fresh.settings(tmp_path / "runs"), **(changes or {})}
        overrides = ["world=directories", *(f"{key}={value}" for key, value in changed.items())]
        monkeypatch.setattr(sys, "argv", ["bench.train", *sorted([*overrides, *arguments], key=lambda a: a != "-m")])
        status = train.main()
        return status, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loss=logistc"], "unknown loss 'logistc'; did you mean 'logistic'?"),
        (["-m", "loss=logistic,hing"], "did you mean 'hinge'?"),
        (["bta=0.3"], "bta: no such key; did you mean 'beta'?"),
        (["-m", "optim.lrr=1e-3,1e-4"], "optim.lrr: no such key; did you mean 'optim.lr'?"),
        (["+lr=1e-3"], "lr: no such key; did you mean 'optim.lr'?"),
        (["world=reviewz"], "world=reviewz: no such file in conf/world; did you mean 'reviews'?"),
        (["experiment=frontiers"], "did you mean 'frontier'?"),
        (["beta=0"], "beta=0"),
        (["beta=-1"], "beta=-1"),
        (["beta=nan"], "must be a finite number above 0"),
        (["beta=large"], "beta='large'"),
        (["-m", "beta=0.1,-0.1"], "beta=-0.1"),
        (["optim.steps=-3"], "optim.steps=-3: must be 1 or more"),
        (["labels.flip_rate=0.5"], "labels.flip_rate=0.5: must lie in [0, 0.5)"),
        (["labels.rule=coin"], "allowed are deterministic, bradley_terry"),
        (["device=gpu"], "device='gpu'"),
        (["optim.lr=[1"], "optim.lr=[1: not in Hydra's grammar"),
        (["sweep=é"], "sweep=é: not in Hydra's grammar"),
        (["=1"], "=1: no key before the ="),
        (["device=meta"], "device='meta': must be auto, cpu, cuda, or cuda:N"),
        (["device=cpu:99"], "device='cpu:99'"),
        (["seed=9223372036854775808"], "must be an integer from 0 to 2**63 - 1"),
        (["pairs.held_out=1000000000000"], "at most 10,000,000"),
        (["beta=" + "[" * 2000 + "]" * 2000], "nested too deeply"),
        # Hydra would take these, and nothing would come of them.
        (["-m", "hydra.mode=RUN"], "hydra.mode: a sweep is asked for with -m"),
        (["-m", "hydra.sweeper.params={}"], "null takes them away"),
        (["-m", "hydra.sweep.dir=elsewhere"], "hydra.sweep.dir=elsewhere: would change nothing"),
        (["hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere: would change nothing"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: would change nothing"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: must be"),
    ],
)
def test_a_bad_setting_ends_at_once_with_what_is_allowed(run, tmp_path, arguments, message):
    status, said = run(*arguments)
    assert status == 2
    assert message in said
    assert "Traceback" not in said
    assert said.count("\n") == 1
    assert not list((tmp_path / "artifacts").glob("*/*/manifest.json"))
    assert not list((tmp_path / "runs").glob("*/*/status.json"))


def test_a_refused_name_makes_no_directory(run, tmp_path):
    assert run("sweep=../../x")[0] == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == []
    assert not (tmp_path.parent / "x").exists()


def test_what_the_environment_says_of_w_and_b_is_heard(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert run(changes={"tracking.wandb.mode": "${oc.env:WANDB_MODE,offline}"})[0] == 0
    assert not list((tmp_path / "runs").rglob("*.wandb"))
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert "WANDB_DISABLED is set" in run("tracking.wandb.mode=offline")[1]


def test_model_directories_that_cannot_serve(run, tmp_path):
    two = write_gold(tmp_path / "two", outputs=2)
    causal = write_policy(tmp_path / "causal", words=WORDS, positions=POSITIONS)
    for key, path, message in (
        ("world.params.policy", tmp_path / "nowhere", "nowhere"),
        ("world.params.policy", two, "reward model"),
        ("world.params.gold", two, "2"),
        ("world.params.gold", causal, "causal"),
        ("world.params.gold", tmp_path / "nowhere", "nowhere"),
        ("world.params.prompts", tmp_path / "none.jsonl", "none.jsonl"),
    ):
        status, said = run(changes={key: path})
        assert (status, "Traceback" in said) == (2, False), said
        assert message in said
    assert not list((tmp_path / "runs").glob("*/*/status.json"))


def test_a_directory_of_another_configuration_is_refused_and_kept(run, tmp_path):
    """A default changes between two calls; the cell's name does not hold it."""
    assert run("sweep=s")[0] == 0
    (config,) = (tmp_path / "runs").glob("s/*/config.yaml")
    before = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*") if path.is_file()}
    config.write_text(config.read_text().replace("clip_norm: 100.0", "clip_norm: 2.0"))
    before[config] = config.stat().st_mtime_ns
    status, said = run("sweep=s")
    assert status == 2
    assert "optim.clip_norm: 2.0 there, 100.0 now" in said
    assert {path: path.stat().st_mtime_ns for path in config.parent.rglob("*") if path.is_file()} == before


def test_a_policy_that_a_finished_cell_has_not_kept_is_spoken_of(run, monkeypatch, capsys):
    """It is not trained again for it, and nothing that was asked for is dropped in silence."""
    assert run("sweep=s")[0] == 0
    capsys.readouterr()
    for arguments, spoken in ((["save=final"], 1), (["save=none"], 0)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [*sys.argv, *arguments])
            assert train.main() == 0
        assert capsys.readouterr().out.count("1 finished cells have kept no policy") == spoken
