"""The cells that may be left for a worker: the plan, read again only when it has changed, without what is settled."""

import os
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from bench.records import PLAN_FILE
from bench.sweep.plan import PlannedJobs, read_planned

_MOST_DOUBLINGS = 12  # 4096 cells: as many workers could start in one moment


class CellQueue:
    """The cells of a planned sweep in the plan's order, going on behind the last one that was looked at.

    With 10,000 cells, reading the plan takes a second and looking at every cell's status another: a worker does each
    once, not for every cell that it runs.
    """

    def __init__(self, sweep_dir: Path, call: str | None) -> None:
        """
        Args:
            call: of the driver, whose cells alone are looked at; None for those of every call.
        """
        self._sweep_dir, self._only = sweep_dir, call
        self._version: tuple[int, ...] | None = None
        self._plan: PlannedJobs | None = None
        self._settled: set[str] = set()
        self._next, self._losses = 0, 0
        self._waiting: deque[int] = deque()
        # Of which worker takes which cell, which moves no result: two workers of one seed would collide again.
        self._draw = random.Random()

    @property
    def plan(self) -> PlannedJobs:
        """The plan as it was at the last `refresh`."""
        assert self._plan is not None
        return self._plan

    @property
    def call(self) -> str:
        """The call that cells are run under: the driver's, or the one that planned last."""
        return self._only or self.plan.call

    def refresh(self) -> None:
        """Read the plan if it is another than the last time; every cell of a new one is looked at again.

        Raises:
            DamagedRecord, ConfigError: see `read_planned`.
        """
        version = _version_of(self._sweep_dir / PLAN_FILE)
        if version is None or version != self._version:
            self._plan = read_planned(self._sweep_dir, self._only, to_run=True)
            self._version, self._settled = version, set()

    def __iter__(self) -> Iterator[str]:
        """One round through the names of all cells that are not known to be settled."""
        names = self.plan.names
        places = [*range(self._next, len(names)), *range(min(self._next, len(names)))]
        self._waiting = deque(place for place in places if names[place] not in self._settled)
        while self._waiting:
            place = self._waiting.popleft()
            self._next = place + 1
            yield names[place]

    def settle(self, name: str) -> None:
        """Leave a cell out until there is another plan: no worker of this call has to run it."""
        self._settled.add(name)

    def won(self) -> None:
        """A cell was claimed."""
        self._losses = 0

    def lost(self) -> None:
        """Another worker was faster: put a random number of cells off to the round's end, more with every loss.

        Workers that start in one moment all want the first cell, then the second: without this (binary exponential
        back-off, as of Ethernet) the last of 200 would try 200 times.
        """
        self._losses += 1
        self._waiting.rotate(-self._draw.randrange(2 ** min(self._losses, _MOST_DOUBLINGS)))


def _version_of(path: Path) -> tuple[int, ...] | None:
    """What changes when the file is replaced; None where it is not there."""
    try:
        # Opened, not asked by name: opening makes a network client forget what it remembers of the file.
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
