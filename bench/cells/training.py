"""What computes in a cell that is trained: its policy, trainer and measurement, in one process or on several ranks.

The first rank runs the cell and alone knows its folder. Each of the calls below it makes together with the others,
which have built the same from the same inputs (`follow`).
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from bench.cells.cell import Cell
from bench.cells.inputs import InputCache, training_pairs
from bench.cells.measure import Checkpoint, Measurement
from bench.data.prepared import Prepared
from bench.methods import METHODS, TrainingInputs
from bench.records import StepMetrics

P = ParamSpec("P")
R = TypeVar("R")
_BEGIN = "begin"


def _on_all_ranks(
    method: "Callable[Concatenate[CellTraining, P], R]",
) -> "Callable[Concatenate[CellTraining, P], R]":
    """A call that the first rank makes is made by the others, too."""

    @wraps(method)
    def call(self: "CellTraining", *arguments: P.args, **named: P.kwargs) -> R:
        self.ranks.tell((method.__name__, arguments, named))
        with self.ranks.together():
            return method(self, *arguments, **named)

    return call


class CellTraining:
    """The moving parts of one attempt at a cell."""

    def __init__(self, cell: Cell, prepared: Prepared, cache: InputCache) -> None:
        """
        Raises:
            ConfigError, DamagedArtifact: see `InputCache.shared`.
        """
        self.ranks = cache.ranks
        self.ranks.tell((_BEGIN, (cell, prepared), {}))
        torch.set_num_threads(cell.config.cpu_threads)
        config = cell.config
        shared = cache.shared(prepared, config)
        self._policy = shared.reference.trainable().spread_out(config.parallel.strategy)
        make = METHODS[config.method].trainer
        assert make is not None  # run_cell has seen to that
        pairs = training_pairs(shared.pool, config)
        self._trainer = make(TrainingInputs(config, self._policy, pairs, shared.train_prompts, shared.labeller))
        self._measurement = Measurement(cell, prepared, cache)

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        return self._trainer.steps_done

    @_on_all_ranks
    def preview(self) -> StepMetrics:
        """See `bench.methods.trainer.Trainer`; so for the next three."""
        return self._trainer.preview()

    @_on_all_ranks
    def step(self) -> StepMetrics:
        return self._trainer.step()

    @_on_all_ranks
    def state_dict(self) -> dict[str, Tensor]:
        return self._trainer.state_dict()

    @_on_all_ranks
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._trainer.load_state_dict(state)

    @_on_all_ranks
    def measure(self, recent: Sequence[StepMetrics], *, wall_s: float) -> Checkpoint:
        """See `bench.cells.measure.Measurement.at`."""
        return self._measurement.at(
            self.steps_done, self._policy.whole(), recent, wall_s=wall_s, samples_drawn=self._trainer.samples_drawn
        )

    @_on_all_ranks
    def save(self, directory: Path) -> None:
        """Write the policy as it is now; the first rank writes."""
        whole = self._policy.whole()
        if self.ranks.leads:
            whole.save(directory)


def follow(cache: InputCache, device: str | None) -> None:
    """Make the calls that the first rank tells of, cell after cell, until it has no more."""
    training: Any = None
    while (told := cache.ranks.hear()) is not None:
        name, arguments, named = told
        if name == _BEGIN:
            cell, prepared = arguments
            training = None  # gives its memory back before the next takes its own
            training = CellTraining(cell.on(device), prepared, cache)
        else:
            getattr(training, name)(*arguments, **named)
