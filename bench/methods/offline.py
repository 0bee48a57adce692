"""Offline GPO: mean f(βρ) over fixed preference pairs, the same optimizer and schedule for every loss."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bench.config import OptimConfig
from bench.data.pairs import PreferencePairs
from bench.losses import resolve_loss
from bench.methods.objective import Objective
from bench.methods.optimizer import OptimizerSteps, require_finite
from bench.methods.trainer import TrainingInputs
from bench.policies.policy import Policy
from bench.policies.spread import full
from bench.records import StepMetrics
from bench.seeding import generator_for


def offline_trainer(inputs: TrainingInputs) -> "OfflineTrainer":
    """The trainer of a cell with method ``gpo``."""
    return OfflineTrainer(
        inputs.policy, inputs.pairs, objective_of(inputs), inputs.config.optim, seed=inputs.config.seed
    )


def objective_of(inputs: TrainingInputs) -> Objective:
    """The GPO objective of a cell."""
    config = inputs.config
    return Objective.scaled(resolve_loss(config.loss), config.beta, length_normalized=config.length_normalized)


class OfflineTrainer(OptimizerSteps):
    """AdamW on the mean of f(βρ), batch after batch of preference pairs."""

    def __init__(
        self, policy: Policy, pairs: PreferencePairs, objective: Objective, optim: OptimConfig, *, seed: int
    ) -> None:
        """
        Args:
            policy: see `OptimizerSteps`.
            pairs: all pairs of the cell, on the CPU; every epoch visits them in a new order.
            seed: draws the order.
        """
        super().__init__(policy, optim)
        self._pairs, self._objective, self._seed = pairs, objective, seed
        self._batches = self._order()

    @property
    def samples_drawn(self) -> int:
        """Two for each pair that was seen."""
        return 2 * min(self.steps_done * self._optim.batch_pairs, len(self._pairs))

    def preview(self) -> StepMetrics:
        """The first batch, without an update: the loss is f(0) and the gradient norm is the first step's."""
        return self._measure(self._pairs.take(next(self._order())), step=0)

    def _gradient(self, step: int) -> StepMetrics:
        return self._measure(self._pairs.take(next(self._batches)), step=step)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken; the order of the data follows from the number of steps."""
        super().load_state_dict(state)
        self._batches = self._order()
        for _ in range(self._steps_done):  # drawing the order again costs less than keeping what is left of it
            next(self._batches)

    def _order(self) -> Iterator[Tensor]:
        return shuffled_batches(len(self._pairs), self._optim.batch_pairs, generator_for(self._seed, "order"))

    def _measure(self, batch: PreferencePairs, *, step: int) -> StepMetrics:
        loss, rho, grad_norm = accumulate_gradient(self._policy, batch, self._objective, self._optim)
        accuracy = ((rho > 0).float() + 0.5 * (rho == 0).float()).mean()
        # One transfer from the device for all four.
        measured = torch.stack([loss, accuracy, rho.mean(), grad_norm]).tolist()
        require_finite(step, measured, measured[0], measured[3])
        return StepMetrics(step, *measured, self._rate(step))  # type: ignore[call-arg]  # four values


class BatchGradient(NamedTuple):
    """A batch's mean f(βρ) (scalar), its ρ [pairs] in nats, and the norm of that mean's gradient before clipping."""

    loss: Tensor
    rho: Tensor
    grad_norm: Tensor


def accumulate_gradient(
    policy: Policy, batch: PreferencePairs, objective: Objective, optim: OptimConfig
) -> BatchGradient:
    """Put the scaled, clipped gradient of the batch's mean loss into ``.grad``, micro-batch by micro-batch.

    Every rank takes its part of the batch; the gradient and what is returned are of the whole.
    """
    policy.zero_grad()
    losses, rhos, ranks = [], [], policy.ranks
    own = torch.arange(len(batch))[ranks.part(len(batch))]
    pieces = own.split(optim.micro_batch_pairs or len(own))
    for number, rows in enumerate(pieces, start=1):
        with policy.exchanging(now=number == len(pieces)):
            part = objective.per_pair(policy, batch.take(rows).to(policy.device))
            # Each piece is weighted by its share of the batch, so that pieces of unequal size sum to the mean.
            loss = part.loss.sum() / len(batch)
            (objective.scale * ranks.size * loss).backward()  # which is averaged over ranks
        losses.append(loss.detach())
        rhos.append(part.rho.detach())
    grad_norm = full(torch.nn.utils.clip_grad_norm_(list(policy.parameters()), optim.clip_norm))
    loss, rho = (torch.cat(ranks.gather(each)) for each in (torch.stack(losses), torch.cat(rhos)))
    return BatchGradient(loss.sum(), rho, grad_norm / objective.scale)


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of indices below `count`: epoch after epoch in new order, batches run across epochs."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
