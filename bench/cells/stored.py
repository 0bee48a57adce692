"""What a cell's folder already holds, up to a step."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import (
    ERROR_FILE,
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
    """What a cell has recorded: checkpoint records, training steps, and a frame of samples per checkpoint."""

    records: list[dict[str, Any]] = field(default_factory=list)
    steps: list[StepMetrics] = field(default_factory=list)
    samples: list[pd.DataFrame] = field(default_factory=list)


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
    samples = pd.read_parquet(cell_dir / SAMPLES_FILE)
    kept = [rows for at, rows in samples.groupby("step", sort=True) if at <= records[-1]["step"]]
    write_atomically(cell_dir / RECORDS_FILE, lambda path: path.write_bytes(b"\n".join([*lines, b""])))
    text = "".join(json.dumps(asdict(each)) + "\n" for each in steps)
    write_atomically(cell_dir / TRAINING_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return Recorded(records, steps, kept)


def take_all_back(cell_dir: Path) -> Recorded:
    """Remove everything that an earlier attempt has recorded."""
    for name in (ERROR_FILE, RECORDS_FILE, SAMPLES_FILE, TRAINING_FILE):
        (cell_dir / name).unlink(missing_ok=True)
    for name in (POLICY_DIR, RESUME_DIR):
        shutil.rmtree(cell_dir / name, ignore_errors=True)
    return Recorded()
