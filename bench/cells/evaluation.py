"""Evaluation of a policy at one checkpoint: KL and gold reward on the same fresh samples, and held-out pairs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from bench.data.judges import Judge, score_columns
from bench.data.pairs import PairLogProbs, PreferencePairs, measure_pairs
from bench.losses import Loss
from bench.policies.kl import SequenceKL, disagreement_in_se
from bench.policies.policy import Policy
from bench.policies.scoring import sequence_kl
from bench.policies.tokens import TokenIds
from bench.records import HELD_OUT_COLUMNS, METRICS, SAMPLE_COLUMNS
from gold_rm.reward_model import GoldModel, Standardization

# Two unbiased estimates on the same samples part by more than this once in 16,000 evaluations by chance.
KL_DISAGREEMENT_LIMIT = 4.0

# Gold scores, in SD, that are one score: equal texts differ by so little where they are scored in different batches.
TIE = 1e-5

# A smaller share of responses that end by themselves is worth a warning.
_FEW_ENDED = 0.25
ENDED = "responses end by themselves"

# Scoring sees whole sequences at once, sampling one token of each: it takes so many times fewer of them.
_SCORING_SHARE = 4


class EvaluationSet(NamedTuple):
    """What every checkpoint of every cell is measured on.

    Attributes:
        prompts, prompt_ids: texts and token ids.
        reference_responses: π_ref's first sample of each prompt.
        reference_gold: standardized gold scores of all of π_ref's samples, [prompts, samples].
        held_out: preference pairs from μ on evaluation prompts, never trained on.
    """

    prompts: list[str]
    prompt_ids: list[TokenIds]
    reference_responses: list[str]
    reference_gold: np.ndarray
    held_out: PreferencePairs


class SampleEvaluation(NamedTuple):
    """Measurements on fresh samples: keys of CheckpointRecord, SAMPLE_COLUMNS, and what looked wrong."""

    metrics: dict[str, Any]
    samples: pd.DataFrame
    warnings: list[str]


def evaluate_samples(
    policy: Policy,
    gold: GoldModel,
    standardization: Standardization,
    on: EvaluationSet,
    *,
    judges: Sequence[Judge] = (),
    step: int,
    uniforms: Float64[Tensor, "responses tokens"],
    batch_size: int,
) -> SampleEvaluation:
    """Draw responses to every prompt; measure KL to π_ref and gold reward on these same responses.

    Args:
        judges: who else scores them; each has a column of the samples, and a mean in the metrics.
        uniforms: what they are drawn with: the first sample of every prompt, then the second of every prompt, ...
    """
    count, samples = len(on.prompts), len(uniforms) // len(on.prompts)
    prompts, prompt_ids = on.prompts * samples, on.prompt_ids * samples
    responses = policy.sample(prompt_ids, uniforms=uniforms, batch_size=batch_size)
    kl = sequence_kl(policy, policy.reference(), prompt_ids, responses, batch_size=_scoring_batch(batch_size))
    texts = policy.decode(responses)
    part = policy.ranks.part(len(texts))
    raw = torch.cat(policy.ranks.gather(gold.score(prompts[part], texts[part])))
    frame = pd.DataFrame({
        "step": step, "prompt_id": np.tile(np.arange(count), samples), "sample_id": np.repeat(range(samples), count),
        "prompt": prompts, "response": texts, "kl": kl.exact_per_position.double().numpy(),
        "kl_k1": kl.k1.double().numpy(), "gold": standardization.apply(raw).double().numpy(),
        "gold_reference": np.tile(on.reference_gold[:, 0], samples),
        "reference_response": on.reference_responses * samples, "length": [len(ids) for ids in responses],
        "ended": [policy.has_ended(ids) for ids in responses],
    })  # fmt: skip
    frame["win_share"] = win_shares(frame["gold"].to_numpy(), on.reference_gold[frame["prompt_id"]])
    frame = pd.concat([frame[list(SAMPLE_COLUMNS)], score_columns(judges, prompts, texts)], axis=1)
    metrics = {
        **_mean_and_se("kl", frame["kl"], frame["prompt_id"]),
        **_mean_and_se("kl_k1", frame["kl_k1"], frame["prompt_id"]),
        **_mean_and_se("gold", frame["gold"], frame["prompt_id"]),
        **judged({each.name: _mean_and_se(each.name, frame[each.name], frame["prompt_id"]) for each in judges}),
        "gold_raw": float(raw.double().mean()),
        **_mean_and_se("win_rate", frame["win_share"], frame["prompt_id"]),
        "samples_per_prompt": samples,
        "response_tokens": float(frame["length"].mean()),
        "eos_rate": float(frame["ended"].mean()),
        # One response of each prompt at a time: the share falls with the number of responses, whatever they are.
        "distinct_2": float(
            np.mean([distinct_n(responses[i : i + count], 2) for i in range(0, len(responses), count)])
        ),
    }
    said = [f"step {step}: {words}" for words in _doubts(policy, responses, kl)]
    return SampleEvaluation(metrics, frame, said)


def _doubts(policy: Policy, responses: Sequence[TokenIds], kl: SequenceKL) -> list[str]:
    """What a reader of the numbers ought to know."""
    doubts = []
    if (ended := sum(map(policy.has_ended, responses))) < _FEW_ENDED * len(responses):
        doubts.append(
            f"{ended} of {len(responses)} {ENDED}, the others are cut, and scored so: raise "
            "world.max_new_tokens, or say where a response ends (policy.stop_strings)"
        )
    if special := sum(policy.holds_special_token(ids) for ids in responses):
        doubts.append(f"{special} of {len(responses)} responses hold special tokens, which gold models read as text")
    if (gap := disagreement_in_se(kl.exact_per_position, kl.k1)) > KL_DISAGREEMENT_LIMIT:
        means = (float(each.double().mean()) for each in (kl.exact_per_position, kl.k1))
        doubts.append("KL {:.3g} and its cross-check k1 {:.3g} are {:.1f} standard errors apart".format(*means, gap))
    return doubts


def judged(means: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Record keys of the judges' scores; those of watched models, whose names are not ours, are in one key.

    Args:
        means: by the judge's name, its mean and standard error by record key.
    """
    metrics: dict[str, Any] = {}
    watched: dict[str, float] = {}
    for name, values in means.items():
        (metrics if name in METRICS else watched).update(values)
    return metrics | ({"watched": watched} if watched else {})


