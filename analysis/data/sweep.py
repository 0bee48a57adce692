"""A sweep's records as frames, and the samples behind them."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.data import settings
from bench import records
from gold_rm.errors import UserError

EXTERNAL = "external"  # the method of policies that were trained elsewhere and imported
STATE_COLUMNS = ("state", "error", "attempts", "steps_done", "steps_total")
_READERS = 4
_SHARED_COLUMNS = {"reference": records.REFERENCE_COLUMNS, "labels": ("label_probability",)}
# What columns of samples are where they were not written yet.
_OLDER = {"sample_id": 0, "win_share": float("nan")}


class RefusedSweep(UserError):
    """The records cannot be analyzed together: says what is wrong and what to do."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's records.

    Attributes:
        path: the sweep's directory.
        plan: plan.json as it is.
        cells: one row per planned cell: ``cell, method, variant, strength, lr, seed`` (lr NaN where the method has
            none), every further swept key, ``state`` (done | running | interrupted | failed | missing), ``error``
            (None unless failed), ``attempts``, ``steps_done``, ``steps_total``.
        checkpoints: one row per checkpoint of every finished cell, in the order of the plan and of the steps: all
            of `bench.records.METRICS` (optional ones NaN or None where a method has them not), further numbers that
            the records hold, ``cell``, ``is_final`` and every further swept key.
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
    def methods(self) -> dict[str, str]:
        """Variants with finished cells, in the order of the plan, and the method of each."""
        pairs = self.checkpoints[["variant", "method"]].drop_duplicates()
        return dict(zip(pairs["variant"], pairs["method"], strict=True))

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants with finished cells, in the order of the plan."""
        return tuple(self.methods)

    @cached_property
    def swept(self) -> tuple[str, ...]:
        """Variants that are a function of their strength; the strength of one imported policy is a mere name."""
        strengths = self.final.groupby("variant")["strength"].nunique()
        return tuple(name for name, method in self.methods.items() if method != EXTERNAL or strengths[name] > 1)

    @property
    def strength_name(self) -> str:
        """What a strength is in this sweep, for axes and tables: β where every swept variant is a loss of GPO's."""
        return "β" if all(self.methods[name] == records.GPO for name in self.swept) else "strength"

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

    @property
    def setting_keys(self) -> tuple[str, ...]:
        """Learning rate and further swept keys of which some method's finished cells have more than one value."""
        return tuple(settings.varied(self.cells, self.checkpoints, self.plan))

    def by_setting(self) -> list[tuple[dict[str, Any], "Sweep"]]:
        """Parts in which no method's cells differ in more than variant, strength and seed, each with its setting.

        One pair ``({}, self)`` when nothing else was swept. Statistics take one part at a time, because a
        frontier or an optimal β pooled over learning rates answers no question. A method that has one value of a
        swept key, or none, stands beside the others in every part.
        """
        return [
            (setting, replace(self, cells=cells, checkpoints=checkpoints))
            for setting, cells, checkpoints in settings.split(self.cells, self.checkpoints, self.plan)
        ]

    def only(self, **conditions: Any) -> "Sweep":
        """The cells with these values of plan keys, such as ``lr=5e-4`` or ``**{"labels.flip_rate": 0.1}``.

        Raises:
            RefusedSweep: a key that the plan does not have, or no finished cell is left.
        """
        cells, checkpoints = self.cells, self.checkpoints
        for key, value in conditions.items():
            if key not in cells or key in STATE_COLUMNS:
                there = settings.key_names(self.plan)
                raise RefusedSweep(f"{self.path}: nothing to select by {key!r}; the plan has {there}")
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
            One row per cell, checkpoint and response: ``cell, variant, strength, lr, seed, step`` and `columns`.
        Raises:
            RefusedSweep: a cell is not finished, or its samples are missing or lack a column.
        """
        final = self.final.set_index("cell")
        names = list(final.index) if cells is None else list(cells)
        if unknown := [name for name in names if name not in final.index]:
            raise RefusedSweep(f"{self.path}: {unknown[0]!r} is not a finished cell of this sweep")
        wanted = list(dict.fromkeys(["step", *columns]))
        keys = final.loc[names, ["variant", "strength", "lr", "seed", "step"]]

        def read(item: tuple[Any, ...]) -> pa.Table:
            name, variant, strength, lr, seed, last_step = item
            table = _read_samples(self.path / name / records.SAMPLES_FILE, wanted)
            if final_only:
                table = table.filter(pa.compute.equal(table["step"], last_step))
            labels = {"cell": name, "variant": variant, "strength": strength, "lr": lr, "seed": seed}
            for key, value in reversed(labels.items()):
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
        path = self.path / f"{stem}-{self.fingerprint(key)}.parquet"
        if not path.exists():
            return None
        try:
            frame = pd.read_parquet(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise RefusedSweep(f"{path}: cannot be read ({error}); delete it and run the sweep again") from error
        if absent := [name for name in _SHARED_COLUMNS[stem] if name not in frame]:
            raise RefusedSweep(f"{path}: no column {absent[0]}; delete it and run the sweep again")
        return frame

    def fingerprint(self, key: str) -> str:
        """The one value of ``gold_model``, ``reference`` or ``preferences``; empty where no cell has one."""
        known = self.checkpoints[key].dropna()
        return "" if known.empty else str(known.iloc[0])


def _read_samples(path: Path, columns: list[str]) -> pa.Table:
    if not path.exists():
        raise RefusedSweep(f"{path}: the cell is finished but its samples are missing")
    try:
        there = set(pq.read_schema(path).names)
        absent = [name for name in columns if name in _OLDER and name not in there]
        wanted = [name for name in columns if name not in absent]
        table = pq.read_table(path, columns=wanted, use_threads=False).select(wanted)
        for name in absent:
            table = table.append_column(name, pa.repeat(pa.scalar(_OLDER[name]), len(table)))
        return table.select(columns)
    except (KeyError, pa.ArrowInvalid) as error:
        raise RefusedSweep(f"{path}: cannot read {', '.join(columns)} ({error})") from error


def _warnings(sweep: Sweep) -> Iterator[str]:
    if not sweep.unfinished.empty:
        counts = ", ".join(f"{count} {state}" for state, count in sweep.unfinished["state"].value_counts().items())
        yield f"{len(sweep.unfinished)} of {len(sweep.cells)} planned cells are not finished ({counts}) and left out."
    seeds = sweep.final.groupby("method")["seed"].agg(set)
    groups = sweep.final.groupby(["method", "variant", "strength"], sort=False)["seed"].agg(set)
    lacking = [
        f"{variant} at {sweep.strength_name} = {strength:g}"
        for (method, variant, strength), present in groups.items()
        if present != seeds[method]
    ]
    if lacking:
        pairs = f"{len(groups)} pairs of variant and {sweep.strength_name}"
        yield f"Seeds are missing for {len(lacking)} of {pairs}, such as {lacking[0]}."
    for stem, key, lost in (
        ("reference", "reference", "no best-of-n, no ceiling"),
        ("labels", "preferences", "nothing on how sure labels were"),
    ):
        if (fingerprint := sweep.fingerprint(key)) and not (sweep.path / f"{stem}-{fingerprint}.parquet").exists():
            yield f"{stem}-{fingerprint}.parquet is missing: {lost}."
    if len(sweep.seeds) == 1:
        yield "One seed only: intervals cover the choice of prompts, not the variation between runs."
    if (commits := sweep.checkpoints["git_commit"].nunique()) > 1:
        yield f"Cells were made with {commits} versions of the code."
