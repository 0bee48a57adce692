"""Run directories to tidy frames: one row per planned cell, one row per checkpoint of a finished cell."""

import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench import records

# What makes gold rewards and KLs comparable: one value of each in everything that is analysed together.
SHARED_KEYS = ("world", "gold_model", "reference", "preferences")
# What may differ between cells of one analysis; anything else that a sweep varies is a *setting*.
ANALYSED_KEYS = ("loss", "beta", "seed")
_PLAN_KEYS = ("cell", "config", *ANALYSED_KEYS, "lr")
_READERS = 4
_record_values = itemgetter(*records.RECORD_KEYS)


class RefusedSweep(ValueError):
    """The records cannot be analysed together: says what is wrong and what to do."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's records.

    Attributes:
        path: the sweep's directory.
        plan: plan.json as it is.
        cells: one row per planned cell: ``cell, loss, beta, lr, seed``, every further swept key,
            ``state`` (done | running | failed | missing), ``error`` (None unless failed), ``attempts``,
            ``steps_done``, ``steps_total``.
        checkpoints: one row per checkpoint of every finished cell, in the order of the plan and of the steps: all
            keys of `bench.records.CheckpointRecord`, ``cell``, ``is_final`` and every further swept key.
    """

    path: Path
    plan: Mapping[str, Any]
    cells: pd.DataFrame
    checkpoints: pd.DataFrame

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @cached_property
    def losses(self) -> tuple[str, ...]:
        """Losses with finished cells, in the order of the plan."""
        return tuple(self.checkpoints["loss"].unique())

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of finished cells, ascending."""
        return tuple(sorted(int(seed) for seed in self.checkpoints["seed"].unique()))

    @cached_property
    def final(self) -> pd.DataFrame:
        """The last checkpoint of every finished cell."""
        return self.checkpoints[self.checkpoints["is_final"]].reset_index(drop=True)

    @cached_property
    def unfinished(self) -> pd.DataFrame:
        """Rows of `cells` that are not done."""
        return self.cells[self.cells["state"] != "done"].reset_index(drop=True)

    @cached_property
    def setting_keys(self) -> tuple[str, ...]:
        """Learning rate and further swept keys that take more than one value over the finished cells."""
        keys = [key for key in self.cells.columns if key in ("lr", *_further_keys(self.plan))]
        return tuple(key for key in keys if len(self.checkpoints[key].unique()) > 1)

    def by_setting(self) -> list[tuple[dict[str, Any], "Sweep"]]:
        """Parts that differ in nothing but loss, β and seed, each with the setting's keys and values.

        One pair ``({}, self)`` when nothing else was swept. Statistics take one part at a time, because a
        frontier or an optimal β pooled over learning rates answers no question.
        """
        if not self.setting_keys:
            return [({}, self)]
        settings = self.checkpoints[list(self.setting_keys)].drop_duplicates().to_dict("records")
        return [(setting, self.only(**setting)) for setting in settings]

    def only(self, **conditions: Any) -> "Sweep":
        """The cells with these values of plan keys, such as ``lr=5e-4`` or ``**{"labels.flip_rate": 0.1}``.

        Raises:
            RefusedSweep: a key that the plan does not have, or no finished cell is left.
        """
        cells, checkpoints = self.cells, self.checkpoints
        for key, value in conditions.items():
            if key not in cells or key in ("state", "error", "attempts", "steps_done", "steps_total"):
                raise RefusedSweep(f"{self.path}: nothing to select by {key!r}; the plan has {_plan_keys(self.plan)}")
            allowed = value if isinstance(value, (list, tuple, set)) else [value]
            cells, checkpoints = cells[cells[key].isin(allowed)], checkpoints[checkpoints[key].isin(allowed)]
        if checkpoints.empty:
            seen = {key: sorted(self.cells[key].unique().tolist(), key=str) for key in conditions}
            raise RefusedSweep(f"{self.path}: no finished cell has {conditions}; the plan has {seen}")
        return replace(self, cells=cells.reset_index(drop=True), checkpoints=checkpoints.reset_index(drop=True))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what a reader must know before trusting a comparison; empty when all is complete."""
        return tuple(_warnings(self))

    @property
    def has_samples(self) -> bool:
        """Whether every finished cell has its samples.parquet."""
        return all((self.path / cell / records.SAMPLES_FILE).exists() for cell in self.final["cell"])

    def samples(
        self,
        columns: Iterable[str] = records.SAMPLE_COLUMNS,
        *,
        final_only: bool = True,
        cells: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Read samples.parquet of finished cells; nothing is read before this is called.

        Args:
            columns: columns of `bench.records.SAMPLE_COLUMNS`; ``step`` is always there.
            final_only: only each cell's last checkpoint.
            cells: names of the cells to read, all finished ones by default.
        Returns:
            One row per cell, checkpoint and prompt: ``cell, loss, beta, lr, seed, step`` and `columns`.
        Raises:
            RefusedSweep: a cell is not finished, or its samples are missing or lack a column.
        """
        final = self.final.set_index("cell")
        names = list(final.index) if cells is None else list(cells)
        if unknown := [name for name in names if name not in final.index]:
            raise RefusedSweep(f"{self.path}: {unknown[0]!r} is not a finished cell of this sweep")
        wanted = list(dict.fromkeys(["step", *columns]))
        keys = final.loc[names, ["loss", "beta", "lr", "seed", "step"]]

        def read(item: tuple[Any, ...]) -> pa.Table:
            name, loss, beta, lr, seed, last_step = item
            table = _read_samples(self.path / name / records.SAMPLES_FILE, wanted)
            if final_only:
                table = table.filter(pa.compute.equal(table["step"], last_step))
            for key, value in (("seed", seed), ("lr", lr), ("beta", beta), ("loss", loss), ("cell", name)):
                table = table.add_column(0, key, pa.repeat(pa.scalar(value), len(table)))
            return table

        with ThreadPoolExecutor(_READERS) as pool:
            return pa.concat_tables(pool.map(read, keys.itertuples(name=None))).to_pandas()

    @cached_property
    def reference(self) -> pd.DataFrame | None:
        """π_ref's sample pool, `bench.records.REFERENCE_COLUMNS`; None when the sweep has none."""
        return self._shared_parquet("reference", "reference")

    @cached_property
    def label_probability(self) -> np.ndarray | None:
        """Probability that each training pair's label follows the gold order, [pairs]; None when not stored."""
        frame = self._shared_parquet("labels", "preferences")
        return None if frame is None else frame["label_probability"].to_numpy()

    def _shared_parquet(self, stem: str, key: str) -> pd.DataFrame | None:
        path = self.path / f"{stem}-{self.checkpoints[key].iloc[0]}.parquet"
        return pd.read_parquet(path) if path.exists() else None


def load_sweep(path: Path | str, only: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep's plan, states and records.

    Args:
        path: ``runs/<sweep>``.
        only: values of plan keys that select cells before anything is checked, for sweeps that vary what cannot be
            compared (another world, another labelling).
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
            raise RefusedSweep(f"{path}: nothing to select by {key!r}; the plan has {_plan_keys(plan)}")
        cells = cells[cells[key] == value].reset_index(drop=True)
    done = cells[cells["state"] == "done"]
    if done.empty:
        counts = cells["state"].value_counts().to_dict()
        raise RefusedSweep(
            f"{path}: no finished cell to analyse; the {len(cells)} planned cells are {counts or 'none'}"
        )
    checkpoints = _read_checkpoints(path, done, _further_keys(plan))
    for key in SHARED_KEYS:
        _require_one_value(path, checkpoints, key)
    return Sweep(path, plan, cells, checkpoints)


def _read_plan(path: Path) -> dict[str, Any]:
    plan_path = path / records.PLAN_FILE
    if not plan_path.is_file():
        raise RefusedSweep(f"{path}: no {records.PLAN_FILE} there, so it is not a sweep's directory; {_nearby(path)}")
    try:
        plan = json.loads(plan_path.read_text(encoding="utf-8"))
        missing = [key for row in plan["cells"] for key in _PLAN_KEYS if key not in row]
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


def _further_keys(plan: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys(itertools.chain(*plan["cells"])) if key not in _PLAN_KEYS]


def _plan_keys(plan: Mapping[str, Any]) -> str:
    return ", ".join([*ANALYSED_KEYS, "lr", *_further_keys(plan)])


def _read_cells(path: Path, plan: Mapping[str, Any]) -> pd.DataFrame:
    keys = ["cell", *ANALYSED_KEYS[:2], "lr", "seed", *_further_keys(plan)]
    rows = []
    for planned in plan["cells"]:
        status = records.read_status(path / planned["cell"])
        row = {key: planned.get(key) for key in keys}
        row["state"] = "missing" if status is None else status.state
        row["error"] = None if status is None else status.error
        row["attempts"] = 0 if status is None else status.attempts
        row["steps_done"] = 0 if status is None else status.steps_done
        row["steps_total"] = 0 if status is None else status.steps_total
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[*keys, "state", "error", "attempts", "steps_done", "steps_total"])
    return frame.astype({"beta": float, "lr": float, "seed": int})


def _read_checkpoints(path: Path, done: pd.DataFrame, further: list[str]) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for cell, steps_total in zip(done["cell"], done["steps_total"], strict=True):
        rows.extend(_read_cell_records(path / cell / records.RECORDS_FILE, cell, int(steps_total)))
    columns = zip(*rows, strict=True)
    frame = pd.DataFrame(dict(zip((*records.RECORD_KEYS, "cell", "is_final"), map(list, columns), strict=True)))
    _require_finite(path, frame)
    if further:
        frame = frame.merge(done[["cell", *further]], on="cell", how="left", validate="many_to_one")
    return frame


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
    keys = [key for key in _further_keys(plan) if len({str(row.get(key)) for row in plan["cells"]}) > 1]
    return ", ".join(keys) or "a plan key that separates them, or run them as sweeps of their own"


def _read_samples(path: Path, columns: list[str]) -> pa.Table:
    if not path.exists():
        raise RefusedSweep(f"{path}: the cell is finished but its samples are missing")
    try:
        return pq.read_table(path, columns=columns, use_threads=False).select(columns)
    except (KeyError, pa.ArrowInvalid) as error:
        raise RefusedSweep(f"{path}: cannot read {', '.join(columns)} ({error})") from error


def _warnings(sweep: Sweep) -> Iterator[str]:
    if not sweep.unfinished.empty:
        counts = ", ".join(f"{count} {state}" for state, count in sweep.unfinished["state"].value_counts().items())
        yield f"{len(sweep.unfinished)} of {len(sweep.cells)} planned cells are not finished ({counts}) and left out."
    seeds = set(sweep.seeds)
    groups = sweep.final.groupby(["loss", "beta"], sort=False)["seed"].agg(set)
    lacking = [f"{loss} at β = {beta:g}" for (loss, beta), present in groups.items() if present != seeds]
    if lacking:
        yield f"Seeds are missing for {len(lacking)} of {len(groups)} pairs of loss and β, such as {lacking[0]}."
    if len(seeds) == 1:
        yield "One seed only: intervals cover the choice of prompts, not the variation between runs."
    for key in ("git_commit",):
        if (count := sweep.checkpoints[key].nunique()) > 1:
            yield f"Cells were made with {count} values of {key}."
