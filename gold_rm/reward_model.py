"""The frozen gold reward model: texts in, one score each out; the one module of gold_rm that loads models."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from gold_rm.errors import UserError
from gold_rm.fingerprint import fingerprint_of_model
from gold_rm.model_directory import refusal_of
from gold_rm.prompts import whole_text
from gold_rm.selfcheck import longest_text, why_dependent

transformers_logging.disable_progress_bar()

# Hugging Face decoders pool at the last token whose id is not `config.pad_token_id`, which picks a wrong token
# where the padding token also ends texts (pad = eos) or occurs in them. No text contains −1.
_PADDING_ID = -1

# Larger batches are slower on a CPU: activations no longer fit into its cache, and more is spent on padding.
_BATCH_SIZE = 64


class GoldModelError(UserError):
    """A directory that cannot serve as a gold model, or texts it cannot score; meant for the user."""


@dataclass(frozen=True)
class Standardization:
    """Puts raw gold scores on the scale where the scores it was fitted to have mean 0 and SD 1 (Gao et al. 2023)."""

    mean: float
    sd: float

    @classmethod
    def fit(cls, raw: Float[Tensor, " texts"]) -> "Standardization":
        """Mean and sample SD (n − 1) of `raw`.

        Raises:
            GoldModelError: fewer than two scores, scores that are not finite, or all alike.
        """
        if raw.numel() < 2 or not raw.isfinite().all():
            raise GoldModelError(f"standardization needs two finite scores or more; got {raw.numel()} scores")
        mean, sd = raw.double().mean().item(), raw.double().std().item()
        if sd <= 1e-6 * max(1.0, abs(mean)):
            raise GoldModelError(f"all {raw.numel()} gold scores are {mean:g}: this gold model tells no texts apart")
        return cls(mean, sd)

    def apply(self, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """(raw − mean) / sd, in raw's shape and type."""
        return (raw - self.mean) / self.sd


@dataclass(frozen=True)
class GoldModel:
    """A sequence classifier with one output: frozen, float32, dropout off.

    Attributes:
        max_tokens: the longest text it can read, in tokens; None where there is no limit.
        fingerprint: 12 hex digits of the SHA-256 over its weights, configuration and tokenizer files.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    max_tokens: int | None
    fingerprint: str

    @property
    def parameters(self) -> int:
        """Number of its parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = _BATCH_SIZE
    ) -> Float[Tensor, " texts"]:
        """Raw scores of the texts ``prompt + response`` (`gold_rm.prompts.whole_text`), float32 on the CPU.

        A score does not depend on the other texts, their order or the batch size (up to float32 rounding), and
        equal texts get exactly equal scores within one call.

        Raises:
            GoldModelError: different numbers of prompts and responses, a text without tokens or longer than the
                model can read (texts are never cut), or a score that is not finite.
        """
        if len(prompts) != len(responses):
            raise GoldModelError(f"{len(prompts)} prompts but {len(responses)} responses to score")
        pairs = zip(prompts, responses, strict=True)
        texts = [whole_text(self.tokenizer, prompt, response) for prompt, response in pairs]
        if not texts:
            return torch.empty(0)
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        return self._score_distinct(list(places), batch_size)[[places[text] for text in texts]]

    def _score_distinct(self, texts: list[str], batch_size: int) -> Tensor:
        encoded = encode_texts(self.tokenizer, texts, self.max_tokens)
        highest, vocabulary = max(map(max, encoded)), self.model.config.get_text_config().vocab_size
        if highest >= vocabulary:
            raise GoldModelError(
                f"the gold model's tokenizer gives token {highest}, and its weights know {vocabulary} tokens: "
                "the two do not belong together"
            )
        scores = score_tokens(self.model, encoded, padding_id=_PADDING_ID, batch_size=batch_size)
        if not scores.isfinite().all():
            bad = int((~scores.isfinite()).nonzero()[0])
            raise GoldModelError(f"the gold score of text {bad} is {scores[bad].item()}: {texts[bad][:80]!r}")
        return scores


