"""A sweep on a real Ray of this machine: two nodes on loopback, one of which dies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import find_processes
from sweep_process import ROOT, cells_in, start, state_of, wait_for, without_times

from bench.checked import ConfigError
from bench.records import read_status
from bench.sweep.ray_workers import RaySettings
from bench.sweep.stopping import StopRequest
from bench.sweep.workers import work

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'ray>=2.9'")
# A `ray.init` without a cluster leaves a token in the home directory, which a later head node then asks for and a later
# second node does not show.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """``ray start --block``, in a session of its own that is ended with it."""

    def __init__(self, mark, *arguments):
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", *arguments]
        self.mark = mark
        name, _, value = mark.partition("=")
        environment = {**os.environ, **QUIET, name: value}
        self.process = subprocess.Popen(
            [*command, "--node-ip-address=127.0.0.1", "--disable-usage-stats"], env=environment, cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def kill(self):
        """All of it at once, as when a machine is gone."""
        deadline = time.monotonic() + 30
        while (left := find_processes("", environment=self.mark)) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.poll()
            time.sleep(0.1)
        self.process.wait(timeout=10)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Head and second node, and the address."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    port = free_port()
    # A path of the sockets may have 107 characters.
    directory = Path("/tmp") / f"gpo-ray-{os.getpid()}"
    head = Node(
        f"GPO_HEAD={tmp_path}", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={directory}"
    )
    address = f"127.0.0.1:{port}"
    nodes = [head]
    try:
        wait_for(lambda: is_listening(port))
        nodes.append(Node(f"GPO_NODE={tmp_path}", f"--address={address}"))
        wait_for(lambda: len(find_processes("raylet/raylet", environment=f"{tmp_path}")) == 2)
        yield address, nodes
    finally:
        for node in reversed(nodes):
            node.kill()
        shutil.rmtree(directory, ignore_errors=True)


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def begin(tiny_world, tmp_path):
    """A function that starts a sweep of eight cells with further arguments."""

    def begin(runs, *extra):
        settings = tiny_world.overrides(tmp_path / runs, {"optim.steps": 400, "resume.every": 20})
        cells = ("loss=logistic", "beta=0.1,0.3,1,3", "seed=0,1", "sweep=t", "workers=2")
        return start("bench.train", "-m", *settings, *cells, *extra, mark=f"GPO_TEST={tmp_path / runs}")

    return begin


@needs_ray
@pytest.mark.slow
@pytest.mark.cluster
def test_a_node_that_dies_changes_no_record(begin, cluster, tmp_path):
    address, (_, node) = cluster
    local = begin("local")
    output, _ = local.communicate(timeout=240)
    assert local.returncode == 0, output

    driver = begin("ray", "hydra/launcher=ray", f"hydra.launcher.address={address}")
    directory = tmp_path / "ray" / "t"
    running = wait_for(lambda: len(found := cells_in(directory, "running")) == 2 and found)
    on_node = [cell for cell in running if read_status(cell).pid in find_processes("worker", environment=node.mark)]
    assert len(on_node) == 1, "one worker on each node"
    node.kill()
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    assert "8 cells: 8 done" in output
    assert len(read_status(on_node[0]).deaths) == 1
    for cell in sorted((tmp_path / "local" / "t").glob("*/status.json")):
        assert without_times(directory / cell.parent.name) == without_times(cell.parent), cell.parent.name
    assert not list(directory.glob("*/.claim-*"))


@needs_ray
@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_no_task_and_the_next_goes_on(begin, tmp_path, number):
    """On a Ray of this machine alone, which ends with the command."""
    directory = tmp_path / "ray" / "t"
    driver = begin("ray", "hydra/launcher=ray", "optim.steps=4000", "resume.every=0")
    running = wait_for(lambda: cells_in(directory, "running"))
    os.kill(driver.pid, number)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, output
    assert {state_of(cell) for cell in running} == {"interrupted"}
    assert not list(directory.glob("*/.claim-*"))
    assert all((cell / "resume" / "state.safetensors").exists() for cell in running)
    wait_for(lambda: not find_processes("", environment=f"GPO_TEST={tmp_path / 'ray'}"), seconds=30)


@needs_ray
@pytest.mark.slow
@pytest.mark.cluster
def test_workers_of_a_command_that_is_killed_end_and_another_worker_takes_over(begin, tmp_path):
    """Ray kills them, with signal 9 as well: they give nothing back, and are known to be dead."""
    directory = tmp_path / "ray" / "t"
    driver = begin("ray", "hydra/launcher=ray", "optim.steps=4000")
    running = wait_for(lambda: [cell for cell in cells_in(directory, "running") if has_resume_point(cell)])
    driver.kill()
    driver.communicate(timeout=120)
    wait_for(lambda: not find_processes("", environment=f"GPO_TEST={tmp_path / 'ray'}"), seconds=120)
    (done,) = work(directory, StopRequest(), max_cells=1).done
    assert done in [cell.name for cell in running]
    status = read_status(directory / done)
    assert status.resumed_from > 0
    assert len(status.deaths) == 1


def has_resume_point(cell):
    return (cell / "resume" / "state.safetensors").exists()


@needs_ray
@pytest.mark.slow
@pytest.mark.cluster
def test_a_head_node_that_dies_ends_the_command_and_any_other_worker_goes_on(begin, cluster, tmp_path):
    """Ray waits a minute for another head; until then, and a little longer, workers of other nodes go on."""
    address, nodes = cluster
    driver = begin("ray", "hydra/launcher=ray", f"hydra.launcher.address={address}", "optim.steps=20000")
    directory = tmp_path / "ray" / "t"
    wait_for(lambda: len(cells_in(directory, "running")) == 2)
    nodes[0].kill()
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode != 0, output
    nodes[1].kill()
    wait_for(lambda: not find_processes("bench.worker", environment=f"GPO_TEST={tmp_path / 'ray'}"), seconds=120)
    assert cells_in(directory, "running") or cells_in(directory, "interrupted")
    work(directory, StopRequest(seconds=5))
    assert any(read_status(cell).attempts > 1 for cell in cells_in(directory, "interrupted"))


@needs_ray
def test_a_cluster_that_has_gone_without_a_word_is_not_waited_for(monkeypatch, tmp_path):
    """A head node that crashes leaves the file that ``auto`` looks at; ray.init would wait for its address for ever."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")
    with (
        pytest.raises(ConfigError, match=r"address=auto \(127\.0\.0\.1:1\): no Ray cluster"),
        RaySettings("auto").cluster(),
    ):
        pass


@needs_ray
@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # of Ray's own, about sockets that it leaves to the collector
def test_what_a_cluster_lacks_is_said():
    with (
        pytest.raises(ConfigError, match=r"num_gpus=1: no node of this Ray cluster has more than 0"),
        RaySettings(num_gpus=1).cluster(),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"address=127\.0\.0\.1:1: no Ray cluster"),
        RaySettings(address="127.0.0.1:1").cluster(),
    ):
        pass


def test_a_machine_without_ray_is_told_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed; pip install 'ray>=2\.9'"):
        RaySettings.of({"_target_": "x"}).check_machine()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adress": "x"}, "did you mean 'hydra.launcher.address'"),
        ({"num_gpus": -1}, "hydra.launcher.num_gpus=-1.*: must be 0 or more"),
        ({"max_retries": -2}, "hydra.launcher.max_retries=-2: must be -1 or more"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=said):
        RaySettings.of(settings)
