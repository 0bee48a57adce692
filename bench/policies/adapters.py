"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on frozen weights, through peft.

Adapters are put into the model's own modules, not around it: its class stays, and with it what sampling and scoring
know about its architecture (a PeftModel hides the arguments of the forward pass). The modules are copied and the
weights are not, so that π_ref goes on without adapters beside the policy that has them, on one set of weights.

peft is imported when adapters are asked for: it takes a second that other cells need not wait.
"""

import copy
import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from bench.checked import ConfigError
from bench.policies.directories import ADAPTER_WEIGHTS_FILE
from bench.policy_section import PolicyConfig
from bench.seeding import generator_for

_NAME = "default"
_PROBE = torch.tensor([[0, 1, 0, 1]])
_MERGED_ALIKE = 1e-3  # of the largest logit; float32 rounding is a hundred times smaller
_PREFIX = "base_model.model."  # of names in peft's files


def with_adapters(model: PreTrainedModel, settings: PolicyConfig, *, seed: int) -> PreTrainedModel:
    """A model that shares the weights of `model` and has trainable adapters, which add exactly nothing yet.

    Args:
        model: frozen and without adapters; stays as it is.
        seed: draws the adapters' first factor; the second is 0 (Hu et al. 2021, section 4.1).
    Raises:
        ConfigError: peft is not installed, or has no place for an adapter in this model.
    """
    peft = import_peft()
    adapted = _sharing_weights(model)
    targets = settings.lora_target_modules
    lora = peft.LoraConfig(
        r=settings.lora_r, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout, task_type="CAUSAL_LM",
        target_modules="all-linear" if targets is None else list(targets),
    )  # fmt: skip
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that weights of GPT-2 are transposed, which peft then heeds
        torch.manual_seed(generator_for(seed, "lora").initial_seed())
        try:
            peft.inject_adapter_in_model(lora, adapted, _NAME)
        except ValueError as error:
            told = str(error).splitlines()[0]
            raise ConfigError(
                f"policy.lora_target_modules={targets and list(targets)}: no adapters for this policy ({told:.200})"
            ) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # steps on bfloat16 weights would be rounded away
            parameter.data = parameter.data.float()
    adapted.eval()
    if (wrong := _why_not_nothing(model, adapted)) is not None:
        named = "policy.lora_target_modules=null" if targets is None else f"policy.lora_target_modules={list(targets)}"
        raise ConfigError(f"{named}: adapters in these modules of {type(model).__name__} {wrong}; name others")
    return adapted


def attach_adapters(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """A frozen model that shares the weights of `model` and has the adapters in `directory`.

    Raises:
        ConfigError: peft is not installed, or these are no adapters for this model.
    """
    adapted = _read_adapters(_sharing_weights(model), directory).base_model.model
    return adapted.to(model.device).requires_grad_(False).eval()


def merge_adapters(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """`model`, in float32 and changed in place, with the adapters in `directory` added to its weights.

    Raises:
        ConfigError: see `attach_adapters`.
    """
    adapted = _read_adapters(model, directory).eval()
    before = _logits(adapted)
    merged = adapted.merge_and_unload().requires_grad_(False).eval()
    # Layers that read a module's weights and do not call it never saw its adapter (Jamba's dt_proj).
    if (gap := float((_logits(merged) - before).abs().max())) > _MERGED_ALIKE * float(before.abs().max()):
        raise ConfigError(
            f"policy {directory}: added to the weights, the adapters are another function than beside them, by "
            f"{gap:.2g} in a logit"
        )
    return merged


def _read_adapters(model: PreTrainedModel, directory: Path) -> Any:
    """A PeftModel around `model`, whose modules it has changed."""
    peft = import_peft()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", ".*missing adapter keys.*")  # they would stay as they were drawn
            # autocast: adapters of bfloat16 weights are float32, as they were trained.
            return peft.PeftModel.from_pretrained(model, directory, local_files_only=True, torch_device="cpu")
    except Exception as error:  # whatever peft says to names and shapes that it did not expect
        told = " ".join(str(error).split())
        raise ConfigError(f"policy {directory}: adapters that cannot be loaded ({told:.200})") from error


def _why_not_nothing(model: PreTrainedModel, adapted: PreTrainedModel) -> str | None:
    """What is wrong with adapters that are to add exactly nothing; None if nothing is."""
    try:
        same = torch.equal(_logits(model), _logits(adapted))
    except Exception as error:  # whatever a module does with an output that it did not expect
        return f"cannot be computed ({type(error).__name__}: {' '.join(str(error).split()):.100})"
    return None if same else "move its predictions before they are trained"


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    return model(input_ids=_PROBE.to(model.device)).logits


def _sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def save_adapters(model: PreTrainedModel, base: str, directory: Path) -> None:
    """Write the adapters of `model` as a peft adapter directory.

    Args:
        base: directory of the policy that they belong on.
    """
    peft = import_peft()
    directory.mkdir(parents=True, exist_ok=True)
    weights = peft.get_peft_model_state_dict(model, adapter_name=_NAME)
    save_file({_PREFIX + name: each.contiguous() for name, each in weights.items()}, directory / ADAPTER_WEIGHTS_FILE)
    described = copy.copy(model.peft_config[_NAME])
    described.base_model_name_or_path, described.inference_mode = base, True
    described.save_pretrained(directory)


def has_adapters(model: PreTrainedModel) -> bool:
    """Whether adapters are in the modules of `model`."""
    return hasattr(model, "peft_config")


def import_peft() -> ModuleType:
    """The package, which only adapters need.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise ConfigError(f"policy: adapters need the package peft ({error}); pip install peft") from error
