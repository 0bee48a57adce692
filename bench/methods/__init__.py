"""Methods: how a policy is trained. One file and one row of METHODS each."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.methods.offline import offline_trainer
from bench.methods.trainer import Trainer, TrainingInputs
from bench.records import GPO


@dataclass(frozen=True)
class Method:
    """A method and what the set-up of a cell reads of it.

    Attributes:
        trainer: makes the trainer of a cell; everything that is particular to the method happens in there.
        reference: where it is described.
    """

    name: str
    trainer: Callable[[TrainingInputs], Trainer]
    reference: str


METHODS: dict[str, Method] = {
    method.name: method for method in (Method(GPO, offline_trainer, "Tang et al. 2024, arXiv 2402.05749, eq. 5"),)
}

__all__ = ["METHODS", "Method", "Trainer", "TrainingInputs"]
