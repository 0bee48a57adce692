"""Preference data: response pairs sampled from π_ref, scored and labeled by the gold model.

Two artifacts. The *pool* holds unlabeled pairs a, b with gold scores and reference log-probs: the costly part,
shared by every label rule. The *preference data* holds the same pairs as chosen and rejected, in parquet with
TRL's column names, and is what cells train on (bench/data/pairs.py).
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bench.checked import ConfigError
from bench.config import LabelsConfig, PairsConfig
from bench.data.artifacts import PAIRS_FILE
from bench.policies.policy import Policy
from bench.policies.tokens import TokenIds
from bench.sections import GOLD, PROXY
from bench.seeding import generator_for, uniforms_for
from gold_rm.labeling import label_pairs
from gold_rm.reward_model import GoldModel, Standardization

FACTS_FILE = "facts.json"
TRAIN, HELD_OUT = "train", "held_out"
PREFERENCE_COLUMNS = (
    "pair_id", "split", "prompt", "chosen", "rejected", "gold_chosen", "gold_rejected", "label_probability",
    "flipped", "prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps",
    "chosen_tokens", "rejected_tokens",
)  # fmt: skip
_SAMPLING_BATCH = 512

Scorer = Callable[[list[str], list[str]], np.ndarray]  # prompts and responses to scores, [texts] float64


def sample_pool(
    policy: Policy,
    gold: GoldModel,
    standardization: Standardization,
    prompts: dict[str, list[str]],
    sizes: PairsConfig,
    max_new_tokens: int,
    directory: Path,
    *,
    purpose: str = "pairs",
) -> None:
    """Draw and score the pairs; write them to `directory`.

    Args:
        purpose: of the draws; another one gives other pairs from the same seed.
        prompts: prompts of the ``train`` and ``eval`` splits; held-out pairs use the latter.
        standardization: puts gold scores into SD units of π_ref's scores.
    """
    generator = generator_for(sizes.seed, purpose)
    frames = []
    for split, source, count in ((TRAIN, "train", sizes.pool), (HELD_OUT, "eval", sizes.held_out)):
        chosen_prompts = draw_prompts(prompts[source], count, generator)
        sampled = _sample_split(policy, chosen_prompts, (sizes.seed, purpose, split), max_new_tokens)
        frames.append(sampled.assign(split=split))
    pool = pd.concat(frames, ignore_index=True)
    for side in ("a", "b"):
        raw = gold.score(pool["prompt"].tolist(), pool[f"text_{side}"].tolist())
        pool[f"gold_{side}"] = standardization.apply(raw).double().numpy()
        pool[f"ref_logps_{side}"] = reference_logprobs(
            policy, pool["prompt_ids"].tolist(), pool[f"ids_{side}"].tolist()
        ).numpy()
    pool.insert(0, "pair_id", np.arange(len(pool)))
    pool.to_parquet(directory / PAIRS_FILE, index=False, compression="zstd")


def draw_prompts(prompts: list[str], count: int, generator: torch.Generator) -> list[str]:
    """`count` prompts: every prompt equally often, up to one, in random order."""
    rounds = [torch.randperm(len(prompts), generator=generator) for _ in range(-(-count // len(prompts)))]
    return [prompts[i] for i in torch.cat(rounds)[:count].tolist()]


def _sample_split(
    policy: Policy, prompts: list[str], stream: tuple[int, str, str], max_new_tokens: int
) -> pd.DataFrame:
    prompt_ids = policy.encode(prompts)
    columns: dict[str, list] = {"prompt": prompts, "prompt_ids": prompt_ids}
    for side in ("a", "b"):
        uniforms = uniforms_for(*stream, side, count=len(prompts), tokens=max_new_tokens)
        ids = policy.sample(prompt_ids, uniforms=uniforms, batch_size=_SAMPLING_BATCH)
        columns[f"ids_{side}"] = ids
        columns[f"text_{side}"] = policy.decode(ids)
    return pd.DataFrame(columns)


def reference_logprobs(
    policy: Policy, prompts: list[TokenIds], responses: list[TokenIds]
) -> Float[Tensor, " sequences"]:
    """log π_ref(response | prompt) in nats.

    Raises:
        ConfigError: one of them is not finite.
    """
    result = policy.logprobs(prompts, responses)
    if not result.isfinite().all():
        bad = int((~result.isfinite()).nonzero()[0])
        raise ConfigError(f"π_ref gives response {bad} of {len(result)} the log-prob {result[bad].item()}")
    return result


def write_preferences(
    pool_directory: Path, labels: LabelsConfig, seed: int, directory: Path, proxy: Scorer | None = None
) -> None:
    """Label the pool's pairs and write them as preference data, with a count of what was dropped.

    Args:
        proxy: labels in place of the gold model, and leaves its scores in ``proxy_chosen`` and ``proxy_rejected``.

    Pairs of identical responses carry no signal (ρ is 0 for every policy) and are dropped under either rule;
    exact ties of the labeller's scores are dropped under ``deterministic`` and decided by a fair coin under
    ``bradley_terry``.
    """
    pool = pd.read_parquet(pool_directory / PAIRS_FILE)
    labeller, columns = GOLD, [("{}", "text"), ("gold_{}", "gold"), ("{}_ids", "ids"), ("ref_{}_logps", "ref_logps")]
    if proxy is not None:
        labeller = PROXY
        columns.append(("proxy_{}", PROXY))
        for side in ("a", "b"):
            pool[f"{PROXY}_{side}"] = proxy(pool["prompt"].tolist(), pool[f"text_{side}"].tolist())
    outcome = label_pairs(
        torch.from_numpy(pool[f"{labeller}_a"].to_numpy(copy=True)),
        torch.from_numpy(pool[f"{labeller}_b"].to_numpy(copy=True)),
        rule=labels.rule,
        temperature=labels.temperature,
        flip_rate=labels.flip_rate,
        generator=generator_for(seed, "labels"),
    )
    prefer_a = outcome.prefer_a.numpy()
    data = pool[["pair_id", "split", "prompt", "prompt_ids"]].copy()
    for name, column in columns:
        a, b = pool[f"{column}_a"], pool[f"{column}_b"]
        data[name.format("chosen")] = a.where(prefer_a, b)
        data[name.format("rejected")] = b.where(prefer_a, a)
    data["label_probability"] = _probability_of_gold(outcome.label_probability.numpy(), pool, labeller)
    data["flipped"] = outcome.flipped.numpy()
    data["chosen_tokens"] = data["chosen_ids"].map(len)
    data["rejected_tokens"] = data["rejected_ids"].map(len)
    # Of one response twice, ρ is 0 whatever the policy; two token sequences of one text are two responses.
    identical = (pool["ids_a"].map(tuple) == pool["ids_b"].map(tuple)).to_numpy()
    # Scores of one text in two batches differ by rounding, which is no preference.
    tied = (outcome.tie.numpy() | (pool["text_a"] == pool["text_b"]).to_numpy()) & ~identical
    dropped = identical | (tied if labels.rule == "deterministic" else False)
    kept = [*PREFERENCE_COLUMNS, *(name for name in data if name.startswith(f"{PROXY}_"))]
    data.loc[~dropped, kept].to_parquet(directory / PAIRS_FILE, index=False)
    facts = {
        "pairs": len(pool),
        "kept": int((~dropped).sum()),
        "kept_train": int((~dropped & (pool["split"] == TRAIN).to_numpy()).sum()),
        "identical_responses": int(identical.sum()),
        f"{labeller}_ties": int(tied.sum()),
        "flipped": int(outcome.flipped.sum()),
        "label_probability_mean": float(data.loc[~dropped, "label_probability"].mean()),
    }
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")


def _probability_of_gold(of_labeller: np.ndarray, pool: pd.DataFrame, labeller: str) -> np.ndarray:
    """Probability that the response of the higher gold score is chosen, 1/2 where they tie, [pairs].

    Args:
        of_labeller: that the one that the labeller scores higher is chosen.
    """
    gold, own = (np.sign(pool[f"{name}_a"] - pool[f"{name}_b"]).to_numpy() for name in (GOLD, labeller))
    return np.where(gold == own, of_labeller, np.where(gold == -own, 1 - of_labeller, 0.5))
