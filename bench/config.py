"""The configuration of one cell as frozen dataclasses.

Every value is checked here, before anything is built or trained, with a message that says which key, the
value seen and what is allowed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.checked import (
    ConfigError,
    build_checked,
    fingerprint_of,
    require_at_least,
    require_one_of,
    require_positive,
    require_within,
)
from bench.records import GPO

EXTERNAL = "external"
SAVE_MODES = ("none", "final", "best", "all")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then a constant learning rate; identical for every loss.

    Attributes:
        clip_norm: largest norm of the gradient of mean f(βρ) / (β |f'(0)|), which starts out alike for every loss and
            β. A guard against explosions: a clip that sets in where some losses have their best β and others do not
            would be another optimizer for each.
    """

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
        require_positive("optim.lr", self.lr)
        require_positive("optim.clip_norm", self.clip_norm)
        require_at_least("optim.steps", self.steps, 1)
        require_at_least("optim.batch_pairs", self.batch_pairs, 1)
        require_at_least("optim.warmup_steps", self.warmup_steps, 0)
        require_at_least("optim.weight_decay", self.weight_decay, 0)
        require_within("optim.adam_beta1", self.adam_beta1, 0, 1)
        require_within("optim.adam_beta2", self.adam_beta2, 0, 1)
        if self.micro_batch_pairs is not None:
            require_at_least("optim.micro_batch_pairs", self.micro_batch_pairs, 1)


@dataclass(frozen=True)
class LabelsConfig:
    """How gold scores become preferences (Gao et al. 2023, section 2): see gold_rm.labeling."""

    rule: str = "deterministic"
    temperature: float = 1.0  # SD units of π_ref's gold scores; used by bradley_terry
    flip_rate: float = 0.0

    def __post_init__(self) -> None:
        require_one_of("labels.rule", self.rule, ("deterministic", "bradley_terry"))
        require_positive("labels.temperature", self.temperature)
        require_within("labels.flip_rate", self.flip_rate, 0, 0.5)


@dataclass(frozen=True)
class PairsConfig:
    """Sizes of the preference data: `held_out` is shared, a seed has a part of `pool` to itself (bench.data.parts)."""

    pool: int = 26624
    per_cell: int = 2560
    held_out: int = 256
    seed: int = 0  # draws the pool; the world's, not the cell's

    def __post_init__(self) -> None:
        require_at_least("pairs.pool", self.pool, 1)
        require_at_least("pairs.held_out", self.held_out, 2)
        require_at_least("pairs.per_cell", self.per_cell, 1)
        require_at_least("pairs.seed", self.seed, 0)
        if self.per_cell > self.pool:
            raise ConfigError(f"pairs.per_cell={self.per_cell} is more than pairs.pool={self.pool} holds")


@dataclass(frozen=True)
class EvaluationConfig:
    """Checkpoints at step 0 and at steps, steps/2, steps/4, ...: `checkpoints` of them after step 0."""

    prompts: int = 256
    checkpoints: int = 3
    batch_size: int = 256
    reference_samples: int = 64  # per evaluation prompt: standardization, win rate, best-of-n, ceiling

    def __post_init__(self) -> None:
        require_at_least("evaluation.prompts", self.prompts, 2)
        require_at_least("evaluation.checkpoints", self.checkpoints, 1)
        require_at_least("evaluation.batch_size", self.batch_size, 1)
        require_at_least("evaluation.reference_samples", self.reference_samples, 1)


