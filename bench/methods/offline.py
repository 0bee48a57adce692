"""Training of one policy on preference pairs: mean f(βρ), the same optimiser and schedule for every loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.config import OptimConfig
from bench.data.pairs import PreferencePairs, pair_logprobs


class NonFiniteLoss(RuntimeError):
    """Training met NaN or infinity; the message holds the step and the values."""


@dataclass(frozen=True)
class Objective:
    """L(θ) = mean f(βρ) (Tang et al. 2024, eq. 5). β acts here and nowhere else."""

    fn: Callable[[Tensor], Tensor]
    beta: float
    length_normalized: bool = False

    def per_pair(self, model: PreTrainedModel, pairs: PreferencePairs) -> Tensor:
        """f(βρ) of each pair, [pairs]."""
        return self.fn(self.beta * pair_logprobs(model, pairs, length_normalized=self.length_normalized).rho)


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step: the batch's mean loss before the step, and its gradient norm before clipping."""

    step: int
    loss: float
    grad_norm: float


def train(
    model: PreTrainedModel,
    pairs: PreferencePairs,
    objective: Objective,
    optim: OptimConfig,
    *,
    generator: torch.Generator,
) -> Iterator[StepMetrics]:
    """Train `model` in place, yielding after every step, so that the caller decides when to evaluate.

    Args:
        model: in evaluation mode (dropout off, as π_ref was scored); its parameters are updated.
        pairs: all pairs of the cell, on the CPU; every epoch visits them in a new order.
        generator: draws the order.
    Raises:
        NonFiniteLoss: the loss or its gradient is NaN or infinite; the last update was finite.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=optim.lr, betas=(optim.adam_beta1, optim.adam_beta2), weight_decay=optim.weight_decay,
        fused=True,
    )  # fmt: skip
    warmup = max(1, optim.warmup_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / warmup))
    batches = shuffled_batches(len(pairs), optim.batch_pairs, generator)
    for step in range(1, optim.steps + 1):
        loss, grad_norm = accumulate_gradient(model, pairs.take(next(batches)), objective, optim)
        if not (torch.isfinite(loss) and torch.isfinite(grad_norm)):
            raise NonFiniteLoss(f"step {step}: loss {loss.item():g}, gradient norm {grad_norm.item():g}")
        optimizer.step()
        scheduler.step()
        yield StepMetrics(step, loss.item(), grad_norm.item())


def accumulate_gradient(
    model: PreTrainedModel, batch: PreferencePairs, objective: Objective, optim: OptimConfig
) -> tuple[Tensor, Tensor]:
    """Put the clipped gradient of the batch's mean loss into ``.grad``, micro-batch by micro-batch.

    Returns:
        Mean loss and gradient norm before clipping, both scalars.
    """
    model.zero_grad(set_to_none=True)
    size = optim.micro_batch_pairs or len(batch)
    total = torch.zeros((), device=model.device)
    for rows in torch.arange(len(batch)).split(size):
        # Each piece is weighted by its share of the batch, so that pieces of unequal size sum to the mean.
        part = objective.per_pair(model, batch.take(rows).to(model.device)).sum() / len(batch)
        part.backward()
        total += part.detach()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
    return total, grad_norm


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of indices below `count`: epoch after epoch in new order, batches run across epochs."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
