"""The configuration of one cell as frozen dataclasses; the only place where OmegaConf meets them.

Every value is checked here, before anything is built or trained, with a message that says which key, the
value seen and what is allowed.
"""

import difflib
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from bench.losses import resolve_loss

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is meant for the person who wrote it."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then a constant learning rate; identical for every loss."""

    lr: float = 4e-4
    steps: int = 160
    batch_pairs: int = 16
    micro_batch_pairs: int | None = None  # null: the whole batch at once
    warmup_steps: int = 20
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99

    def __post_init__(self) -> None:
        _positive("optim.lr", self.lr)
        _positive("optim.clip_norm", self.clip_norm)
        _at_least("optim.steps", self.steps, 1)
        _at_least("optim.batch_pairs", self.batch_pairs, 1)
        _at_least("optim.warmup_steps", self.warmup_steps, 0)
        _at_least("optim.weight_decay", self.weight_decay, 0)
        _within("optim.adam_beta1", self.adam_beta1, 0, 1)
        _within("optim.adam_beta2", self.adam_beta2, 0, 1)
        if self.micro_batch_pairs is not None:
            _at_least("optim.micro_batch_pairs", self.micro_batch_pairs, 1)


@dataclass(frozen=True)
class LabelsConfig:
    """How gold scores become preferences (Gao et al. 2023, section 2): see gold_rm.labeling."""

    rule: str = "deterministic"
    temperature: float = 1.0  # SD units of π_ref's gold scores; used by bradley_terry
    flip_rate: float = 0.0

    def __post_init__(self) -> None:
        _one_of("labels.rule", self.rule, ("deterministic", "bradley_terry"))
        _positive("labels.temperature", self.temperature)
        _within("labels.flip_rate", self.flip_rate, 0, 0.5)


@dataclass(frozen=True)
class PairsConfig:
    """Sizes of the preference data: `pool` and `held_out` are shared, a seed draws `per_cell` of the pool."""

    pool: int = 6144
    per_cell: int = 2560
    held_out: int = 256
    seed: int = 0  # draws the pool; the world's, not the cell's

    def __post_init__(self) -> None:
        _at_least("pairs.pool", self.pool, 1)
        _at_least("pairs.held_out", self.held_out, 2)
        _at_least("pairs.per_cell", self.per_cell, 1)
        _at_least("pairs.seed", self.seed, 0)
        if self.per_cell > self.pool:
            raise ConfigError(f"pairs.per_cell={self.per_cell} is more than pairs.pool={self.pool} holds")


@dataclass(frozen=True)
class EvaluationConfig:
    """Checkpoints at step 0 and at steps, steps/2, steps/4, ...: `checkpoints` of them after step 0."""

    prompts: int = 256
    checkpoints: int = 3
    batch_size: int = 256
    reference_samples: int = 64  # per evaluation prompt: standardisation, win rate, best-of-n, ceiling

    def __post_init__(self) -> None:
        _at_least("evaluation.prompts", self.prompts, 2)
        _at_least("evaluation.checkpoints", self.checkpoints, 1)
        _at_least("evaluation.batch_size", self.batch_size, 1)
        _at_least("evaluation.reference_samples", self.reference_samples, 1)


@dataclass(frozen=True)
class WandbConfig:
    """Where the mirror goes; offline needs neither login nor network."""

    mode: str = "offline"
    project: str = "gpo-bench"
    entity: str | None = None

    def __post_init__(self) -> None:
        _one_of("tracking.wandb.mode", self.mode, ("offline", "online", "disabled"))


