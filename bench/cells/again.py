"""Measuring saved policies again: more samples per prompt, fewer prompts, another gold model."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.cells.evaluation import EvaluationSet, evaluate_samples
from bench.cells.inputs import SharedInputs
from bench.cells.saving import ORIGIN_FILE
from bench.checked import ConfigError
from bench.claims import hold
from bench.policies.policy import Policy
from bench.records import POLICY_DIR, read_json, write_text
from bench.seeding import generator_for
from gold_rm.reward_model import GoldModel, Standardization

EVALUATIONS_FILE = "evaluations.jsonl"
_IDENTITY = ("cell", "step", "prompts", "samples_per_prompt", "gold_model")


@dataclass(frozen=True)
class SavedPolicy:
    """A policy that a cell has kept: its directory, and the step it is from."""

    cell: str
    directory: Path
    step: int


def saved_policies(sweep_dir: Path, cells: Sequence[str]) -> Iterator[SavedPolicy]:
    """The policies that the cells have kept, cell by cell, in the order of their steps.

    Raises:
        DamagedRecord: a saved policy does not say where it comes from.
    """
    for cell in cells:
        for origin in sorted((sweep_dir / cell / POLICY_DIR).rglob(ORIGIN_FILE)):
            values = read_json(origin, "the origin of a saved policy", "move its directory away")
            yield SavedPolicy(cell, origin.parent, int(values["step"]))


@dataclass(frozen=True)
class Judge:
    """A gold model with the scale on which π_ref's samples have mean 0 and SD 1."""

    gold: GoldModel
    standardization: Standardization

    @classmethod
    def on(cls, reference_samples: pd.DataFrame, model: GoldModel) -> "Judge":
        """Put `model` on the scale of a sweep's reference samples (REFERENCE_COLUMNS)."""
        raw = model.score(reference_samples["prompt"].tolist(), reference_samples["response"].tolist())
        return cls(model, Standardization.fit(raw))


def measure_again(
    policy: Policy, shared: SharedInputs, judge: Judge, *, seed: int, step: int, max_new_tokens: int, batch_size: int,
    prompts: int, samples_per_prompt: int,
) -> dict[str, float]:  # fmt: skip
    """KL and gold on fresh samples, averaged within each prompt first; standard errors over prompts.

    Raises:
        ConfigError: more prompts than the sweep was evaluated on, or fewer than two.
    """
    there = len(shared.evaluation.prompts)
    if not 2 <= prompts <= there:
        raise ConfigError(f"prompts={prompts}: the sweep was evaluated on {there}; from 2 to {there} are possible")
    subset = _first(shared.evaluation, prompts)
    frames = [
        evaluate_samples(
            policy, judge.gold, judge.standardization, subset, step=step, max_new_tokens=max_new_tokens,
            batch_size=batch_size, generator=generator_for(seed, "again", step, draw),
        ).samples
        for draw in range(samples_per_prompt)
    ]  # fmt: skip
    samples = pd.concat(frames, ignore_index=True)
    measured: dict[str, float] = {}
    for key in ("kl", "kl_k1", "gold"):
        means = samples.groupby("prompt_id")[key].mean()
        measured |= {key: float(means.mean()), f"{key}_se": float(means.std(ddof=1) / len(means) ** 0.5)}
    return measured | {"response_tokens": float(samples["length"].mean()), "eos_rate": float(samples["ended"].mean())}


def _first(evaluation: EvaluationSet, prompts: int) -> EvaluationSet:
    return evaluation._replace(
        prompts=evaluation.prompts[:prompts],
        prompt_ids=evaluation.prompt_ids[:prompts],
        reference_responses=evaluation.reference_responses[:prompts],
        reference_gold=evaluation.reference_gold[:prompts],
    )


def write_evaluations(sweep_dir: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Add rows to evaluations.jsonl, in place of those of the same policy, prompts, samples and gold model."""
    path = sweep_dir / EVALUATIONS_FILE
    with hold(sweep_dir):
        earlier = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        kept = {tuple(row[key] for key in _IDENTITY): row for row in (*earlier, *rows)}
        write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept.values()))
    return path
