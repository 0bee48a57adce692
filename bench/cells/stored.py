"""What a cell's folder already holds: its configuration, and what it has recorded up to a step."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.cells.cell import Cell
from bench.cells.resume import RESUME_DIR, write_atomically
from bench.checked import ConfigError, build_checked
from bench.config import CellConfig
from bench.records import (
    CONFIG_FILE,
    ERROR_FILE,
    POLICY_DIR,
    RECORDS_FILE,
    SAMPLES_FILE,
    TRAINING_FILE,
    DamagedRecord,
    StepMetrics,
    read_records,
    read_training,
    write_text,
)  # fmt: skip


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


def write_cell_config(cell: Cell) -> None:
    """Write the resolved configuration, which `check_cell_config` compares on the next call."""
    # Absent unless set: every other cell's file would say `external: null`.
    config = {key: value for key, value in asdict(cell.config).items() if key != "external" or value is not None}
    write_text(cell.directory / CONFIG_FILE, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def read_cell_config(cell_dir: Path) -> CellConfig:
    """The configuration that a cell was run with.

    Raises:
        ConfigError: the file is not a configuration of this version.
    """
    path = cell_dir / CONFIG_FILE
    try:
        return build_checked(CellConfig, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not a configuration of this version ({error}); move {cell_dir} away or use another sweep="
        ) from error


def check_cell_config(cell: Cell) -> None:
    """Refuse a cell's directory that was made with another configuration.

    Raises:
        ConfigError: naming the keys that differ; nothing in the directory is touched.
    """
    if not (cell.directory / CONFIG_FILE).exists():
        return
    earlier = read_cell_config(cell.directory)
    if earlier.fingerprint != cell.config.fingerprint:
        was, now = flat(asdict(earlier)), flat(asdict(cell.config))
        changed = [f"{k}: {was.get(k)!r} there, {now.get(k)!r} now" for k in {**was, **now} if was.get(k) != now.get(k)]
        raise ConfigError(
            f"{cell.directory} was made with another configuration ({'; '.join(changed)}). "
            "It is not overwritten: use another sweep=NAME, or move it away"
        )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return result
