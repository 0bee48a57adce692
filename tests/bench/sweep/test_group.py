"""A cell that several processes share, gloo on the CPU, against the same cell in one process."""

import json
import os
import signal
import socket
import subprocess
import sys

import pandas as pd
import pytest
import torch
from processes import find_processes
from running import prepared_for
from sweep_process import ROOT, cells_in, start, wait_for, without_times

from bench.checked import ConfigError
from bench.policies.ranks import Ranks
from bench.records import RECORDS_FILE, SAMPLES_FILE, read_status
from bench.sections import ParallelConfig
from bench.sweep.devices import share_out
from bench.sweep.local import LocalWorkers
from bench.sweep.plan import write_plan
from bench.sweep.stopping import StopRequest
from bench.sweep.workers import work

SMALL_BATCHES = {"evaluation.batch_size": 6}  # of which each process has some
METHODS = ({"beta": 0.1}, {"method": "online", "online.every": 2}, {"method": "rloo"})
# What a response depends on, beside its uniforms, moves by rounding; so does everything that is measured on it.
# In nats or SD, and relative for what is far from 0.
TOLERANCE = 1e-4


@pytest.fixture
def plan(tiny_world, tmp_path):
    """A function from a folder's name and lists of changed settings to planned cells."""

    def write(name, *changes, **common):
        cells = [tiny_world.cell(tmp_path / name, {"sweep": "t", **common, **each}) for each in changes]
        write_plan(cells[0].sweep_dir, cells, {cell.name: prepared_for(cell) for cell in cells}, ["typed"], "1")
        return cells

    return write


