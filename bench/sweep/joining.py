"""Whether a worker may join a sweep: it has to see the folder as it was planned, and to be of the same code."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.checked import ConfigError
from bench.provenance import code_hash, git_commit
from bench.records import PLAN_FILE, read_plan

# A network file system may show a folder as it was a minute ago.
_SECONDS_TO_SEE = 60.0
_POLL_SECONDS = 1.0


def wait_for_plan(sweep_dir: Path, call: str | None, *, seconds: float = _SECONDS_TO_SEE) -> None:
    """Wait until this machine sees what the driver has planned.

    Args:
        call: of the driver that started this worker; None waits for nothing.
    Raises:
        ConfigError: it does not see that.
    """
    until = time.monotonic() + seconds
    while call is not None and read_plan(sweep_dir).get("call", "") < call:
        if time.monotonic() > until:
            raise ConfigError(
                f"{sweep_dir / PLAN_FILE} is not there, or from before the command that started this worker: "
                f"{socket.gethostname()} sees another folder of that name; runs_dir has to be on a file system that "
                "all machines share"
            )
        time.sleep(_POLL_SECONDS)


def require_same_code(sweep_dir: Path, plan: Mapping[str, Any]) -> None:
    """
    Raises:
        ConfigError: another version of the code has planned the sweep.
    """
    code = plan["code"]  # nothing in plans from before it was noted
    if code and code["sha256"] != code_hash():
        raise ConfigError(
            f"{sweep_dir}: was planned by code {code['sha256']} (commit {code['commit']}), and this worker is of "
            f"{code_hash()} (commit {git_commit()}). Records of two versions are not mixed: take the version that "
            "planned it, or plan it again with this one (python -m bench.train -m …)"
        )
