"""Sweeps through the real command line, in processes of their own: killed, interrupted, doubled, and started again."""

import os
import shutil
import signal

import pytest
from running import run as run_cell
from sweep_process import SweepProcess, stamps, start, state_of, without_times

from bench.records import read_status


def cells_of(sweep):
    return sorted(path.parent for path in sweep.directory.glob("*/status.json"))


def test_a_killed_sweep_resumes_and_a_killed_worker_loses_only_its_cell(tiny_world, tmp_path):
    """SIGKILL to the driver, then SIGKILL to one worker, then a call that has nothing to do."""
    first = SweepProcess(tiny_world, tmp_path / "runs")
    first.wait_for("done")
    os.kill(first.process.pid, signal.SIGKILL)
    first.finish()
    assert first.left_over() == [], "workers end with their driver"
    assert not list(first.directory.glob("*/.claim-*")), "and give their cells back"
    done = [path for path in cells_of(first) if state_of(path) == "done"]
    before = stamps(done)
    assert 1 <= len(done) < 8

    second = SweepProcess(tiny_world, tmp_path / "runs")
    running = second.wait_for("running")[0]
    victim = read_status(running).pid
    os.kill(victim, signal.SIGKILL)
    output = second.finish()
    assert second.process.returncode == 0, output
    assert f"8 cells, {len(done)} finished, {8 - len(done)} to run" in output
    assert f"worker {victim} was ended by SIGKILL" in output
    cells = cells_of(second)
    assert [state_of(cell) for cell in cells] == ["done"] * 8, "1e0 and 1 are one β: 2 losses × 2 β × 2 seeds"
    assert {name: stamp for name, stamp in stamps(cells).items() if name in before} == before
    assert [death["pid"] for death in read_status(running).deaths] == [victim]
    others = [cell for cell in cells if cell != running and cell.name not in before]
    assert {read_status(cell).attempts for cell in others} <= {1, 2}, "2: in the first sweep and in the second"

    third = SweepProcess(tiny_world, tmp_path / "runs")
    output = third.finish()
    assert third.process.returncode == 0
    assert "8 cells, 8 finished, 0 to run" in output
    assert stamps(cells) == stamps(cells_of(third))


def test_a_cell_that_kills_its_worker_twice_has_failed_and_the_others_finish(tiny_world, tmp_path):
    world = tiny_world.overrides(tmp_path / "runs", {"optim.steps": 4})
    (tmp_path / "killer_loss.py").write_text(
        "import os, signal\nfrom torch.nn.functional import softplus\n"
        "def f(z):\n"
        "    if z.requires_grad and os.environ.get('OMP_NUM_THREADS') == '1' and len(z) == 8:  # a batch, not a check\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return softplus(-z)\n"
    )
    mark = f"PYTHONPATH={tmp_path}"
    arguments = (*world, "loss=logistic,killer_loss:f,hinge", "beta=0.1", "seed=0", "sweep=t", "workers=2")
    process = start("bench.train", "-m", *arguments, mark=mark)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    states = {
        path.parent.name.split(",")[0]: read_status(path.parent) for path in tmp_path.glob("runs/t/*/status.json")
    }
    assert {name: status.state for name, status in states.items()} == {
        "loss=logistic": "done", "loss=hinge": "done", "loss=killer_loss:f": "failed",
    }  # fmt: skip
    error = states["loss=killer_loss:f"].error
    assert "its worker was killed 2 times while it ran" in error
    assert error.count("ended by SIGKILL") == 2, error


@pytest.mark.parametrize(
    "number",
    [signal.SIGHUP, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGINT, signal.SIGTERM))],
)
def test_an_interrupted_sweep_says_so_and_leaves_no_worker_and_no_claim(tiny_world, tmp_path, number):
    sweep = SweepProcess(tiny_world, tmp_path / "runs", "optim.steps=4000", "resume.every=0")
    running = sweep.wait_for("running")
    os.kill(sweep.process.pid, number)
    output = sweep.finish()
    assert sweep.process.returncode == 130, output
    assert "the same command runs what is missing" in output
    assert sweep.left_over() == []
    assert not list(sweep.directory.glob("*/.claim-*"))
    assert {state_of(cell) for cell in running} == {"interrupted"}
    assert all((cell / "resume" / "state.safetensors").exists() for cell in running), "the work so far is kept"


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work_and_the_artifacts(tiny_world, tmp_path):
    world = tiny_world._replace(artifacts=tmp_path / "artifacts")  # none there yet: both want to build them
    both = [SweepProcess(world, tmp_path / "runs") for _ in range(2)]
    outputs = [sweep.finish() for sweep in both]
    assert [sweep.process.returncode for sweep in both] == [0, 0], outputs
    cells = cells_of(both[0])
    assert [state_of(cell) for cell in cells] == ["done"] * 8
    assert [read_status(cell).attempts for cell in cells] == [1] * 8, "no cell was run twice"
    for kind in ("world", "reference", "pool", "preferences"):
        assert len(list((world.artifacts / kind).glob("*/manifest.json"))) == 1
        assert sum(output.count(f"building {kind} ") for output in outputs) == 1