def worker(cells, *command):
    """The exit status of a worker in its own process, and what it printed."""
    words = [sys.executable, "-m", *(command or ("bench.worker",)), str(cells[0].sweep_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def records_of(cell):
    return [json.loads(line) for line in (cell.directory / RECORDS_FILE).read_text().splitlines()]


def assert_same(one, several):
    """Within rounding, and the same responses."""
    apart = {"wall_s", "cell_id", "config"}  # the one takes micro-batches, which are part of what a cell is
    for ours, theirs in zip(records_of(one), records_of(several), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - apart:
            if isinstance(ours[name], float):
                assert theirs[name] == pytest.approx(ours[name], rel=TOLERANCE, abs=TOLERANCE), name
            else:
                assert theirs[name] == ours[name], name
    ours, theirs = (pd.read_parquet(each.directory / SAMPLES_FILE) for each in (one, several))
    assert (ours["response"] == theirs["response"]).all()


def test_adapters_in_bfloat16_are_trained_by_two_as_by_one(plan):
    """With the pieces that each of the two takes, to the last bit."""
    lora = {**SMALL_BATCHES, "policy.use_peft": True, "policy.lora_r": 2, "policy.dtype": "bfloat16"}
    (one,) = plan("one", {**lora, "optim.micro_batch_pairs": 4})
    (two,) = plan("two", {**lora, "parallel.processes": 2})
    assert work(one.sweep_dir, StopRequest()).done == [one.name]
    status, said = worker([two])
    assert status == 0, said
    for ours, theirs in zip(records_of(one), records_of(two), strict=True):
        for name in ("kl", "rho_mean", "rho_sq_mean", "grad_norm", "trained_parameters"):
            assert ours.get(name) == theirs.get(name), name
    assert ours["kl"] > 0.1
    with pytest.raises(ConfigError, match=r"parallel\.strategy=fsdp: adapters leave little to cut"):
        plan("cut", {**lora, "parallel.processes": 2, "parallel.strategy": "fsdp"})


TORCHRUN = ("torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_does(plan, free_port, strategy):
    ones = plan("one", *({**SMALL_BATCHES, **each, "optim.micro_batch_pairs": 4} for each in METHODS))
    assert len(work(ones[0].sweep_dir, StopRequest()).done) == len(ones)
    twos = plan(
        "two", *({**SMALL_BATCHES, **each} for each in METHODS),
        **{"parallel.processes": 2, "parallel.strategy": strategy, "save": "final"},
    )  # fmt: skip
    # Started by ourselves, and by the user.
    by_hand = (*TORCHRUN, str(free_port), "-m", "bench.worker")
    status, said = worker(twos, *(by_hand if strategy == "fsdp" else ()))
    assert status == 0, said
    assert "a group of 2 processes" in said
    for one, two in zip(ones, twos, strict=True):
        assert_same(one, two)
        # What is saved is the whole policy, not one process's part of it.
        saved = (two.directory / "policy" / "model.safetensors").stat().st_size
        assert saved == (prepared_for(two).policy_dir / "model.safetensors").stat().st_size


@pytest.fixture
def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


LONG = {**SMALL_BATCHES, "optim.steps": 600, "evaluation.checkpoints": 3, "parallel.processes": 2}


def members(mark):
    """Processes of a group, without the one that started them, which alone has no --driver-pid."""
    return find_processes("--driver-pid", environment=mark)


@pytest.mark.slow
def test_a_group_that_loses_a_process_starts_again_and_one_that_is_stopped_goes_on(plan, tmp_path):
    """SIGKILL to the second process, then SIGTERM to the worker; records are those of a group left in peace."""
    (peaceful,) = plan("peaceful", {"beta": 0.1}, **LONG)
    assert worker([peaceful])[0] == 0
    (cell,) = plan("hit", {"beta": 0.1}, **LONG)
    mark = f"GPO_TEST={tmp_path}"
    first = start("bench.worker", str(cell.sweep_dir), mark=mark)
    wait_for(lambda: (cell.directory / RECORDS_FILE).exists() and len(records_of(cell)) == 2)
    leader = read_status(cell.directory).pid
    (other,) = set(members(mark)) - {leader}
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: (status := read_status(cell.directory)).pid != leader and status.state == "running")
    assert read_status(cell.directory).resumed_from > 0
    first.terminate()
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 130, output
    assert wait_for(lambda: not members(mark))
    stopped = read_status(cell.directory)
    assert stopped.state == "interrupted"
    assert [death["pid"] for death in stopped.deaths] == [leader]
    assert "SIGKILL of process 1" in (cell.sweep_dir / "workers" / "deaths.jsonl").read_text()

    status, said = worker([cell])
    assert status == 0, said
    assert without_times(cell.directory) == without_times(peaceful.directory)


@pytest.mark.slow
def test_a_resume_point_of_a_group_is_taken_up_by_one_process(plan, tmp_path):
    """Weights and moments that FSDP2 has cut are whole in it; the rest of the cell differs by rounding that grows."""
    # At ten times this rate, rounding has changed everything by step 200.
    steps = {"optim.steps": 200, "evaluation.checkpoints": 2, "optim.lr": 1e-3}
    (one,) = plan("one", {"beta": 0.1}, **SMALL_BATCHES, **steps)
    work(one.sweep_dir, StopRequest())
    (cell,) = plan("cut", {"beta": 0.1}, **LONG | steps | {"parallel.strategy": "fsdp"})
    process = start("bench.worker", str(cell.sweep_dir), mark=f"GPO_TEST={tmp_path}")
    wait_for(lambda: (cell.directory / RECORDS_FILE).exists() and len(records_of(cell)) == 2)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert work(cell.sweep_dir, StopRequest()).done == [cell.name]
    assert read_status(cell.directory).resumed_from >= 100
    ours, theirs = (records_of(each)[-1] for each in (one, cell))
    for name in ("kl", "gold", "rho_mean", "grad_norm"):
        assert theirs[name] == pytest.approx(ours[name], rel=0.02, abs=0.02)


def test_a_cell_that_fails_in_a_group_has_failed_and_the_next_one_is_run(plan):
    """With a learning rate of 1e18, the second step is not finite; a group of its own runs the cell after it."""
    short = {**SMALL_BATCHES, "parallel.processes": 2}
    bad, good = plan("t", {"optim.lr": 1e18, "optim.warmup_steps": 0}, {"beta": 0.3}, **short)
    status, said = worker([bad])
    assert status == 1, said
    assert "NonFiniteLoss" in read_status(bad.directory).error
    assert read_status(good.directory).state == "done"


@pytest.mark.slow
def test_make_sweep_starts_groups(tiny_world, tmp_path):
    changes = {**SMALL_BATCHES, "parallel.processes": 2}
    driver = start(
        "bench.train", "-m", *tiny_world.overrides(tmp_path / "runs", changes), "beta=0.1,0.3", "sweep=t",
        mark=f"GPO_TEST={tmp_path}",
    )  # fmt: skip
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, output
    assert len(cells_in(tmp_path / "runs" / "t", "done")) == 2
    logs = [path.read_text() for path in (tmp_path / "runs" / "t" / "workers").glob("*.log")]
    assert all("a group of 2 processes" in log for log in logs)


def test_parts_of_a_batch_are_equal_or_refused(tiny_world, tmp_path):
    with pytest.raises(ConfigError, match=r"parallel.processes=3: must divide the 8 pairs of a step"):
        tiny_world.config(tmp_path, {"parallel.processes": 3})
    with pytest.raises(ConfigError, match=r"must divide the 4 prompts .* optim.batch_pairs=8"):
        tiny_world.config(tmp_path, {"parallel.processes": 8, "method": "rloo"})
    with pytest.raises(ConfigError, match=r"not both"):
        tiny_world.config(tmp_path, {"parallel.processes": 2, "parallel.workers_per_gpu": 2})


def test_processes_change_no_cell(tiny_world, tmp_path):
    """How many share it moves a cell's results by rounding, as the device does: it is no other cell."""
    one, two = (tiny_world.cell(tmp_path, {"parallel.processes": count}) for count in (1, 2))
    assert (one.name, one.id) == (two.name, two.id)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_ranks_share_everything_once(size):
    ranks = [Ranks(rank, size) for rank in range(size)]
    for count in (0, 1, 5, 12):
        rows = list(range(count))
        for each in ranks:
            assert rows[each.part(count)] == rows, "outside `together`, a rank is alone"
        parts, dealt = [], []
        for each in ranks:
            with each.together():
                parts += rows[each.part(count)]
                dealt += each.mine(rows)
                assert each.batch_size(100, count) * size >= count
        assert parts == rows
        assert sorted(dealt) == rows


def test_each_rank_takes_a_gpu_of_its_own_or_is_refused(monkeypatch):
    """As on a machine with two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Ranks(1, 2, 1).device("auto") == Ranks(1, 2, 1).device("cuda") == "cuda:1"
    assert chosen == [1, 1]
    assert Ranks(1, 2, 1).device("cpu") == "cpu"
    assert Ranks().device("auto") == "auto", "alone, the configuration says"
    with pytest.raises(ConfigError, match=r"parallel.processes=3: each takes a GPU, and this worker sees 2"):
        Ranks(2, 3, 2).device("auto")


def test_workers_are_spread_over_gpus():
    assert share_out(["0", "1"], ParallelConfig(workers_per_gpu=2)) == ["0", "1", "0", "1"]
    assert share_out(["3", "5", "7"], ParallelConfig(processes=2)) == ["3,5"]
    assert share_out([], ParallelConfig(processes=2)) == []
    with pytest.raises(ConfigError, match=r"parallel.processes=4: this machine has 2 GPUs"):
        share_out(["0", "1"], ParallelConfig(processes=4))


def test_each_local_worker_sees_one_gpu(plan, tmp_path, monkeypatch):
    """What the driver gives to its workers, which here have no GPU to see; a stand-in for them writes it down."""
    (cell,) = plan("t", {})
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "sees $CUDA_VISIBLE_DEVICES"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    LocalWorkers(cell.sweep_dir, "1", 3, print, devices=["4", "6"]).run(lambda: 0)
    seen = [(cell.sweep_dir / "workers" / f"{slot}.log").read_text().strip() for slot in range(3)]
    assert seen == ["sees 4", "sees 6", "sees 4"]
