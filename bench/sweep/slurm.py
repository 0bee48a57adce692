"""Workers as an array of SLURM tasks: submitted with sbatch, judged by the cells' files, never by accounting."""

import getpass
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.checked import ConfigError, build_checked, fingerprint_of, nearest, require_at_least, require_positive
from bench.records import WORKERS_DIR
from bench.sweep.local import WorkersKilled, last_words

SCRIPT = Path(__file__).resolve().parents[2] / "conf" / "slurm" / "worker.sbatch"
_POLL_SECONDS = 1.0
_ASK_SECONDS = 5.0  # between two questions to SLURM
_MOST_UNANSWERED = 60  # questions in a row
_SECONDS_FOR_AN_ANSWER = 30.0


@dataclass(frozen=True)
class SlurmSettings:
    """What a task asks SLURM for; conf/hydra/launcher/slurm.yaml says what each is."""

    detach: bool = False
    partition: str | None = None
    account: str | None = None
    time: str | int | None = None
    warn_seconds: int = 120
    gres: str | None = None
    cpus: int = 1
    mem: str | None = None
    options: tuple[str, ...] = ()
    max_hours: float = 72

    def __post_init__(self) -> None:
        for key in ("cpus", "warn_seconds"):
            require_at_least(f"hydra.launcher.{key}", getattr(self, key), 1)
        require_positive("hydra.launcher.max_hours", self.max_hours)

    @classmethod
    def of(cls, launcher: Mapping[str, Any]) -> Self:
        """From Hydra's mapping.

        Raises:
            ConfigError: a value that cannot be.
        """
        return build_checked(cls, {k: v for k, v in launcher.items() if k != "_target_"}, "hydra.launcher")

    def check_machine(self) -> None:
        """Ask this machine's SLURM for what can be known before anything is built.

        Raises:
            ConfigError: there is no SLURM here, it does not answer, or it has no such partition.
        """
        if shutil.which("sbatch") is None:
            raise ConfigError("hydra/launcher=slurm: no sbatch on the PATH; run the command on a login node of SLURM")
        partitions = _ask("sinfo", "--noheader", "--format=%R").split()
        if self.partition is not None and (unknown := sorted(set(self.partition.split(",")) - set(partitions))):
            raise ConfigError(
                f"hydra.launcher.partition={self.partition}: no partition {unknown[0]} here; did you mean "
                f"{nearest(unknown[0], partitions or ['none'])!r}? There are {', '.join(partitions)}"
            )

    def as_options(self) -> list[str]:
        """The same for sbatch."""
        given = {
            "partition": self.partition, "account": self.account, "time": self.time, "gres": self.gres,
            "cpus-per-task": self.cpus, "mem": self.mem, "signal": f"B:USR2@{self.warn_seconds}",
        }  # fmt: skip
        return [*(f"--{key}={value}" for key, value in given.items() if value is not None), *self.options]


