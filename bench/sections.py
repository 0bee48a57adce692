"""The sections of a cell's configuration, each checked on its own; `bench.config` puts them together."""

from dataclasses import dataclass, field

from bench.checked import (
    ConfigError,
    Name,
    require_at_least,
    require_count,
    require_one_of,
    require_positive,
    require_seed,
    require_within,
)
from gold_rm.proxies import SIZES

GOLD, PROXY = "gold", "proxy"  # labellers


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then a constant learning rate; identical for every loss.

    Attributes:
        clip_norm: largest norm of the gradient of mean f(βρ) / (β |f'(0)|), which starts out alike for every loss and
            β. A guard against explosions: a clip that sets in where some losses have their best β and others do not
            would be another optimizer for each.
    """

    lr: float = 5e-4
    steps: int = 160
    batch_pairs: int = 16
    micro_batch_pairs: int | None = None  # null: the whole batch at once
    warmup_steps: int = 20
    clip_norm: float = 100.0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99

    def __post_init__(self) -> None:
        require_positive("optim.lr", self.lr)
        require_positive("optim.clip_norm", self.clip_norm)
        require_count("optim.steps", self.steps)
        require_count("optim.batch_pairs", self.batch_pairs)
        require_count("optim.warmup_steps", self.warmup_steps, 0)
        require_at_least("optim.weight_decay", self.weight_decay, 0)
        require_within("optim.adam_beta1", self.adam_beta1, 0, 1)
        require_within("optim.adam_beta2", self.adam_beta2, 0, 1)
        if self.micro_batch_pairs is not None:
            require_count("optim.micro_batch_pairs", self.micro_batch_pairs)


@dataclass(frozen=True)
class LabelsConfig:
    """Who labels, and how scores become preferences (Gao et al. 2023, section 2): see gold_rm.labeling."""

    by: str = GOLD  # gold | proxy
    rule: str = "deterministic"
    temperature: float = 1.0  # SD units of π_ref's scores; used by bradley_terry
    flip_rate: float = 0.0

    def __post_init__(self) -> None:
        require_one_of("labels.by", self.by, (GOLD, PROXY))
        require_one_of("labels.rule", self.rule, ("deterministic", "bradley_terry"))
        require_positive("labels.temperature", self.temperature)
        require_within("labels.flip_rate", self.flip_rate, 0, 0.5)


@dataclass(frozen=True)
class PairsConfig:
    """Sizes of the preference data: `held_out` is shared, a seed has a part of `pool` to itself (bench.data.parts)."""

    pool: int = 26624
    per_cell: int = 2560
    held_out: int = 256
    seed: int = 2  # draws the pool; the world's, not the cell's

    def __post_init__(self) -> None:
        require_count("pairs.pool", self.pool)
        require_count("pairs.held_out", self.held_out, 2)
        require_count("pairs.per_cell", self.per_cell)
        require_seed("pairs.seed", self.seed)
        if self.per_cell > self.pool:
            raise ConfigError(f"pairs.per_cell={self.per_cell} is more than pairs.pool={self.pool} holds")


@dataclass(frozen=True)
class EvaluationConfig:
    """Checkpoints at step 0 and at steps, steps/2, steps/4, ...: `checkpoints` of them after step 0.

    Attributes:
        samples_per_prompt: at the last checkpoint, where policies are compared; π_ref and those on the way, which show
            how a policy came there, get one sample per prompt, at a fourth of the cost.
        reference_samples: of π_ref per prompt: standardization, win rates, best-of-n, ceiling.
    """

    prompts: int = 256
    samples_per_prompt: int = 4
    checkpoints: int = 3
    batch_size: int = 256
    reference_samples: int = 256

    def __post_init__(self) -> None:
        require_count("evaluation.prompts", self.prompts, 2)
        require_count("evaluation.samples_per_prompt", self.samples_per_prompt)
        require_count("evaluation.checkpoints", self.checkpoints)
        require_count("evaluation.batch_size", self.batch_size)
        require_count("evaluation.reference_samples", self.reference_samples)


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
            require_count("resume.every", self.every, 0)


@dataclass(frozen=True)
class WandbConfig:
    """Where the mirror goes; offline needs neither login nor network."""

    mode: str = "offline"
    project: Name = "gpo-bench"
    entity: Name | None = None

    def __post_init__(self) -> None:
        require_one_of("tracking.wandb.mode", self.mode, ("offline", "online", "disabled"))


@dataclass(frozen=True)
class TrackingConfig:
    """Mirrors of the records."""

    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass(frozen=True)
class ProxyConfig:
    """A reward model fitted to the gold model's labels (Gao et al. 2023, section 2); see `bench.data.proxies`.

    Attributes:
        size: layers and width; a key of gold_rm.proxies.SIZES.
        loss: f of the fit, the mean of f(r(chosen) − r(rejected)) (Tang et al. 2024, section 3).
        pairs: gold-labeled comparisons that it is fitted to.
        flip_rate: share of these labels turned round.
        seed: a part of the comparisons of its own, initial weights and order.
        pool, held_out: comparisons there are to take from, of π_ref's samples; those that measure the fit.
    """

    size: str = "m"
    loss: str = "logistic"
    pairs: int = 2000
    flip_rate: float = 0.0
    seed: int = 0
    steps: int = 300
    batch_pairs: int = 64
    lr: float = 2e-3
    pool: int = 16384
    held_out: int = 1024

    def __post_init__(self) -> None:
        for name, least in (("pairs", 1), ("pool", 1), ("steps", 1), ("batch_pairs", 1), ("held_out", 2)):
            require_count(f"proxy.{name}", getattr(self, name), least)
        require_seed("proxy.seed", self.seed)
        require_one_of("proxy.size", self.size, tuple(SIZES))
        require_positive("proxy.lr", self.lr)
        require_within("proxy.flip_rate", self.flip_rate, 0, 0.5)
        if self.pairs > self.pool:
            raise ConfigError(f"proxy.pairs={self.pairs} is more than proxy.pool={self.pool} holds")


@dataclass(frozen=True)
class OnlineConfig:
    """Pairs sampled from the policy while it trains.

    Attributes:
        every: new pairs after so many steps; None: never, which is training on π_ref's pairs (offline).
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            require_count("online.every", self.every)


@dataclass(frozen=True)
class RlooConfig:
    """Policy gradient with a leave-one-out baseline: `samples` of each prompt; see `bench.methods.rloo`."""

    samples: int = 4

    def __post_init__(self) -> None:
        require_count("rloo.samples", self.samples, 2)


@dataclass(frozen=True)
class BestOfNConfig:
    """The best of n samples of π_ref by the labeller: n up to `samples`, on the first `prompts` evaluation prompts."""

    samples: int = 1024
    prompts: int = 64

    def __post_init__(self) -> None:
        require_count("best_of_n.samples", self.samples, 2)
        require_count("best_of_n.prompts", self.prompts, 2)


@dataclass(frozen=True)
class ParallelConfig:
    """One cell on several processes of a machine, each with a device of its own; see `bench.policies.spread`.

    Attributes:
        processes: that share the work of a cell.
        strategy: ddp: each holds the policy; fsdp: weights, gradients and moments are cut over them.
        workers_per_gpu: workers that share a GPU, where there is one.
    """

    processes: int = 1
    strategy: str = "ddp"
    workers_per_gpu: int = 1

    def __post_init__(self) -> None:
        require_count("parallel.processes", self.processes)
        require_count("parallel.workers_per_gpu", self.workers_per_gpu)
        require_one_of("parallel.strategy", self.strategy, ("ddp", "fsdp"))
        if self.processes > 1 and self.workers_per_gpu > 1:
            raise ConfigError("parallel: either several processes per cell or several workers per GPU, not both")

    def check_parts(self, batch_pairs: int, rloo_samples: int | None) -> None:
        """
        Raises:
            ConfigError: a step's pairs, or the prompts that its responses are sampled for, make no equal parts.
        """
        shared = batch_pairs if rloo_samples is None else 2 * batch_pairs // rloo_samples
        if shared % self.processes:
            what = "pairs" if rloo_samples is None else "prompts (2 × optim.batch_pairs / rloo.samples)"
            raise ConfigError(
                f"parallel.processes={self.processes}: must divide the {shared} {what} of a step, "
                f"optim.batch_pairs={batch_pairs}"
            )
