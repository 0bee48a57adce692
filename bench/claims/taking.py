"""Taking a claim, when it is free or its owner is dead.

Why no live claim is disturbed, whatever the order of the steps of many takers:
- A taker proceeds only if every claim that it lists is dead, and makes the generation above the highest. Making
  it is atomic and fails if it exists, so only one of the takers that saw the same claim gets further.
- It then lists again. If a higher generation is there, or the claim that it replaces is gone (so another took it
  over first, and may be finished already), it removes its own and backs off.
- It names the claim that it replaces. A holder has lost its claim only to one that names it, so a late taker
  that stands above it until it backs off does not count.
- Older claims are removed oldest first, so that whoever was replaced finds its own file or its successor's.
"""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.claims.files import (
    STALE_SECONDS,
    claim_path,
    is_alive,
    is_vanished,
    list_claims,
    read_holder,
    remove_claim,
    remove_debris,
    temporary_path,
)
from bench.claims.holding import HEART, HEARTBEAT_SECONDS, Claim
from bench.claims.owner import Holder, this_process

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def try_claim(
    directory: Path,
    *,
    call: str | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    stale_seconds: float = STALE_SECONDS,
) -> Claim | None:
    """Claim the directory if it is free or its owner is dead; None if not, or if the directory is not there.

    Args:
        call: kept with the claim, to tell whose worker this is.
    """
    directory = directory.absolute()  # the heartbeat goes on when the working directory changes
    claims = list_claims(directory)
    if any(is_alive(directory, holder, stale_seconds=stale_seconds) for holder in claims.values()):
        return None
    previous = claims[max(claims)] if claims else None
    try:
        mine = _take(directory, previous, call, stale_seconds)
    except OSError as error:
        if not is_vanished(error):
            raise
        return None
    if mine is None:
        return None
    claim = Claim(directory, mine, previous, heartbeat_seconds)
    HEART.add(claim)
    return claim


@contextlib.contextmanager
def hold(
    directory: Path,
    *,
    timeout: float | None = None,
    poll: float = 0.1,
    call: str | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    stale_seconds: float = STALE_SECONDS,
) -> Iterator[Claim]:
    """Wait for the directory and hold it for the ``with`` block.

    Args:
        timeout: seconds to wait; None waits for as long as an owner is alive.
        poll: seconds between two tries.
    Raises:
        TimeoutError: naming who holds it.
        FileNotFoundError: the directory is not there.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        claim = try_claim(directory, call=call, heartbeat_seconds=heartbeat_seconds, stale_seconds=stale_seconds)
        if claim is not None:
            break
        if not directory.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory))
        if deadline is not None and time.monotonic() >= deadline:
            holder = read_holder(directory) or "a process that has just released it"
            raise TimeoutError(f"{directory} is still held by {holder} after {timeout:g} s")
        time.sleep(poll)
    with claim:
        yield claim


def _take(directory: Path, previous: Holder | None, call: str | None, stale_seconds: float) -> Holder | None:
    """Make the claim that follows `previous`; None if another taker was faster."""
    generation, replaces = (1, None) if previous is None else (previous.generation + 1, previous.token)
    mine = this_process(call=call, token=uuid.uuid4().hex, generation=generation, replaces=replaces)
    with contextlib.ExitStack() as undo:
        undo.callback(remove_claim, directory, mine.generation, mine.token)
        _create(directory, mine)
        claims = list_claims(directory)
        if not _stands(mine, previous, claims):
            return None
        for older in claims.values():
            if older.generation < mine.generation:
                remove_claim(directory, older.generation, older.token)
        remove_debris(directory, stale_seconds)
        undo.pop_all()
    return mine


def _stands(mine: Holder, previous: Holder | None, claims: dict[int, Holder]) -> bool:
    """Whether the claim just made is the one that counts; `claims` are listed afterwards (see the module's top)."""
    return (
        mine.generation == max(claims, default=None)
        and claims[mine.generation] == mine
        and (previous is None or claims.get(previous.generation) == previous)
    )


def _create(directory: Path, holder: Holder) -> None:
    """Make the claim file with its content, unless it exists; whose it is has to be read afterwards.

    (A network file system may answer that it exists to the very client that made it, when the first answer
    was lost.)
    """
    path, temporary = claim_path(directory, holder.generation), temporary_path(directory)
    try:
        _write_new(temporary, holder.to_json())
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            _write_new(path, holder.to_json())
    except FileExistsError:
        pass
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _write_new(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as stream:
            stream.write(content)
    except FileExistsError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):  # written in part: the disk is full
            path.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
