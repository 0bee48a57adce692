"""Who holds a claim, and whether that process still exists as far as this machine can tell."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

# Names of the running job, most specific first: the parts of one row are joined by "_".
JOB_VARIABLES = (("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), ("SLURM_JOB_ID",), ("PBS_JOBID",), ("LSB_JOBID",))


@dataclass(frozen=True)
class Holder:
    """The content of a claim file. Of a file that cannot be read, only `generation` is known (see `is_known`)."""

    host: str
    pid: int
    process_started: int | None  # clock ticks after boot; tells a process from a later one with its id
    pid_namespace: str | None  # tells containers with one host name apart
    job: str | None  # of the scheduler, if there is one
    call: str | None  # the driver's call that started the worker
    token: str  # of this one claim
    generation: int
    boot: str | None = None  # tells machines with one name apart, and a machine before and after a restart
    replaces: str | None = None  # token of the claim that this one was taken over from

    @property
    def is_known(self) -> bool:
        """False for a claim file that is empty or cannot be read: only its heartbeat counts."""
        return self.pid > 0

    def __str__(self) -> str:
        if not self.is_known:
            return "an unknown process"
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def this_process(*, call: str | None, token: str, generation: int, replaces: str | None) -> Holder:
    """The calling process as the holder of a new claim."""
    pid = os.getpid()
    return Holder(
        socket.gethostname(), pid, _state_and_start(pid)[1], _pid_namespace(), _job(os.environ), call,
        token, generation, _boot(), replaces,
    )  # fmt: skip


def parse_holder(content: bytes, generation: int) -> Holder:
    """The holder that a claim file names; an unknown one if it names none."""
    try:
        values = json.loads(content)
        known = {field.name: values[field.name] for field in fields(Holder) if field.name in values}
        holder = Holder(**{**known, "generation": generation})
        if isinstance(holder.host, str) and isinstance(holder.token, str) and type(holder.pid) is int:
            return holder
    except (ValueError, TypeError):  # not JSON, not text, no object, or keys are missing
        pass
    return Holder("", 0, None, None, None, None, "", generation)


def is_gone(holder: Holder) -> bool:
    """Whether the holder was a process of this machine and has ended; False where that cannot be known."""
    here = (socket.gethostname(), _pid_namespace())
    if not holder.is_known or (holder.host, holder.pid_namespace) != here or holder.boot not in (None, _boot()):
        return False
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it is another user's
        pass
    state, started = _state_and_start(holder.pid)
    is_another = None not in (started, holder.process_started) and started != holder.process_started
    return is_another or state in ("Z", "X")  # ended, and its parent has not asked for its exit status yet


def _state_and_start(pid: int) -> tuple[str | None, int | None]:
    """Fields 3 and 22 of /proc/<pid>/stat; None where it cannot be read (no Linux, or hidden from other users)."""
    try:
        # Field 2 is the command in parentheses, which may hold spaces and parentheses.
        rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return rest[0], int(rest[19])
    except (OSError, IndexError, ValueError):
        return None, None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _job(environment: Mapping[str, str]) -> str | None:
    for names in JOB_VARIABLES:
        parts: list[Any] = [environment.get(name) for name in names]
        if all(parts):
            return "_".join(parts)
    return None
