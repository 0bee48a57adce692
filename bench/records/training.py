"""Every step of a cell's training: the curves behind its checkpoints."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.records.files import RUN_AGAIN, TRAINING_FILE, DamagedRecord, require_regular


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, measured on its batch before the update.

    Attributes:
        step: counts from 1; 0 is the first batch without an update.
        loss: mean f(βρ); of a policy gradient, minus the mean regularized reward.
        pair_accuracy: share of the batch's pairs with ρ > 0, ties count 1/2; None where there are no pairs.
        rho: mean ρ of the batch, nats; None where there are no pairs.
        grad_norm: before clipping.
        lr: learning rate of the step.
        reward: the labeller's mean score of the batch, SD; None where a batch is not scored.
    """

    step: int
    loss: float
    pair_accuracy: float | None
    rho: float | None
    grad_norm: float
    lr: float
    reward: float | None = None

    def to_json(self) -> str:
        """One line of JSON; `reward` only where there is one."""
        return json.dumps({k: v for k, v in asdict(self).items() if k != "reward" or v is not None})


def append_steps(cell_dir: Path, steps: Iterable[StepMetrics]) -> None:
    """Append steps to the cell's training.jsonl, a JSON object a line."""
    with (cell_dir / TRAINING_FILE).open("a", encoding="utf-8") as stream:
        stream.writelines(step.to_json() + "\n" for step in steps)


def read_training(cell_dir: Path) -> list[dict[str, Any]]:
    """Steps of a cell, in order, as dicts of `StepMetrics`; empty where none were recorded.

    A last line that is being written, or was when the cell was killed, is left out.

    Raises:
        DamagedRecord: another line is not JSON.
    """
    path = cell_dir / TRAINING_FILE
    if not path.exists():
        return []
    require_regular(path)
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except ValueError as error:
            raise DamagedRecord(f"{path}:{number}: not a JSON line ({error}); {RUN_AGAIN}") from error
    return rows
