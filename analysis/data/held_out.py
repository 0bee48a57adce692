"""ρ of every held-out pair under every checkpoint, where cells have kept it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.data.sweep import RefusedSweep, Sweep
from bench.records import HELD_OUT_COLUMNS, HELD_OUT_FILE, PLAN_FILE, read_plan

_OF_THE_CELL = ("variant", "strength", "seed")


def load_held_out(sweep_dir: Path, cells: Iterable[str]) -> pd.DataFrame:
    """ρ of the held-out pairs as a tidy frame: `variant`, `strength`, `seed`, `step`, `pair`, `rho` (nats).

    One row per pair and checkpoint after step 0 of every cell, in the order of `cells`; none of a cell that has kept
    no ρ, as those of older sweeps.

    Args:
        cells: names of planned cells.
    Raises:
        RefusedSweep: a cell that is not planned, or a file that cannot be read.
    """
    planned = {row["cell"]: row for row in read_plan(sweep_dir)["cells"]}
    frames = []
    for cell in cells:
        if cell not in planned:
            raise RefusedSweep(f"{sweep_dir / PLAN_FILE}: no cell {cell!r} is planned there")
        path = sweep_dir / cell / HELD_OUT_FILE
        if path.exists():
            frame = _read(path).to_pandas()
            for place, key in enumerate(_OF_THE_CELL):
                frame.insert(place, key, planned[cell][key])
            frames.append(frame)
    columns = [*_OF_THE_CELL, *HELD_OUT_COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def held_out_rho(sweep: Sweep) -> np.ndarray | None:
    """ρ in nats, [rows of `sweep.checkpoints`, pairs]; NaN at step 0; None where no cell has kept any.

    Raises:
        RefusedSweep: a file is missing or cannot be read, or does not hold the pairs and checkpoints of the others.
    """
    checkpoints = sweep.checkpoints
    files = {cell: sweep.path / cell / HELD_OUT_FILE for cell in sweep.final["cell"]}
    lost = [path for path in files.values() if not path.exists()]
    if len(lost) == len(files):
        return None
    if lost:
        raise RefusedSweep(
            f"{lost[0]}: missing, while other cells have theirs; delete {lost[0].parent} and run the sweep again"
        )
    result: np.ndarray | None = None
    for cell, rows in checkpoints.groupby("cell", sort=False).indices.items():
        path = files[cell]
        table = _read(path)
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


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(HELD_OUT_COLUMNS), use_threads=False).select(list(HELD_OUT_COLUMNS))
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise RefusedSweep(f"{path}: cannot read ρ of the held-out pairs ({error})") from error