def win_shares(gold: np.ndarray, reference_gold: np.ndarray) -> np.ndarray:
    """Share of π_ref's samples that each response beats, ties count 1/2: [responses].

    Args:
        gold: [responses].
        reference_gold: of the same prompts, [responses, samples].

    >>> win_shares(np.array([1.0]), np.array([[0.0, 1.0, 2.0, 0.5]]))
    array([0.625])
    """
    gap = gold[:, None] - reference_gold
    return ((gap > TIE) + 0.5 * (np.abs(gap) <= TIE)).mean(axis=1)


def evaluate_held_out(
    policy: Policy, pairs: PreferencePairs, *, length_normalized: bool, batch_size: int
) -> PairLogProbs:
    """The policy's view of held-out pairs from μ, in float64."""
    measured = measure_pairs(policy, pairs, length_normalized=length_normalized, batch_size=_scoring_batch(batch_size))
    return PairLogProbs(*(values.double() for values in measured))


def held_out_table(step: int, on_pairs: PairLogProbs) -> pd.DataFrame:
    """ρ of each pair, HELD_OUT_COLUMNS; nothing at step 0, where all are 0."""
    rho = on_pairs.rho.float().numpy() if step else np.empty(0, np.float32)
    columns = {"step": np.full(len(rho), step, np.int64), "pair": np.arange(len(rho)), "rho": rho}
    return pd.DataFrame(columns)[list(HELD_OUT_COLUMNS)]


def _scoring_batch(batch_size: int) -> int:
    return max(1, batch_size // _SCORING_SHARE)


def held_out_metrics(on_pairs: PairLogProbs, loss: Loss | None, beta: float) -> dict[str, float]:
    """Record keys of held-out pairs: accuracy, moments of ρ and, where there is a loss, its mean and Taylor split.

    The Taylor split of E f(βρ) at ρ = 0 is f(0) + β f'(0) E[ρ] + ½ β² f''(0) E[ρ²] + O(β³): the second term
    optimizes preferences, the third, the μ-weighted squared loss, regularizes (Tang et al. 2024, section 4).
    """
    rho = on_pairs.rho
    mean, square = rho.mean().item(), rho.square().mean().item()
    measured = {
        "pair_accuracy": ((rho > 0).double() + 0.5 * (rho == 0)).mean().item(),
        "rho_mean": mean,
        "rho_mean_se": _standard_error(rho.numpy()),
        "rho_sq_mean": square,
        "rho_sq_se": _standard_error(rho.square().numpy()),
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


def _mean_and_se(name: str, values: pd.Series, prompt_ids: pd.Series) -> dict[str, float]:
    """The mean, and its standard error over prompts: samples of one prompt are no independent ones."""
    means = values.groupby(prompt_ids.to_numpy()).mean()
    return {name: float(values.mean()), f"{name}_se": _standard_error(means.to_numpy())}


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)
