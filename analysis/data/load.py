"""Run directories to tidy frames: one row per planned cell, one row per checkpoint of a finished cell."""

import contextlib
import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.settings import further_keys, key_names
from analysis.data.sweep import STATE_COLUMNS, RefusedSweep, Sweep
from bench import records

# What makes gold rewards and KLs comparable: one value of each in everything that is analyzed together.
SHARED_KEYS = ("world", "gold_model", "reference", "preferences")
# What says of a record which cell it is of, where the plan has it as well.
_OF_THE_CELL = [key for key, metric in records.METRICS.items() if metric.group == "identity" and key != "step"]
# Per-position KLs in float32, summed: a policy that has hardly moved may measure so many nats below 0.
KL_ROUNDING = 1e-3
_READERS = 4


def load_sweep(path: Path | str, only: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep's plan, states and records.

    Args:
        path: ``runs/<sweep>``.
        only: values of plan keys that select cells before anything is checked, for sweeps that vary what cannot be
            compared (another world, another labeling).
    Raises:
        RefusedSweep: not a sweep's directory; no finished cell; finished cells without step 0, without their last
            step or with a step twice; records of another cell than the planned one; records of several worlds, gold
            models, references or preference data.
        bench.records.DamagedRecord: a record or status file that cannot be trusted.
    """
    path = Path(path)
    plan = _read_plan(path)
    cells = _read_cells(path, plan)
    is_choice = cells["method"] == records.BEST_OF_N  # among π_ref's samples: `analysis.data.best_of_n`
    if is_choice.any() and is_choice.all():
        raise RefusedSweep(
            f"{path}: all {len(cells)} cells are best-of-n; a frontier needs trained policies beside them"
        )
    cells = cells[~is_choice].reset_index(drop=True)
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
    _check_files(path, done["cell"], plan)
    checkpoints = _read_checkpoints(path, done, plan)
    for key in SHARED_KEYS:
        _require_one_value(path, checkpoints, key)
    return Sweep(path, plan, cells, checkpoints)


def _read_plan(path: Path) -> dict[str, Any]:
    if not (path / records.PLAN_FILE).is_file():
        raise RefusedSweep(f"{path}: no {records.PLAN_FILE} there, so it is not a sweep's directory; {_nearby(path)}")
    return records.read_plan(path)


def _nearby(path: Path) -> str:
    parents = (folder for folder in (path.parent, path) if folder.is_dir())
    sweeps = [str(plan.parent) for parent in parents for plan in sorted(parent.glob(f"*/{records.PLAN_FILE}"))]
    close = difflib.get_close_matches(str(path), sweeps, n=3, cutoff=0.6) or sweeps[:5]
    return f"sweeps nearby: {', '.join(close)}" if close else f"and {path.parent} holds no sweep"


def _read_cells(path: Path, plan: Mapping[str, Any]) -> pd.DataFrame:
    keys = ["cell", "method", "variant", "strength", "lr", "seed", *further_keys(plan)]
    rows = []
    for planned in plan["cells"]:
        state, status = _state(path, planned["cell"])
        counts = {key: 0 if status is None else getattr(status, key) for key in STATE_COLUMNS[2:]}
        error = None if status is None else status.error
        row = {key: _comparable(planned.get(key)) for key in keys}
        rows.append(row | {"state": state, "error": error} | counts)
    return pd.DataFrame(rows, columns=[*keys, *STATE_COLUMNS]).astype({"strength": float, "lr": float, "seed": int})


def _state(path: Path, cell: str) -> tuple[str, records.CellStatus | None]:
    """A cell's state and status; one whose status cannot be trusted has failed, with that as its error.

    A finished cell's records are read, and trusted or not, where they are needed.
    """
    with contextlib.suppress(records.DamagedRecord):
        status = records.read_status(path / cell)
        if status is not None and status.state == records.DONE:
            return status.state, status
    view = records.cell_view(path, cell)
    return view.state, view.status


def _check_files(path: Path, done: Iterable[str], plan: Mapping[str, Any]) -> None:
    """Refuse files that are not what they were when their cell was finished, where that is known."""

    def check(cell: str) -> None:
        status = records.read_status(path / cell)
        records.check_files(path / cell, (status and status.files) or {})

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(check, done))
    records.check_files(path, plan["published"], records.COPY_AGAIN)


def _comparable(value: Any) -> Any:
    """Lists, as of evaluation steps, in one spelling that can be compared and counted."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _read_checkpoints(path: Path, done: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    planned = {row["cell"]: row for row in plan["cells"]}
    rows: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    for cell, steps_total in zip(done["cell"], done["steps_total"], strict=True):
        file = path / cell / records.RECORDS_FILE
        of_cell = list(_read_cell_records(file, cell, int(steps_total)))
        _require_own(file, of_cell, planned[cell])
        if (owner := owners.setdefault(of_cell[0]["cell_id"], cell)) != cell:
            raise RefusedSweep(
                f"{file}: cell_id is that of {owner}, as of a copy; delete {file.parent} and run the sweep again"
            )
        rows.extend(of_cell)
    further_metrics = list(dict.fromkeys(key for row in rows for key in row if key not in records.METRICS))
    keys = [*records.METRICS, *further_metrics]
    frame = pd.DataFrame({key: [row.get(key, np.nan) for row in rows] for key in keys})
    _require_finite(path, frame)
    frame["kl"] = _without_rounding(path, frame)
    _require_one_method(path, frame)
    keys = [key for key in further_keys(plan) if key not in frame]  # a swept world is in the records already
    return frame.merge(done[["cell", *keys]], on="cell", how="left", validate="many_to_one") if keys else frame


def _read_cell_records(path: Path, cell: str, steps_total: int) -> Iterator[dict[str, Any]]:
    """Per checkpoint, its record with the cell's name and whether the step is the last."""
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
        yield row | {"cell": cell, "is_final": row["step"] == steps_total}


def _require_own(file: Path, rows: list[dict[str, Any]], planned: Mapping[str, Any]) -> None:
    """Refuse records that say to be of another cell than the plan does, or than each other."""
    for row, key in itertools.product(rows, _OF_THE_CELL):
        said, here = row[key], f"{file}: {key} = {row[key]!r} at step {row['step']}"
        advice = f"delete {file.parent} and run the sweep again"
        if said is None or said != said:  # optional, and older sweeps may not have it
            continue
        if planned.get(key, said) != said:
            raise RefusedSweep(f"{here}, but {planned[key]!r} in the plan; {advice}")
        if rows[0][key] != said:
            raise RefusedSweep(f"{here}, but {rows[0][key]!r} at step 0; {advice}")


def _without_rounding(path: Path, frame: pd.DataFrame) -> pd.Series:
    """KL, 0 where rounding has made it negative."""
    if (wrong := frame[frame["kl"] < -KL_ROUNDING]).size:
        cell, step, kl = wrong[["cell", "step", "kl"]].iloc[0]
        raise records.DamagedRecord(
            f"{path / cell / records.RECORDS_FILE}: kl = {kl:.3g} nats at step {step}, more below 0 than rounding "
            f"explains ({KL_ROUNDING:g}); delete {path / cell} and run the sweep again"
        )
    return frame["kl"].clip(lower=0)


def _require_finite(path: Path, frame: pd.DataFrame) -> None:
    """Infinity is never a measurement; NaN is one that an optional metric has not."""
    numbers = frame.select_dtypes("number")
    may_lack = [key not in records.METRICS or not records.METRICS[key].required for key in numbers]
    values = numbers.to_numpy(float)
    bad = ~np.isfinite(values) & ~(np.isnan(values) & may_lack)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        key, cell, step = numbers.columns[column], frame["cell"].iloc[row], frame["step"].iloc[row]
        raise records.DamagedRecord(f"{path / cell}: {key} at step {step} is {numbers.iloc[row, column]}, not a number")


def _require_one_method(path: Path, frame: pd.DataFrame) -> None:
    methods = frame.groupby("variant", sort=False)["method"].unique()
    for variant, several in methods[methods.map(len) > 1].items():
        raise RefusedSweep(
            f"{path}: variant {variant!r} is of {len(several)} methods ({', '.join(several)}), whose policies would "
            "share one frontier; give the imported policy another name"
        )


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
