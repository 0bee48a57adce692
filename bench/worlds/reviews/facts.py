"""How good π_ref is as a model of the language: measured when the world is built and kept beside it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bench.data.preferences import reference_logprobs
from bench.policies.policy import Policy
from bench.seeding import draw_uniforms, generator_for
from bench.worlds.reviews.language import EOS_ID, VOCABULARY, Prompt, log_probabilities, sample_reviews
from bench.worlds.reviews.rater import utility


def measure(policy: Policy, prompts: Sequence[Prompt], *, reviews: int, positions: int, seed: int) -> dict[str, float]:
    """Facts about π_ref from `reviews` fresh reviews of the language and as many samples of its own.

    Returns:
        ``language_nats``, ``policy_nats``: mean −log p of the language's reviews under either, nats per review
        (the first is the language's entropy), and their paired difference ``excess_nats`` = KL(language‖π_ref);
        perplexities per token; what ``sample_*`` of π_ref are like, ``sample_parsed`` being the share that the
        grammar allows; the rater's ``utility_*`` of the samples. ``*_se`` are standard errors.
    """
    generator = generator_for(seed, "facts")
    works = [prompts[i] for i in torch.randint(len(prompts), (reviews,), generator=generator).tolist()]
    prompt_ids = policy.encode([work.text for work in works])
    longest = positions - max(map(len, prompt_ids))
    samples = policy.sample(prompt_ids, uniforms=draw_uniforms(reviews, longest, generator), batch_size=512)
    return {**_fluency(policy, works, prompt_ids, longest, generator), **_describe(works, samples)}


def _fluency(
    policy: Policy, works: list[Prompt], prompt_ids: list[list[int]], longest: int, generator: torch.Generator
) -> dict[str, float]:
    fresh = sample_reviews(works, generator)
    fitting = [row for row in zip(works, prompt_ids, fresh, strict=True) if len(row[2]) <= longest]
    works, prompt_ids, fresh = map(list, zip(*fitting, strict=True))
    language = -log_probabilities(works, fresh)
    model = -reference_logprobs(policy, prompt_ids, fresh).double().numpy()
    tokens = sum(map(len, fresh))
    return {
        "reviews": len(fresh),
        "tokens_per_review": tokens / len(fresh),
        **_mean("language_nats", language),
        **_mean("policy_nats", model),
        **_mean("excess_nats", model - language),
        "language_perplexity": float(np.exp(language.sum() / tokens)),
        "policy_perplexity": float(np.exp(model.sum() / tokens)),
    }


def _describe(works: list[Prompt], samples: list[list[int]]) -> dict[str, float]:
    words = [[VOCABULARY[i] for i in ids if i != EOS_ID] for ids in samples]
    utilities = np.array([utility(work, text) for work, text in zip(works, words, strict=True)])
    parsed = np.isfinite(log_probabilities(works, samples))
    return {
        "sample_parsed": float(parsed.mean()),
        "sample_ended": sum(ids[-1] == EOS_ID for ids in samples) / len(samples),
        **_mean("sample_tokens", np.array(list(map(len, samples)), dtype=float)),
        **_mean("utility_mean", utilities),
        "utility_sd": float(utilities.std(ddof=1)),
        "utility_best_in_sd": float((utilities.max() - utilities.mean()) / utilities.std(ddof=1)),
    }


def rater_agreement(comparisons: pd.DataFrame, works: Sequence[Prompt]) -> dict[str, float]:
    """How often the utility itself agrees with the rater's noisy comparisons: a gold model cannot do better.

    Args:
        comparisons: ``prompt, chosen, rejected``, of `works`.
    """
    by_text = {work.text: work for work in works}
    gaps = np.array([
        utility(by_text[row.prompt], row.chosen.split()) - utility(by_text[row.prompt], row.rejected.split())
        for row in comparisons.itertuples()
    ])  # fmt: skip
    return _mean("perfect_rater_agreement", (gaps > 0) + 0.5 * (gaps == 0))


def _mean(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / np.sqrt(len(values)))}
