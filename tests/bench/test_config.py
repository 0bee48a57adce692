"""Configurations are checked before anything runs; names and fingerprints follow from values, not spellings."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
from omegaconf import OmegaConf

from bench.cells.cell import Cell, select
from bench.checked import ConfigError, build_checked, fingerprint_of, known_keys
from bench.config import BUILT_IN_LOSSES, METHOD_NAMES, CellConfig, cell_config
from bench.losses import LOSSES
from bench.methods import METHODS

WORLD = {"name": "tiny", "builder": "reviews", "max_new_tokens": 8, "params": {"size": 3}}


def nested(key: str, value: Any) -> dict[str, Any]:
    """``optim.lr`` and 1 as {"optim": {"lr": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def configured(key: str | None = None, value: Any = None) -> CellConfig:
    """The default configuration of `WORLD`, with one key set."""
    base = OmegaConf.create({"world": WORLD})
    return cell_config(OmegaConf.to_container(base if key is None else OmegaConf.merge(base, nested(key, value))))


def name_of(config: CellConfig, overridden=()) -> str:
    return Cell.of(config, overridden).name


def test_defaults_and_conversion_of_nested_groups():
    config = configured("optim.lr", 1e-3)
    assert (config.loss, config.beta, config.optim.lr) == ("logistic", 0.1, 1e-3)
    assert (config.world.name, config.world.params, config.tracking.wandb.mode) == ("tiny", {"size": 3}, "offline")
    assert cell_config({"world": WORLD, "optim": {"lr": 1e-3}}) == config, "plain mappings are configurations too"
    assert cell_config(asdict(config)) == config


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("btea", "beta"), ("lr", "optim.lr"), ("optim.stesp", "optim.steps"), ("labels.flip", "labels.flip_rate"),
     ("tracking.wandb.modee", "tracking.wandb.mode"), ("world.max_tokens", "world.max_new_tokens")],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest_known_one(key, nearest):
    with pytest.raises(ConfigError, match=re.escape(f"{key}: no such key; did you mean {nearest!r}?")):
        configured(key, 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        # Wrong types, also where Python would convert in silence.
        ("beta", "abc", "beta='abc': input should be a valid number"),
        ("beta", True, "beta=True: input should be a valid number"),
        ("beta", None, "beta=None: input should be a valid number"),
        ("seed", 1.5, "seed=1.5: input should be a valid integer"),
        ("seed", "x", "seed='x': input should be a valid integer"),
        ("optim.steps", 10.0, "optim.steps=10.0: input should be a valid integer"),
        ("optim.micro_batch_pairs", "all", "optim.micro_batch_pairs='all': input should be a valid integer"),
        ("length_normalized", "maybe", "length_normalized='maybe': input should be a valid boolean"),
        ("sweep", 2024.5, "sweep=2024.5: input should be a valid string"),
        ("sweep", True, "sweep=True: input should be a valid string"),
        ("optim", 3, "optim=3: input should be an object"),
        # Out of range.
        ("beta", 0, "beta=0.0: must be a finite number above 0"),
        ("beta", -0.1, "beta=-0.1: must be a finite number above 0"),
        ("beta", float("nan"), "beta=nan: must be a finite number above 0"),
        ("beta", float("inf"), "beta=inf: must be a finite number above 0"),
        ("seed", -1, "seed=-1: must be an integer from 0 to 2**63 - 1"),
        ("pairs.seed", 2**63, "pairs.seed=9223372036854775808: must be an integer from 0 to 2**63 - 1"),
        ("pairs.pool", 10**12, "pairs.pool=1000000000000: must be 1 or more, and at most 10,000,000"),
        ("optim.steps", 10**8, "optim.steps=100000000: must be 1 or more, and at most 10,000,000"),
        ("cpu_threads", 100_000, "cpu_threads=100000: must be 1 to 1024"),
        ("watch", ["proxy", "proxy"], "watch=['proxy', 'proxy']: names a reward model twice"),
        ("optim.lr", 0, "optim.lr=0.0: must be a finite number above 0"),
        ("optim.lr", float("nan"), "optim.lr=nan: must be a finite number above 0"),
        ("optim.steps", -5, "optim.steps=-5: must be 1 or more"),
        ("optim.batch_pairs", 0, "optim.batch_pairs=0: must be 1 or more"),
        ("optim.micro_batch_pairs", 0, "optim.micro_batch_pairs=0: must be 1 or more"),
        ("optim.warmup_steps", -1, "optim.warmup_steps=-1: must be 0 or more"),
        ("optim.clip_norm", 0, "optim.clip_norm=0.0: must be a finite number above 0"),
        ("optim.weight_decay", -0.1, "optim.weight_decay=-0.1: must be 0 or more"),
        ("optim.adam_beta1", 1, "optim.adam_beta1=1.0: must lie in [0, 1)"),
        ("optim.adam_beta2", float("nan"), "optim.adam_beta2=nan: must lie in [0, 1)"),
        ("labels.flip_rate", 0.5, "labels.flip_rate=0.5: must lie in [0, 0.5)"),
        ("labels.flip_rate", -0.1, "labels.flip_rate=-0.1: must lie in [0, 0.5)"),
        ("labels.temperature", 0, "labels.temperature=0.0: must be a finite number above 0"),
        ("pairs.pool", 100, "pairs.per_cell=2560 is more than pairs.pool=100 holds"),
        ("pairs.held_out", 1, "pairs.held_out=1: must be 2 or more"),
        ("evaluation.prompts", 1, "evaluation.prompts=1: must be 2 or more"),
        ("evaluation.checkpoints", 0, "evaluation.checkpoints=0: must be 1 or more"),
        ("world.max_new_tokens", 0, "world.max_new_tokens=0: must be 1 or more"),
        ("policy.lora_r", 0, "policy.lora_r=0: must be 1 or more"),
        ("policy.lora_dropout", 0.1, "policy.lora_dropout=0.1: must be 0; π_ref was scored without dropout"),
        ("policy.lora_target_modules", [], "policy.lora_target_modules=[]: name at least one module, or null"),
        ("policy.lora_rank", 8, "policy.lora_rank: no such key; did you mean 'policy.lora_r'?"),
        ("policy.dtype", "bfloat16", "policy.dtype=bfloat16: all weights are trained in float32"),
        ("policy.revision", "v2", "policy.revision=v2: π_ref of world"),
        # Not among the names allowed.
        ("policy.dtype", "bf16", "policy.dtype='bf16': allowed are float32, bfloat16, auto"),
        ("policy.attn_implementation", "org/kernel", "policy.attn_implementation='org/kernel': allowed are eager"),
        ("loss", "logistc", "unknown loss 'logistc'; did you mean 'logistic'?"),
        ("loss", "no_package:f", "loss 'no_package:f' cannot be imported as package.module:function"),
        ("labels.rule", "determinstic", "labels.rule='determinstic': allowed are deterministic, bradley_terry"),
        ("tracking.wandb.mode", "on", "tracking.wandb.mode='on': allowed are offline, online, disabled"),
        # Directories outside the sweep's.
        ("sweep", "", "sweep='' must be a plain directory name"),
        ("sweep", "../elsewhere", "sweep='../elsewhere' must be a plain directory name"),
        ("sweep", ".hidden", "sweep='.hidden' must be a plain directory name"),
    ],
)  # fmt: skip
def test_a_bad_value_is_answered_with_key_value_and_what_is_allowed(key, value, message):
    with pytest.raises(ConfigError) as caught:
        configured(key, value)
    assert str(caught.value).startswith(message)


