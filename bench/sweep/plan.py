"""The cells a sweep consists of: resolved and checked before anything is built or trained, and kept in plan.json."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cells.cell import NOT_IN_NAMES, Cell
from bench.cells.settings import check_cell_config, flat
from bench.checked import ConfigError, fingerprint_of
from bench.claims import hold
from bench.config import BUILT_IN_LOSSES, CellConfig, cell_config
from bench.data.prepared import Prepared
from bench.data.published import published_files
from bench.provenance import code_hash, git_commit
from bench.records import PLAN_FILE, DamagedRecord, read_plan, read_status, remove_temporaries, write_checked_json
from bench.sweep.joining import require_same_code

if TYPE_CHECKING:
    from bench.sweep.compose import Job  # Hydra, which a worker need not wait for


def plan_cells(jobs: "Iterable[Job]") -> list[Cell]:
    """The cells of a sweep's jobs, each checked; two spellings of one value are one cell.

    Raises:
        ConfigError: a setting that cannot be run, a directory made with other settings, several sweeps at once, or
            different settings under one name.
    """
    cells: dict[str, Cell] = {}
    origin: dict[str, Job] = {}
    for job in jobs:
        config = cell_config(job.settings)
        cell = Cell.of(config, job.overridden)
        twin = cells.setdefault(cell.name, cell)
        if twin is cell:
            check_cell_config(cell)
            origin[cell.name] = job
        elif twin.config.fingerprint != config.fingerprint:
            raise ConfigError(
                f"{' '.join(origin[cell.name].overrides)} and {' '.join(job.overrides)} are different settings of one "
                f"cell, {cell.name}"
            )
        elif unnamed := _differing(twin.config, config):
            raise ConfigError(
                f"{', '.join(unnamed)}: several values, but a cell is not named by {unnamed[0].split('.')[0]}, so one "
                "sweep can have one value only"
            )
    return list(cells.values())


def _differing(one: CellConfig, other: CellConfig) -> list[str]:
    """Keys that differ between two configurations of one name, of those that no name shows."""
    was, now = flat(asdict(one)), flat(asdict(other))
    return [key for key in was if was[key] != now.get(key) and key.split(".")[0] in NOT_IN_NAMES]


def write_plan(
    sweep_dir: Path, cells: Sequence[Cell], prepared: Mapping[str, Prepared], command: Sequence[str], call: str
) -> None:
    """Add `cells` to the sweep's plan; cells planned by an earlier call stay.

    A call that adds nothing and has nothing to run leaves the file untouched, which tells the report that nothing
    has changed.

    Args:
        prepared: by the cells' names.
        call: id of the call; cells that fail under it are not tried again before the next one.
    """
    sweep_dir.mkdir(parents=True, exist_ok=True)
    # The sweep's own directory: unlike one made for the purpose, it stays, so nobody waits for what is removed
    # meanwhile; and cells are claimed in theirs, so planning disturbs no worker.
    with hold(sweep_dir) as claim:
        plan = read_plan(sweep_dir)
        before = deepcopy(plan)
        rows = {row["cell"]: row for row in plan["cells"]}
        for cell in cells:
            rows[cell.name] = cell.summary()
            plan["jobs"][cell.name] = _job(cell, prepared[cell.name], plan)
        plan |= {"sweep": sweep_dir.name, "command": list(command), "cells": list(rows.values())}
        if plan != before or not all(cell.is_finished for cell in cells):
            claim.require_held()
            remove_temporaries(sweep_dir, PLAN_FILE)
            called = {cell.name: max(call, plan["called"].get(cell.name, call)) for cell in cells}
            code = {"sha256": code_hash(), "commit": git_commit()}
            new = {"call": call, "called": plan["called"] | called, "code": code}
            write_checked_json(sweep_dir / PLAN_FILE, plan | new)


def _job(cell: Cell, prepared: Prepared, plan: dict[str, Any]) -> dict[str, Any]:
    """What a worker needs, in few words: one cell's settings are another's with changes."""
    settings = json.loads(json.dumps(asdict(cell.config)))  # as it will be read: tuples are lists
    # Where these differ, so do the keys that there are.
    common = fingerprint_of([settings["world"], settings["external"]])
    base = plan["settings"].setdefault(common, settings)
    was, now = flat(base), flat(settings)
    parts = prepared.to_plan(cell.sweep_dir)
    plan["prepared"][name := fingerprint_of(parts)] = parts
    plan["published"] |= published_files(prepared)
    # A base from an older version lacks keys that came later.
    changes = {key: value for key, value in now.items() if key not in was or was[key] != value}
    return {"settings": common, "prepared": name, "changes": changes}


@dataclass(frozen=True)
class PlannedJobs:
    """What a plan holds for workers. A cell's configuration is made when it is asked for: 10,000 would take 100 MB.

    Attributes:
        names: the cells, in the plan's order.
        call: id of the call that planned last.
    """

    sweep_dir: Path
    names: list[str]
    call: str
    _jobs: dict[str, dict[str, Any]]
    _settings: dict[str, dict[str, Any]]
    _fingerprints: dict[str, str]
    _prepared: dict[str, Prepared]

    def job(self, name: str) -> tuple[Cell, Prepared]:
        """A cell and what it stands on.

        Raises:
            DamagedRecord: the plan lacks what workers need.
            ConfigError: the cell's loss is not the function that was planned.
        """
        with _explained(self.sweep_dir):
            job = self._jobs[name]
            config = cell_config(_changed(self._settings[job["settings"]], job["changes"]))
            is_own = config.has_loss and config.loss not in BUILT_IN_LOSSES
            if is_own and config.fingerprint != self._fingerprints[name]:
                raise ConfigError(
                    f"loss {config.loss!r} is another function here than the one that the sweep was planned with; plan "
                    "it again where they are the same"
                )
            return Cell(name, config, (), self.sweep_dir), self._prepared[job["prepared"]]


def read_planned(sweep_dir: Path, call: str | None = None, *, to_run: bool = False) -> PlannedJobs:
    """What workers of a planned sweep need.

    Args:
        call: only the cells that this call has asked for, or a later one, which the two then share.
        to_run: by this process, whose code must be the one that planned them.
    Raises:
        DamagedRecord: there is no plan, or it lacks what workers need.
        ConfigError: they are to be run, and another version of the code has planned them.
    """
    plan = read_plan(sweep_dir)
    if to_run:
        require_same_code(sweep_dir, plan)
    if not plan["jobs"]:
        why = "was planned by an older version" if plan["cells"] else f"has no {PLAN_FILE}"
        raise DamagedRecord(f"{sweep_dir}: {why}; plan it with python -m bench.train -m sweep={sweep_dir.name} …")
    with _explained(sweep_dir):
        return PlannedJobs(
            sweep_dir,
            [name for name in plan["jobs"] if call is None or plan["called"].get(name, plan["call"]) >= call],
            str(plan["call"]),
            plan["jobs"],
            plan["settings"],
            {row["cell"]: row["config"] for row in plan["cells"]},
            {name: Prepared.from_plan(parts, sweep_dir) for name, parts in plan["prepared"].items()},
        )


def read_jobs(sweep_dir: Path) -> list[tuple[Cell, Prepared]]:
    """Every cell of a planned sweep with what it stands on; see `read_planned` and `PlannedJobs.job`."""
    planned = read_planned(sweep_dir)
    return [planned.job(name) for name in planned.names]


@contextmanager
def _explained(sweep_dir: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedRecord(
            f"{sweep_dir / PLAN_FILE}: lacks what workers need ({error!r}); plan the sweep again"
        ) from error


def _changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = deepcopy(dict(settings))
    for key, value in changes.items():
        *groups, last = key.split(".")
        branch = changed
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = value
    return changed


def is_planned(sweep_dir: Path, cells: Sequence[Cell]) -> bool:
    """Whether the plan holds all of `cells`, with these settings and for workers."""
    plan = read_plan(sweep_dir)
    rows = {row["cell"]: row.get("config") for row in plan["cells"]}
    return all(rows.get(cell.name) == cell.config.fingerprint and cell.name in plan["jobs"] for cell in cells)


def is_left(cell_dir: Path, call: str) -> bool:
    """Whether a cell still has to be run by workers of this call; see `CellStatus.is_settled`."""
    try:
        status = read_status(cell_dir)
    except DamagedRecord:  # the status table shows it; running the cell again would destroy what is there
        return False
    return status is None or not status.is_settled(call)
