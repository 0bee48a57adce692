"""A claim that this process holds: whether it still does, its heartbeat, and giving it back."""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.claims.files import claim_path, is_vanished, list_claims, read_claim, read_holder, remove_claim
from bench.claims.owner import Holder, parse_holder
from gold_rm.errors import UserError

HEARTBEAT_SECONDS = 20.0


class ClaimLost(UserError):
    """The claim is not held any more: the process was stopped, or cut off from the file system, for too long."""


class Claim:
    """A directory that this process holds, until `release` or the end of the ``with`` block.

    Attributes:
        directory, generation, token: which claim this is.
        previous: the dead owner that it was taken over from.
    """

    def __init__(self, directory: Path, holder: Holder, previous: Holder | None, heartbeat_seconds: float) -> None:
        self.directory = directory
        self.generation = holder.generation
        self.token = holder.token
        self.previous = previous
        self.heartbeat_seconds = heartbeat_seconds
        self._pid = holder.pid

    def held(self) -> bool:
        """Whether the claim is still this process's (a forked child's it never is)."""
        if os.getpid() != self._pid:
            return False
        # First the successors, then the own file: a successor that is gone again removed it before it went.
        claims = list_claims(self.directory).values()
        if any(each.generation > self.generation and each.replaces in (None, self.token) for each in claims):
            return False
        own = read_claim(self.directory, self.generation)
        return own is not None and own.token == self.token

    def require_held(self) -> None:
        """Call this before what only the holder may do.

        Raises:
            ClaimLost: naming who holds the directory now.
        """
        if self.held():
            return
        if os.getpid() != self._pid:
            raise ClaimLost(f"{self.directory} is claimed by process {self._pid}, not by its child {os.getpid()}")
        holder = read_holder(self.directory)
        raise ClaimLost(f"{self.directory} is not held any more; now it is {f'held by {holder}' if holder else 'free'}")

    def release(self) -> None:
        """Give the directory back; nothing happens if the claim is lost, or in a forked child."""
        if os.getpid() == self._pid:
            HEART.remove(self)
            remove_claim(self.directory, self.generation, self.token)

    def beat(self) -> bool:
        """Touch the claim file; False if it is lost, and then nothing is touched."""
        if not self.held():
            return False
        try:
            # Checked and touched through one descriptor: by name, it could be another's file by now.
            with claim_path(self.directory, self.generation).open("rb") as stream:
                if parse_holder(stream.read(), self.generation).token != self.token:
                    return False
                os.utime(stream.fileno())  # without a time: the server fills in its own
        except OSError as error:
            if is_vanished(error):
                return False
            raise
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Heart:
    """One daemon thread that beats for every claim of the process; it ends with the last of them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every claim: in a forked child they are the parent's, and the thread is not there."""
        self._changed = threading.Condition()
        self._due: dict[Claim, float] = {}  # by time.monotonic()
        self._is_running = False

    def add(self, claim: Claim) -> None:
        with self._changed:
            self._due[claim] = time.monotonic() + claim.heartbeat_seconds
            self._changed.notify()
            if not self._is_running:
                threading.Thread(target=self._run, name="claims", daemon=True).start()
                self._is_running = True

    def remove(self, claim: Claim) -> None:
        with self._changed:
            self._due.pop(claim, None)
            self._changed.notify()

    def _run(self) -> None:
        while due := self._next():
            for claim in due:
                # A server that does not answer now may do so at the next beat; `held` tells the truth meanwhile.
                with contextlib.suppress(OSError):
                    if not claim.beat():
                        self.remove(claim)

    def _next(self) -> list[Claim]:
        """Wait for the claims that are due; none when there is nothing left to beat for."""
        with self._changed:
            while self._due:
                now = time.monotonic()
                if due := [claim for claim, at in self._due.items() if at <= now]:
                    self._due.update((claim, now + claim.heartbeat_seconds) for claim in due)
                    return due
                self._changed.wait(min(self._due.values()) - now)
            self._is_running = False
            return []


HEART = Heart()
os.register_at_fork(after_in_child=HEART.reset)
