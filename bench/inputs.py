"""What the cells of one worker share in memory: models, evaluation set, preference pairs."""

import functools
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from bench.config import CellConfig
from bench.evaluate import EvaluationSet
from bench.pairs import PreferencePairs, cached_pairs
from bench.policy import Policy, cached_policy, resolve_device
from bench.preferences import HELD_OUT, PAIRS_FILE, TRAIN
from bench.prepare import Prepared
from bench.reference import load_reference, load_standardisation
from bench.seeding import generator_for
from gold_rm.reward_model import GoldModel, Standardisation, load_gold_model


class CellInputs(NamedTuple):
    """Inputs of one cell; only `train` depends on its seed.

    Attributes:
        label_probability: mean probability that the higher gold score is the chosen one, over all pairs.
    """

    reference: Policy
    gold: GoldModel
    standardisation: Standardisation
    evaluation: EvaluationSet
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
    return CellInputs(
        reference,
        _cached_gold(prepared.gold_dir, prepared.gold_fingerprint, device),
        load_standardisation(prepared.reference.path),
        _evaluation_set(prepared.reference.path, directory, reference),
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


@functools.lru_cache(maxsize=4)
def _label_probability(directory: Path) -> float:
    return float(pd.read_parquet(directory / PAIRS_FILE, columns=["label_probability"])["label_probability"].mean())
