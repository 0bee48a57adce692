"""World ``directories``: made of ready parts, a policy and a reward model (or human comparisons) and prompts.

Models are not copied: the world refers to their directories by absolute path and keeps the hashes of what is in them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from bench.checked import ConfigError
from bench.data.sources import hash_file, write_sources
from bench.policies.directories import fingerprint_of_policy, fingerprint_of_templates, locate, why_unusable
from bench.seeding import generator_for
from bench.worlds import EVAL, TRAIN, write_world
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.prompts import messages_of
from gold_rm.texts import TextFileError, normalized, read_texts

VERSION = 3
_COMPARISON_COLUMNS = ("prompt", "chosen", "rejected", "split")
_COMPARISON_SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class Params:
    """Settings of the world; exactly one of `gold` and `comparisons` is needed.

    Attributes:
        policy: the reference policy, a Hugging Face causal LM with tokenizer: its directory, that of an adapter, a
            .gguf file, or a model of the hub (``ORGANIZATION/NAME@REVISION``).
        gold: directory of a reward model, a Hugging Face sequence classifier with one output, or one of the hub.
        comparisons: human comparisons to fit a reward model to, a .parquet, .jsonl or .csv: prompt, chosen, rejected,
            and split ("train" or "held_out").
        prompts: a .txt (one prompt a line), or a .jsonl, .csv or .parquet with the column prompt and, if the split
            is given, split ("train" or "eval"). In .jsonl and .parquet, a prompt may also be a list of messages, which
            the policy reads by its chat template.
        eval_fraction: share of the prompts that become evaluation prompts, where the file gives no split.
        seed: of that split.
    """

    policy: str
    prompts: str
    gold: str | None = None
    comparisons: str | None = None
    eval_fraction: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.gold is None) == (self.comparisons is None):
            raise ConfigError(
                f"world.params.gold={self.gold} and comparisons={self.comparisons}: give one of them and not the other"
            )
        if self.eval_fraction is not None and not 0 < self.eval_fraction < 1:
            raise ConfigError(f"world.params.eval_fraction={self.eval_fraction}: must lie between 0 and 1")
        if self.seed < 0:
            raise ConfigError(f"world.params.seed={self.seed}: must be 0 or more")


def inputs(params: Params) -> dict[str, str]:
    """Hashes of what is behind every path, by parameter.

    Other weights at the same path are another world; a note beside them, or another spelling of the path, is not.
    """
    hashes = {"policy": fingerprint_of_policy(_model_directory("policy", params.policy))}
    if params.gold is not None:
        hashes["gold"] = fingerprint_of_model(_model_directory("gold", params.gold))
    files = {"prompts": params.prompts, "comparisons": params.comparisons}
    hashes |= {key: hash_file(_file(key, path)) for key, path in files.items() if path is not None}
    # Which template renders them counts where prompts are messages; older fingerprints know of no templates.
    if any(messages_of(prompt) is not None for prompt in _read_prompts(params.prompts)["prompt"]):
        hashes["chat_template"] = fingerprint_of_templates(locate(params.policy))
        if params.gold is not None:
            hashes["gold_chat_template"] = fingerprint_of_templates(locate(params.gold))
    return hashes


def build(params: Params, directory: Path, progress: Callable[[str], None]) -> None:
    """Write the world's files, referring to the given directories.

    Raises:
        ConfigError: a path that is missing or holds something else, saying what is needed there.
    """
    train, evaluation = _split(params)
    progress(f"{len(train)} train and {len(evaluation)} evaluation prompts from {params.prompts}")
    write_world(
        directory,
        policy=Path(os.path.abspath(_model_directory("policy", params.policy))),
        gold=None if params.gold is None else Path(os.path.abspath(_model_directory("gold", params.gold))),
        comparisons=None if params.comparisons is None else _read_comparisons(params.comparisons),
        train_prompts=train,
        eval_prompts=evaluation,
    )
    # The artifact's fingerprint is over its files, and the models are not among them.
    models = {"policy": params.policy, "gold": params.gold}
    places = {key: None if path is None else str(_model_directory(key, path)) for key, path in models.items()}
    write_sources(directory, inputs(params), places)


def _model_directory(key: str, path: str) -> Path:
    try:
        directory = locate(path)
    except ConfigError as error:
        raise ConfigError(f"world.params.{key}={path}: {error}") from error
    refusal = why_unusable(directory)
    if key == "gold" and refusal is None and not (directory / "config.json").is_file():
        refusal = "holds no reward model of its own (config.json)"
    if refusal is not None:
        raise ConfigError(f"world.params.{key}={path}: {refusal}")
    return directory


def _file(key: str, path: str) -> Path:
    if not Path(path).is_file():
        raise ConfigError(f"world.params.{key}={path}: no such file")
    return Path(path)


def _split(params: Params) -> tuple[list[str], list[str]]:
    prompts = _read_prompts(params.prompts)
    where = f"world.params.prompts={params.prompts}"
    # Of two spellings of a text (an accent in one character or two), one could be trained on and one evaluated.
    if duplicates := prompts["prompt"][prompts["prompt"].map(normalized).duplicated()].tolist():
        raise ConfigError(f"{where}: {len(duplicates)} prompts occur more than once, such as {duplicates[0]!r}")
    if "split" in prompts:
        if params.eval_fraction is not None:
            raise ConfigError(f"world.params.eval_fraction={params.eval_fraction}: {params.prompts} gives the split")
        if unknown := sorted(set(map(str, prompts["split"])) - {TRAIN, EVAL}):
            raise ConfigError(f"{where}: split {unknown[0]!r}; allowed are {TRAIN!r} and {EVAL!r}")
        train, evaluation = (prompts.loc[prompts["split"] == split, "prompt"].tolist() for split in (TRAIN, EVAL))
    else:
        if params.eval_fraction is None:
            raise ConfigError(f"{where} gives no split: set world.params.eval_fraction, or add a column split")
        order = torch.randperm(len(prompts), generator=generator_for(params.seed, "prompts")).tolist()
        shuffled = [prompts["prompt"].iloc[i] for i in order]
        count = round(params.eval_fraction * len(prompts))
        evaluation, train = shuffled[:count], shuffled[count:]
    if not train or not evaluation:
        raise ConfigError(f"{where}: {len(train)} train and {len(evaluation)} eval prompts; both need some")
    return train, evaluation


def _read_prompts(path: str) -> pd.DataFrame:
    return _read_texts("prompts", path, ("prompt",), optional=("split",), conversations=("prompt",))


def _read_comparisons(path: str) -> pd.DataFrame:
    frame = _read_texts("comparisons", path, _COMPARISON_COLUMNS)
    if unknown := sorted(set(frame["split"]) - set(_COMPARISON_SPLITS)):
        allowed = " and ".join(map(repr, _COMPARISON_SPLITS))
        raise ConfigError(f"world.params.comparisons={path}: split {unknown[0]!r}; allowed are {allowed}")
    return frame


def _read_texts(
    key: str, path: str, columns: tuple[str, ...], optional: tuple[str, ...] = (), conversations: tuple[str, ...] = ()
) -> pd.DataFrame:
    try:
        frame = read_texts(_file(key, path), columns, optional, conversations=conversations)
    except TextFileError as error:
        raise ConfigError(f"world.params.{key}={error}") from error
    for column in columns:
        if empty := frame.index[frame[column] == ""].tolist():
            raise ConfigError(f"world.params.{key}={path}: {column!r} is empty in {len(empty)} rows")
    return frame