def test_a_name_that_a_command_line_takes_for_a_number_is_a_name():
    config = configured("sweep", 20240101)
    assert config.sweep == "20240101"
    assert configured("tracking.wandb.project", 7).tracking.wandb.project == "7"


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match=r"^world\.builder: missing; world\.max_new_tokens: missing$"):
        cell_config({"world": {"name": "tiny"}})


def test_every_wrong_value_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        cell_config({"world": WORLD, "beta": "x", "optim": {"lr": "y"}, "sede": 1})
    assert all(part in str(caught.value) for part in ("beta='x'", "optim.lr='y'", "sede: no such key"))


@dataclass(frozen=True)
class BuilderParams:
    """Stands for a world builder's own parameters."""

    words: tuple[str, ...]
    rate: float = 0.1

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("words=() must not be empty")


def test_a_builders_parameters_are_checked_under_their_place_in_the_configuration():
    built = build_checked(BuilderParams, {"words": ["a", "b"], "rate": 1}, "world.params")
    assert built == BuilderParams(("a", "b"), 1.0)
    for values, message in (
        ({"words": ["a"], "rates": 1}, "world.params.rates: no such key; did you mean 'world.params.rate'?"),
        ({"words": ["a"], "rate": "x"}, "world.params.rate='x': input should be a valid number"),
        ({"words": []}, "words=() must not be empty"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            build_checked(BuilderParams, values, "world.params")


@pytest.mark.parametrize("spelling", ["0.1", "1e-1", "0.10", ".1", "1.0e-1"])
def test_one_beta_has_one_name_and_one_fingerprint_however_it_is_typed(spelling):
    merged = OmegaConf.merge({"world": WORLD}, OmegaConf.from_dotlist([f"beta={spelling}"]))
    config = cell_config(OmegaConf.to_container(merged))
    assert name_of(config, ["beta"]) == "loss=logistic,beta=0.1,seed=0"
    assert config.fingerprint == configured().fingerprint


def test_an_integer_where_a_float_is_meant_is_the_same_cell():
    assert configured("beta", 1).fingerprint == configured("beta", 1.0).fingerprint
    assert name_of(configured("beta", 1)) == name_of(configured("beta", 1.0)) == "loss=logistic,beta=1,seed=0"


def test_neighboring_betas_of_a_log_grid_have_their_own_names():
    betas = [10 ** (-3 + i / 64) for i in range(192)] + [0.1, 0.1 + 1e-9]
    assert len({name_of(configured("beta", beta)) for beta in betas}) == len(set(betas)) == 194 - 1


def test_names_hold_what_was_overridden_but_not_where_it_runs():
    config = replace(configured("optim.lr", 1e-4), loss="bench.losses:hinge", seed=3)
    overridden = ["seed", "optim.lr", "optim.micro_batch_pairs", "world", "world.params.size", "experiment", "sweep",
                  "device", "tracking.wandb.mode", "hydra.launcher.n_jobs", "runs_dir"]  # fmt: skip
    assert name_of(config, overridden) == (
        "loss=bench.losses:hinge,beta=0.1,seed=3,optim.lr=0.0001,optim.micro_batch_pairs=null,world=tiny,world.params.size=3"
    )
    assert name_of(config, reversed(overridden)) == name_of(config, overridden)


def test_names_are_plain_directory_names():
    name = name_of(configured("world.name", "org/model,v2"), ["world"])
    assert name == "loss=logistic,beta=0.1,seed=0,world=org_model;v2"


# Where a cell runs and is filed; everything else can move its results.
FREE_KEYS = {"sweep", "device", "runs_dir", "artifacts_dir", "tracking.wandb.mode", "tracking.wandb.project",
             "evaluation.batch_size", "tracking.wandb.entity", "save", "resume.every", "workers",
             "parallel.processes", "parallel.strategy", "parallel.workers_per_gpu",
             "policy.gradient_checkpointing"}  # fmt: skip
OTHER_TEXTS = {
    "loss": "squared",
    "proxy.loss": "squared",
    "proxy.size": "xl",
    "labels.by": "proxy",
    "method": "online",
    "save": "best",
    "parallel.strategy": "fsdp",
    "labels.rule": "bradley_terry",
    "tracking.wandb.mode": "disabled",
    "policy.dtype": "auto",
}
OTHER_VALUES = {"policy.attn_implementation": "eager", "policy.lora_target_modules": ["c_attn"]}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def changed(key: str, value: Any) -> Any:
    if key == "rloo.samples":
        return 2 * value  # of which a step's responses are a multiple
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 + 0.01
        case None if key in OTHER_VALUES:
            return OTHER_VALUES[key]
        case None:
            return "me" if key.endswith("entity") else 1
        case dict():
            return {"a": 1}
        case tuple():
            return ["proxy"]
    return OTHER_TEXTS.get(key, value + "-other")


# `external` comes with its policy, a revision with a model of the hub, and dropout can only be 0.
ELSEWHERE = ("external", "policy.revision", "policy.lora_dropout")
SET_KEYS = [(key, value) for key, value in leaves(asdict(configured())) if key not in ELSEWHERE]
# What makes a group of settings count.
USED_BY = {"proxy": ("labels.by", "proxy"), **{name: ("method", name) for name in ("online", "rloo", "best_of_n")},
           "policy.lora": ("policy.use_peft", True)}  # fmt: skip


def configured_with(*settings: tuple[str, Any]) -> CellConfig:
    base = OmegaConf.create({"world": WORLD})
    return cell_config(OmegaConf.to_container(OmegaConf.merge(base, *(nested(*setting) for setting in settings))))


@pytest.mark.parametrize(("key", "value"), SET_KEYS, ids=lambda v: v if isinstance(v, str) else "")
def test_the_fingerprint_changes_with_everything_that_can_move_results_and_with_nothing_else(key, value):
    group = "policy.lora" if key.startswith("policy.lora") else key.split(".")[0]
    used = [USED_BY[group]] if group in USED_BY else []
    other = configured_with(*used, (key, changed(key, value)))
    assert select(other, key) != value
    assert (other.fingerprint == configured_with(*used).fingerprint) == (key in FREE_KEYS)
    if used:
        assert configured(key, changed(key, value)).fingerprint == configured().fingerprint, "it is not used"


def test_cells_from_before_there_were_proxies_and_methods_are_what_they_were():
    config = cell_config({"world": {"name": "tiny", "builder": "x", "max_new_tokens": 4}})
    assert config.fingerprint == "499f3477dd8f", "every finished cell is orphaned"


def test_fingerprints_are_the_same_in_every_process_and_version():
    # printf '{"a": 1, "b": [2.5, null]}' | sha256sum | cut -c1-12; a change here orphans every finished run.
    assert fingerprint_of({"b": (2.5, None), "a": 1}) == "2daaea6dd632"


def test_the_losses_and_methods_that_are_known_without_torch_are_those_there_are():
    assert tuple(METHODS) == METHOD_NAMES
    assert tuple(LOSSES) == BUILT_IN_LOSSES


def test_known_keys_are_the_keys_of_a_configuration():
    keys = known_keys(CellConfig)
    assert {"beta", "optim", "optim.lr", "tracking.wandb.mode", "world.params"} <= set(keys)
    without_contents = {key for key, _ in leaves(asdict(configured())) if not key.startswith("world.params.")}
    assert without_contents <= set(keys)


def test_a_name_too_long_for_a_file_system_keeps_loss_beta_and_seed():
    config = configured("optim.lr", 1e-3)
    keys = [key for key in known_keys(CellConfig) if key.startswith(("optim.", "pairs.", "evaluation."))]
    name = name_of(config, keys)
    assert name.startswith("loss=logistic,beta=0.1,seed=0,others=")
    assert len(name) < 60
    assert name != name_of(configured("optim.lr", 2e-3), keys)
    assert name_of(config, ["optim.lr"]) == "loss=logistic,beta=0.1,seed=0,optim.lr=0.001"


def test_the_policy_section_moves_the_fingerprint_only_where_it_moves_results():
    """Digits of a version without the section: configurations from before it stay what they were."""
    world = {"name": "w", "builder": "reviews", "max_new_tokens": 8}

    def of(**policy):
        return cell_config({"world": world, "policy": policy}).fingerprint

    other = cell_config({"world": world, "method": "online", "online": {"every": 4}, "labels": {"by": "proxy"}})
    assert (of(), other.fingerprint) == ("ba377db0b95b", "1312697a21dc")
    assert of(gradient_checkpointing=True) == of(lora_r=4) == of(dtype="float32") == of()
    different = [
        of(), of(dtype="auto"), of(attn_implementation="eager"), of(use_peft=True), of(use_peft=True, lora_r=4),
        of(use_peft=True, lora_alpha=4), of(use_peft=True, dtype="bfloat16"),
        of(use_peft=True, lora_target_modules=["q_proj"]),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
