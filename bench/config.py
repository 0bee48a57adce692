"""The configuration of one cell as frozen dataclasses.

Every value is checked here, before anything is built or trained, with a message that says which key, the
value seen and what is allowed.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.checked import (
    ConfigError,
    Name,
    build_checked,
    fingerprint_of,
    require_count,
    require_one_of,
    require_positive,
    require_seed,
)
from bench.policy_section import BFLOAT16, PolicyConfig
from bench.records import BEST_OF_N, GPO, ONLINE, RLOO
from bench.sections import (
    PROXY,
    BestOfNConfig,
    EvaluationConfig,
    LabelsConfig,
    OnlineConfig,
    OptimConfig,
    PairsConfig,
    ParallelConfig,
    ProxyConfig,
    ResumeConfig,
    RlooConfig,
    TrackingConfig,
)
from gold_rm.errors import UserError

EXTERNAL = "external"
DIRECTORIES = "directories"  # the builder of worlds of ready parts
SAVE_MODES = ("none", "final", "best", "all")
# Those of bench.methods and bench.losses, which need torch: seconds that a sweep of these names need not wait for.
METHOD_NAMES = (GPO, ONLINE, RLOO, BEST_OF_N)
WITHOUT_LOSS = (RLOO, BEST_OF_N)
_MOST_THREADS = 1024  # a system refuses more with an error of its own
BUILT_IN_LOSSES = ("logistic", "squared", "hinge", "exponential", "truncated_quadratic", "savage")


@dataclass(frozen=True)
class WorldConfig:
    """A world: `builder` names the module bench.worlds.<builder>, which checks `params` itself."""

    name: Name
    builder: str
    max_new_tokens: int
    params: dict[str, Any] = field(default_factory=dict)
    gold: dict[str, Any] = field(default_factory=dict)  # keywords of gold_rm.train.GoldTrainConfig

    def __post_init__(self) -> None:
        require_count("world.max_new_tokens", self.max_new_tokens)


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
    variant: Name
    strength: float

    def __post_init__(self) -> None:
        require_positive("strength", self.strength)
        if not self.variant.strip():
            raise ConfigError("variant: must name what competes on the frontier, such as variant=my_method")


@dataclass(frozen=True)
class CellConfig:
    """Everything one cell depends on; `fingerprint` leaves out what cannot move its results."""

    world: WorldConfig
    sweep: Name = "default"
    method: str = GPO
    loss: str = "logistic"
    beta: float = 0.1
    seed: int = 0
    length_normalized: bool = False  # divide each response's log-ratio by its length (not GPO; TRL's IPO)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)  # used where it labels or is watched
    watch: tuple[str, ...] = ()  # reward models that only score: proxy, directories
    online: OnlineConfig = field(default_factory=OnlineConfig)
    rloo: RlooConfig = field(default_factory=RlooConfig)
    best_of_n: BestOfNConfig = field(default_factory=BestOfNConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    save: str = "none"
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    device: str = "auto"
    cpu_threads: int = 1  # of PyTorch in one cell; part of the rounding of its results
    logits_mib: int | None = None  # of one chunk of logits; part of the rounding as well
    workers: int | None = None  # of a sweep, side by side; None: one per core
    runs_dir: str = "runs"
    artifacts_dir: str = "artifacts"
    external: ExternalConfig | None = None

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require_seed("seed", self.seed)
        if not 1 <= self.cpu_threads <= _MOST_THREADS:
            raise ConfigError(f"cpu_threads={self.cpu_threads}: must be 1 to {_MOST_THREADS}")
        require_one_of("save", self.save, SAVE_MODES)
        if len(set(self.watch)) < len(self.watch):
            raise ConfigError(f"watch={list(self.watch)}: names a reward model twice")
        for key in ("logits_mib", "workers"):
            if (value := getattr(self, key)) is not None:
                require_count(key, value)
        if self.policy.revision is not None and self.world.builder != DIRECTORIES:
            raise ConfigError(
                f"policy.revision={self.policy.revision}: π_ref of world {self.world.name} is not the hub's"
            )
        if not self.sweep or "/" in self.sweep or self.sweep.startswith("."):
            raise ConfigError(f"sweep={self.sweep!r} must be a plain directory name")
        if (self.method == EXTERNAL) != (self.external is not None):
            raise ConfigError(f"method={EXTERNAL}: a policy is imported by `python -m bench.evaluate policy=DIR …`")
        if self.external is None:
            self._check_method_and_loss()

    def _check_method_and_loss(self) -> None:
        require_one_of("method", self.method, METHOD_NAMES)
        if self.method == BEST_OF_N and self.best_of_n.prompts > self.evaluation.prompts:
            raise ConfigError(
                f"best_of_n.prompts={self.best_of_n.prompts} is more than evaluation.prompts={self.evaluation.prompts}"
            )
        if self.method == RLOO and 2 * self.optim.batch_pairs % self.rloo.samples:
            raise ConfigError(
                f"rloo.samples={self.rloo.samples}: a step's 2 × optim.batch_pairs = {2 * self.optim.batch_pairs} "
                "responses must be a multiple of it"
            )
        if self.method != BEST_OF_N:
            self.parallel.check_parts(self.optim.batch_pairs, self.rloo.samples if self.method == RLOO else None)
        if self.policy.use_peft and self.parallel.strategy == "fsdp":
            raise ConfigError("parallel.strategy=fsdp: adapters leave little to cut over processes; take ddp")
        if self.policy.dtype == BFLOAT16 and not self.policy.use_peft and self.method != BEST_OF_N:
            raise ConfigError(
                "policy.dtype=bfloat16: all weights are trained in float32, as AdamW's steps would be rounded away; "
                "policy.use_peft=true trains adapters on bfloat16 weights"
            )
        if self.length_normalized and self.method in WITHOUT_LOSS:
            raise ConfigError(f"length_normalized=true: method={self.method} has no pairs whose log-ratios to divide")
        for key, loss in (("loss", self.loss), ("proxy.loss", self.proxy.loss)):
            if loss not in BUILT_IN_LOSSES:
                _check_loss(key, loss)

    @property
    def world_params(self) -> dict[str, Any]:
        """The world's settings, with the revision of π_ref behind its name on the hub."""
        params, revision = self.world.params, self.policy.revision
        return params if revision is None else {**params, "policy": f"{params.get('policy')}@{revision}"}

    @property
    def uses_proxy(self) -> bool:
        """Whether a proxy labels or is watched."""
        return self.labels.by == PROXY or PROXY in self.watch

    @property
    def has_loss(self) -> bool:
        """Whether the cell's policy is trained with a loss f of ours."""
        return self.external is None and self.method not in WITHOUT_LOSS

    @property
    def variant(self) -> str:
        """What competes on a frontier: a loss of GPO, another method and its loss, or an imported policy's name."""
        if self.external is not None:
            return self.external.variant
        if self.method == GPO:
            return self.loss
        return self.method if self.method in WITHOUT_LOSS else f"{self.method}/{self.loss}"

    @property
    def last_step(self) -> int:
        """Step of the last checkpoint: optimizer steps, or n of best-of-n."""
        return self.best_of_n.samples if self.method == BEST_OF_N else self.optim.steps

    @property
    def strength(self) -> float:
        """What the variant is swept over: β, or n."""
        if self.external is not None:
            return self.external.strength
        return float(self.best_of_n.samples) if self.method == BEST_OF_N else self.beta

    @property
    def fingerprint(self) -> str:
        """12 hex digits over every setting that can move the cell's results."""
        settings = {key: value for key, value in asdict(self).items() if key not in _MOVES_NO_RESULT}
        settings["evaluation"] = {k: v for k, v in settings["evaluation"].items() if k != "batch_size"}  # rounding only
        if self.external is not None:
            settings["external"] = {**settings["external"], "policy": None}  # where it is; what it is, is hashed
        # Absent in configurations from before they existed, which stay what they were.
        unset: dict[str, Any] = {"method": GPO, "logits_mib": None, "external": None, "watch": (), "policy": {}}
        settings["policy"] = self.policy.moving_results
        used = {PROXY: self.uses_proxy, **{name: self.method == name for name in (ONLINE, RLOO, BEST_OF_N)}}
        if self.labels.by != PROXY:
            settings["labels"] = {key: value for key, value in settings["labels"].items() if key != "by"}
        settings["world"]["params"] |= _files_of(self)
        if self.method in WITHOUT_LOSS:
            settings["loss"] = None
        elif self.external is None and self.loss not in BUILT_IN_LOSSES:
            settings["loss"] = [self.loss, values_of(self.loss)]  # its name does not say what it is
        return fingerprint_of(
            {k: v for k, v in settings.items() if used.get(k, True) and (k not in unset or v != unset[k])}
        )


