"""ρ of every held-out pair under every checkpoint, where cells have kept it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.data.sweep import RefusedSweep, Sweep
from bench.records import HELD_OUT_COLUMNS, HELD_OUT_FILE


def held_out_rho(sweep: Sweep) -> np.ndarray | None:
    """ρ in nats, [rows of `sweep.checkpoints`, pairs]; NaN at step 0; None where a finished cell has kept none.

    Raises:
        RefusedSweep: a file cannot be read, or does not hold the pairs of the others.
    """
    checkpoints = sweep.checkpoints
    files = {cell: sweep.path / cell / HELD_OUT_FILE for cell in sweep.final["cell"]}
    if not files or not all(path.exists() for path in files.values()):
        return None
    result: np.ndarray | None = None
    for cell, rows in checkpoints.groupby("cell", sort=False).indices.items():
        path = files[cell]
        try:
            table = pq.read_table(path, columns=list(HELD_OUT_COLUMNS), use_threads=False)
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise RefusedSweep(f"{path}: cannot read ρ of the held-out pairs ({error})") from error
        step, rho = table["step"].to_numpy(), table["rho"].to_numpy()
        if result is None:
            result = np.full((len(checkpoints), int(table["pair"].to_numpy().max(initial=-1)) + 1), np.nan)
        for row, at in zip(rows, checkpoints["step"].to_numpy()[rows], strict=True):
            values = rho[step == at]
            if len(values) != (result.shape[1] if at else 0):
                raise RefusedSweep(
                    f"{path}: {len(values)} held-out pairs at step {at}, {result.shape[1]} in the first cell; delete "
                    f"{path.parent} and run the sweep again"
                )
            if at:
                result[row] = values
    return result
