"""Preference data: response pairs sampled from π_ref, scored and labeled by the gold model.

Two artifacts. The *pool* holds unlabeled pairs a, b with gold scores and reference log-probs: the costly part,
shared by every label rule. The *preference data* holds the same pairs as chosen and rejected, in parquet with
TRL's column names, and is what cells train on (bench/data/pairs.py).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bench.config import LabelsConfig, PairsConfig
from bench.policies.policy import Policy
from bench.policies.tokens import TokenIds
from bench.seeding import generator_for, uniforms_for
from gold_rm.labeling import label_pairs
from gold_rm.reward_model import GoldModel, Standardization

PAIRS_FILE = "pairs.parquet"
FACTS_FILE = "facts.json"
TRAIN, HELD_OUT = "train", "held_out"
PREFERENCE_COLUMNS = (
    "pair_id", "split", "prompt", "chosen", "rejected", "gold_chosen", "gold_rejected", "label_probability",
    "flipped", "prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps",
    "chosen_tokens", "rejected_tokens",
)  # fmt: skip
_SAMPLING_BATCH = 512


def sample_pool(
    policy: Policy,
    gold: GoldModel,
    standardization: Standardization,
    prompts: dict[str, list[str]],
    sizes: PairsConfig,
    max_new_tokens: int,
    directory: Path,
) -> None:
    """Draw and score the pairs; write them to `directory`.

    Args:
        prompts: prompts of the ``train`` and ``eval`` splits; held-out pairs use the latter.
        standardization: puts gold scores into SD units of π_ref's scores.
    """
    generator = generator_for(sizes.seed, "pairs")
    frames = []
    for split, source, count in ((TRAIN, "train", sizes.pool), (HELD_OUT, "eval", sizes.held_out)):
        chosen_prompts = _draw_prompts(prompts[source], count, generator)
        sampled = _sample_split(policy, chosen_prompts, (sizes.seed, "pairs", split), max_new_tokens)
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


def _draw_prompts(prompts: list[str], count: int, generator: torch.Generator) -> list[str]:
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
        ValueError: one of them is not finite.
    """
    result = policy.logprobs(prompts, responses)
    if not result.isfinite().all():
        bad = int((~result.isfinite()).nonzero()[0])
        raise ValueError(f"π_ref gives response {bad} of {len(result)} the log-prob {result[bad].item()}")
    return result


def write_preferences(pool_directory: Path, labels: LabelsConfig, seed: int, directory: Path) -> None:
    """Label the pool's pairs and write them as preference data, with a count of what was dropped.

    Pairs of identical responses carry no signal (ρ is 0 for every policy) and are dropped under either rule;
    exact ties in gold are dropped under ``deterministic`` and decided by a fair coin under ``bradley_terry``.
    """
    pool = pd.read_parquet(pool_directory / PAIRS_FILE)
    outcome = label_pairs(
        torch.from_numpy(pool["gold_a"].to_numpy(copy=True)),
        torch.from_numpy(pool["gold_b"].to_numpy(copy=True)),
        rule=labels.rule,
        temperature=labels.temperature,
        flip_rate=labels.flip_rate,
        generator=generator_for(seed, "labels"),
    )
    prefer_a = outcome.prefer_a.numpy()
    data = pool[["pair_id", "split", "prompt", "prompt_ids"]].copy()
    for name, column in (("{}", "text"), ("gold_{}", "gold"), ("{}_ids", "ids"), ("ref_{}_logps", "ref_logps")):
        a, b = pool[f"{column}_a"], pool[f"{column}_b"]
        data[name.format("chosen")] = a.where(prefer_a, b)
        data[name.format("rejected")] = b.where(prefer_a, a)
    data["label_probability"] = outcome.label_probability.numpy()
    data["flipped"] = outcome.flipped.numpy()
    data["chosen_tokens"] = data["chosen_ids"].map(len)
    data["rejected_tokens"] = data["rejected_ids"].map(len)
    identical = (pool["text_a"] == pool["text_b"]).to_numpy()
    tied = outcome.tie.numpy() & ~identical
    dropped = identical | (tied if labels.rule == "deterministic" else False)
    data.loc[~dropped, list(PREFERENCE_COLUMNS)].to_parquet(directory / PAIRS_FILE, index=False)
    facts = {
        "pairs": len(pool),
        "kept": int((~dropped).sum()),
        "kept_train": int((~dropped & (pool["split"] == TRAIN).to_numpy()).sum()),
        "identical_responses": int(identical.sum()),
        "gold_ties": int(tied.sum()),
        "flipped": int(outcome.flipped.sum()),
        "label_probability_mean": float(outcome.label_probability[torch.from_numpy(~dropped)].mean()),
    }
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
