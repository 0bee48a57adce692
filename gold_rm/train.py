"""Fit a reward model to comparisons and write it as a Hugging Face directory: a gold model to a human's, by
Bradley–Terry, or a proxy to a gold model's, by any convex f.

    python -m gold_rm.train --comparisons comparisons.parquet --tokenizer POLICY --output GOLD

The comparisons are a parquet file with the columns prompt, chosen, rejected (texts; prompt + response is the text
that is read) and split ("train" or "held_out").
"""

import argparse
import contextlib
import math
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import logsigmoid
from transformers import (
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gold_rm.command_line import run_with_messages
from gold_rm.comparisons import COLUMNS, HELD_OUT, TRAIN, select_split
from gold_rm.permissions import follow_umask
from gold_rm.prompts import whole_text
from gold_rm.reward_model import GoldModelError, encode_texts, load_tokenizer, pad_right, score_tokens
from gold_rm.texts import read_texts
from gold_rm.threads import torch_threads

_BUCKET = 32  # batches among which pairs are sorted by length, so that little is padded
_REPORTS = 5
_PADDING_ID = 0  # any id would do: the attention mask keeps padding out

Loss = Callable[[torch.Tensor], torch.Tensor]  # f(z) of margins [pairs], elementwise
Pairs = tuple[list[list[int]], list[list[int]]]  # token ids of the chosen and of the rejected texts


@dataclass(frozen=True)
class GoldTrainConfig:
    """Architecture and optimization of a gold model (a bidirectional encoder; AdamW, warm-up, linear decay).

    `max_tokens` is the longest text that the model can read, now or later; `weight_decay` spares no parameter;
    `threads` of the CPU are part of the rounding of the weights.
    """

    layers: int = 3
    width: int = 96
    heads: int = 4
    max_tokens: int = 128
    steps: int = 1000
    batch_pairs: int = 64
    lr: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "max_tokens", "steps", "batch_pairs", "threads"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            _require(name, value, math.isfinite(value) and value > 0, "a finite number above 0")
        for name in ("warmup_steps", "weight_decay", "seed"):
            value = getattr(self, name)
            _require(name, value, math.isfinite(value) and value >= 0, "0 or more")
        _require("width", self.width, self.width % self.heads == 0, f"a multiple of heads={self.heads}")


def _require(name: str, value: float, valid: bool, allowed: str) -> None:
    if not valid:
        raise GoldModelError(f"gold model setting {name}={value}: must be {allowed}")


def bradley_terry(margins: torch.Tensor) -> torch.Tensor:
    """−log σ(margin): the negative log-likelihood of Bradley–Terry choices."""
    return -logsigmoid(margins)


def train_gold_model(
    comparisons: pd.DataFrame,
    tokenizer_dir: Path,
    config: GoldTrainConfig,
    directory: Path,
    progress: Callable[[str], None] = lambda message: None,
    *,
    loss: Loss = bradley_terry,
) -> None:
    """Minimize the mean of f(r(chosen) − r(rejected)) over the training comparisons; write model and tokenizer.

    Reward modeling as binary classification with any f: Tang et al. 2024, arXiv 2402.05749, section 3.

    One configuration gives one model on one kind of machine, however many cores it has.

    Args:
        comparisons: columns of ``gold_rm.comparisons.COLUMNS``.
        tokenizer_dir: directory of a Hugging Face tokenizer, such as the policy's.
        directory: filled with a Hugging Face sequence classifier (safetensors) and the tokenizer.
        progress: told the agreement with the held-out comparisons a few times, the final one included.
        loss: f.
    Raises:
        GoldModelError: no comparisons in a split, no tokenizer, a text longer than the model can read, or a loss
            that is not finite.
    """
    tokenizer = load_tokenizer(tokenizer_dir)
    train, held_out = (_encode(select_split(comparisons, s), tokenizer, config.max_tokens) for s in (TRAIN, HELD_OUT))
    with torch.random.fork_rng(), torch_threads(config.threads):
        torch.manual_seed(config.seed)
        model = _new_model(config, tokenizer)
        _fit(model, train, held_out, config, loss, progress)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _encode(comparisons: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Pairs:
    chosen, rejected = (
        [whole_text(tokenizer, *pair) for pair in zip(comparisons["prompt"], comparisons[side], strict=True)]
        for side in ("chosen", "rejected")
    )
    return encode_texts(tokenizer, chosen, max_tokens), encode_texts(tokenizer, rejected, max_tokens)


def _new_model(config: GoldTrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return ModernBertForSequenceClassification(
        ModernBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=2 * config.width,
            max_position_embeddings=config.max_tokens,
            layer_types=["full_attention"] * config.layers,
            classifier_pooling="mean",
            id2label={0: "gold"},  # one output
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
        )
    )


def _fit(
    model: PreTrainedModel,
    train: Pairs,
    held_out: Pairs,
    config: GoldTrainConfig,
    loss: Loss,
    progress: Callable[[str], None],
) -> None:
    chosen, rejected = train
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, config))
    batches = _batches([max(len(c), len(r)) for c, r in zip(chosen, rejected, strict=True)], config.batch_pairs)
    for step in range(1, config.steps + 1):
        rows = next(batches)
        input_ids, mask = pad_right([*(chosen[i] for i in rows), *(rejected[i] for i in rows)], _PADDING_ID)
        scores = model(input_ids=input_ids, attention_mask=mask).logits[:, 0]
        mean = loss(scores[: len(rows)] - scores[len(rows) :]).mean()
        if not mean.isfinite():
            raise GoldModelError(f"the reward model's loss is {mean.item()} at step {step}; try a smaller lr")
        optimizer.zero_grad()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        if step * _REPORTS // config.steps > (step - 1) * _REPORTS // config.steps:
            agreement = _agreement(model, held_out)
            progress(
                f"reward model: step {step} of {config.steps}, agrees with {agreement:.1%} of held-out comparisons"
            )


