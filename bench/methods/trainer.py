"""What a method is to a cell: something that takes steps and can be stopped, kept and taken up again."""

from typing import NamedTuple, Protocol

from torch import Tensor

from bench.config import CellConfig
from bench.data.judges import Judge
from bench.data.pairs import PreferencePairs
from bench.policies.load import Policy
from bench.records import StepMetrics


class TrainingInputs(NamedTuple):
    """What a trainer is made from.

    Attributes:
        config: of the cell; a trainer reads the settings that concern it.
        policy: a trainable copy of π_ref; its parameters are updated.
        pairs: the cell's preference pairs, on the CPU.
        prompts: those that a method that samples for itself draws from.
        labeller: who orders or rewards what is sampled, on the scale of π_ref's samples.
    """

    config: CellConfig
    policy: Policy
    pairs: PreferencePairs
    prompts: list[str]
    labeller: Judge


class NonFiniteLoss(RuntimeError):
    """Training met NaN or infinity; the message holds the step and the values."""


class Trainer(Protocol):
    """Trains one policy in place. Same inputs, same steps: what is random comes from the cell's seed.

    `state_dict` holds all that the next steps depend on, as tensors by name (on any device), so that a trainer made
    from the same inputs goes on after `load_state_dict` as this one would have, to the last bit.
    """

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        ...

    @property
    def samples_drawn(self) -> int:
        """Responses that were sampled for the training so far."""
        ...

    def preview(self) -> StepMetrics:
        """The first step's measurements, as step 0 and without an update; leaves the trainer as it was."""
        ...

    def step(self) -> StepMetrics:
        """One optimizer step.

        Raises:
            NonFiniteLoss: loss or gradient is NaN or infinite; the last update was finite.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...
