"""KL(π‖π_ref) per sequence, in nats, on samples of π; the direction is policy first."""

from typing import NamedTuple

from torch import Tensor

from bench.policies.logprobs import NextTokenLogits, sum_over_response, token_logprobs

ROUNDING_NATS = 1e-4


class SequenceKL(NamedTuple):
    """Two unbiased estimates of KL(π‖π_ref) from the same samples of π, each [sequences], in nats."""

    exact_per_position: Tensor
    k1: Tensor


def sequence_kl(policy: NextTokenLogits, reference: NextTokenLogits) -> SequenceKL:
    """Estimate KL(π‖π_ref) from responses sampled from π at temperature 1.

    `exact_per_position` is the Rao–Blackwellised estimator (Amini et al. 2025, arXiv 2504.10637; Tang et al.
    2024, arXiv 2405.08448, appendix D): on every sampled prefix, the exact KL between the two next-token
    distributions, summed over positions up to and including EOS. It is never negative and has a smaller
    variance than `k1`, the sampled log-ratio (Schulman 2020), which serves as the cross-check.

    Args:
        policy: π's predictions on the sampled sequences.
        reference: π_ref's predictions on the same sequences.
    """
    log_policy = policy.logits.log_softmax(-1)
    log_reference = reference.logits.log_softmax(-1)
    # Not torch.nn.functional.kl_div(log_policy, log_reference), which is KL(reference‖policy).
    per_position = (log_policy.exp() * (log_policy - log_reference)).sum(-1)
    log_ratio = token_logprobs(policy) - token_logprobs(reference)
    return SequenceKL(sum_over_response(per_position, policy.mask), sum_over_response(log_ratio, policy.mask))


def disagreement_in_se(kl: Tensor, k1: Tensor) -> float:
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
