"""Run directories to tidy frames: one row per planned cell, one row per checkpoint of a finished cell."""

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.sweep import PLAN_KEYS, STATE_COLUMNS, RefusedSweep, Sweep, further_keys, key_names
from bench import records

# What makes gold rewards and KLs comparable: one value of each in everything that is analyzed together.
SHARED_KEYS = ("world", "gold_model", "reference", "preferences")
_record_values = itemgetter(*records.RECORD_KEYS)


def load_sweep(path: Path | str, only: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep's plan, states and records.

    Args:
        path: ``runs/<sweep>``.
        only: values of plan keys that select cells before anything is checked, for sweeps that vary what cannot be
            compared (another world, another labeling).
    Raises:
        RefusedSweep: not a sweep's directory; no finished cell; finished cells without step 0, without their last
            step or with a step twice; records of several worlds, gold models, references or preference data.
        bench.records.DamagedRecord: a record or status file that cannot be trusted.
    """
    path = Path(path)
    plan = _read_plan(path)
    cells = _read_cells(path, plan)
    for key, value in (only or {}).items():
        if key not in cells:
            raise RefusedSweep(f"{path}: nothing to select by {key!r}; the plan has {key_names(plan)}")
        cells = cells[cells[key] == value].reset_index(drop=True)
    done = cells[cells["state"] == "done"]
    if done.empty:
        counts = cells["state"].value_counts().to_dict()
        raise RefusedSweep(
            f"{path}: no finished cell to analyze; the {len(cells)} planned cells are {counts or 'none'}"
        )
    checkpoints = _read_checkpoints(path, done, further_keys(plan))
    for key in SHARED_KEYS:
        _require_one_value(path, checkpoints, key)
    return Sweep(path, plan, cells, checkpoints)


def _read_plan(path: Path) -> dict[str, Any]:
    plan_path = path / records.PLAN_FILE
    if not plan_path.is_file():
        raise RefusedSweep(f"{path}: no {records.PLAN_FILE} there, so it is not a sweep's directory; {_nearby(path)}")
    try:
        plan = json.loads(plan_path.read_text(encoding="utf-8"))
        missing = [key for row in plan["cells"] for key in PLAN_KEYS if key not in row]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise records.DamagedRecord(f"{plan_path}: not the plan of a sweep ({error!r})") from error
    if missing:
        raise records.DamagedRecord(f"{plan_path}: a planned cell lacks {missing[0]!r}")
    return plan


def _nearby(path: Path) -> str:
    parents = (folder for folder in (path.parent, path) if folder.is_dir())
    sweeps = [str(plan.parent) for parent in parents for plan in sorted(parent.glob(f"*/{records.PLAN_FILE}"))]
    close = difflib.get_close_matches(str(path), sweeps, n=3, cutoff=0.6) or sweeps[:5]
    return f"sweeps nearby: {', '.join(close)}" if close else f"and {path.parent} holds no sweep"


def _read_cells(path: Path, plan: Mapping[str, Any]) -> pd.DataFrame:
    keys = ["cell", "loss", "beta", "lr", "seed", *further_keys(plan)]
    rows = []
    for planned in plan["cells"]:
        row = {key: _comparable(planned.get(key)) for key in keys}
        status = records.read_status(path / planned["cell"])
        if status is None:
            row |= dict(zip(STATE_COLUMNS, ("missing", None, 0, 0, 0), strict=True))
        else:
            row |= {key: getattr(status, key) for key in STATE_COLUMNS}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*keys, *STATE_COLUMNS]).astype({"beta": float, "lr": float, "seed": int})


def _comparable(value: Any) -> Any:
    """Lists, as of evaluation steps, in one spelling that can be compared and counted."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _read_checkpoints(path: Path, done: pd.DataFrame, further: list[str]) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for cell, steps_total in zip(done["cell"], done["steps_total"], strict=True):
        rows.extend(_read_cell_records(path / cell / records.RECORDS_FILE, cell, int(steps_total)))
    columns = zip(*rows, strict=True)
    frame = pd.DataFrame(dict(zip((*records.RECORD_KEYS, "cell", "is_final"), map(list, columns), strict=True)))
    _require_finite(path, frame)
    keys = [key for key in further if key not in frame]  # a swept world is in the records already
    return frame.merge(done[["cell", *keys]], on="cell", how="left", validate="many_to_one") if keys else frame


def _read_cell_records(path: Path, cell: str, steps_total: int) -> Iterator[tuple[Any, ...]]:
    """Values of RECORD_KEYS, the cell's name and whether the step is the last, per checkpoint."""
    if not path.exists():
        raise RefusedSweep(f"{path}: the cell is marked done but has no records; delete {path.parent} and run again")
    rows = records.read_records(path)
    steps = [row["step"] for row in rows]
    wrong = None
    if not steps or steps[0] != 0:
        wrong = "step 0 is not recorded"
    elif steps[-1] != steps_total:
        wrong = f"the last recorded step is {steps[-1]}, the cell was to have {steps_total}"
    elif any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        wrong = f"steps do not ascend: {steps}"
    if wrong:
        raise RefusedSweep(f"{path}: {wrong}; delete {path.parent} and run the sweep again")
    for row in rows:
        yield (*_record_values(row), cell, row["step"] == steps_total)


def _require_finite(path: Path, frame: pd.DataFrame) -> None:
    numbers = frame.select_dtypes("number")
    bad = ~np.isfinite(numbers.to_numpy(float))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        key, cell, step = numbers.columns[column], frame["cell"].iloc[row], frame["step"].iloc[row]
        raise records.DamagedRecord(f"{path / cell}: {key} at step {step} is {numbers.iloc[row, column]}, not a number")


def _require_one_value(path: Path, checkpoints: pd.DataFrame, key: str) -> None:
    by_value = checkpoints.groupby(key, sort=False)["cell"].agg(["nunique", "first"])
    if len(by_value) > 1:
        seen = "; ".join(
            f"{value}: {row['nunique']} cells such as {row['first']}" for value, row in by_value.iterrows()
        )
        raise RefusedSweep(
            f"{path}: {len(by_value)} values of {key!r} in one sweep ({seen}). Gold rewards and KLs of different "
            f"{key} values are not comparable: load one part with only={{key: value}} of {_varying(path)}"
        )


def _varying(path: Path) -> str:
    plan = _read_plan(path)
    keys = [key for key in further_keys(plan) if len({str(row.get(key)) for row in plan["cells"]}) > 1]
    return ", ".join(keys) or "a plan key that separates them, or run them as sweeps of their own"
