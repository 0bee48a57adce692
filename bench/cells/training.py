"""What computes in a cell that is trained: its policy, trainer and measurement, in one process or on several ranks.

The first rank runs the cell and alone knows its folder. Each of the calls below it makes together with the others,
which have built the same from the same inputs (`follow`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from bench.cells.cell import Cell
from bench.cells.inputs import InputCache, training_pairs
from bench.cells.measure import Checkpoint, Measurement
from bench.cells.memory import OutOfMemory, words_of
from bench.data.prepared import Prepared
from bench.methods import METHODS, TrainingInputs
from bench.policies.load import resolve_device
from bench.policies.memory import free
from bench.records import StepMetrics
from gold_rm.memory import is_out_of_memory

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
        self._policy = shared.reference.trainable(config.policy, seed=config.seed)
        self._policy = self._policy.spread_out(config.parallel.strategy)
        make = METHODS[config.method].trainer
        assert make is not None  # run_cell has seen to that
        pairs = training_pairs(shared.pool, config)
        self._trainer = make(TrainingInputs(config, self._policy, pairs, shared.train_prompts, shared.labeller))
        self._measurement = Measurement(cell, prepared, cache)
        self._cell, self._prepared, self._cache, self._has_halved = cell, prepared, cache, False

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        return self._trainer.steps_done

    @_on_all_ranks
    def preview(self) -> StepMetrics:
        """See `bench.methods.trainer.Trainer`; so for the next three.

        Raises:
            OutOfMemory: so for the next one, too.
        """
        return self._within_memory(self._trainer.preview)

    @_on_all_ranks
    def step(self) -> StepMetrics:
        return self._within_memory(self._trainer.step)

    def _within_memory(self, step: Callable[[], StepMetrics]) -> StepMetrics:
        try:
            return step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            optim = self._cell.config.optim
            at_once = optim.micro_batch_pairs or "all"
            raise OutOfMemory(
                self._too_much(f"a training step of {optim.batch_pairs} pairs, {at_once} at once,", error)
                + "; lower optim.micro_batch_pairs or logits_mib"
            ) from error

    def _too_much(self, what: str, error: BaseException) -> str:
        told = words_of(error, resolve_device(self._cell.config.device))
        return f"{what} needs more memory than there is ({told})"

    @_on_all_ranks
    def state_dict(self) -> dict[str, Tensor]:
        return self._trainer.state_dict()

    @_on_all_ranks
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._trainer.load_state_dict(state)

    @_on_all_ranks
    def measure(self, recent: Sequence[StepMetrics], *, wall_s: float) -> Checkpoint:
        """See `bench.cells.measure.Measurement.at`; where memory does not suffice, once more with half the batch.

        Raises:
            OutOfMemory: nor does it for that.
        """
        halvings: list[str] = []
        while True:
            at_once = self._cell.config.evaluation.batch_size
            try:
                checkpoint = self._measure(recent, wall_s)
                return checkpoint._replace(warnings=[*checkpoint.warnings, *halvings])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                told = self._too_much(f"evaluating {at_once} sequences at once", error)
                # Ranks would not agree to try again: only one of them has failed.
                if self._has_halved or at_once == 1 or self.ranks.size > 1:
                    raise OutOfMemory(f"{told}; lower evaluation.batch_size or logits_mib") from error
            self._halve()  # out here, where the error is gone, which holds what it was raised from
            halvings = [f"step {self.steps_done}: {told}; from here on it is {at_once // 2} at once"]

    def _halve(self) -> None:
        evaluation = self._cell.config.evaluation
        halved = replace(evaluation, batch_size=evaluation.batch_size // 2)
        self._cell = replace(self._cell, config=replace(self._cell.config, evaluation=halved))
        self._measurement = Measurement(self._cell, self._prepared, self._cache)
        self._has_halved = True
        free()

    def _measure(self, recent: Sequence[StepMetrics], wall_s: float) -> Checkpoint:
        return self._measurement.at(
            self.steps_done, self._policy.whole(), recent, wall_s=wall_s, samples_drawn=self._trainer.samples_drawn
        )

    @_on_all_ranks
    def save(self, directory: Path) -> None:
        """Write the policy as it is now; the first rank writes."""
        whole = self._policy.whole()
        if self.ranks.leads:
            whole.save(directory)


def follow(cache: InputCache) -> None:
    """Make the calls that the first rank tells of, cell after cell, until it has no more.

    Raises:
        ConfigError: this rank has no GPU of its own, where the first one has.
    """
    training: Any = None
    while (told := cache.ranks.hear()) is not None:
        name, arguments, named = told
        if name == _BEGIN:
            cell, prepared = arguments
            training = None  # gives its memory back before the next takes its own
            of_first = cell.config.device
            device = cache.ranks.device("cuda" if of_first.startswith("cuda") else of_first)
            training = CellTraining(cell.on(device, cache.ranks.world_size), prepared, cache)
        else:
            getattr(training, name)(*arguments, **named)
