"""Exact values on a world whose responses can all be enumerated: what the estimators are held against.

All log-probs come from the same code as everywhere else (`bench.policies.scoring`); only the sampling is replaced
by a sum over every response.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from bench.policies.policy import Policy
from bench.policies.scoring import response_logprobs
from bench.policies.tokens import SequenceBatch, TokenIds, collate
from bench.worlds.oracle import check_enumerable
from gold_rm.reward_model import GoldModel, Standardization


def enumerate_responses(vocabulary: int, eos_id: int, length: int) -> list[TokenIds]:
    """Every response, each with its EOS unless it is cut at `length` tokens; `response_count` of them."""
    check_enumerable(vocabulary, length)
    words = [token for token in range(vocabulary) if token != eos_id]
    unfinished: list[TokenIds] = [[]]
    ended: list[TokenIds] = []
    for _ in range(length):
        ended += [[*response, eos_id] for response in unfinished]
        unfinished = [[*response, token] for response in unfinished for token in words]
    return ended + unfinished


@dataclass(frozen=True)
class ExactWorld:
    """Every response to every context (prompts that are the same tokens are one context).

    Shapes:
        context_of: [prompts] int64, the context that each evaluation prompt is.
        context_share: [contexts] float64, share of prompts that are this context; sums to 1.
        batch: contexts × responses sequences, responses fastest.
        log_reference: [contexts, responses] float64, log π_ref in nats; each row's probabilities sum to 1.
        gold: [contexts, responses] float64, standardized.
    """

    contexts: list[TokenIds]
    responses: list[TokenIds]
    texts: list[str]
    context_of: Tensor
    context_share: Tensor
    batch: SequenceBatch
    log_reference: Tensor
    gold: Tensor

    def logprobs(self, policy: Policy) -> Tensor:
        """log π of every response, [contexts, responses] float64, differentiable in the policy's parameters.

        Raises:
            FloatingPointError: a log-prob is not finite.
        """
        logps = response_logprobs(policy, self.batch).double().reshape(len(self.contexts), len(self.responses))
        return require_finite("log π", logps)

    def kl(self, log_policy: Tensor) -> Tensor:
        """Exact KL(π‖π_ref) per context, in nats, [contexts]."""
        return require_finite("KL", (log_policy.exp() * (log_policy - self.log_reference)).sum(-1))

    def expected_gold(self, log_policy: Tensor) -> Tensor:
        """Exact gold reward per context, SD units of π_ref's scores, [contexts]."""
        return (log_policy.exp() * self.gold).sum(-1)

    def mean(self, per_context: Tensor) -> float:
        """Mean over prompts of a value per context."""
        return float(self.context_share @ per_context)


@torch.no_grad()
def exact_world(
    policy: Policy, gold: GoldModel, standardization: Standardization, prompts: list[str], max_new_tokens: int
) -> ExactWorld:
    """Enumerate the responses to `prompts`, with π_ref's log-probs and gold scores.

    Args:
        policy: π_ref.
    Raises:
        ConfigError: too many responses.
    """
    encoded = [tuple(ids) for ids in policy.encode(prompts)]
    representative = {ids: prompt for ids, prompt in zip(encoded, prompts, strict=True)}
    place = {ids: index for index, ids in enumerate(representative)}
    contexts = [list(ids) for ids in place]
    context_of = torch.tensor([place[ids] for ids in encoded])
    responses = enumerate_responses(policy.vocabulary, policy.eos_id, max_new_tokens)
    texts = policy.decode(responses)
    shape = (len(contexts), len(responses))
    batch = collate(
        [context for context in contexts for _ in responses],
        responses * len(contexts),
        pad_id=policy.pad_id,
        device=policy.device,
    )
    raw = gold.score([prompt for prompt in representative.values() for _ in texts], texts * len(contexts))
    return ExactWorld(
        contexts,
        responses,
        texts,
        context_of,
        context_of.bincount().double() / len(prompts),
        batch,
        require_finite("log π_ref", response_logprobs(policy, batch).double().reshape(shape)),
        standardization.apply(raw.double()).reshape(shape),
    )


def tilted(world: ExactWorld, reward: Tensor, temperature: float) -> Tensor:
    """log π with π ∝ π_ref exp(reward/λ), the optimum of E[reward] − λ KL, [contexts, responses].

    Args:
        reward: [contexts, responses]; `world.gold` for the KL-constrained optimum π*.
        temperature: λ, in units of the reward per nat.
    """
    return (world.log_reference + reward / temperature).log_softmax(-1)


def tilted_frontier(world: ExactWorld, reward: Tensor, temperatures: Iterable[float]) -> pd.DataFrame:
    """Exact KL and gold of `tilted` policies, averaged over prompts; with ``world.gold`` the ceiling of every frontier.

    Returns:
        One row per temperature: strength (λ), kl (nats), gold (SD units).
    """
    rows = []
    for temperature in temperatures:
        policy = tilted(world, reward, temperature)
        rows.append((temperature, world.mean(world.kl(policy)), world.mean(world.expected_gold(policy))))
    return pd.DataFrame(rows, columns=["strength", "kl", "gold"])


def require_finite(term: str, values: Tensor) -> Tensor:
    """`values`, or an error that names the term and where it is not finite."""
    if not values.isfinite().all():
        bad = (~values.isfinite()).nonzero()[0].tolist()
        raise FloatingPointError(f"{term} at {bad} is {values[tuple(bad)].item()}")
    return values
