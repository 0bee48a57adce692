"""What a cell's folder already holds, up to a step."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import (
    ERROR_FILE,
    HELD_OUT_FILE,
    POLICY_DIR,
    RECORDS_FILE,
    RESUME_DIR,
    SAMPLES_FILE,
    TRAINING_FILE,
    DamagedRecord,
    StepMetrics,
    read_records,
    read_training,
    write_atomically,
)


@dataclass
class Recorded:
    """What a cell has recorded: checkpoint records, training steps, and frames of each checkpoint."""

    records: list[dict[str, Any]] = field(default_factory=list)
    steps: list[StepMetrics] = field(default_factory=list)
    samples: list[pd.DataFrame] = field(default_factory=list)
    held_out: list[pd.DataFrame] = field(default_factory=list)


def take_back(cell_dir: Path, step: int) -> Recorded:
    """Remove from a cell's folder what came after `step`, and return what is left.

    Raises:
        DamagedRecord: a file that what is left would come from cannot be read.
    """
    (cell_dir / ERROR_FILE).unlink(missing_ok=True)
    records = [row for row in read_records(cell_dir / RECORDS_FILE, allow_partial=True) if row["step"] <= step]
    lines = (cell_dir / RECORDS_FILE).read_bytes().split(b"\n")[: len(records)]
    steps = [StepMetrics(**row) for row in read_training(cell_dir) if row["step"] <= step]
    # A resume point follows the writing of all that it stands on; what is not there was taken away by someone.
    if [s.step for s in steps] != list(range(step + 1)) or not records:
        raise DamagedRecord(f"{cell_dir}: {TRAINING_FILE} or {RECORDS_FILE} do not reach step {step}")
    samples, held_out = (_kept(cell_dir / name, records[-1]["step"]) for name in (SAMPLES_FILE, HELD_OUT_FILE))
    write_atomically(cell_dir / RECORDS_FILE, lambda path: path.write_bytes(b"\n".join([*lines, b""])))
    text = "".join(each.to_json() + "\n" for each in steps)
    write_atomically(cell_dir / TRAINING_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return Recorded(records, steps, samples, held_out)


def _kept(path: Path, step: int) -> list[pd.DataFrame]:
    """The frames of the checkpoints up to `step`, one each."""
    return [rows for at, rows in pd.read_parquet(path).groupby("step", sort=True) if at <= step]


def take_all_back(cell_dir: Path) -> Recorded:
    """Remove everything that an earlier attempt has recorded."""
    for name in (ERROR_FILE, RECORDS_FILE, SAMPLES_FILE, HELD_OUT_FILE, TRAINING_FILE):
        (cell_dir / name).unlink(missing_ok=True)
    for name in (POLICY_DIR, RESUME_DIR):
        shutil.rmtree(cell_dir / name, ignore_errors=True)
    return Recorded()
