"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of a model in evaluation mode.

That of transformers works in training mode only, which would switch dropout on. What a layer computes is the same with
it and without: dropout is off, so that there is no random state to restore.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from bench.checked import ConfigError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Make every layer of `model` keep its inputs only, and compute the rest again in the backward pass.

    Raises:
        ConfigError: the architecture has no layers that say that they can be computed again.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(f"policy.gradient_checkpointing=true: {type(model).__name__} has no layers made for it")
    for layer in layers:
        layer.forward = partial(_forward, layer.forward)


def _forward(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
