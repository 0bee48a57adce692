"""What every step of a cell's training measured, made short enough to be drawn."""

from dataclasses import dataclass

import numpy as np

from analysis.data.sweep import Sweep
from bench.records import TRAINING_FILE, read_training

# Of `bench.records.StepMetrics`: mean loss, margin ρ (nats), share of pairs with ρ > 0, gradient norm, learning rate.
QUANTITIES = ("loss", "rho", "pair_accuracy", "grad_norm", "lr")
MAX_POINTS = 120


@dataclass(frozen=True)
class TrainingCurve:
    """One cell's training.

    Attributes:
        cell: its name.
        state: its state; a cell that failed shows how it came to that.
        steps_per_point: each point is the mean over so many steps (fewer in the last).
        columns: ``step`` and each of QUANTITIES -> [points]; NaN where the method measures no such thing.
    """

    cell: str
    state: str
    steps_per_point: int
    columns: dict[str, np.ndarray]


def cells_with_training(sweep: Sweep) -> list[str]:
    """Planned cells, finished or not, that have recorded their steps."""
    return [cell for cell in sweep.cells["cell"] if (sweep.path / cell / TRAINING_FILE).is_file()]


def training_curve(sweep: Sweep, cell: str) -> TrainingCurve:
    """Read the steps of `cell` and average neighbors until MAX_POINTS or fewer are left.

    Raises:
        bench.records.DamagedRecord: training.jsonl is damaged.
    """
    rows = read_training(sweep.path / cell)
    per_point = max(1, -(-len(rows) // MAX_POINTS))
    starts = np.arange(0, len(rows), per_point)
    counts = np.diff([*starts, len(rows)])
    columns = {
        key: np.add.reduceat(np.array([row.get(key, np.nan) for row in rows], dtype=float), starts) / counts
        for key in (("step", *QUANTITIES) if rows else ())
    }
    state = sweep.cells.set_index("cell").loc[cell, "state"]
    return TrainingCurve(cell, str(state), per_point, columns)
