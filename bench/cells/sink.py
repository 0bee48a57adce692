"""Where a cell's records are mirrored, beside the files that are the truth."""

from collections.abc import Sequence
from typing import Protocol

from bench.cells.stored import Recorded
from bench.records import CheckpointRecord, StepMetrics


class Sink(Protocol):
    """Where a cell's records are mirrored. What is on disk is the truth, so nothing that a sink does may raise."""

    def start(self, recorded: Recorded) -> None:
        """Begin; `recorded` is what an earlier attempt left and this one goes on from."""
        ...

    def log_steps(self, steps: Sequence[StepMetrics]) -> None: ...

    def log(self, record: CheckpointRecord) -> None: ...

    def finish(self, exit_code: int) -> None: ...
