"""Measuring saved policies again: more samples per prompt, fewer prompts, another gold model."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.cells.cell import Cell
from bench.cells.evaluation import EvaluationSet, evaluate_samples
from bench.cells.imported import load_imported
from bench.cells.inputs import SharedInputs
from bench.cells.saving import ORIGIN_FILE
from bench.checked import ConfigError
from bench.claims import hold
from bench.policies.directories import is_adapter
from bench.policies.load import load_policy
from bench.policies.policy import Policy
from bench.records import EVALUATIONS_FILE, POLICY_DIR, DamagedRecord, read_json, write_text
from bench.seeding import uniforms_for
from gold_rm.reward_model import GoldModel, Standardization

_MEASURED = (
    "samples_per_prompt", "kl", "kl_se", "kl_k1", "kl_k1_se", "gold", "gold_se", "response_tokens", "eos_rate",
)  # fmt: skip
_IDENTITY = ("cell", "step", "prompts", "samples_per_prompt", "gold_model")


@dataclass(frozen=True)
class SavedPolicy:
    """A policy that a cell has kept, or imported: its directory, and the step it is from."""

    cell: Cell
    directory: Path
    step: int

    def load(self, reference: Policy, *, device: str) -> Policy:
        """Load it, with `reference` as its reference.

        Raises:
            ConfigError: it cannot be loaded, or has other tokens than `reference`.
        """
        config = replace(self.cell.config, device=device)
        if config.external is not None:
            return load_imported(config, reference)
        if is_adapter(self.directory):  # trained on the weights of this very reference
            return reference.with_adapters_in(self.directory)
        policy = load_policy(self.directory, device=device, logits_mib=config.logits_mib, settings=config.policy)
        return policy.against(reference)


def saved_policies(cells: Iterable[Cell]) -> Iterator[SavedPolicy]:
    """The policies that the cells have kept or imported, cell by cell, in the order of their steps.

    Raises:
        DamagedRecord: a saved policy does not say where it comes from.
    """
    for cell in cells:
        if cell.config.external is not None:
            yield SavedPolicy(cell, Path(cell.config.external.policy), cell.config.optim.steps)
        for origin in sorted((cell.directory / POLICY_DIR).rglob(ORIGIN_FILE)):
            values = read_json(origin, "the origin of a saved policy", "move its directory away")
            yield SavedPolicy(cell, origin.parent, int(values["step"]))


@dataclass(frozen=True)
class ScaledGold:
    """A gold model with the scale on which π_ref's samples have mean 0 and SD 1, and its fingerprint."""

    gold: GoldModel
    standardization: Standardization
    fingerprint: str

    @classmethod
    def on(cls, reference_samples: pd.DataFrame, model: GoldModel) -> "ScaledGold":
        """Put `model` on the scale of a sweep's reference samples (REFERENCE_COLUMNS)."""
        raw = model.score(reference_samples["prompt"].tolist(), reference_samples["response"].tolist())
        return cls(model, Standardization.fit(raw), model.fingerprint)


def measure_again(
    policy: Policy, shared: SharedInputs, judge: ScaledGold, *, seed: int, step: int, max_new_tokens: int,
    batch_size: int, prompts: int | None, samples_per_prompt: int,
) -> dict[str, Any]:  # fmt: skip
    """KL and gold on fresh samples; standard errors over prompts.

    Args:
        prompts: so many, the first ones; None for all that the sweep was evaluated on.
    Raises:
        ConfigError: more prompts than the sweep was evaluated on, or fewer than two.
    """
    there = len(shared.evaluation.prompts)
    count = there if prompts is None else prompts
    if not 2 <= count <= there:
        raise ConfigError(f"prompts={count}: the sweep was evaluated on {there}; from 2 to {there} are possible")
    subset = _first(shared.evaluation, count)
    metrics = evaluate_samples(
        policy, judge.gold, judge.standardization, subset, step=step, batch_size=batch_size,
        uniforms=uniforms_for(seed, "again", step, count=count * samples_per_prompt, tokens=max_new_tokens),
    ).metrics  # fmt: skip
    return {"prompts": count, "gold_model": judge.fingerprint} | {key: metrics[key] for key in _MEASURED}


def _first(evaluation: EvaluationSet, prompts: int) -> EvaluationSet:
    return evaluation._replace(
        prompts=evaluation.prompts[:prompts],
        prompt_ids=evaluation.prompt_ids[:prompts],
        reference_responses=evaluation.reference_responses[:prompts],
        reference_gold=evaluation.reference_gold[:prompts],
    )


def write_evaluation(sweep_dir: Path, row: dict[str, Any]) -> None:
    """Add a row to evaluations.jsonl, in place of one of the same policy, prompts, samples and gold model.

    Raises:
        DamagedRecord: what is in the file already cannot be read.
    """
    path = sweep_dir / EVALUATIONS_FILE
    with hold(sweep_dir):
        earlier = _read_evaluations(path) if path.exists() else []
        kept = {tuple(each.get(key) for key in _IDENTITY): each for each in (*earlier, row)}
        write_text(path, "".join(json.dumps(each, allow_nan=False) + "\n" for each in kept.values()))


def _read_evaluations(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DamagedRecord(f"{path}:{number}: not a JSON object ({error}); move the file away") from error
    return rows
