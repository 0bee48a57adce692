"""Building what the cells of a sweep stand on, once: world, gold model, reference samples, preference data."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench import worlds
from bench.cells.settings import flat
from bench.checked import ConfigError, build_checked
from bench.claims import hold
from bench.config import CellConfig, WorldConfig
from bench.data.artifacts import Artifact, build_once
from bench.data.preferences import FACTS_FILE, PAIRS_FILE, sample_pool, write_preferences
from bench.data.prepared import GOLD_DIR, Prepared, gold_directory
from bench.data.reference_samples import SAMPLES_FILE, load_standardization, sample_reference
from bench.data.shipped import copy_of_shipped, frozen_directory, shipped_inputs
from bench.policies.load import load_policy, resolve_device
from bench.policies.policy import Policy
from bench.records import remove_temporaries, write_atomically
from bench.worlds import World
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.reward_model import GoldModel, load_gold_model
from gold_rm.train import GoldTrainConfig, train_gold_model

Progress = Callable[[str], None]


def prepare(config: CellConfig, progress: Progress = lambda message: None, *, from_shipped: bool = True) -> Prepared:
    """Build or find everything that `config` needs; safe to call from several processes at once.

    Args:
        from_shipped: take what ships with the code where it was made with these settings.
    Raises:
        ConfigError: a setting of the world or the gold model that cannot be used.
        DamagedArtifact: files that are not what was built.
    """
    resolve_device(config.device)  # a device that is not there is refused before anything is built
    building = _Building(config, progress, from_shipped=from_shipped)
    world_artifact = _build_world(building, config.world)
    world = worlds.read_world(world_artifact.path)
    gold = _build_gold(building, config.world, world_artifact, world)
    sampling = _Sampling(building, config, world, gold, _take_eval_prompts(world, config))
    reference = sampling.build_reference(world_artifact)
    pool = sampling.build_pool(world_artifact, reference)
    preferences = building.build(
        "preferences",
        {"pool": pool.fingerprint, "labels": asdict(config.labels), "seed": config.pairs.seed},
        lambda directory: write_preferences(pool.path, config.labels, config.pairs.seed, directory),
    )
    _check_pool(preferences, config)
    return Prepared(world_artifact, world.policy_dir, gold, reference, preferences)


class _Building:
    """Where artifacts are built, and what of them ships with the code."""

    def __init__(self, config: CellConfig, progress: Progress, *, from_shipped: bool) -> None:
        self.root, self.progress = Path(config.artifacts_dir), progress
        self.shipped = frozen_directory(worlds.builder_module(config.world.builder)) if from_shipped else None

    def build(self, kind: str, inputs: dict[str, Any], builder: Callable[[Path], None]) -> Artifact:
        """The artifact made from `inputs`: found, copied from what ships, or built."""
        if self.shipped is not None and kind in worlds.SHIPPED_KINDS:
            builder = copy_of_shipped(self.shipped, kind, inputs) or builder
        return build_once(self.root, kind, inputs, builder, self.progress)


class _Sampling:
    """What π_ref's samples are drawn with: reference samples first, then the pool, on one scale of gold."""

    def __init__(
        self, building: _Building, config: CellConfig, world: World, gold: Artifact, eval_prompts: list[str]
    ) -> None:
        self._building, self._config, self._world, self._gold = building, config, world, gold
        self._eval_prompts = eval_prompts

    def build_reference(self, world: Artifact) -> Artifact:
        """π_ref's own samples on the evaluation prompts."""
        per_prompt = self._config.evaluation.reference_samples
        return self._building.build(
            "reference",
            {**self._inputs(world), "per_prompt": per_prompt},
            lambda directory: sample_reference(
                *self._models(),
                self._eval_prompts,
                per_prompt=per_prompt,
                max_new_tokens=self._config.world.max_new_tokens,
                directory=directory,
            ),
        )

    def build_pool(self, world: Artifact, reference: Artifact) -> Artifact:
        """Unlabeled pairs, in SD of the reference samples' gold."""
        pairs = self._config.pairs
        sizes = {"pool": pairs.pool, "held_out": pairs.held_out, "seed": pairs.seed}
        return self._building.build(
            "pool",
            {**self._inputs(world), "reference": reference.fingerprint, **sizes},
            lambda directory: sample_pool(
                *self._models(),
                load_standardization(reference.path),
                {"train": self._world.train_prompts, "eval": self._eval_prompts},
                pairs,
                self._config.world.max_new_tokens,
                directory,
            ),
        )

    def _inputs(self, world: Artifact) -> dict[str, Any]:
        return {
            "world": world.fingerprint,
            "gold": self._gold.fingerprint,
            "max_new_tokens": self._config.world.max_new_tokens,
            "eval_prompts": len(self._eval_prompts),
        }

    def _models(self) -> tuple[Policy, GoldModel]:
        device = resolve_device(self._config.device)
        policy = load_policy(self._world.policy_dir, device=device, logits_mib=self._config.logits_mib)
        return policy, load_gold_model(gold_directory(self._gold), device=device)


def publish(sweep_dir: Path, prepared: Prepared) -> None:
    """Copy π_ref's scored samples and the labels' probabilities to the sweep, which thereby stands alone."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    for source, name in (
        (prepared.reference.path / SAMPLES_FILE, f"reference-{prepared.reference.fingerprint}.parquet"),
        (prepared.preferences.path / PAIRS_FILE, f"labels-{prepared.preferences.fingerprint}.parquet"),
    ):
        if not (sweep_dir / name).exists():
            with hold(sweep_dir):
                remove_temporaries(sweep_dir, name)
                write_atomically(sweep_dir / name, partial(shutil.copyfile, source))


def _build_world(building: _Building, config: WorldConfig) -> Artifact:
    module = worlds.builder_module(config.builder)
    params = build_checked(module.Params, config.params, "world.params")
    inputs = {"builder": config.builder, "version": module.VERSION, "params": _plain(params)}
    if hasattr(module, "inputs"):
        inputs["files"] = module.inputs(params)
    _require_shipped(building, config, "world", "params", inputs, params)
    return building.build("world", inputs, lambda directory: module.build(params, directory, building.progress))


def _require_shipped(
    building: _Building, config: WorldConfig, kind: str, part: str, inputs: dict[str, Any], params: Any = None
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


def _build_gold(building: _Building, config: WorldConfig, artifact: Artifact, world: World) -> Artifact:
    if world.gold_dir is not None:
        return Artifact(world.gold_dir, fingerprint_of_model(world.gold_dir))
    settings = build_checked(GoldTrainConfig, config.gold, "world.gold")
    assert world.comparisons is not None  # read_world: a gold model or comparisons
    comparisons = pd.read_parquet(world.comparisons)
    inputs = {"world": artifact.fingerprint, "settings": _plain(settings)}
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
    left = training_pairs_in(preferences)
    if config.pairs.per_cell > left:
        raise ConfigError(
            f"pairs.per_cell={config.pairs.per_cell}: {left} of pairs.pool={config.pairs.pool} are left after ties "
            "were dropped"
        )
