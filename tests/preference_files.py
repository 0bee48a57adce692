"""Preference data as the harness writes it, and as `datasets` reads it for TRL."""

from pathlib import Path

import pandas as pd
from tiny_world import TinyWorld

from bench.config import LabelsConfig, PairsConfig
from bench.data.artifacts import PAIRS_FILE
from bench.data.preferences import TRAIN, sample_pool, write_preferences
from bench.policies.policy import Policy
from bench.worlds import EVAL
from gold_rm.reward_model import Standardization, load_gold_model


def write_preference_files(world: TinyWorld, reference: Policy, pool: Path, directory: Path) -> Path:
    """Sample and label a few pairs of `reference`; returns `directory`, which holds them."""
    prompts = pd.read_parquet(world.prompts).groupby("split")["prompt"].agg(list)
    sample_pool(
        reference, load_gold_model(world.gold), Standardization(0.0, 1.0),
        {TRAIN: prompts[TRAIN], EVAL: prompts[EVAL]}, PairsConfig(pool=40, per_cell=20, held_out=4), 6, pool,
    )  # fmt: skip
    write_preferences(pool, LabelsConfig(), 0, directory)
    return directory


def training_rows(preferences: Path, cache: Path):
    """The training pairs as a dataset, columns as they are."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset(
        "parquet", data_files=str(preferences / PAIRS_FILE), split="train", cache_dir=str(cache)
    )
    return rows.filter(lambda row: row["split"] == TRAIN)


def quiet_config(directory: Path, **settings):
    """A DPOConfig that trains on the CPU and says nothing."""
    from trl import DPOConfig

    return DPOConfig(**{
        "output_dir": str(directory), "report_to": "none", "use_cpu": True, "per_device_train_batch_size": 8,
        "max_steps": 1, "disable_tqdm": True, "bf16": False, "gradient_checkpointing": False,
        "logging_strategy": "no", "save_strategy": "no", **settings,
    })  # fmt: skip


def ended_rows(preferences: Path, eos_id: int) -> list[int]:
    """Training pairs both of whose responses ended by themselves: TRL ends every response with EOS."""
    rows = pd.read_parquet(preferences / PAIRS_FILE).query("split == 'train'").reset_index()
    return [row for row in rows.index if rows.chosen_ids[row][-1] == rows.rejected_ids[row][-1] == eos_id]
