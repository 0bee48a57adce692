"""Offline GPO: mean f(βρ) over fixed preference pairs, the same optimizer and schedule for every loss."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bench.config import OptimConfig
from bench.data.pairs import PreferencePairs
from bench.losses import resolve_loss
from bench.methods.objective import Objective
from bench.methods.trainer import NonFiniteLoss, TrainingInputs
from bench.policies.load import Policy
from bench.records import StepMetrics
from bench.seeding import generator_for

_POLICY, _OPTIMIZER, _STEP = "policy.", "optimizer.", "step"


def offline_trainer(inputs: TrainingInputs) -> "OfflineTrainer":
    """The trainer of a cell with method ``gpo``."""
    config = inputs.config
    objective = Objective.scaled(resolve_loss(config.loss), config.beta, length_normalized=config.length_normalized)
    return OfflineTrainer(inputs.policy, inputs.pairs, objective, config.optim, seed=config.seed)


class OfflineTrainer:
    """AdamW on the mean of f(βρ), batch after batch of preference pairs."""

    def __init__(
        self, policy: Policy, pairs: PreferencePairs, objective: Objective, optim: OptimConfig, *, seed: int
    ) -> None:
        """
        Args:
            policy: in evaluation mode (dropout off, as π_ref was scored); its parameters are updated.
            pairs: all pairs of the cell, on the CPU; every epoch visits them in a new order.
            seed: draws the order.
        """
        self._policy, self._pairs, self._objective, self._optim, self._seed = policy, pairs, objective, optim, seed
        self._optimizer = torch.optim.AdamW(
            list(policy.parameters()), lr=optim.lr, betas=(optim.adam_beta1, optim.adam_beta2),
            weight_decay=optim.weight_decay, fused=True,
        )  # fmt: skip
        self._steps_done = 0
        self._batches = self._order()

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        return self._steps_done

    def preview(self) -> StepMetrics:
        """The first batch, without an update: the loss is f(0) and the gradient norm is the first step's."""
        return self._measure(self._pairs.take(next(self._order())), step=0)

    def step(self) -> StepMetrics:
        """One optimizer step; see `bench.methods.trainer.Trainer`."""
        metrics = self._measure(self._pairs.take(next(self._batches)), step=self._steps_done + 1)
        for group in self._optimizer.param_groups:
            group["lr"] = metrics.lr
        self._optimizer.step()
        self._steps_done += 1
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, AdamW's moments and the number of steps, from which schedule and order of the data follow."""
        state = {_POLICY + name: tensor for name, tensor in self._policy.state_dict().items()}
        for index, entries in self._optimizer.state_dict()["state"].items():
            state |= {f"{_OPTIMIZER}{index}.{name}": tensor for name, tensor in entries.items()}
        return state | {_STEP: torch.tensor(self._steps_done)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        self._policy.load_state_dict({k.removeprefix(_POLICY): v for k, v in state.items() if k.startswith(_POLICY)})
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            if key.startswith(_OPTIMIZER):
                index, _, name = key.removeprefix(_OPTIMIZER).partition(".")
                entries.setdefault(int(index), {})[name] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self._steps_done = int(state[_STEP])
        self._batches = self._order()
        for _ in range(self._steps_done):  # drawing the order again costs less than keeping what is left of it
            next(self._batches)

    def _order(self) -> Iterator[Tensor]:
        return shuffled_batches(len(self._pairs), self._optim.batch_pairs, generator_for(self._seed, "order"))

    def _measure(self, batch: PreferencePairs, *, step: int) -> StepMetrics:
        optim = self._optim
        loss, rho, grad_norm = accumulate_gradient(self._policy, batch, self._objective, optim)
        accuracy = ((rho > 0).float() + 0.5 * (rho == 0).float()).mean()
        # One transfer from the device for all four.
        measured = torch.stack([loss, accuracy, rho.mean(), grad_norm]).tolist()
        if not all(map(math.isfinite, measured)):
            raise NonFiniteLoss(f"step {step}: loss {measured[0]:g}, gradient norm {measured[3]:g}")
        lr = optim.lr * min(1.0, max(step, 1) / max(1, optim.warmup_steps))
        return StepMetrics(step, *measured, lr)  # type: ignore[call-arg]  # four values


class BatchGradient(NamedTuple):
    """A batch's mean f(βρ) (scalar), its ρ [pairs] in nats, and the norm of that mean's gradient before clipping."""

    loss: Tensor
    rho: Tensor
    grad_norm: Tensor


def accumulate_gradient(
    policy: Policy, batch: PreferencePairs, objective: Objective, optim: OptimConfig
) -> BatchGradient:
    """Put the scaled, clipped gradient of the batch's mean loss into ``.grad``, micro-batch by micro-batch."""
    policy.zero_grad()
    losses, rhos = [], []
    for rows in torch.arange(len(batch)).split(optim.micro_batch_pairs or len(batch)):
        part = objective.per_pair(policy, batch.take(rows).to(policy.device))
        # Each piece is weighted by its share of the batch, so that pieces of unequal size sum to the mean.
        loss = part.loss.sum() / len(batch)
        (objective.scale * loss).backward()
        losses.append(loss.detach())
        rhos.append(part.rho.detach())
    grad_norm = torch.nn.utils.clip_grad_norm_(list(policy.parameters()), optim.clip_norm)
    return BatchGradient(torch.stack(losses).sum(), torch.cat(rhos), grad_norm / objective.scale)


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of indices below `count`: epoch after epoch in new order, batches run across epochs."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
