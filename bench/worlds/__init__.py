"""Worlds: prompts, the reference policy π_ref, and what the gold model comes from.

A world is built by the module ``bench.worlds.<builder>``, which offers

    Params   frozen dataclass of its settings, checked in ``__post_init__``
    VERSION  an integer, raised whenever the same settings would give other content
    build(params, directory, progress)   fills an empty directory

and, where the content depends on files that the settings only name,

    inputs(params)   their fingerprints by name, which then count as settings

A synthetic world, whose rater is known, may offer

    utilities(prompts, responses)   what each response is worth to the rater, [responses]

which is then recorded beside gold.

A builder with a constant ``SHIPS`` comes with what `bench.freeze` has built from its file in conf/world; its settings
have a key ``rebuild`` that builds it anew.

A directory is filled with the files that ``read_world`` describes. Adding a world is
adding such a module and a file in conf/world.
"""

import difflib
import importlib
import json
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from bench.checked import ConfigError

WORLD_FILE = "world.json"
PROMPTS_FILE = "prompts.parquet"
COMPARISONS_FILE = "comparisons.parquet"
TRAIN, EVAL = "train", "eval"
SHIPPED_KINDS = ("world", "gold", "reference", "pool")  # artifacts that may come with the code


@dataclass(frozen=True)
class World:
    """A built world. Exactly one of `gold_dir` and `comparisons` is given.

    Attributes:
        policy_dir: Hugging Face causal-LM directory of π_ref.
        gold_dir: a ready reward model, an HF sequence classifier with one output.
        comparisons: parquet of human comparisons for ``gold_rm.train``: prompt, chosen, rejected, split.
        train_prompts, eval_prompts: disjoint.
    """

    policy_dir: Path
    gold_dir: Path | None
    comparisons: Path | None
    train_prompts: list[str]
    eval_prompts: list[str]


def builder_module(builder: str) -> ModuleType:
    """Import ``bench.worlds.<builder>``.

    Raises:
        ConfigError: there is no such module; the nearest name is given.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if builder not in known:
        nearest = difflib.get_close_matches(builder, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"world.builder={builder!r}: did you mean {nearest!r}? Known are {', '.join(known)}")
    return importlib.import_module(f"bench.worlds.{builder}")


def write_world(
    directory: Path,
    *,
    policy: Path | str,
    train_prompts: list[str],
    eval_prompts: list[str],
    gold: Path | str | None = None,
    comparisons: pd.DataFrame | None = None,
) -> None:
    """Write the files of a world into `directory`; relative paths are relative to it."""
    where: dict[str, Any] = {"policy": str(policy), "gold": None if gold is None else str(gold)}
    where["comparisons"] = None if comparisons is None else COMPARISONS_FILE
    (directory / WORLD_FILE).write_text(json.dumps(where, indent=1) + "\n")
    prompts = [(prompt, TRAIN) for prompt in train_prompts] + [(prompt, EVAL) for prompt in eval_prompts]
    pd.DataFrame(prompts, columns=["prompt", "split"]).to_parquet(directory / PROMPTS_FILE, index=False)
    if comparisons is not None:
        comparisons.to_parquet(directory / COMPARISONS_FILE, index=False, compression="zstd")


def read_world(directory: Path) -> World:
    """Read a world directory.

    Raises:
        ConfigError: no or both of gold model and comparisons, a prompt in both splits, or an empty split.
    """
    where = json.loads((directory / WORLD_FILE).read_text())
    prompts = pd.read_parquet(directory / PROMPTS_FILE)
    train, evaluation = (prompts.loc[prompts["split"] == split, "prompt"].tolist() for split in (TRAIN, EVAL))
    if (where["gold"] is None) == (where["comparisons"] is None):
        raise ConfigError(f"world {directory}: exactly one of a gold model and human comparisons is needed")
    if not train or not evaluation:
        raise ConfigError(f"world {directory}: {len(train)} train and {len(evaluation)} eval prompts; both need some")
    if shared := set(train) & set(evaluation):
        raise ConfigError(f"world {directory}: {len(shared)} prompts are in both splits, such as {min(shared)!r}")
    return World(
        policy_dir=directory / where["policy"],
        gold_dir=None if where["gold"] is None else directory / where["gold"],
        comparisons=None if where["comparisons"] is None else directory / where["comparisons"],
        train_prompts=train,
        eval_prompts=evaluation,
    )
