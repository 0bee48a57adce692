"""Building who scores beside the gold model, and the preference data that a labeller makes of the pool."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from bench import worlds
from bench.checked import ConfigError
from bench.config import BUILT_IN_LOSSES, CellConfig, values_of
from bench.data.artifacts import Artifact
from bench.data.judges import UTILITY, load_judge, write_scale, write_watched
from bench.data.preferences import write_preferences
from bench.data.proxies import VERSION, write_proxy
from bench.records import BEST_OF_N, GPO
from bench.sections import PROXY, LabelsConfig
from bench.sweep.building import Building, Sampling
from bench.worlds import World
from gold_rm.fingerprint import fingerprint_of_model

_COMPARISONS = "proxy"  # purpose of the pool that proxies are fitted to


def build_judges(
    building: Building, sampling: Sampling, config: CellConfig, world: World, artifact: Artifact, reference: Artifact
) -> dict[str, Artifact]:
    """The hidden rater of a synthetic world, the proxy where one labels or is watched, and watched models, by name.

    Raises:
        ConfigError: a watched model that is not there or cannot score π_ref's samples; too few comparisons.
    """
    judges = {}
    builder = worlds.builder_module(config.world.builder)
    if hasattr(builder, "utilities"):
        judges[UTILITY] = building.build(
            UTILITY,
            {"builder": config.world.builder, "version": builder.VERSION, "reference": reference.fingerprint},
            partial(
                write_scale, reference.path, builder.utilities, who=f"the rater of world.builder={config.world.builder}"
            ),
        )
    if config.uses_proxy:
        judges[PROXY] = _build_proxy(building, sampling, config, world, artifact, reference)
    for name, model in watched_models(config).items():
        judges[name] = building.build(
            "watched",
            {"model": fingerprint_of_model(model), "reference": reference.fingerprint},
            partial(write_watched, model, reference.path),
        )
    return judges


def watched_models(config: CellConfig) -> dict[str, Path]:
    """Directories of `watch` by the names that their scores are recorded under.

    Raises:
        ConfigError: no directory, or two of one name.
    """
    models: dict[str, Path] = {}
    for word in config.watch:
        if word == PROXY:
            continue
        path = Path(word)
        if not path.is_dir():
            raise ConfigError(f"watch={word}: neither {PROXY} nor the directory of a reward model")
        if path.name in (*models, PROXY, UTILITY, "gold"):
            raise ConfigError(f"watch={word}: scores are recorded under {path.name!r}, which is taken; rename it")
        models[path.name] = path
    return models


def _build_proxy(
    building: Building, sampling: Sampling, config: CellConfig, world: World, artifact: Artifact, reference: Artifact
) -> Artifact:
    proxy = config.proxy
    sizes = replace(config.pairs, pool=proxy.pool, per_cell=1, held_out=proxy.held_out)
    pool = sampling.build_pool(artifact, reference, sizes, _COMPARISONS)
    labels = replace(config.labels, by=LabelsConfig().by, flip_rate=proxy.flip_rate)
    comparisons = building.build(
        "comparisons",
        {"pool": pool.fingerprint, "labels": _labels(labels), "seed": config.pairs.seed},
        lambda directory: write_preferences(pool.path, labels, config.pairs.seed, directory),
    )
    longest = sampling.longest_text
    settings = {key: value for key, value in asdict(proxy).items() if key not in ("pool", "held_out", "flip_rate")}
    if proxy.loss not in BUILT_IN_LOSSES:
        settings["loss"] = [proxy.loss, values_of(proxy.loss)]
    return building.build(
        PROXY,
        {
            "comparisons": comparisons.fingerprint,
            "reference": reference.fingerprint,
            "max_tokens": longest,
            "version": VERSION,
        }
        | settings,
        lambda directory: write_proxy(comparisons.path, world.policy_dir, proxy, longest, reference.path, directory),
    )


def build_preferences(building: Building, config: CellConfig, pool: Artifact, judges: dict[str, Artifact]) -> Artifact:
    """The pool's pairs as the labeller orders them; for a choice among π_ref's samples, which trains on none, gold."""
    if config.method == BEST_OF_N:
        config = replace(config, method=GPO, labels=replace(config.labels, by=LabelsConfig().by))
    inputs = {"pool": pool.fingerprint, "labels": _labels(config.labels), "seed": config.pairs.seed}
    if config.labels.by != PROXY:
        return building.build(
            "preferences",
            inputs,
            lambda directory: write_preferences(pool.path, config.labels, config.pairs.seed, directory),
        )
    proxy = judges[PROXY]
    return building.build(
        "preferences",
        inputs | {PROXY: proxy.fingerprint},
        lambda directory: write_preferences(
            pool.path, config.labels, config.pairs.seed, directory, load_judge(PROXY, proxy.path).score
        ),
    )


def _labels(labels: LabelsConfig) -> dict[str, object]:
    """Settings that name an artifact; without the labeller where it is gold, as before there was another."""
    return {key: value for key, value in asdict(labels).items() if key != "by" or value == PROXY}
