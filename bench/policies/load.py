"""Causal language models as policies: the one module of bench that loads transformers models."""

import importlib.util
import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

import bench.policies.tabular  # noqa: F401  registers its architecture with AutoModelForCausalLM
from bench.checked import ConfigError
from bench.policies.adapters import attach_adapters, merge_adapters
from bench.policies.architecture import Architecture, inspect_architecture
from bench.policies.directories import base_of, gguf_file, is_adapter, why_unusable
from bench.policies.policy import Policy
from bench.policies.selfcheck import check_sampler
from bench.policy_section import BFLOAT16, FLOAT32, PolicyConfig

_DTYPES = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")  # others lack float64, or hold nothing

transformers_logging.disable_progress_bar()
# Packed rows take no mask on purpose (bench.policies.packing), also where one begins or ends with the padding token.
logging.getLogger("transformers.modeling_utils").addFilter(
    lambda record: "passing in an `attention_mask`" not in record.getMessage()
)


class _Read(NamedTuple):
    """A model with its tokenizer, as they lie at a place."""

    model: Any  # a PreTrainedModel, whose `to` has no types
    tokenizer: PreTrainedTokenizerBase
    generation_config: bool


def load_policy(
    directory: Path,
    *,
    device: str = "cpu",
    logits_mib: int | None = None,
    settings: PolicyConfig | None = None,
    keep_adapters: bool = False,
) -> Policy:
    """Load a causal LM, frozen, in evaluation mode: a Hugging Face directory, an adapter's with its base, or GGUF.

    Args:
        logits_mib: how many MiB of logits scoring makes at once; None takes a constant, the same on every machine.
        settings: dtype, attention and stop strings; None: float32, and what transformers takes.
        keep_adapters: beside the weights, as they were trained. Else they are added to the weights in float32, and the
            sum is rounded to the dtype: in bfloat16, another function, which is π_ref's for good.
    Raises:
        ConfigError: the directory is missing or damaged, holds no causal language model (but a classifier, or an
            encoder that sees later tokens), quantized weights, or an adapter beside its base, or its tokenizer has no
            words, no EOS, or more tokens than the model; what it samples is not what it scores; or `logits_mib` is
            below 1.
    """
    if logits_mib is not None and logits_mib < 1:
        raise ConfigError(f"logits_mib={logits_mib}: must be 1 or more, in MiB, or null")
    settings = settings or PolicyConfig()
    model, tokenizer, has_ends = _read(directory, settings, keep_adapters)
    # What adapters that are trained on it will name as their base.
    model.config._name_or_path = str(directory.absolute())
    architecture = _inspect(directory, model)
    _check_tokenizer(directory, tokenizer, vocabulary=architecture.vocabulary)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # Embeddings are padded to round sizes; no text has the rows beyond the tokenizer, which are never drawn.
    known = max(tokenizer.get_vocab().values()) + 1
    architecture = replace(architecture, vocabulary=min(known, architecture.vocabulary))
    ends = _further_ends(model, architecture.vocabulary) - {tokenizer.eos_token_id} if has_ends else frozenset()
    policy = Policy(
        model.to(device), architecture, tokenizer.eos_token_id, pad_id, logits_mib, tokenizer, further_ends=ends
    )
    check_sampler(str(directory), policy)
    return replace(policy, stop_strings=settings.stop_strings)


def _read(path: Path, settings: PolicyConfig, keep_adapters: bool) -> _Read:
    if (refusal := why_unusable(path)) is not None:
        raise ConfigError(f"policy {path}: {refusal}")
    if not is_adapter(path):
        return _read_model(path, settings)
    base = _read(base_of(path), settings, keep_adapters=False)
    tokenizer = _read_tokenizer(path) if (path / "tokenizer_config.json").is_file() else base.tokenizer
    if keep_adapters:
        return base._replace(model=attach_adapters(base.model, path), tokenizer=tokenizer)
    dtype = base.model.dtype
    merged: Any = merge_adapters(base.model.float(), path)
    return base._replace(model=merged.to(dtype), tokenizer=tokenizer)