def _lr_factor(step: int, config: GoldTrainConfig) -> float:
    """Linear warm-up from above 0, then linear decay to just above 0 at the last of `config.steps` steps."""
    warmup = min((step + 1) / (config.warmup_steps + 1), 1.0)
    decay = (config.steps - step) / max(config.steps - config.warmup_steps, 1)
    return min(warmup, max(decay, 0.0))


def _batches(lengths: list[int], batch_pairs: int) -> Iterator[list[int]]:
    """Endless epochs of batches of row numbers; a batch holds rows of about one length, the order is random."""
    while True:
        order = torch.randperm(len(lengths)).tolist()
        batches = []
        for start in range(0, len(order), batch_pairs * _BUCKET):
            bucket = sorted(order[start : start + batch_pairs * _BUCKET], key=lengths.__getitem__)
            batches += [bucket[i : i + batch_pairs] for i in range(0, len(bucket), batch_pairs)]
        for index in torch.randperm(len(batches)).tolist():
            yield batches[index]


def _agreement(model: PreTrainedModel, pairs: Pairs) -> float:
    model.eval()
    chosen, rejected = (score_tokens(model, side, padding_id=_PADDING_ID, batch_size=256) for side in pairs)
    model.train()
    return (chosen > rejected).double().mean().item()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gold_rm.train", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--comparisons", type=Path, required=True, help=f"parquet: {', '.join(COLUMNS)}")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of a Hugging Face tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="new directory for the gold model")
    for setting in fields(GoldTrainConfig):
        flag = "--" + setting.name.replace("_", "-")
        parser.add_argument(flag, type=type(setting.default), default=setting.default, help="(default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 2 with a one-line message for bad input."""
    options = _parser().parse_args(arguments)

    def action() -> int:
        config = GoldTrainConfig(
            **{setting.name: getattr(options, setting.name) for setting in fields(GoldTrainConfig)}
        )
        comparisons = read_texts(options.comparisons, COLUMNS)
        with _new_directory(options.output) as directory:
            train_gold_model(comparisons, options.tokenizer, config, directory, progress=print)
        print(f"wrote {options.output}")
        return 0

    return run_with_messages(action)


@contextlib.contextmanager
def _new_directory(target: Path) -> Iterator[Path]:
    """A temporary directory that is renamed to `target` when all went well, and removed otherwise."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise GoldModelError(f"output {target} exists already; name a new directory or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        follow_umask(temporary)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