def _files_of(config: CellConfig) -> dict[str, str]:
    """Hashes in the place of the paths of a world of ready parts, which is what is in its files."""
    if config.world.builder != DIRECTORIES:
        return {}
    return _hashes(json.dumps(config.world_params, sort_keys=True))


@functools.cache
def _hashes(params: str) -> dict[str, str]:
    from bench.worlds import directories

    try:
        return directories.inputs(build_checked(directories.Params, json.loads(params), "world.params"))
    except UserError:  # not there: whoever needs it will say so
        return {}


def values_of(loss: str) -> str:
    """Digest of the values of a user's own loss; see `bench.losses.loss_values`."""
    from bench.losses import loss_values

    return loss_values(loss)


def _check_loss(key: str, loss: str) -> None:
    from bench.losses import resolve_loss

    try:
        resolve_loss(loss)
    except ValueError as error:
        raise ConfigError(str(error) if key == "loss" else f"{key}: {error}") from error


_MOVES_NO_RESULT = ("sweep", "tracking", "device", "runs_dir", "artifacts_dir", "save", "resume", "workers", "parallel")


def cell_config(composed: Mapping[str, Any]) -> CellConfig:
    """Build a cell's configuration from nested mappings, checking every key, type and value.

    Raises:
        ConfigError: unknown key, value of the wrong type, or out of range.
    """
    return build_checked(CellConfig, composed)
