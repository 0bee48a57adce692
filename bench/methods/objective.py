"""The GPO objective on preference pairs; β acts here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from bench.data.pairs import PreferencePairs, pair_logprobs
from bench.policies.load import Policy


class PairLosses(NamedTuple):
    """f(βρ) and ρ (nats) of preference pairs, each [pairs]."""

    loss: Tensor
    rho: Tensor


@dataclass(frozen=True)
class Objective:
    """L(θ) = mean f(βρ) (Tang et al. 2024, eq. 5)."""

    fn: Callable[[Tensor], Tensor]
    beta: float
    length_normalized: bool = False

    def per_pair(self, policy: Policy, pairs: PreferencePairs) -> PairLosses:
        """f(βρ) and ρ of each pair."""
        rho = pair_logprobs(policy, pairs, length_normalized=self.length_normalized).rho
        return PairLosses(self.fn(self.beta * rho), rho)
