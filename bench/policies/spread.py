"""One policy's training over several ranks: DDP, or FSDP2 where its training does not fit on one device.

DDP: every rank holds the weights, gradients are averaged. FSDP2 (`fully_shard`): weights, gradients and AdamW's moments
are cut over ranks, and a layer's weights are gathered while it computes. Both hang on the forward pass of a module,
whereas log-probs take the base model and the head apart; so the module that they get is one whose forward pass is
whatever is asked for.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from bench.policies.ranks import Ranks

M = TypeVar("M", bound=nn.Module)

DDP, FSDP = "ddp", "fsdp"


class Forward(nn.Module):
    """A module whose forward pass is a call of any function of `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


def spread(model: nn.Module, ranks: Ranks, strategy: str) -> nn.Module:
    """A module for the passes of `model` that are trained through; `model` itself is changed by FSDP2.

    Args:
        strategy: DDP or FSDP.
    """
    forward = Forward(model)
    if strategy == DDP:
        # Buffers (of masks, of positions) never change.
        return DistributedDataParallel(forward, forward_sync_buffers=False)
    kind = next(model.parameters()).device.type
    mesh = init_device_mesh(kind, (ranks.world_size,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(forward, mesh=mesh)
    return forward


def _layers(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: what its longest list of modules holds."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def exchanging(forward: nn.Module | None, *, now: bool) -> AbstractContextManager[None]:
    """Within, gradients are exchanged between ranks only if `now`: pieces of a batch add up first.

    FSDP2 exchanges after every piece, as gradients of whole weights are what it has no memory for.
    """
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) and not now else nullcontext()


def put_together(model: nn.Module, plain: M) -> M:
    """A copy of `plain` with the weights of `model`, which are cut over ranks; every rank has to call it.

    Args:
        plain: an uncut model of the same architecture.
    """
    copied = copy.deepcopy(plain)
    own = dict(copied.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own[name].copy_(full(parameter.detach())).requires_grad_(parameter.requires_grad)
    return copied


def full(tensor: Tensor) -> Tensor:
    """All of a tensor, which FSDP2 may have cut over ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor`, cut over ranks as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def is_cut(model: nn.Module) -> bool:
    """Whether weights are cut over ranks."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def states_on(
    state: Mapping[int, Mapping[str, Tensor]], parameters: list[nn.Parameter]
) -> dict[int, dict[str, Tensor]]:
    """An optimizer's state by parameter, cut as the parameters are; scalars, such as a count of steps, stay whole."""
    return {
        index: {name: cut_like(each, parameters[index]) if each.ndim else each for name, each in entries.items()}
        for index, entries in state.items()
    }
