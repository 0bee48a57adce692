"""Evaluation of a policy at one checkpoint: KL and gold reward on the same fresh samples, and held-out pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64
from torch import Tensor

from bench.data.pairs import PairLogProbs, PreferencePairs, measure_pairs
from bench.losses import Loss
from bench.policies.kl import disagreement_in_se
from bench.policies.policy import Policy
from bench.policies.scoring import sequence_kl
from bench.policies.tokens import TokenIds
from bench.records import SAMPLE_COLUMNS
from gold_rm.reward_model import GoldModel, Standardization

# Two unbiased estimates on the same samples part by more than this once in 16,000 evaluations by chance.
KL_DISAGREEMENT_LIMIT = 4.0

# Scoring sees whole sequences at once, sampling one token of each: it takes so many times fewer of them.
_SCORING_SHARE = 4


class EvaluationSet(NamedTuple):
    """What every checkpoint of every cell is measured on.

    Attributes:
        prompts, prompt_ids: texts and token ids, one per fresh sample.
        reference_responses, reference_gold: π_ref's sample on the same prompt and its standardized gold score.
        held_out: preference pairs from μ on evaluation prompts, never trained on.
    """

    prompts: list[str]
    prompt_ids: list[TokenIds]
    reference_responses: list[str]
    reference_gold: np.ndarray
    held_out: PreferencePairs


class SampleEvaluation(NamedTuple):
    """Measurements on fresh samples: keys of CheckpointRecord, SAMPLE_COLUMNS, and what looked wrong."""

    metrics: dict[str, float]
    samples: pd.DataFrame
    warnings: list[str]


def evaluate_samples(
    policy: Policy,
    gold: GoldModel,
    standardization: Standardization,
    on: EvaluationSet,
    *,
    step: int,
    uniforms: Float64[Tensor, "prompts tokens"],
    batch_size: int,
) -> SampleEvaluation:
    """Draw one response per prompt; measure KL to π_ref and gold reward on these same responses."""
    responses = policy.sample(on.prompt_ids, uniforms=uniforms, batch_size=batch_size)
    kl = sequence_kl(policy, policy.reference(), on.prompt_ids, responses, batch_size=_scoring_batch(batch_size))
    texts = policy.decode(responses)
    raw = gold.score(on.prompts, texts)
    frame = pd.DataFrame({
        "step": step, "prompt_id": np.arange(len(texts)), "prompt": on.prompts, "response": texts,
        "kl": kl.exact_per_position.double().numpy(), "kl_k1": kl.k1.double().numpy(),
        "gold": standardization.apply(raw).double().numpy(), "gold_reference": on.reference_gold,
        "reference_response": on.reference_responses, "length": [len(ids) for ids in responses],
        "ended": [bool(ids) and ids[-1] == policy.eos_id for ids in responses],
    })[list(SAMPLE_COLUMNS)]  # fmt: skip
    wins = (frame["gold"] > frame["gold_reference"]) + 0.5 * (frame["gold"] == frame["gold_reference"])
    metrics = {
        **_mean_and_se("kl", frame["kl"]),
        **_mean_and_se("kl_k1", frame["kl_k1"]),
        **_mean_and_se("gold", frame["gold"]),
        "gold_raw": float(raw.double().mean()),
        **_mean_and_se("win_rate", wins),
        "response_tokens": float(frame["length"].mean()),
        "eos_rate": float(frame["ended"].mean()),
        "distinct_2": distinct_n(responses, 2),
    }
    warnings = []
    if (gap := disagreement_in_se(kl.exact_per_position, kl.k1)) > KL_DISAGREEMENT_LIMIT:
        warnings.append(
            f"step {step}: KL {metrics['kl']:.3g} and its cross-check k1 {metrics['kl_k1']:.3g} are {gap:.1f} "
            "standard errors apart"
        )
    return SampleEvaluation(metrics, frame, warnings)


def evaluate_held_out(
    policy: Policy, pairs: PreferencePairs, loss: Loss | None, *, beta: float, length_normalized: bool, batch_size: int
) -> dict[str, float]:
    """Accuracy, loss, moments of ρ and the Taylor split of the loss, on held-out pairs from μ."""
    measured = measure_pairs(policy, pairs, length_normalized=length_normalized, batch_size=_scoring_batch(batch_size))
    return held_out_metrics(PairLogProbs(*(values.double() for values in measured)), loss, beta)


def _scoring_batch(batch_size: int) -> int:
    return max(1, batch_size // _SCORING_SHARE)


def held_out_metrics(on_pairs: PairLogProbs, loss: Loss | None, beta: float) -> dict[str, float]:
    """Record keys of held-out pairs; those of a loss only where there is one.

    The Taylor split of E f(βρ) at ρ = 0 is f(0) + β f'(0) E[ρ] + ½ β² f''(0) E[ρ²] + O(β³): the second term
    optimizes preferences, the third, the μ-weighted squared loss, regularizes (Tang et al. 2024, section 4).
    """
    rho = on_pairs.rho
    mean, square = rho.mean().item(), rho.square().mean().item()
    measured = {
        "pair_accuracy": ((rho > 0).double() + 0.5 * (rho == 0)).mean().item(),
        "rho_mean": mean,
        "rho_sq_mean": square,
        "logp_chosen": on_pairs.logp_chosen.mean().item(),
        "logp_rejected": on_pairs.logp_rejected.mean().item(),
    }
    if loss is None:
        return measured
    return measured | {
        "held_out_loss": loss.fn(beta * rho).mean().item(),
        "taylor_constant": loss.value_at_zero,
        "taylor_preference": beta * loss.slope_at_zero * mean,
        "taylor_regularization": 0.5 * beta**2 * loss.curvature_at_zero * square,
    }


def checkpoint_steps(steps: int, checkpoints: int) -> tuple[int, ...]:
    """Step 0, then up to `checkpoints` steps on a geometric schedule that ends with `steps`.

    >>> checkpoint_steps(192, 5)
    (0, 12, 24, 48, 96, 192)
    >>> checkpoint_steps(2, 5)
    (0, 1, 2)
    """
    halvings = {round(steps / 2**k) for k in range(checkpoints)}
    return (0, *sorted(step for step in halvings if step > 0))


def distinct_n(responses: Sequence[TokenIds], n: int) -> float:
    """Distinct n-grams over all n-grams, pooled over responses (Li et al. 2016, arXiv 1510.03055); 0 without any.

    >>> distinct_n([[1, 2, 1, 2], [1, 2]], 2)
    0.5
    """
    ngrams = [tuple(ids[i : i + n]) for ids in responses for i in range(len(ids) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _mean_and_se(name: str, values: pd.Series) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / len(values) ** 0.5)}
