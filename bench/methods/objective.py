"""The GPO objective on preference pairs; β acts here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from bench.data.pairs import PreferencePairs, pair_logprobs
from bench.losses import Loss
from bench.policies.load import Policy


class PairLosses(NamedTuple):
    """f(βρ) and ρ (nats) of preference pairs, each [pairs]."""

    loss: Tensor
    rho: Tensor


@dataclass(frozen=True)
class Objective:
    """L(θ) = mean f(βρ) (Tang et al. 2024, eq. 5).

    Attributes:
        scale: the optimizer sees the gradient of scale · L. `scaled` makes it 1 / (β |f'(0)|): the gradient at π_ref is
            then that of −mean ρ for every loss and β, and one `optim.clip_norm` clips all of them alike. AdamW itself
            does not see a constant factor (up to its eps).
    """

    fn: Callable[[Tensor], Tensor]
    beta: float
    length_normalized: bool = False
    scale: float = 1.0

    @classmethod
    def scaled(cls, loss: Loss, beta: float, *, length_normalized: bool = False) -> "Objective":
        """The objective of a cell: the first gradient is the same whatever the loss and β."""
        return cls(loss.fn, beta, length_normalized, 1 / (beta * abs(loss.slope_at_zero)))

    def per_pair(self, policy: Policy, pairs: PreferencePairs) -> PairLosses:
        """f(βρ) and ρ of each pair."""
        rho = pair_logprobs(policy, pairs, length_normalized=self.length_normalized).rho
        return PairLosses(self.fn(self.beta * rho), rho)
