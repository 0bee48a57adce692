"""Bad input on the real command line: one message that says what is wrong and what is allowed, and nothing written."""

import os
import signal
import sys

import pytest
from tiny_models import write_policy
from tiny_world import POSITIONS, WORDS, write_gold

from bench import train
from bench.claims import hold
from bench.messages import run_with_messages
from bench.sweep.stopping import StopRequest


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
        (["optim.lr=[1"], "no viable alternative"),
    ],
)
def test_a_bad_setting_ends_at_once_with_what_is_allowed(run, tmp_path, arguments, message):
    status, said = run(*arguments)
    assert status == 2
    assert message in said
    assert "Traceback" not in said
    assert not list((tmp_path / "artifacts").glob("*/*/manifest.json"))
    assert not list((tmp_path / "runs").glob("*/*/status.json"))


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


@pytest.fixture
def restored():
    """Signals are listened to, as in a terminal's foreground, and their handlers put back afterwards."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_so(number, restored):
    """As by nohup: the terminal is closed, and the sweep goes on."""
    signal.signal(number, signal.SIG_IGN)
    stop = StopRequest()

    def action():
        with stop.listening():
            os.kill(os.getpid(), number)
        return 7

    assert run_with_messages(action) == 7
    assert not stop()
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_what_a_library_makes_of_an_interrupt_is_still_one(capsys, number, restored):
    def action():
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            raise ModuleNotFoundError("could not import") from error
        return 0

    assert run_with_messages(action) == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_an_error_of_ours_is_not_hidden(restored):
    with pytest.raises(ZeroDivisionError):
        run_with_messages(lambda: 1 // 0)


def test_a_lost_claim_is_one_message(capsys, tmp_path):
    def action():
        with hold(tmp_path) as claim:
            next(tmp_path.glob(".claim-*")).unlink()
            claim.require_held()
        return 0

    assert run_with_messages(action) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not held any more; now it is free\n"


def test_a_directory_of_another_configuration_is_refused_and_kept(run, tmp_path):
    """A default changes between two calls; the cell's name does not hold it."""
    assert run("sweep=s")[0] == 0
    (config,) = (tmp_path / "runs").glob("s/*/config.yaml")
    before = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*") if path.is_file()}
    config.write_text(config.read_text().replace("clip_norm: 30.0", "clip_norm: 2.0"))
    before[config] = config.stat().st_mtime_ns
    status, said = run("sweep=s")
    assert status == 2
    assert "optim.clip_norm: 2.0 there, 30.0 now" in said
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
