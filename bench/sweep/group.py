"""A worker of several processes on one machine, started and watched by torch.distributed's elastic agent."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bench.cells.run import GROUP_LOST
from bench.sweep.local import name_of_signal, note_death
from gold_rm.command_line import BAD_INPUT, INTERRUPTED

_LOOPBACK = "127.0.0.1"
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGUSR1,SIGUSR2"
# To the end of the step or evaluation that is under way, after which the cell is given back.
_SECONDS_TO_STOP = 300
_MOST_IDLE_GROUPS = 3
_POLL_SECONDS = 1.0


def run_as_group(
    processes: int,
    sweep_dir: Path,
    arguments: Sequence[str],
    cells_left: Callable[[], int],
    *,
    driver_pid: int | None = None,
) -> int:
    """Run ``python -m bench.worker`` in so many processes; a group that has lost one ends, and another takes its place.

    Args:
        arguments: of the worker, without the sweep's directory.
        cells_left: number of cells that still have to be run; when a group ends, those go to the next.
        driver_pid: parent process whose end is a request to stop.
    Returns:
        The worker's exit status.
    """
    if driver_pid is not None:
        threading.Thread(target=_end_with, args=(driver_pid,), daemon=True).start()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the processes are all on this machine
    status, idle, before = 0, 0, cells_left()
    while idle < _MOST_IDLE_GROUPS:
        ended = _run_once(processes, sweep_dir, arguments)
        if ended in (0, BAD_INPUT, INTERRUPTED):
            return ended or status
        status, left = 1, cells_left()
        if not left:
            break
        idle, before = (idle + 1 if left == before else 0), left
    return status


def _run_once(processes: int, sweep_dir: Path, arguments: Sequence[str]) -> int:
    with TemporaryDirectory(prefix="gpo-group-") as logs:  # which the agent would leave behind
        return _run_in(logs, processes, sweep_dir, arguments)


def _run_in(logs: str, processes: int, sweep_dir: Path, arguments: Sequence[str]) -> int:
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=f"gpo-{os.getpid()}", rdzv_backend="static",
        rdzv_endpoint=f"{_LOOPBACK}:{_free_port()}", rdzv_configs={"rank": 0}, max_restarts=0, local_addr=_LOOPBACK,
        signals_to_handle=_SIGNALS, shutdown_timeout=_SECONDS_TO_STOP,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "bench.worker", str(sweep_dir), *arguments)
    except SignalException:
        return INTERRUPTED
    except ChildFailedError as error:
        return _status_of(error.failures, sweep_dir)
    return 0


def _status_of(failures: Mapping[int, ProcessFailure], sweep_dir: Path) -> int:
    """The first process's exit status. Where it was killed, or another one before it, the death is noted."""
    leader = failures.get(0)
    if leader is None:  # it had ended well
        return 1
    if leader.exitcode == GROUP_LOST or leader.exitcode < 0:
        # The agent itself ends with SIGTERM what is left of a group.
        causes = [rank for rank, each in failures.items() if rank and each.exitcode != -signal.SIGTERM]
        cause = failures[causes[0]] if leader.exitcode == GROUP_LOST and causes else leader
        told = name_of_signal(-cause.exitcode) if cause.exitcode < 0 else f"status {cause.exitcode}"
        note_death(sweep_dir, leader.pid, f"{told} of process {cause.local_rank} of its group")
    return leader.exitcode


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((_LOOPBACK, 0))
        port: int = listening.getsockname()[1]
        return port


def _end_with(driver_pid: int) -> None:
    while os.getppid() == driver_pid:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
