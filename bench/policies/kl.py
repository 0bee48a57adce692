"""KL(π‖π_ref) per sequence, in nats, on samples of π; the direction is policy first."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROUNDING_NATS = 1e-4


class SequenceKL(NamedTuple):
    """Two unbiased estimates of KL(π‖π_ref) from the same samples of π at temperature 1, in nats.

    `exact_per_position` is the Rao–Blackwellised estimator (Amini et al. 2025, arXiv 2504.10637; Tang et al.
    2024, arXiv 2405.08448, appendix D): on every sampled prefix, the exact KL between the two next-token
    distributions, summed over positions up to and including EOS. It is never negative and has a smaller
    variance than `k1`, the sampled log-ratio (Schulman 2020), which serves as the cross-check.
    """

    exact_per_position: Float[Tensor, " sequences"]
    k1: Float[Tensor, " sequences"]


@torch.no_grad()
def position_kl_(
    policy_logits: Float[Tensor, "positions vocabulary"],
    reference_logits: Float[Tensor, "positions vocabulary"],
    targets: Int[Tensor, " positions"],
) -> tuple[Float[Tensor, " positions"], Float[Tensor, " positions"]]:
    """Exact KL(π‖π_ref) of the next-token distributions, and the log-ratio of the token drawn, in nats.

    Overwrites the logits: at a vocabulary of 50,000, memory and not arithmetic is what this costs.
    """
    log_policy = policy_logits.log_softmax(-1)
    log_reference = torch.log_softmax(reference_logits, -1, out=policy_logits)
    log_ratio = torch.sub(log_policy, log_reference, out=log_reference)
    drawn = log_ratio.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    # Not torch.nn.functional.kl_div(log_policy, log_reference), which is KL(reference‖policy).
    terms = log_policy.exp_().mul_(log_ratio)
    kl = terms.sum(-1)
    if (banned := kl.isnan() & ~drawn.isnan()).any():  # tokens of logit −∞, which contribute 0 · log 0 = 0
        kl = torch.where(banned, terms.nansum(-1), kl)
    return kl, drawn


def disagreement_in_se(kl: Float[Tensor, " sequences"], k1: Float[Tensor, " sequences"]) -> float:
    """How many standard errors of their paired difference lie between the two estimators' means.

    More than 4 means that sampler and scorer do not describe the same policy. Means closer than `ROUNDING_NATS`
    agree: between almost identical policies the differences are float32 rounding, whose mean can be many of
    its own standard errors away from 0.

    Args:
        kl, k1: [sequences], two or more.
    """
    difference = (kl - k1).double()
    gap = difference.mean().abs()
    return 0.0 if gap < ROUNDING_NATS else float(gap / (difference.std() / len(difference) ** 0.5))
