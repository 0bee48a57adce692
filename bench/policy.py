"""Causal language models as policies: the one module of bench that loads transformers models."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from bench.config import ConfigError
from bench.sequences import TokenIds

transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer; dropout is always off.

    `eos_id` ends a response; `pad_id` fills batches and is never read.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_id: int
    pad_id: int

    @property
    def device(self) -> torch.device:
        return self.model.device

    def encode_prompts(self, prompts: Sequence[str]) -> list[TokenIds]:
        """Token ids of prompts, with the tokenizer's own beginning tokens and without an ending EOS."""
        encoded = self.tokenizer(list(prompts))["input_ids"]
        return [ids[:-1] if ids and ids[-1] == self.eos_id else ids for ids in encoded]

    def decode_responses(self, responses: Sequence[TokenIds]) -> list[str]:
        """Texts of responses, without the EOS that ended them."""
        bare = [ids[:-1] if ids and ids[-1] == self.eos_id else ids for ids in responses]
        return self.tokenizer.batch_decode(bare, clean_up_tokenization_spaces=False)

    def trainable_copy(self) -> "Policy":
        """The same weights as a separate model whose parameters require gradients."""
        model = copy.deepcopy(self.model)
        model.requires_grad_(True)
        return Policy(model, self.tokenizer, self.eos_id, self.pad_id)

    @property
    def context_length(self) -> int | None:
        """Positions of the model, where its configuration names them."""
        return getattr(self.model.config, "max_position_embeddings", None)


def load_policy(directory: Path, *, device: str = "cpu") -> Policy:
    """Load a Hugging Face causal-LM directory in float32, frozen, in evaluation mode.

    Raises:
        ConfigError: the directory is missing, holds no causal language model, or its tokenizer has no EOS.
    """
    if not (directory / "config.json").is_file():
        raise ConfigError(f"policy {directory}: no config.json there; a Hugging Face model directory is needed")
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"policy {directory}: not a causal language model with tokenizer ({error})") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ConfigError(f"policy {directory}: weights {missing} are missing, so it is no causal language model")
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"policy {directory}: its tokenizer has no EOS token, so no response could end")
    model.requires_grad_(False).eval().to(device)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Policy(model, tokenizer, tokenizer.eos_token_id, pad_id)


@functools.lru_cache(maxsize=2)
def cached_policy(directory: Path, fingerprint: str, device: str) -> Policy:
    """`load_policy`, kept in memory: a worker runs many cells on one reference. Never train the result."""
    return load_policy(directory, device=device)


def resolve_device(device: str) -> str:
    """``auto`` is CUDA where there is one, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(device))
    except RuntimeError as error:
        raise ConfigError(f"device={device!r}: {str(error).splitlines()[0]}") from error
