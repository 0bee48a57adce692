"""A sweep on a real SLURM of this machine: tasks cancelled, killed, pre-empted and run into their time limit."""

import os
import signal
import subprocess

import pytest
from slurm_cluster import CPUS, missing, slurm_cluster
from sweep_process import ROOT, cells_in, start, state_of, wait_for, without_times

from bench.checked import ConfigError
from bench.records import read_status
from bench.sweep.slurm import SlurmSettings

needs_slurm = pytest.mark.skipif(missing() is not None, reason=str(missing()))

# Slow only where the environment says so: a sweep to compare with need not be.
SLOW_LOSS = """
import os, time
from torch.nn.functional import softplus
def f(z):
    if z.requires_grad and len(z) == 8:  # a batch, not a check
        time.sleep(float(os.environ.get("SECONDS_PER_STEP", 0)))
    return softplus(-z)
"""


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture
def sweep(tiny_world, tmp_path, monkeypatch):
    """A function that starts a sweep of eight cells with further arguments."""
    (tmp_path / "slow_loss.py").write_text(SLOW_LOSS)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")

    def begin(runs, *extra, steps=40):
        settings = tiny_world.overrides(tmp_path / runs, {"optim.steps": steps, "resume.every": 0})
        cells = ("loss=slow_loss:f", "beta=0.1,0.3,1,3", "seed=0,1", "sweep=t")
        return start("bench.train", "-m", *settings, *cells, *extra, mark=f"GPO_TEST={tmp_path}")

    return begin


def ask(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def task_of(pid):
    """The SLURM job whose task the process belongs to."""
    with open(f"/proc/{pid}/environ", encoding="utf-8") as stream:
        variables = dict(item.split("=", 1) for item in stream.read().split("\0") if "=" in item)
    return variables["SLURM_JOB_ID"]


def restarts(job):
    told = ask("scontrol", "show", "job", job)
    return int(told.split("Restarts=")[1].split()[0])


@needs_slurm
@pytest.mark.slow
@pytest.mark.cluster
def test_cancelled_killed_preempted_and_timed_out_tasks_change_no_record(cluster, sweep, tmp_path, monkeypatch):
    local = sweep("local", "workers=2")
    output, _ = local.communicate(timeout=240)
    assert local.returncode == 0, output

    monkeypatch.setenv("SECONDS_PER_STEP", "0.6")  # 24 s for a cell
    slurm = ("hydra/launcher=slurm", f"workers={CPUS}", "hydra.launcher.time=1", "hydra.launcher.warn_seconds=20")
    driver, directory = sweep("slurm", *slurm), tmp_path / "slurm" / "t"
    started = wait_for(lambda: len(found := cells_in(directory, "running")) == CPUS and found)
    pids = {cell: read_status(cell).pid for cell in started}
    cancelled, killed, *others = started
    tasks = [task_of(pids[cell]) for cell in others]
    wait_for(lambda: all((cell / "records.jsonl").exists() for cell in started))

    # At once: 40 s after its start a worker gives its cell back, as its time is over, and dies without one.
    assert (read_status(killed).pid, state_of(killed)) == (pids[killed], "running")
    os.kill(pids[killed], signal.SIGKILL)
    ask("scancel", task_of(pids[cancelled]))
    wait_for(lambda: read_status(cancelled).pid != pids[cancelled] or state_of(cancelled) != "running", seconds=30)
    urgent = ("--partition=high", f"--cpus-per-task={CPUS}", "--output=/dev/null", "--wrap=sleep 2")
    ask("sbatch", *urgent)
    wait_for(lambda: all(restarts(task) for task in tasks), seconds=60)

    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    assert "8 cells: 8 done" in output
    statuses = [read_status(cell) for cell in cells_in(directory, "done")]
    assert [death["pid"] for status in statuses for death in status.deaths] == [pids[killed]]
    assert sum(status.resumed_from > 0 for status in statuses) > 1, "went on from where they were"
    assert sum(map(restarts, tasks)) > len(tasks), "pre-empted, and then run into the time limit"
    for cell in sorted((tmp_path / "local" / "t").glob("*/status.json")):
        assert without_times(directory / cell.parent.name) == without_times(cell.parent), cell.parent.name
    assert not list(directory.glob("*/.claim-*"))
    wait_for(lambda: ask("squeue", "--noheader") == "", seconds=60)


@needs_slurm
@pytest.mark.slow
@pytest.mark.cluster
def test_detached_workers_finish_the_sweep_and_the_same_command_adds_none(cluster, sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("SECONDS_PER_STEP", "0.3")
    again = ("hydra/launcher=slurm", "detach=true", "workers=2")
    for said in ("submitted 2 workers as SLURM job", "2 workers of"):
        call = sweep("runs", *again, steps=8)
        output, _ = call.communicate(timeout=120)
        assert (call.returncode, said in output) == (0, True), output
    wait_for(lambda: len(cells_in(tmp_path / "runs" / "t", "done")) == 8)
    call = sweep("runs", *again, steps=8)
    output, _ = call.communicate(timeout=120)
    assert "8 cells, 8 finished, 0 to run" in output
    assert {read_status(cell).attempts for cell in cells_in(tmp_path / "runs" / "t", "done")} == {1}


@needs_slurm
@pytest.mark.slow
@pytest.mark.cluster
def test_what_slurm_lacks_is_said_before_anything_is_built(cluster, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no partition hihg here; did you mean 'high'"):
        SlurmSettings.of({"partition": "hihg"}).check_machine()
    (tmp_path / "slurm.conf").write_text("SlurmctldHost=nowhere\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(ConfigError, match="SLURM refuses: sinfo"):
        SlurmSettings.of({}).check_machine()


def test_a_machine_without_sbatch_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no sbatch on the PATH"):
        SlurmSettings.of({"_target_": "x"}).check_machine()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"partitoin": "x"}, "did you mean 'hydra.launcher.partition'"),
        ({"cpus": 0}, "hydra.launcher.cpus=0: must be 1 or more"),
        ({"max_hours": 0}, "hydra.launcher.max_hours=0"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=said):
        SlurmSettings.of(settings)


def test_settings_reach_sbatch():
    given = {
        "partition": "gpu",
        "time": "4:00:00",
        "gres": "gpu:1",
        "account": "a",
        "mem": "8G",
        "options": ["--qos=x"],
    }
    assert SlurmSettings.of(given).as_options() == [
        "--partition=gpu", "--account=a", "--time=4:00:00", "--gres=gpu:1", "--cpus-per-task=1", "--mem=8G",
        "--signal=B:USR2@120", "--qos=x",
    ]  # fmt: skip