@dataclass(frozen=True)
class TrackingConfig:
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass(frozen=True)
class WorldConfig:
    """A world: `builder` names the module bench.worlds.<builder>, which checks `params` itself."""

    name: str
    builder: str
    max_new_tokens: int
    params: dict[str, Any] = field(default_factory=dict)
    gold: dict[str, Any] = field(default_factory=dict)  # keywords of gold_rm.train.GoldTrainConfig

    def __post_init__(self) -> None:
        _at_least("world.max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True)
class CellConfig:
    """Everything one cell depends on; `fingerprint` leaves out what cannot move its results."""

    world: WorldConfig
    sweep: str = "default"
    loss: str = "logistic"
    beta: float = 0.1
    seed: int = 0
    length_normalized: bool = False  # divide each response's log-ratio by its length (not GPO; TRL's IPO)
    optim: OptimConfig = field(default_factory=OptimConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    device: str = "auto"
    cpu_threads: int = 1  # of PyTorch in one cell; part of the rounding of its results
    runs_dir: str = "runs"
    artifacts_dir: str = "artifacts"

    def __post_init__(self) -> None:
        _positive("beta", self.beta)
        _at_least("seed", self.seed, 0)
        _at_least("cpu_threads", self.cpu_threads, 1)
        if not self.sweep or "/" in self.sweep or self.sweep.startswith("."):
            raise ConfigError(f"sweep={self.sweep!r} must be a plain directory name")
        try:
            resolve_loss(self.loss)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def sweep_dir(self) -> Path:
        return Path(self.runs_dir) / self.sweep

    @property
    def fingerprint(self) -> str:
        """12 hex digits over every setting that can move the cell's results."""
        without = ("sweep", "tracking", "device", "runs_dir", "artifacts_dir")
        return fingerprint_of({k: v for k, v in asdict(self).items() if k not in without})


def fingerprint_of(value: Any) -> str:
    """12 hex digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def cell_config(composed: DictConfig | Mapping[str, Any]) -> CellConfig:
    """Convert a composed Hydra configuration, checking every key, type and value.

    Raises:
        ConfigError: unknown key (also one added with ``+``), value of the wrong type, or out of range.
    """
    plain = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
    return build_checked(CellConfig, plain)


def build_checked(kind: type[T], values: Any, where: str = "") -> T:
    """Build the frozen dataclass `kind` from nested mappings, checking keys and types all the way down.

    Args:
        where: prefix of the keys in messages, such as ``world.params``.
    Raises:
        ConfigError: naming the key, the value seen and what is allowed.
    """
    try:
        # Strict, so that beta=true is not 1.0; as JSON, in which an integer is a float and a list a tuple.
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # mypy doubts that a class is hashable
        return adapter.validate_json(json.dumps(values), strict=True, extra="forbid")
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, where, item) for item in error.errors())) from error


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _explain(kind: type, where: str, item: Any) -> str:
    key = ".".join([where, *map(str, item["loc"])] if where else map(str, item["loc"]))
    if isinstance(cause := item.get("ctx", {}).get("error"), ValueError):
        return str(cause) if isinstance(cause, ConfigError) else f"{key}: {cause}"
    if item["type"] == "missing":
        return f"{key}: missing"
    if item["type"] == "unexpected_keyword_argument":
        known = known_keys(kind, f"{where}." if where else "")
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        return f"{key}: no such key" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    return f"{key}={item['input']!r}: {item['msg'].lower()}"


def known_keys(kind: type, prefix: str = "") -> list[str]:
    """Every dotted key of the dataclass `kind`, such as ``optim.lr``, each after `prefix`."""
    keys = []
    for name, hint in get_type_hints(kind).items():
        keys.append(prefix + name)
        if isinstance(hint, type) and is_dataclass(hint):
            keys += known_keys(hint, f"{prefix}{name}.")
    return keys


# Settings that say where a cell runs or is filed, not what it is; `world` alone is named by its group.
_NOT_IN_NAMES = ("sweep", "experiment", "device", "runs_dir", "artifacts_dir", "tracking", "hydra")
_ALWAYS_IN_NAMES = ("loss", "beta", "seed")
_LONGEST_NAME = 200  # bytes; file systems take 255, and temporary files have longer names


def named_keys(overridden: Iterable[str]) -> tuple[str, ...]:
    """The keys that a cell is named by: loss, β and seed, then other overridden ones that can change results.

    Args:
        overridden: keys given on the command line or by the sweeper, such as ``optim.lr``.
    """
    hidden = (*_NOT_IN_NAMES, *_ALWAYS_IN_NAMES)
    return (*_ALWAYS_IN_NAMES, *sorted({key for key in overridden if key.split(".")[0] not in hidden}))


def cell_name(config: CellConfig, overridden: Iterable[str] = ()) -> str:
    """Directory name of a cell: its named keys, values in one spelling.

    A name that file systems would refuse holds a hash of the keys after the seed instead of the keys.
    """
    parts = [f"{key}={_spell(select(config, key))}" for key in named_keys(overridden)]
    if len(",".join(parts).encode()) > _LONGEST_NAME:
        shown = len(_ALWAYS_IN_NAMES)
        parts = [*parts[:shown], f"others={fingerprint_of(parts[shown:])}"]
    return ",".join(parts)


def select(config: CellConfig, key: str) -> Any:
    """Value of a dotted key such as ``optim.lr``; a world is given by its name."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value.name if isinstance(value, WorldConfig) else value


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return "null" if value is None else str(value).replace("/", "_").replace(",", ";")


def _positive(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key}={value}: must be a finite number above 0")


def _at_least(key: str, value: float, minimum: float) -> None:
    if not (math.isfinite(value) and value >= minimum):
        raise ConfigError(f"{key}={value}: must be {minimum} or more")


def _within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value < high:
        raise ConfigError(f"{key}={value}: must lie in [{low}, {high})")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value!r}: allowed are {', '.join(allowed)}")
