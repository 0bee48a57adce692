"""Starting workers by the launcher that was asked for, until every cell has had its turn."""

import os
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.cells.cell import Cell
from bench.checked import ConfigError
from bench.claims import is_claimed, server_time
from bench.config import CellConfig
from bench.records import WORKERS_DIR
from bench.sections import ParallelConfig
from bench.sweep.compose import SweepRequest, launch_with_hydra
from bench.sweep.devices import share_out, visible_gpus
from bench.sweep.local import LocalWorkers, WorkersKilled
from bench.sweep.plan import is_left
from bench.sweep.progress import progress_to, warnings_to
from bench.sweep.ray_workers import RaySettings, RayWorkers
from bench.sweep.slurm import SlurmSettings, SlurmWorkers
from gold_rm.threads import available_cores

# Those that are none of Hydra's: processes of this machine, tasks elsewhere.
_WITH_WORKERS = (LOCAL, SLURM, RAY) = ("local", "slurm", "ray")
_MOST_IDLE_ROUNDS = 3
_POLL_SECONDS = 1.0


def check_launcher(request: SweepRequest, parallel: ParallelConfig) -> None:
    """Ask what can be known before anything is built.

    Raises:
        ConfigError: a setting that cannot be, or this machine lacks what the launcher needs.
    """
    n_jobs = request.launcher_settings.get("n_jobs", -1)
    if not isinstance(n_jobs, int) or n_jobs == 0:
        raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: must be a whole number but 0; -1 is all cores")
    if parallel.processes > 1 and request.launcher not in _WITH_WORKERS:
        raise ConfigError(
            f"parallel.processes={parallel.processes}: hydra/launcher={request.launcher} runs workers of one process; "
            f"take {', '.join(_WITH_WORKERS)}, or python -m bench.worker by hand"
        )
    if request.launcher == SLURM:
        SlurmSettings.of(request.launcher_settings).check_machine()
    elif request.launcher == RAY:
        RaySettings.of(request.launcher_settings).check_machine()


def workers_wanted(request: SweepRequest, config: CellConfig) -> int:
    """How many workers there shall be at most: those that were asked for, or as many as the machine has room for."""
    if config.workers is not None:
        return config.workers
    n_jobs: int = request.launcher_settings.get("n_jobs", -1 if request.launcher in _WITH_WORKERS else 1)
    if n_jobs > 0:
        return n_jobs
    room = len(_devices(config)) if request.launcher == LOCAL else 0
    return max(1, (room or available_cores() // config.parallel.processes) + 1 + n_jobs)


def _devices(config: CellConfig) -> list[str]:
    """What each local worker sees of the machine's GPUs; nothing where there is none."""
    return share_out(visible_gpus(config.device), config.parallel)


def is_detached(request: SweepRequest) -> bool:
    """Whether the command returns once its workers are submitted."""
    return request.launcher == SLURM and SlurmSettings.of(request.launcher_settings).detach


def submit_workers(request: SweepRequest, sweep_dir: Path, call: str, workers: int, console: Console) -> None:
    """Submit what is missing of the workers, and say how to follow them."""
    settings = SlurmSettings.of(request.launcher_settings)
    SlurmWorkers(sweep_dir, call, workers, settings, progress_to(console)).submit()
    progress_to(console)(f"follow it with: python -m bench.status {sweep_dir}")


def run_in_rounds(
    request: SweepRequest, sweep_dir: Path, pending: Sequence[Cell], call: str, workers: int, console: Console
) -> None:
    """Start workers until every cell has had its turn, in rounds: a worker of joblib's that is killed takes its round
    along. The cells of such a round are then run one by one, so that only the one that kills its worker does it twice.
    """
    idle_rounds, before, is_broken = 0, len(pending) + 1, False

    def left() -> list[Cell]:
        return [cell for cell in pending if is_left(cell.directory, call)]

    while waiting := left():
        if all(is_claimed(cell.directory) for cell in waiting):  # by other calls, or on other machines
            time.sleep(_POLL_SECONDS)
            continue
        idle_rounds = idle_rounds + 1 if len(waiting) == before else 0
        before = len(waiting)
        if idle_rounds == _MOST_IDLE_ROUNDS:
            said = f"workers end without finishing a cell; giving up. What they say: {sweep_dir / WORKERS_DIR}"
            console.print(said, style="red", highlight=False, soft_wrap=True)
            return
        try:
            count = min(workers, len(waiting))
            config = pending[0].config
            if (supervisor := _supervisor(request, config, sweep_dir, call, count, console)) is not None:
                supervisor.run(lambda: len(left()))
            else:
                jobs, max_cells = (1, workers) if is_broken else (count, None)
                pool_since = server_time(sweep_dir) if jobs > 1 else None
                task = partial(_work_for_hydra, sweep_dir.resolve(), call, os.getpid(), max_cells, pool_since)
                launch_with_hydra(request.fixed, task, jobs)
            is_broken = False
        except BrokenProcessPool:  # joblib's: when one of its workers is killed, the others end with it
            is_broken = True
        except WorkersKilled as error:
            console.print(str(error), style="red", highlight=False, soft_wrap=True)
            return


def _supervisor(
    request: SweepRequest, config: CellConfig, sweep_dir: Path, call: str, count: int, console: Console
) -> LocalWorkers | SlurmWorkers | RayWorkers | None:
    """Who starts and watches the workers; None where Hydra's launcher does."""
    if request.launcher == LOCAL:
        return LocalWorkers(sweep_dir, call, count, warnings_to(console), devices=_devices(config))
    if request.launcher == SLURM:
        settings = SlurmSettings.of(request.launcher_settings)
        return SlurmWorkers(sweep_dir, call, count, settings, progress_to(console))
    if request.launcher == RAY:
        return RayWorkers(sweep_dir, call, count, RaySettings.of(request.launcher_settings), warnings_to(console))
    return None


def _work_for_hydra(
    sweep_dir: Path, call: str, driver_pid: int, max_cells: int | None, pool_since: float | None
) -> None:
    """A job of a Hydra launcher: a worker, in the driver's process, in a child of it, or far away."""
    from bench.sweep.joining import wait_for_plan
    from bench.sweep.stopping import StopRequest
    from bench.sweep.workers import work

    wait_for_plan(sweep_dir, call)

    stop = StopRequest(driver_pid=driver_pid if os.getppid() == driver_pid else None)
    work(sweep_dir, stop, call=call, max_cells=max_cells, pool_since=pool_since)
    if stop.by_signal and os.getpid() == driver_pid:
        raise KeyboardInterrupt
