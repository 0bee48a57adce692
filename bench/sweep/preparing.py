"""Building what the cells of a sweep stand on, once: world, gold model, reference samples, preference data."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from bench import worlds
from bench.cells.settings import flat
from bench.checked import ConfigError, build_checked
from bench.config import CellConfig, WorldConfig
from bench.data.artifacts import PAIRS_FILE, Artifact
from bench.data.preferences import FACTS_FILE
from bench.data.prepared import GOLD_DIR, Prepared
from bench.data.shipped import shipped_inputs
from bench.policies.load import resolve_device
from bench.records import BEST_OF_N
from bench.sweep.building import Building, Progress, Sampling
from bench.sweep.judging import build_judges, build_preferences
from bench.worlds import World
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.train import GoldTrainConfig, train_gold_model


def prepare(config: CellConfig, progress: Progress = lambda message: None, *, from_shipped: bool = True) -> Prepared:
    """Build or find everything that `config` needs; safe to call from several processes at once.

    Args:
        from_shipped: take what ships with the code where it was made with these settings.
    Raises:
        ConfigError: a setting of the world or the gold model that cannot be used.
        DamagedArtifact: files that are not what was built.
    """
    resolve_device(config.device)  # a device that is not there is refused before anything is built
    building = Building(config, progress, from_shipped=from_shipped)
    world_artifact = _build_world(building, config)
    world = worlds.read_world(world_artifact.path)
    gold = _build_gold(building, config.world, world_artifact, world)
    sampling = Sampling(building, config, world, gold, _take_eval_prompts(world, config))
    reference = sampling.build_reference(world_artifact)
    pool = sampling.build_pool(world_artifact, reference, config.pairs)
    judges = build_judges(building, sampling, config, world, world_artifact, reference)
    preferences = build_preferences(building, config, pool, judges)
    _check_pool(preferences, config)
    best_of_n = sampling.build_best_of_n(world_artifact, reference) if config.method == BEST_OF_N else None
    return Prepared(world_artifact, world.policy_dir, gold, reference, preferences, tuple(judges.items()), best_of_n)


def _build_world(building: Building, whole: CellConfig) -> Artifact:
    config = whole.world
    module = worlds.builder_module(config.builder)
    params = build_checked(module.Params, whole.world_params, "world.params")
    inputs = {"builder": config.builder, "version": module.VERSION, "params": _plain(params)}
    if hasattr(module, "inputs"):
        inputs["files"] = module.inputs(params)
        # The world refers to where they lie, in one spelling.
        named = {key: inputs["params"][key] for key in inputs["files"] if key in inputs["params"]}
        places = {key: os.path.abspath(name) for key, name in named.items() if os.path.exists(name)}
        inputs["params"] = inputs["params"] | places
    _require_shipped(building, config, "world", "params", inputs, params)
    return building.build("world", inputs, lambda directory: module.build(params, directory, building.progress))


def _require_shipped(
    building: Building, config: WorldConfig, kind: str, part: str, inputs: dict[str, Any], params: Any = None
) -> None:
    """Refuse other settings of a world that ships, which would be another world under its name, without a word.

    Raises:
        ConfigError: naming the first key that differs and how to build a world of one's own.
    """
    rebuild = config.params.get("rebuild", False) if params is None else getattr(params, "rebuild", False)
    if building.shipped is None or rebuild:
        return
    key = "settings" if part == "gold" else part
    ours, theirs = (flat(each[key]) for each in (inputs, shipped_inputs(building.shipped, kind)))
    for name in ours:
        if ours[name] != theirs.get(name):
            raise ConfigError(
                f"world.{part}.{name}={ours[name]}: world {config.name} comes with the code as it was built, with "
                f"{theirs.get(name)}; world.params.rebuild=true builds one with your settings (give it a world.name)"
            )


_GOLD_THREADS = GoldTrainConfig().threads


def _build_gold(building: Building, config: WorldConfig, artifact: Artifact, world: World) -> Artifact:
    if world.gold_dir is not None:
        return Artifact(world.gold_dir, fingerprint_of_model(world.gold_dir))
    settings = build_checked(GoldTrainConfig, config.gold, "world.gold")
    assert world.comparisons is not None  # read_world: a gold model or comparisons
    comparisons = pd.read_parquet(world.comparisons)
    # The default number of threads is what there was before it was a setting.
    named = {key: value for key, value in _plain(settings).items() if key != "threads" or value != _GOLD_THREADS}
    inputs = {"world": artifact.fingerprint, "settings": named}
    _require_shipped(building, config, "gold", "gold", inputs)
    return building.build(
        "gold",
        inputs,
        lambda directory: train_gold_model(
            comparisons, world.policy_dir, settings, directory / GOLD_DIR, building.progress
        ),
    )


def _plain(params: Any) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(params).items()}


def _take_eval_prompts(world: World, config: CellConfig) -> list[str]:
    wanted, there = config.evaluation.prompts, len(world.eval_prompts)
    if wanted > there:
        raise ConfigError(
            f"evaluation.prompts={wanted}: world {config.world.name} holds out {there} prompts for evaluation"
        )
    return world.eval_prompts[:wanted]


def training_pairs_in(preferences: Artifact) -> int:
    """Training pairs that are left after ties were dropped."""
    return int(json.loads((preferences.path / FACTS_FILE).read_text())["kept_train"])


def _check_pool(preferences: Artifact, config: CellConfig) -> None:
    if pq.read_metadata(preferences.path / PAIRS_FILE).num_rows - (left := training_pairs_in(preferences)) < 1:
        raise ConfigError(f"pairs.held_out={config.pairs.held_out}: none of them is left after ties were dropped")
    if config.pairs.per_cell > left:
        raise ConfigError(
            f"pairs.per_cell={config.pairs.per_cell}: {left} of pairs.pool={config.pairs.pool} are left after ties "
            "were dropped"
        )