@dataclass(frozen=True)
class ResumeConfig:
    """Where an unfinished cell goes on.

    Attributes:
        every: a resume point after so many steps; 0: none but those that a signal asks for; None: at each checkpoint,
            which takes 7 ms for the default policy, 0.4 % of its cell.
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            require_at_least("resume.every", self.every, 0)


@dataclass(frozen=True)
class WandbConfig:
    """Where the mirror goes; offline needs neither login nor network."""

    mode: str = "offline"
    project: str = "gpo-bench"
    entity: str | None = None

    def __post_init__(self) -> None:
        require_one_of("tracking.wandb.mode", self.mode, ("offline", "online", "disabled"))


@dataclass(frozen=True)
class TrackingConfig:
    """Mirrors of the records."""

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
        require_at_least("world.max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True)
class ExternalConfig:
    """A policy that was trained by another tool (`python -m bench.evaluate policy=…`).

    Attributes:
        policy: directory of the policy.
        fingerprint: of what is in it.
        variant: its name on a frontier.
        strength: of its regularization; what its variant is swept over.
    """

    policy: str
    fingerprint: str
    variant: str
    strength: float

    def __post_init__(self) -> None:
        require_positive("strength", self.strength)
        if not self.variant.strip():
            raise ConfigError("variant: must name what competes on the frontier, such as variant=my_method")


@dataclass(frozen=True)
class CellConfig:
    """Everything one cell depends on; `fingerprint` leaves out what cannot move its results."""

    world: WorldConfig
    sweep: str = "default"
    method: str = GPO
    loss: str = "logistic"
    beta: float = 0.1
    seed: int = 0
    length_normalized: bool = False  # divide each response's log-ratio by its length (not GPO; TRL's IPO)
    optim: OptimConfig = field(default_factory=OptimConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    save: str = "none"
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    device: str = "auto"
    cpu_threads: int = 1  # of PyTorch in one cell; part of the rounding of its results
    logits_mib: int | None = None  # of one chunk of logits; part of the rounding as well
    workers: int | None = None  # of a sweep, side by side; None: one per core
    runs_dir: str = "runs"
    artifacts_dir: str = "artifacts"
    external: ExternalConfig | None = None

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require_at_least("seed", self.seed, 0)
        require_at_least("cpu_threads", self.cpu_threads, 1)
        require_one_of("save", self.save, SAVE_MODES)
        for key in ("logits_mib", "workers"):
            if (value := getattr(self, key)) is not None:
                require_at_least(key, value, 1)
        if not self.sweep or "/" in self.sweep or self.sweep.startswith("."):
            raise ConfigError(f"sweep={self.sweep!r} must be a plain directory name")
        if (self.method == EXTERNAL) != (self.external is not None):
            raise ConfigError(f"method={EXTERNAL}: a policy is imported by `python -m bench.evaluate policy=DIR …`")
        if self.external is None:
            self._check_method_and_loss()

    def _check_method_and_loss(self) -> None:
        # Not before: they need torch, seconds that a message about a key need not wait for.
        if self.method != GPO:
            from bench.methods import METHODS

            require_one_of("method", self.method, tuple(METHODS))
        from bench.losses import resolve_loss

        try:
            resolve_loss(self.loss)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def variant(self) -> str:
        """What competes on a frontier: a loss of GPO, another method and its loss, or an imported policy's name."""
        if self.external is not None:
            return self.external.variant
        return self.loss if self.method == GPO else f"{self.method}/{self.loss}"

    @property
    def strength(self) -> float:
        """What the variant is swept over: β."""
        return self.beta if self.external is None else self.external.strength

    @property
    def fingerprint(self) -> str:
        """12 hex digits over every setting that can move the cell's results."""
        settings = {key: value for key, value in asdict(self).items() if key not in _MOVES_NO_RESULT}
        if self.external is not None:
            settings["external"] = {**settings["external"], "policy": None}  # where it is; what it is, is hashed
        # Absent in configurations from before they existed, which stay what they were.
        unset = {"method": GPO, "logits_mib": None, "external": None}
        return fingerprint_of({k: v for k, v in settings.items() if k not in unset or v != unset[k]})


_MOVES_NO_RESULT = ("sweep", "tracking", "device", "runs_dir", "artifacts_dir", "save", "resume", "workers")


def cell_config(composed: Mapping[str, Any]) -> CellConfig:
    """Build a cell's configuration from nested mappings, checking every key, type and value.

    Raises:
        ConfigError: unknown key, value of the wrong type, or out of range.
    """
    return build_checked(CellConfig, composed)
