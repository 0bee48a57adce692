"""What the cells of one worker share in memory: models, evaluation set, preference pairs."""

import functools
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from bench.cells.evaluation import EvaluationSet, SampleEvaluation, evaluate_samples
from bench.config import CellConfig
from bench.data.pairs import PreferencePairs, cached_pairs
from bench.data.preferences import HELD_OUT, PAIRS_FILE, TRAIN
from bench.data.prepared import Prepared
from bench.data.reference_samples import load_reference, load_standardisation
from bench.policies.load import Policy, cached_policy, resolve_device
from bench.seeding import generator_for
from gold_rm.reward_model import GoldModel, Standardisation, load_gold_model


class CellInputs(NamedTuple):
    """Inputs of one cell; `train` and `start` depend on its seed.

    Attributes:
        start: π_ref, measured on the samples of step 0, which cells that differ in loss or β only have in common.
        label_probability: mean probability that the higher gold score is the chosen one, over all pairs.
    """

    reference: Policy
    gold: GoldModel
    standardisation: Standardisation
    evaluation: EvaluationSet
    start: SampleEvaluation
    train: PreferencePairs
    label_probability: float


def load_inputs(prepared: Prepared, config: CellConfig) -> CellInputs:
    """Load a cell's inputs, from memory where an earlier cell of this process had them."""
    device = resolve_device(config.device)
    reference = cached_policy(prepared.world.policy_dir, prepared.policy_fingerprint, device)
    directory = prepared.preferences.path
    pool = cached_pairs(directory, TRAIN, reference.pad_id)
    # A seed is a new draw of the data, not only of its order (a replication, not a re-run).
    drawn = torch.randperm(len(pool), generator=generator_for(config.seed, "subset"))[: config.pairs.per_cell]
    gold = _cached_gold(prepared.gold_dir, prepared.gold_fingerprint, device)
    standardisation = load_standardisation(prepared.reference.path)
    start = _evaluate_start(
        reference,
        gold,
        standardisation,
        prepared.reference.path,
        directory,
        seed=config.seed,
        max_new_tokens=config.world.max_new_tokens,
        batch_size=config.evaluation.batch_size,
    )
    return CellInputs(
        reference,
        gold,
        standardisation,
        _evaluation_set(prepared.reference.path, directory, reference),
        start,
        pool.take(drawn),
        _label_probability(directory),
    )


@functools.lru_cache(maxsize=2)
def _cached_gold(directory: Path, fingerprint: str, device: str) -> GoldModel:
    return load_gold_model(directory, device=device)


@functools.lru_cache(maxsize=4)
def _evaluation_set(reference_dir: Path, preferences_dir: Path, policy: Policy) -> EvaluationSet:
    first = load_reference(reference_dir).query("sample_id == 0")
    prompts = first["prompt"].tolist()
    return EvaluationSet(
        prompts,
        policy.encode_prompts(prompts),
        first["response"].tolist(),
        first["gold"].to_numpy(copy=True),
        cached_pairs(preferences_dir, HELD_OUT, policy.pad_id),
    )


@functools.lru_cache(maxsize=8)
def _evaluate_start(
    reference: Policy,
    gold: GoldModel,
    standardisation: Standardisation,
    reference_dir: Path,
    preferences_dir: Path,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> SampleEvaluation:
    return evaluate_samples(
        reference,
        reference,
        gold,
        standardisation,
        _evaluation_set(reference_dir, preferences_dir, reference),
        step=0,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        generator=generator_for(seed, "evaluation", 0),
    )


@functools.lru_cache(maxsize=4)
def _label_probability(directory: Path) -> float:
    return float(pd.read_parquet(directory / PAIRS_FILE, columns=["label_probability"])["label_probability"].mean())
