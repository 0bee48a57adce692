"""Methods: how a policy comes about. One file and one row of METHODS each."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.methods.offline import offline_trainer
from bench.methods.online import online_trainer
from bench.methods.rloo import rloo_trainer
from bench.methods.trainer import Trainer, TrainingInputs
from bench.records import BEST_OF_N, GPO, ONLINE, RLOO


@dataclass(frozen=True)
class Method:
    """A method and what the set-up of a cell reads of it.

    Attributes:
        trainer: makes the trainer of a cell; everything that is particular to the method happens in there. None where
            nothing is trained: the policy is a choice among π_ref's samples.
        reference: where it is described.
    """

    name: str
    trainer: Callable[[TrainingInputs], Trainer] | None
    reference: str


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(GPO, offline_trainer, "Tang et al. 2024, arXiv 2402.05749, eq. 5"),
        Method(ONLINE, online_trainer, "Guo et al. 2024, arXiv 2402.04792; Tang et al. 2024, section 4"),
        Method(RLOO, rloo_trainer, "Ahmadian et al. 2024, arXiv 2402.14740"),
        Method(BEST_OF_N, None, "Nakano et al. 2021, arXiv 2112.09332; Gao et al. 2023, arXiv 2210.10760"),
    )
}

__all__ = ["METHODS", "Method", "Trainer", "TrainingInputs"]
