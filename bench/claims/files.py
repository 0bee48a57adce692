"""The claim files of a directory: reading them, and judging them by process and by heartbeat.

Nothing here needs more than read access, but for the probe of the file server's clock.
"""

import contextlib
import errno
import os
import re
import time
import uuid
from pathlib import Path

from bench.claims.owner import Holder, is_gone, parse_holder

STALE_SECONDS = 300.0
PROBE_SECONDS = 10.0  # a measured clock is used again for so long: whoever polls would write a probe each time

_CLAIM = re.compile(r"\.claim-(\d+)")
_TEMPORARY = re.compile(r"\.claim-.*\.tmp")
_VANISHED = (errno.ENOENT, errno.ESTALE)  # ESTALE: removed by another client of a network file system

# st_dev → (time.monotonic() of the probe, the file server's clock − time.monotonic())
_clocks: dict[int, tuple[float, float]] = {}


def is_vanished(error: OSError) -> bool:
    """Whether the error says that a file or its directory is not there any more."""
    return error.errno in _VANISHED


def claim_path(directory: Path, generation: int) -> Path:
    return directory / f".claim-{generation:06d}"


def temporary_path(directory: Path) -> Path:
    """A name for a short-lived file; left by a killed process, it is debris that the next taker removes."""
    return directory / f".claim-{uuid.uuid4().hex}.tmp"


def list_claims(directory: Path) -> dict[int, Holder]:
    """Every claim by its generation, oldest first; none of a directory that is not there."""
    generations = sorted(int(match[1]) for name in _names(directory) if (match := _CLAIM.fullmatch(name)))
    holders = {generation: read_claim(directory, generation) for generation in generations}
    return {generation: holder for generation, holder in holders.items() if holder is not None}


def read_claim(directory: Path, generation: int) -> Holder | None:
    """The claim of one generation; None if it is not there."""
    found = _read(claim_path(directory, generation))
    return None if found is None else parse_holder(found[0], generation)


def read_holder(directory: Path) -> Holder | None:
    """Who holds the directory, or held it last and is dead; None if it is free."""
    claims = list_claims(directory)
    return claims[max(claims)] if claims else None


def is_claimed(directory: Path) -> bool:
    """Whether somebody alive holds the directory."""
    # Not only the highest: a taker that is about to back off may stand above the real holder for a moment.
    return any(is_alive(directory, holder) for holder in list_claims(directory).values())


def is_alive(directory: Path, holder: Holder, *, stale_seconds: float = STALE_SECONDS) -> bool:
    """Whether the claim is still there and its owner at work.

    An owner on this machine is dead when its process is; any other, and one that was stopped, when its
    heartbeat is older than `stale_seconds`.
    """
    if is_gone(holder):
        return False
    found = _read(claim_path(directory, holder.generation))
    if found is None or parse_holder(found[0], holder.generation).token != holder.token:
        return False
    return server_time(directory) - found[1] < stale_seconds


def last_beat(directory: Path) -> float | None:
    """When the newest claim was last touched, by the file server's clock; None if there is none."""
    claims = list_claims(directory)
    found = _read(claim_path(directory, max(claims))) if claims else None
    return None if found is None else found[1]


def remove_claim(directory: Path, generation: int, token: str) -> None:
    """Remove a claim if it is still the one with this token."""
    found = read_claim(directory, generation)
    if found is not None and found.token == token:
        claim_path(directory, generation).unlink(missing_ok=True)


def remove_debris(directory: Path, stale_seconds: float) -> None:
    """Remove the temporary files of processes that were killed."""
    for name in _names(directory):
        if _TEMPORARY.fullmatch(name):
            # Debris disturbs nobody: where it cannot be removed, say because it is another user's, it stays.
            with contextlib.suppress(OSError):
                if server_time(directory) - (directory / name).stat().st_mtime >= stale_seconds:
                    (directory / name).unlink()


def server_time(directory: Path) -> float:
    """The clock that stamps files in `directory`: the file server's, whatever this machine's says.

    A read-only directory cannot be probed; there, this machine's clock has to do.
    """
    try:
        device = directory.stat().st_dev
        if device not in _clocks or time.monotonic() - _clocks[device][0] > PROBE_SECONDS:
            stamp = _probe(temporary_path(directory))
            _clocks[device] = (time.monotonic(), stamp - time.monotonic())
        return _clocks[device][1] + time.monotonic()
    except OSError:
        return time.time()


def _probe(path: Path) -> float:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        os.utime(descriptor)  # without a time: the server fills in its own
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        if is_vanished(error):
            return []
        raise


def _read(path: Path) -> tuple[bytes, float] | None:
    """Content and time of a claim file, empty if it may not be read; None if it is not there."""
    try:
        try:
            # Opened, not asked by name: opening makes a network client forget what it remembers of the file.
            with path.open("rb") as stream:
                return stream.read(), os.fstat(stream.fileno()).st_mtime
        except PermissionError:
            return b"", path.stat().st_mtime
    except OSError as error:
        if is_vanished(error):
            return None
        raise
