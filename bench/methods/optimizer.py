"""What all trainers share: AdamW with linear warm-up on one policy, its state, and the loop around a gradient."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bench.config import OptimConfig
from bench.methods.trainer import NonFiniteLoss
from bench.policies.policy import Policy
from bench.policies.spread import full, states_on
from bench.records import StepMetrics

_POLICY, _OPTIMIZER, _STEP = "policy.", "optimizer.", "step"


class OptimizerSteps(ABC):
    """A `bench.methods.trainer.Trainer` but for the gradient, which a method gives."""

    def __init__(self, policy: Policy, optim: OptimConfig) -> None:
        """
        Args:
            policy: in evaluation mode (dropout off, as π_ref was scored); its parameters are updated.
        """
        self._policy, self._optim = policy, optim
        self._optimizer = torch.optim.AdamW(
            list(policy.parameters()), lr=optim.lr, betas=(optim.adam_beta1, optim.adam_beta2),
            weight_decay=optim.weight_decay, fused=True,
        )  # fmt: skip
        self._steps_done = 0

    @abstractmethod
    def _gradient(self, step: int) -> StepMetrics:
        """Put the clipped gradient of step `step`, which counts from 1, into ``.grad``, and measure its batch."""

    @property
    @abstractmethod
    def samples_drawn(self) -> int:
        """Responses that were sampled for the training so far."""

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        return self._steps_done

    def step(self) -> StepMetrics:
        """One optimizer step; see `bench.methods.trainer.Trainer`."""
        metrics = self._gradient(self._steps_done + 1)
        for group in self._optimizer.param_groups:
            group["lr"] = metrics.lr
        self._optimizer.step()
        self._steps_done += 1
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, AdamW's moments and the number of steps, from which the schedule follows."""
        state = {_POLICY + name: tensor for name, tensor in self._policy.state_dict().items()}
        for index, entries in self._optimizer.state_dict()["state"].items():
            state |= {f"{_OPTIMIZER}{index}.{name}": full(tensor) for name, tensor in entries.items()}
        return state | {_STEP: torch.tensor(self._steps_done)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        self._policy.load_state_dict({k.removeprefix(_POLICY): v for k, v in state.items() if k.startswith(_POLICY)})
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            if key.startswith(_OPTIMIZER):
                index, _, name = key.removeprefix(_OPTIMIZER).partition(".")
                entries.setdefault(int(index), {})[name] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        on_ranks = states_on(entries, list(self._policy.parameters()))
        self._optimizer.load_state_dict({"state": on_ranks, "param_groups": groups})
        self._steps_done = int(state[_STEP])

    def _rate(self, step: int) -> float:
        return self._optim.lr * min(1.0, max(step, 1) / max(1, self._optim.warmup_steps))


def require_finite(step: int, measured: list[float], loss: float, grad_norm: float) -> None:
    """Refuse to go on from a batch with NaN or infinity.

    Raises:
        NonFiniteLoss: before anything is updated.
    """
    if not all(map(math.isfinite, measured)):
        raise NonFiniteLoss(f"step {step}: loss {loss:g}, gradient norm {grad_norm:g}")