def load_gold_model(directory: Path, *, device: str = "cpu") -> GoldModel:
    """Load any ``AutoModelForSequenceClassification`` directory with exactly one output.

    Raises:
        GoldModelError: no such directory, another kind of model, another number of outputs, weights that are
            missing, damaged or quantized, an adapter beside them, no tokenizer, or scores that depend on the batch.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise GoldModelError(f"gold model {directory}: no config.json there; a Hugging Face model directory is needed")
    if (refusal := refusal_of(directory)) is not None:
        raise GoldModelError(f"gold model {directory}: {refusal}")
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        _check_kind(directory, config)
        # use_safetensors: the other weight format is pickle, which runs code when it is read.
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, local_files_only=True, use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
        tokenizer = load_tokenizer(directory)
    except GoldModelError:
        raise
    # transformers raises whatever a configuration that it did not foresee leads to: KeyError, TypeError, ImportError.
    except Exception as error:
        raise GoldModelError(f"gold model {directory}: cannot be loaded ({' '.join(str(error).split())})") from error
    if missing := sorted(info["missing_keys"]):
        raise GoldModelError(
            f"gold model {directory}: weights {', '.join(missing[:3])} are missing and would be random, "
            "so this is no trained sequence classifier"
        )
    model.requires_grad_(False).eval().to(device)
    _read_padding_by_mask_only(model)
    max_tokens = longest_text(model, tokenizer)
    score = functools.partial(_score_batches, model)
    if reason := why_dependent(score, tokenizer, max_tokens):
        raise GoldModelError(f"gold model {directory}: {type(model).__name__} {reason}")
    return GoldModel(model, tokenizer, max_tokens, fingerprint_of_model(directory))


def _score_batches(model: PreTrainedModel, sequences: list[list[int]], batch_size: int) -> Tensor:
    return score_tokens(model, sequences, padding_id=_PADDING_ID, batch_size=batch_size)


def _check_kind(directory: Path, config: PretrainedConfig) -> None:
    names = config.architectures or []
    if names and not any(name.endswith("ForSequenceClassification") for name in names):
        raise GoldModelError(f"gold model {directory}: holds a {', '.join(names)}, not a sequence classifier")
    if config.num_labels != 1:
        raise GoldModelError(
            f"gold model {directory}: has {config.num_labels} outputs; a reward model has exactly one (num_labels=1)"
        )


def _read_padding_by_mask_only(model: PreTrainedModel) -> None:
    """Make `_PADDING_ID` the model's padding id, and readable by its embedding (masked, the value is never used)."""
    model.config.get_text_config().pad_token_id = _PADDING_ID
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: (args[0].clamp(min=0), *args[1:]))


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Load a Hugging Face tokenizer.

    Raises:
        GoldModelError: there is none, or only its settings without a vocabulary.
    """
    if not directory.is_dir():
        raise GoldModelError(f"tokenizer {directory}: no such directory")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise GoldModelError(f"tokenizer {directory}: cannot be loaded ({' '.join(str(error).split())})") from error
    # Where only config.json names a model type, transformers makes up a tokenizer of special tokens alone.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise GoldModelError(f"tokenizer {directory}: has no vocabulary; its files (tokenizer.json ...) are missing")
    return tokenizer


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None = None
) -> list[list[int]]:
    """Token ids per text, with the tokenizer's own special tokens, never cut.

    Raises:
        GoldModelError: a text has no tokens, or more than `max_tokens`.
    """
    encoded: list[list[int]] = tokenizer(
        list(texts), padding=False, truncation=False, verbose=False,
        return_attention_mask=False, return_token_type_ids=False,
    )["input_ids"]  # fmt: skip
    bos = tokenizer.bos_token_id
    if bos is not None:
        # A chat template writes the beginning token into the text, and the tokenizer adds it once more.
        encoded = [ids[1:] if ids[:2] == [bos, bos] else ids for ids in encoded]
    for text, ids in zip(texts, encoded, strict=True):
        if not ids:
            raise GoldModelError(f"text {text!r} has no tokens, so it cannot be scored")
        if max_tokens is not None and len(ids) > max_tokens:
            raise GoldModelError(
                f"a text has {len(ids)} tokens and the gold model reads {max_tokens}; texts are not cut, so shorten "
                f"them (such as by world.max_new_tokens) or take another gold model: {text[:80]!r}"
            )
    return encoded


@torch.no_grad()
def score_tokens(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, padding_id: int, batch_size: int
) -> Float[Tensor, " sequences"]:
    """First output of a sequence classifier for every sequence, float32 on the CPU."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))  # alike lengths waste little on padding
    scores = torch.empty(len(sequences), dtype=torch.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        input_ids, mask = pad_right([sequences[i] for i in rows], padding_id)
        output = model(input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device))
        scores[rows] = output.logits[:, 0].float().cpu()
    return scores


def pad_right(
    sequences: Sequence[Sequence[int]], padding_id: int
) -> tuple[Int[Tensor, "sequences tokens"], Int[Tensor, "sequences tokens"]]:
    """`input_ids` and `attention_mask` of right-padded sequences."""
    lengths = torch.tensor([len(ids) for ids in sequences])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    input_ids = torch.full(mask.shape, padding_id, dtype=torch.int64)
    input_ids[mask] = torch.tensor([token for ids in sequences for token in ids])
    return input_ids, mask.long()