@pytest.mark.slow
def test_workers_by_hand_finish_a_sweep_that_was_planned(tiny_world, tmp_path):
    """On a copy of the folder, as another machine that mounts it elsewhere would see it."""
    runs = tmp_path / "here" / "runs"
    world = tiny_world._replace(artifacts=tmp_path / "here" / "artifacts")
    driver = SweepProcess(world, runs)
    driver.wait_for("done")
    os.kill(driver.process.pid, signal.SIGTERM)
    driver.finish()
    there = tmp_path / "there"
    shutil.copytree(tmp_path / "here", there, symlinks=True)
    left = 8 - sum(state_of(path.parent) == "done" for path in (there / "runs" / "t").glob("*/status.json"))
    assert left > 2
    one = start("bench.worker", str(there / "runs" / "t"), "--max-cells", "1", "--device", "cpu", mark=driver.mark)
    output, _ = one.communicate(timeout=120)
    assert (one.returncode, output.count("done")) == (0, 1), output
    several = [start("bench.worker", str(there / "runs" / "t"), mark=driver.mark) for _ in range(2)]
    outputs = [worker.communicate(timeout=240)[0] for worker in several]
    assert [worker.returncode for worker in several] == [0, 0], outputs
    assert sum(text.count("done") for text in outputs) == left - 1
    assert all(state_of(path.parent) == "done" for path in (there / "runs" / "t").glob("*/status.json"))


@pytest.mark.slow
def test_a_worker_that_gets_a_signal_or_runs_out_of_time_gives_its_cell_back(tiny_world, tmp_path):
    driver = SweepProcess(tiny_world, tmp_path / "runs", "optim.steps=4000", "seed=0", "beta=0.1")
    driver.wait_for("running")
    os.kill(driver.process.pid, signal.SIGINT)
    driver.finish()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        worker = start("bench.worker", str(driver.directory), mark=driver.mark)
        driver.process = worker  # wait_for watches it
        (cell, *_) = driver.wait_for("running")
        os.kill(worker.pid, number)
        output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 130, output
        assert state_of(cell) == "interrupted"
    timed = start("bench.worker", str(driver.directory), "--max-minutes", "0.01", mark=driver.mark)
    output, _ = timed.communicate(timeout=60)
    assert timed.returncode == 0, output
    assert not list(driver.directory.glob("*/.claim-*"))
    assert "done" not in {state_of(path.parent) for path in driver.directory.glob("*/status.json")}


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_launcher_of_hydras_runs_the_same_worker(tiny_world, tmp_path, launcher):
    sweep = SweepProcess(tiny_world, tmp_path / "runs", f"hydra/launcher={launcher}", "seed=0", "loss=logistic")
    output = sweep.finish()
    assert sweep.process.returncode == 0, output
    assert [state_of(cell) for cell in cells_of(sweep)] == ["done"] * 2
    assert sweep.left_over() == []


@pytest.mark.slow
def test_joblib_workers_that_are_killed_are_started_again(tiny_world, tmp_path):
    sweep = SweepProcess(tiny_world, tmp_path / "runs", "hydra/launcher=joblib", "optim.steps=400")
    running = sweep.wait_for("running")[0]
    os.kill(read_status(running).pid, signal.SIGKILL)
    output = sweep.finish()
    assert sweep.process.returncode == 0, output
    assert [state_of(cell) for cell in cells_of(sweep)] == ["done"] * 8
    assert sweep.left_over() == []


@pytest.mark.slow
def test_a_cell_beside_one_that_kills_joblibs_pool_is_not_blamed(tiny_world, tmp_path):
    """The pool ends with any of its processes, so that both die twice if they are run side by side again."""
    (tmp_path / "killer_loss.py").write_text(
        "import os, signal, time\nfrom torch.nn.functional import softplus\n"
        "def f(z):\n"
        "    if z.requires_grad and len(z) == 8:  # a batch, not a check\n"
        "        time.sleep(2)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return softplus(-z)\n"
    )
    world = tiny_world.overrides(tmp_path / "runs", {"optim.steps": 600})
    joblib = ("hydra/launcher=joblib", "workers=2")
    arguments = (*world, "loss=logistic,killer_loss:f,hinge", "beta=0.1", "seed=0", "sweep=t", *joblib)
    process = start("bench.train", "-m", *arguments, mark=f"PYTHONPATH={tmp_path}")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    states = {path.parent.name.split(",")[0]: state_of(path.parent) for path in tmp_path.glob("runs/t/*/status.json")}
    assert states == {"loss=logistic": "done", "loss=hinge": "done", "loss=killer_loss:f": "failed"}, output


@pytest.mark.slow
def test_a_cell_of_a_sweep_and_the_same_cell_alone_have_the_same_records(tiny_world, tmp_path):
    sweep = SweepProcess(tiny_world, tmp_path / "swept", "tracking.wandb.mode=offline", "world.name=tiny")
    output = sweep.finish()
    assert sweep.process.returncode == 0, output
    name = next(path.parent.name for path in sweep.directory.glob("loss=logistic,beta=0.1,seed=0*/status.json"))
    cell = tiny_world.cell(tmp_path / "alone", {"optim.steps": 40, "sweep": "t", "loss": "logistic", "beta": 0.1})
    assert run_cell(cell).state == "done"
    drop = ("cell_id", "git_commit", "config")  # the file of the world spells its defaults out
    swept, alone = without_times(sweep.directory / name), without_times(cell.directory)
    assert len(swept) == len(alone)
    for one, other in zip(swept, alone, strict=True):
        assert {key: (value, other[key]) for key, value in one.items() if key not in drop and value != other[key]} == {}
    assert len(list(sweep.directory.glob("*/wandb/offline-run-*"))) == 8, "one W&B run a cell"