class SlurmWorkers:
    """An array of tasks for one sweep, each ``python -m bench.worker``."""

    def __init__(
        self, sweep_dir: Path, call: str, count: int, settings: SlurmSettings, say: Callable[[str], None]
    ) -> None:
        """
        Args:
            count: workers that there shall be; tasks of earlier calls that are in the queue still count.
            say: told what was submitted.
        """
        self._sweep_dir, self._call, self._count = sweep_dir.resolve(), call, count
        self._settings, self._say = settings, say
        # Of the folder, as sweeps in two folders may have one name.
        self._name = f"gpo-{sweep_dir.name}-{fingerprint_of(str(self._sweep_dir))}"

    def submit(self) -> str | None:
        """Submit what is missing of the workers; the job's id, or None where enough are in the queue already.

        Raises:
            ConfigError: what sbatch says.
        """
        missing = self._count - len(self._queued())
        if missing < 1:
            self._say(f"{self._count} workers of {self._sweep_dir} are in SLURM's queue already")
            return None
        logs = self._sweep_dir / WORKERS_DIR
        logs.mkdir(exist_ok=True)
        job = _ask(
            "sbatch", "--parsable", f"--job-name={self._name}", f"--array=1-{missing}", f"--chdir={Path.cwd()}",
            f"--export=ALL,GPO_PYTHON={sys.executable}", f"--output={logs}/slurm-%A_%a.log",
            *self._settings.as_options(), str(SCRIPT), str(self._sweep_dir), "--call", self._call,
        ).strip().partition(";")[0]  # fmt: skip
        self._say(f"submitted {missing} workers as SLURM job {job}; they write to {logs}/slurm-{job}_*.log")
        return job

    def run(self, cells_left: Callable[[], int]) -> None:
        """Submit workers and wait until no cell is left, or no worker.

        Raises:
            ConfigError: the workers refused their input, or the nodes do not see the folder.
            WorkersKilled: SLURM does not answer any more, or `max_hours` are over; the tasks stay in the queue.
        """
        before, job = cells_left(), self.submit()
        try:
            self._wait(cells_left)
        except WorkersKilled:
            raise
        except BaseException:  # Ctrl-C: as with other launchers, workers end with the command
            subprocess.run(["scancel", *self._mine()], check=False, timeout=_SECONDS_FOR_AN_ANSWER)
            raise
        left = cells_left()
        if not left:  # tasks that have not started find nothing to do
            subprocess.run(["scancel", "--state=PENDING", *self._mine()], check=False, timeout=_SECONDS_FOR_AN_ANSWER)
        elif job is not None and left == before:
            self._explain(job)

    def _wait(self, cells_left: Callable[[], int]) -> None:
        until, asked, unanswered = time.monotonic() + 3600 * self._settings.max_hours, time.monotonic(), 0
        while cells_left():
            time.sleep(_POLL_SECONDS)
            if time.monotonic() > until:
                raise WorkersKilled(
                    f"waited for {self._settings.max_hours} h (hydra.launcher.max_hours); the tasks stay in SLURM's "
                    "queue, and the same command goes on waiting"
                )
            if time.monotonic() - asked < _ASK_SECONDS:
                continue
            asked = time.monotonic()
            try:
                if not self._queued():
                    return
                unanswered = 0
            except ConfigError as error:
                unanswered += 1
                if unanswered > _MOST_UNANSWERED:
                    raise WorkersKilled(
                        f"{error}; the tasks may go on, and the same command goes on waiting"
                    ) from error

    def _queued(self) -> list[str]:
        """Tasks of this sweep that wait or run, whoever's call submitted them."""
        lines = _ask("squeue", "--noheader", "--array", "--format=%i", *self._mine(), "--states=PD,R,CF,CG,RQ,S")
        return lines.split()

    def _mine(self) -> list[str]:
        return [f"--name={self._name}", f"--user={getpass.getuser()}"]

    def _explain(self, job: str) -> None:
        """No cell was settled: say why, where that can be known."""
        logs = sorted((self._sweep_dir / WORKERS_DIR).glob(f"slurm-{job}_*.log"))
        if not logs:
            raise ConfigError(
                f"no task of SLURM job {job} could write to {self._sweep_dir / WORKERS_DIR}: the nodes must see the "
                f"sweep's folder (runs_dir on a shared file system); see scontrol show job {job}"
            )
        for log in logs:
            if (said := last_words(log)) is not None:
                raise ConfigError(f"{log.name}: {said}")


def _ask(*command: str) -> str:
    """What a command of SLURM's prints.

    Raises:
        ConfigError: with what it says of its failure.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS_FOR_AN_ANSWER)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"SLURM does not answer: {command[0]} has taken {_SECONDS_FOR_AN_ANSWER:.0f} s") from error
    if done.returncode:
        raise ConfigError(f"SLURM refuses: {_first_line(done.stderr.splitlines())}")
    return done.stdout


def _first_line(lines: Sequence[str]) -> str:
    return next((line for line in lines if line.strip()), "no reason given")