def _read_model(directory: Path, settings: PolicyConfig) -> _Read:
    options = {} if settings.attn_implementation is None else {"attn_implementation": settings.attn_implementation}
    where, gguf = directory, {}
    if (file := gguf_file(directory)) is not None:
        where, gguf = file.parent, {"gguf_file": file.name}
    loaded: Any
    try:
        # use_safetensors: the other weight format is pickle, which runs code when it is read.
        loaded = AutoModelForCausalLM.from_pretrained(
            where, dtype=_DTYPES.get(settings.dtype, settings.dtype), output_loading_info=True,
            local_files_only=True, use_safetensors=True, trust_remote_code=False, **options, **gguf,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True, trust_remote_code=False, **gguf)
    # transformers raises whatever a configuration that it did not foresee leads to: KeyError, TypeError, ImportError.
    except Exception as error:
        told = " ".join(str(error).split())
        if gguf and not importlib.util.find_spec("gguf"):
            raise ConfigError(f"policy {directory}: GGUF files need the package gguf: pip install gguf") from error
        raise ConfigError(f"policy {directory}: not a causal language model with tokenizer ({told})") from error
    model, info = loaded
    model.requires_grad_(False).eval()
    if gguf:  # its weights are as any other's by now; what says that they were not keeps them from being saved
        del model.hf_quantizer, model.config.quantization_config
        model.is_quantized = False
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ConfigError(f"policy {directory}: weights {missing} are missing, so it is no causal language model")
    if model.dtype not in _DTYPES.values():
        kind = str(model.dtype).removeprefix("torch.")
        raise ConfigError(f"policy.dtype={settings.dtype}: the weights of {directory} are {kind}; float32 or bfloat16")
    # A mixture of experts would compute a loss that is of no use here, and that does not know of packed rows.
    if getattr(model.config, "output_router_logits", False):
        model.config.output_router_logits = False
    return _Read(model, tokenizer, (directory / "generation_config.json").is_file())


def _read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise ConfigError(f"policy {directory}: no tokenizer there ({' '.join(str(error).split())})") from error


def _inspect(directory: Path, model: PreTrainedModel) -> Architecture:
    try:
        _check_causal(directory, model)
        return inspect_architecture(model)
    except ConfigError:
        raise
    except Exception as error:  # such as layers that compute in float32 only
        told = " ".join(str(error).split())
        kind, dtype = type(model).__name__, str(model.dtype).removeprefix("torch.")
        raise ConfigError(
            f"policy {directory}: {kind} does not run here in {dtype} ({type(error).__name__}: {told:.200})"
        ) from error


def _further_ends(model: PreTrainedModel, vocabulary: int) -> frozenset[int]:
    """End tokens of generation_config.json; a configuration of another size names ids that do not exist."""
    assert model.generation_config is not None
    named = model.generation_config.eos_token_id
    ids = named if isinstance(named, Iterable) else [named]
    return frozenset(each for each in ids if each is not None and 0 <= each < vocabulary)


def _check_causal(directory: Path, model: PreTrainedModel) -> None:
    """Refuse what AutoModelForCausalLM takes too: classifiers with tied embeddings, and encoders."""
    if classifiers := [name for name in model.config.architectures or () if "Classification" in name]:
        raise ConfigError(f"policy {directory}: holds {classifiers[0]}, a reward model and no language model")
    probe = torch.tensor([[0, 0], [0, 1]])  # the two differ in the future only
    with torch.no_grad():
        one, other = model(input_ids=probe, attention_mask=torch.ones_like(probe)).logits[:, 0]
    if not torch.allclose(one, other, atol=1e-4):
        kind = type(model).__name__
        raise ConfigError(f"policy {directory}: predictions of {kind} depend on later tokens; it is not causal")


def _check_tokenizer(directory: Path, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int) -> None:
    # Without tokenizer files, transformers makes up a tokenizer that holds nothing but special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ConfigError(f"policy {directory}: its tokenizer is missing or has no words; save it beside the model")
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"policy {directory}: its tokenizer has no EOS token, so no response could end")
    if len(tokenizer) > vocabulary:
        raise ConfigError(f"policy {directory}: {len(tokenizer)} tokens in the tokenizer, {vocabulary} in the model")


def resolve_device(device: str) -> str:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: no such device, or none on this machine.
    """
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"device={device!r}: must be auto, cpu, cuda, or cuda:N")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(f"device={device!r}: {str(error).splitlines()[0]}; try auto or cpu") from error
    return device
