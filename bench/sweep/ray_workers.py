"""Workers as tasks of Ray, on a cluster that runs or on this machine alone; judged by the cells' files."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.checked import ConfigError, build_checked, require_at_least
from bench.records import WORKERS_DIR
from bench.sweep.local import BAD_INPUT, last_words

_POLL_SECONDS = 1.0
_SECONDS_TO_STOP = 30.0  # as of workers of this machine
_SECONDS_TO_NOTICE = 0.2
_SECONDS_TO_CONNECT = 10.0
_UNSEEN = 1000  # no exit status of a process
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class RaySettings:
    """What a task asks Ray for; conf/hydra/launcher/ray.yaml says what each is."""

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    max_retries: int = 3

    def __post_init__(self) -> None:
        for key in ("num_cpus", "num_gpus", "max_retries"):
            require_at_least(f"hydra.launcher.{key}", getattr(self, key), -1 if key == "max_retries" else 0)

    @classmethod
    def of(cls, launcher: Mapping[str, Any]) -> Self:
        """From Hydra's mapping.

        Raises:
            ConfigError: a value that cannot be.
        """
        return build_checked(cls, {k: v for k, v in launcher.items() if k != "_target_"}, "hydra.launcher")

    def check_machine(self) -> None:
        """
        Raises:
            ConfigError: Ray is not installed.
        """
        try:
            import ray  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError("hydra/launcher=ray: Ray is not installed; pip install 'ray>=2.9'") from error

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """Within, this process is joined to the cluster.

        Raises:
            ConfigError: there is none at the address, or it has not what a single task asks for.
        """
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ours = signal.getsignal(signal.SIGTERM)  # Ray sets its own, which leaves without a word
        _require_answer(self.address)
        local: dict[str, Any] = {} if self.address else {"include_dashboard": False, "_node_ip_address": _LOOPBACK}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"hydra.launcher.address={self.address}: no Ray cluster ({_line(error)})") from error
        try:
            signal.signal(signal.SIGTERM, ours)
            self._require(ray.nodes())
            yield
        finally:
            ray.shutdown()

    def _require(self, nodes: list[dict[str, Any]]) -> None:
        for name, wanted in (("CPU", self.num_cpus), ("GPU", self.num_gpus)):
            most = max((node["Resources"].get(name, 0) for node in nodes if node["Alive"]), default=0)
            if wanted > most:
                raise ConfigError(
                    f"hydra.launcher.num_{name.lower()}s={wanted:g}: no node of this Ray cluster has more than {most:g}"
                )


class RayWorkers:
    """Tasks for one sweep, each ``python -m bench.worker`` in a process of its own."""

    def __init__(
        self, sweep_dir: Path, call: str, count: int, settings: RaySettings, say: Callable[[str], None]
    ) -> None:
        """
        Args:
            say: told when a task was lost.
        """
        self._sweep_dir, self._call, self._count = sweep_dir.resolve(), call, count
        self._settings, self._say = settings, say

    def run(self, cells_left: Callable[[], int]) -> None:
        """Run tasks until no cell is left, or no task.

        Raises:
            ConfigError: see `RaySettings.cluster`; or a worker refused its input, with what it said.
        """
        import ray

        (self._sweep_dir / WORKERS_DIR).mkdir(exist_ok=True)
        with self._settings.cluster():
            task = ray.remote(
                num_cpus=self._settings.num_cpus, num_gpus=self._settings.num_gpus,
                max_retries=self._settings.max_retries, scheduling_strategy="SPREAD",
            )(_work)  # fmt: skip
            command = (str(self._sweep_dir), "--call", self._call)
            tasks = {task.remote(command, str(Path.cwd()), str(self._log(slot))): slot for slot in range(self._count)}
            waiting = list(tasks)
            try:
                while waiting and cells_left():
                    ended, waiting = ray.wait(waiting, timeout=_POLL_SECONDS)
                    for each in ended:
                        self._ended(each, self._log(tasks[each]))
            finally:  # those that are left give their cells back
                for each in waiting:
                    ray.cancel(each)
                if waiting:
                    ray.wait(waiting, num_returns=len(waiting), timeout=_SECONDS_TO_STOP)

    def _log(self, slot: int) -> Path:
        return self._sweep_dir / WORKERS_DIR / f"ray-{slot}.log"

    def _ended(self, task: Any, log: Path) -> None:
        import ray

        try:
            code = ray.get(task)
        except ray.exceptions.RayError as error:  # its node, or it, died more often than it is tried again
            self._say(f"a task of Ray was lost ({_line(error)}); its cell goes to another")
            return
        if code == _UNSEEN:
            raise ConfigError(
                f"a node of the Ray cluster does not see {log.parent}: runs_dir has to be on a file system that all "
                "nodes share"
            )
        if code == BAD_INPUT:
            raise ConfigError(last_words(log) or f"a worker refused its input; see {log}")
        if code < 0:
            self._say(f"a worker was ended by signal {-code}; its cell goes to another; see {log}")


def _work(arguments: tuple[str, ...], directory: str, log: str) -> int:
    """A task of Ray: one worker, which is asked to stop when the task is cancelled or its process ends."""
    if not Path(log).parent.is_dir():
        return _UNSEEN
    command = [sys.executable, "-m", "bench.worker", *arguments, "--driver-pid", str(os.getpid())]
    with open(log, "ab") as stream:
        worker = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        # Not `wait()`, which Ray's cancelling does not interrupt.
        while (code := worker.poll()) is None:
            time.sleep(_SECONDS_TO_NOTICE)
        return code
    except BaseException:  # cancelled
        worker.terminate()
        worker.wait()
        raise


def _require_answer(address: str | None) -> None:
    """Ask whether anybody listens there, which Ray would wait for without end.

    Raises:
        ConfigError: nobody does.
    """
    named = (_known_cluster() if address == "auto" else address) or ""
    host, colon, port = named.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # Ray says what it thinks of that
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        where = f"{address} ({named})" if address == "auto" else address
        raise ConfigError(f"hydra.launcher.address={where}: no Ray cluster ({_line(error)})") from error


def _known_cluster() -> str | None:
    """What ``auto`` means: a variable, or the file that a head node leaves on its machine and a crash leaves behind."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    base = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform == "linux" else None) or "/tmp"
    path = Path(base) / "ray" / "ray_current_cluster"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
