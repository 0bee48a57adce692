"""Sweeps through the real command line, in processes of their own: killed, interrupted, doubled, and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from processes import find_processes

from bench.checked import ConfigError
from bench.config import cell_config
from bench.messages import CONFIG_DIR, CONFIG_NAME
from bench.records import RECORDS_FILE, read_status
from bench.sweep.driver import plan_cells

ROOT = Path(__file__).resolve().parents[3]
LOSSES, BETAS = ("logistic", "squared"), ("0.1", "1e0", "1")  # the last two are one β


class SweepProcess:
    """``python -m bench.train -m`` on the tiny world, in a process group of its own."""

    def __init__(self, world, runs: Path, *extra: str) -> None:
        arguments = [
            *world.overrides(runs, {"optim.steps": 40}), f"loss={','.join(LOSSES)}", f"beta={','.join(BETAS)}",
            "seed=0,1", "sweep=t", "hydra.launcher.n_jobs=2", *extra,
        ]  # fmt: skip
        self.directory = runs / "t"
        self.mark = f"GPO_TEST={runs}"
        environment = {**os.environ, "GPO_TEST": str(runs), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.train", "-m", *arguments], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            # Where the tests run in the background of a shell, Ctrl-C is ignored, and by what they start as well.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=240)
        return output

    def wait_for(self, state: str, *, count: int = 1) -> list[Path]:
        """Wait until `count` cells are in `state`; returns their directories."""
        deadline = time.time() + 240
        while time.time() < deadline and self.process.poll() is None:
            found = [path.parent for path in self.directory.glob("*/status.json") if state_of(path.parent) == state]
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"never {count} cells {state}; status {self.process.poll()}: {self.finish()}")

    def kill_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)


def state_of(cell_dir: Path) -> str | None:
    status = read_status(cell_dir)
    return None if status is None else status.state


def stamps(cell_dirs) -> dict[str, int]:
    return {path.name: (path / RECORDS_FILE).stat().st_mtime_ns for path in cell_dirs}


def without_times(cell_dir: Path) -> list[dict]:
    lines = (cell_dir / RECORDS_FILE).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "wall_s"} for line in lines]


def test_a_killed_sweep_resumes_and_a_killed_worker_loses_only_its_cell(tiny_world, tmp_path):
    """SIGKILL to everything, then SIGKILL to one worker, then a call that has nothing to do."""
    first = SweepProcess(tiny_world, tmp_path / "runs")
    first.wait_for("done")
    first.kill_group(signal.SIGKILL)
    first.finish()
    # Workers of loky are in the driver's session or not; none may live on to finish the sweep for the next call.
    for pid in find_processes("loky", environment=first.mark):
        os.kill(pid, signal.SIGKILL)
    done = [path.parent for path in first.directory.glob("*/status.json") if state_of(path.parent) == "done"]
    before = stamps(done)
    assert 1 <= len(done) < 8

    second = SweepProcess(tiny_world, tmp_path / "runs")
    running = second.wait_for("running")[0]
    victim = read_status(running)
    os.kill(victim.pid, signal.SIGKILL)
    output = second.finish()
    assert second.process.returncode == 0, output
    assert f"8 cells, {len(done)} finished, {8 - len(done)} to run" in output
    cells = sorted(path.parent for path in second.directory.glob("*/status.json"))
    assert [state_of(cell) for cell in cells] == ["done"] * 8, "1e0 and 1 are one β: 2 losses × 2 β × 2 seeds"
    assert {name: stamp for name, stamp in stamps(cells).items() if name in before} == before

    third = SweepProcess(tiny_world, tmp_path / "runs")
    output = third.finish()
    assert third.process.returncode == 0
    assert "8 cells, 8 finished, 0 to run" in output
    assert stamps(cells) == stamps(sorted(path.parent for path in third.directory.glob("*/status.json")))


@contextmanager
def planned(*overrides):
    """The cells of a multirun."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        base = hydra.compose_config(CONFIG_NAME, list(overrides), RunMode.MULTIRUN, with_log_configuration=False)
        yield plan_cells(base, HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(base)))


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["loss=logistic,savage", "beta=0.1,1", "optim.lr=1e-3"], 4),
        (["experiment=oracle", "loss=squared", "seed=0,1", "pairs.held_out=64"], 10),  # the file sets held_out too
        (["world=reviews,reviews_tiny,oracle", "optim={steps: 7, lr: 0.5}", "world.max_new_tokens=9"], 3),
        (["+world.gold.width=32,64", "world.params.policy.layers=1", "hydra.launcher.n_jobs=1", "cpu_threads=1,2"], 4),
    ],
)
def test_jobs_are_composed_as_by_hydra(overrides, count):
    """Against Hydra's own composition of every job."""
    with planned(*overrides) as cells:
        assert len(cells) == count
        for cell in cells:
            assert cell.config == cell_config(compose(CONFIG_NAME, overrides=list(cell.overrides)))


def test_different_settings_of_one_cell_are_refused():
    with (
        pytest.raises(ConfigError, match=r"experiment=smoke .* are different settings of one cell, loss=logistic"),
        planned("experiment=frontier,smoke", "sweep=one", "loss=logistic", "beta=0.1", "seed=0"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_says_so_and_leaves_no_worker(tiny_world, tmp_path, number):
    sweep = SweepProcess(tiny_world, tmp_path / "runs")
    sweep.wait_for("running")
    os.kill(sweep.process.pid, number)
    output = sweep.finish()
    assert sweep.process.returncode == 130, output
    assert "the same command runs what is missing" in output
    deadline = time.time() + 20
    while (left := find_processes("loky", environment=sweep.mark)) and time.time() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work_and_the_artifacts(tiny_world, tmp_path):
    world = tiny_world._replace(artifacts=tmp_path / "artifacts")  # none there yet: both want to build them
    both = [SweepProcess(world, tmp_path / "runs") for _ in range(2)]
    outputs = [sweep.finish() for sweep in both]
    cells = sorted(path.parent for path in both[0].directory.glob("*/status.json"))
    assert [state_of(cell) for cell in cells] == ["done"] * 8, outputs
    assert [read_status(cell).attempts for cell in cells] == [1] * 8, "no cell was run twice"
    for kind in ("world", "reference", "pairs", "preferences"):
        assert len(list((world.artifacts / kind).glob("*/manifest.json"))) == 1
        assert sum(output.count(f"building {kind} ") for output in outputs) == 1


@pytest.mark.slow
def test_a_cell_of_a_sweep_and_the_same_cell_alone_have_the_same_records(tiny_world, tmp_path):
    sweep = SweepProcess(tiny_world, tmp_path / "swept", "tracking.wandb.mode=offline", "world.name=tiny")
    output = sweep.finish()
    assert sweep.process.returncode == 0, output
    name = next(path.parent.name for path in sweep.directory.glob("loss=logistic,beta=0.1,seed=0*/status.json"))
    cell = tiny_world.cell(tmp_path / "alone", {"optim.steps": 40, "sweep": "t", "loss": "logistic", "beta": 0.1})
    from running import run

    assert run(cell).state == "done"
    drop = ("cell_id", "git_commit", "config")  # the file of the world spells its defaults out
    swept, alone = without_times(sweep.directory / name), without_times(cell.directory)
    assert len(swept) == len(alone)
    for one, other in zip(swept, alone, strict=True):
        assert {key: (value, other[key]) for key, value in one.items() if key not in drop and value != other[key]} == {}
    assert len(list(sweep.directory.glob("*/wandb/offline-run-*"))) == 8, "one W&B run a cell"
