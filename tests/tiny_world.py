"""A world of one-word tokens that is ready in a second, and the smallest cells on it.

Policy and gold model are random and untrained, with weights wide enough that responses and gold scores differ
and a dozen steps of training move them.
"""

import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from tiny_models import EOS, word_tokenizer, write_policy
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification

from bench.cells.cell import Cell
from bench.config import CellConfig, cell_config
from bench.data.pairs import PreferencePairs
from bench.data.preferences import reference_logprobs
from bench.policies.policy import Policy
from bench.policies.tokens import SequenceBatch, TokenIds, collate
from bench.seeding import uniforms_for

# Every token begins with a space, so that a response's text has one reading behind any prompt.
LETTERS = tuple(f" {letter}" for letter in "abcdefgh")
WORDS = (EOS, *LETTERS)
POSITIONS = 12
PROMPTS = 64  # of each split
POLICY_SEED = 7  # about half of its responses end by themselves

# Everything that makes a cell small enough for half a second, and its world.
SETTINGS: dict[str, Any] = {
    "optim.steps": 8,
    "optim.batch_pairs": 8,
    "optim.warmup_steps": 2,
    "optim.lr": 1e-2,
    "pairs.pool": 112,
    "pairs.per_cell": 48,
    "pairs.held_out": 24,
    "pairs.seed": 0,
    "evaluation.prompts": 24,
    "evaluation.checkpoints": 2,
    "evaluation.batch_size": 24,
    "evaluation.reference_samples": 4,
    "tracking.wandb.mode": "disabled",
    "world.max_new_tokens": 6,
}


class TinyWorld(NamedTuple):
    """Directories of a world, and where artifacts built from it are kept."""

    policy: Path
    gold: Path
    prompts: Path
    artifacts: Path

    def settings(self, runs: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Dotted keys and values of a small cell below `runs`."""
        params = {f"world.params.{name}": str(getattr(self, name)) for name in ("policy", "gold", "prompts")}
        where = {"runs_dir": str(runs), "artifacts_dir": str(self.artifacts)}
        return {**SETTINGS, **params, **where, **(changes or {})}

    def config(self, runs: Path, changes: Mapping[str, Any] | None = None) -> CellConfig:
        """A small cell's configuration, with `changes` by dotted key."""
        world = {"world.name": "tiny", "world.builder": "directories"}
        return cell_config(nested({**world, **self.settings(runs, changes)}))

    def cell(self, runs: Path, changes: Mapping[str, Any] | None = None) -> Cell:
        """The same as a planned cell."""
        return Cell.of(self.config(runs, changes), changes or {})

    def overrides(self, runs: Path, changes: Mapping[str, Any] | None = None) -> list[str]:
        """The same as arguments of a command."""
        values = {"world": "directories", **self.settings(runs, changes)}
        return [f"{key}={value}" for key, value in values.items()]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, last = key.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = value
    return tree


def write_gold(directory: Path, *, outputs: int = 1, seed: int = 7) -> Path:
    """Write a random sequence classifier that reads the policy's texts; returns `directory`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=len(WORDS), n_positions=POSITIONS, n_embd=16, n_layer=1, n_head=2, num_labels=outputs,
            bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.6,
        )  # fmt: skip
        GPT2ForSequenceClassification(config).save_pretrained(directory)
    word_tokenizer(WORDS).save_pretrained(directory)
    return directory


def write_prompts(path: Path) -> Path:
    """Write `PROMPTS` distinct prompts of three words for each split; returns `path`."""
    texts = random.Random(0).sample(["".join(words) for words in product(LETTERS, repeat=3)], 2 * PROMPTS)
    pd.DataFrame({"prompt": texts, "split": ["train", "eval"] * PROMPTS}).to_parquet(path, index=False)
    return path


def write_tiny_world(directory: Path) -> TinyWorld:
    """Write policy, gold model and prompts into the new `directory`."""
    directory.mkdir()
    return TinyWorld(
        write_policy(directory / "policy", words=WORDS, positions=POSITIONS, seed=POLICY_SEED),
        write_gold(directory / "gold"),
        write_prompts(directory / "prompts.parquet"),
        directory / "artifacts",
    )


def pairs_of(
    prompts: list[TokenIds], chosen: list[TokenIds], rejected: list[TokenIds], ref_chosen: Tensor, ref_rejected: Tensor
) -> PreferencePairs:
    """Preference pairs from token ids and π_ref's log-probs."""
    both = collate(prompts * 2, chosen + rejected, pad_id=0)
    sides = (SequenceBatch(*(half[side] for half in (tensor.chunk(2) for tensor in both))) for side in (0, 1))
    return PreferencePairs(*sides, ref_chosen, ref_rejected)


def sample_pairs(reference: Policy, count: int, *, seed: int = 0) -> PreferencePairs:
    """Preference pairs drawn from `reference` on prompts of one to three words, labeled by chance."""
    draw = random.Random(seed)
    prompts = reference.encode(["".join(draw.choices(LETTERS, k=draw.randint(1, 3))) for _ in range(count)])
    chosen, rejected = (
        reference.sample(prompts, uniforms=uniforms_for(seed, "pairs", side, count=count, tokens=6), batch_size=count)
        for side in "wl"
    )
    logps = (reference_logprobs(reference, prompts, responses) for responses in (chosen, rejected))
    return pairs_of(prompts, chosen, rejected, *logps)


def moved_copy(policy: Policy, *, size: float = 0.1, seed: int = 1) -> Policy:
    """A trainable copy with noise of SD `size` on every weight: what training would have made of it."""
    copy = policy.trainable()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return copy
