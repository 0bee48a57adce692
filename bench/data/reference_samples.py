"""π_ref's own samples on the evaluation prompts: gold standardization, win rates, best-of-n and the ceiling."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.artifacts import SAMPLES_FILE
from bench.policies.policy import Policy
from bench.records import REFERENCE_COLUMNS
from bench.seeding import uniforms_for
from gold_rm.reward_model import GoldModel, Standardization

STANDARDIZATION_FILE = "standardisation.json"  # spelt as in artifacts that exist already


def sample_reference(
    policy: Policy, gold: GoldModel, prompts: list[str], *, per_prompt: int, max_new_tokens: int, directory: Path
) -> None:
    """Draw `per_prompt` responses to every prompt, score them, and fit the standardization to the scores."""
    texts = [prompt for prompt in prompts for _ in range(per_prompt)]
    responses = policy.sample(
        policy.encode(texts),
        uniforms=uniforms_for(0, "reference", count=len(texts), tokens=max_new_tokens),
        batch_size=512,
    )
    decoded = policy.decode(responses)
    raw = gold.score(texts, decoded)
    standardization = Standardization.fit(raw)
    frame = pd.DataFrame({
        "prompt_id": np.repeat(np.arange(len(prompts)), per_prompt),
        "prompt": texts,
        "sample_id": np.tile(np.arange(per_prompt), len(prompts)),
        "response": decoded,
        "gold": standardization.apply(raw).double().numpy(),
        "length": list(map(len, responses)),
    })  # fmt: skip
    frame[list(REFERENCE_COLUMNS)].to_parquet(directory / SAMPLES_FILE, index=False, compression="zstd")
    (directory / STANDARDIZATION_FILE).write_text(json.dumps(asdict(standardization)) + "\n")


def sample_best_of_n(
    policy: Policy, gold: GoldModel, standardization: Standardization, prompts: list[str], *, per_prompt: int,
    max_new_tokens: int, directory: Path,
) -> None:  # fmt: skip
    """Draw `per_prompt` responses to every prompt to take the best of, with gold and log π_ref in nats."""
    texts = [prompt for prompt in prompts for _ in range(per_prompt)]
    prompt_ids = policy.encode(texts)
    uniforms = uniforms_for(0, "best of n", count=len(texts), tokens=max_new_tokens)
    responses = policy.sample(prompt_ids, uniforms=uniforms, batch_size=512)
    decoded = policy.decode(responses)
    frame = pd.DataFrame({
        "prompt_id": np.repeat(np.arange(len(prompts)), per_prompt),
        "prompt": texts,
        "sample_id": np.tile(np.arange(per_prompt), len(prompts)),
        "response": decoded,
        "response_ids": responses,
        "gold": standardization.apply(gold.score(texts, decoded)).double().numpy(),
        "ref_logp": policy.logprobs(prompt_ids, responses).double().numpy(),
        "ended": [policy.has_ended(ids) for ids in responses],
    })  # fmt: skip
    frame.to_parquet(directory / SAMPLES_FILE, index=False, compression="zstd")


def load_standardization(directory: Path) -> Standardization:
    """The mean and SD of π_ref's raw gold scores."""
    return Standardization(**json.loads((directory / STANDARDIZATION_FILE).read_text()))


def load_reference(directory: Path) -> pd.DataFrame:
    """π_ref's samples, REFERENCE_COLUMNS, sorted by prompt and sample."""
    return pd.read_parquet(directory / SAMPLES_FILE)
