"""plan.json: the cells that a sweep consists of.

    sha256    of the rest, as `write_checked_json` makes it
    schema    SCHEMA_VERSION
    sweep     name of the sweep
    command   what was typed, word by word
    cells     a row per cell: its directory's name, `config` (fingerprint), method, variant, strength, seed, loss, beta,
              lr, and every further key that it is named by
    settings  by name, a full configuration as nested mappings
    prepared  by name, what the driver has built: paths (relative to the sweep's directory) and fingerprints
    call      id of the call that planned last; later ones compare as greater
    called    by cell, the latest call that asked for it
    code      of the version that planned last: `sha256` of its source files, `commit`
    published by name, SHA-256 of the files that analyses share
    jobs      by cell, what a worker needs to run it: `settings` and `prepared` (names), `changes` (dotted keys)

Plans from before there were workers have no settings, prepared, jobs, call, called, code and published.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.records.files import LARGEST_INT, PLAN_FILE, DamagedRecord, read_json
from bench.records.metrics import GPO, SCHEMA_VERSION

_ADVICE = "move it away and start the sweep again: finished cells are kept"


def empty_plan(sweep: str) -> dict[str, Any]:
    """A plan without cells."""
    return {
        "schema": SCHEMA_VERSION, "sweep": sweep, "command": [], "cells": [],
        "settings": {}, "prepared": {}, "jobs": {}, "called": {}, "published": {}, "code": {},
    }  # fmt: skip


def read_plan(sweep_dir: Path) -> dict[str, Any]:
    """The sweep's plan; one without cells if there is none yet. Older plans get what they lack.

    Raises:
        DamagedRecord: plan.json is not a plan of this version.
    """
    path = sweep_dir / PLAN_FILE
    plan = empty_plan(sweep_dir.name)
    if not path.exists():
        return plan
    plan |= {"schema": None, "cells": None} | read_json(path, "a plan", _ADVICE)
    if plan["schema"] != SCHEMA_VERSION:
        raise DamagedRecord(f"{path}: schema {plan['schema']!r}, this version reads {SCHEMA_VERSION}")
    for key, value in empty_plan("").items():
        if not isinstance(plan[key], type(value)):
            raise DamagedRecord(f"{path}: not a plan ({key} = {plan[key]!r:.80}); {_ADVICE}")
    plan["cells"] = [_checked(row, f"{path}: cell {number}") for number, row in enumerate(plan["cells"], start=1)]
    names = [row["cell"] for row in plan["cells"]]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DamagedRecord(f"{path}: cell {twice} is planned twice; {_ADVICE}")
    return plan


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("cell"), str):
        raise DamagedRecord(f"{where} has no name; {_ADVICE}")
    if row["cell"] in ("", ".", "..") or "/" in row["cell"]:
        raise DamagedRecord(f"{where}: {row['cell']!r:.80} is not the name of a directory; {_ADVICE}")
    if "variant" not in row and "loss" in row and "beta" in row:
        row = {**row, "method": GPO, "variant": row["loss"], "strength": row["beta"]}
    for key, (may_lack, is_right, allowed) in _VALUES.items():
        value = row.get(key)
        if isinstance(value, bool) or not (is_right(value) or (may_lack and value is None)):
            raise DamagedRecord(f"{where} ({row['cell']}): {key} = {value!r:.80}, must be {allowed}; {_ADVICE}")
    return row


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < LARGEST_INT


# Key -> whether a row may lack it, the test of a value, and its words.
_VALUES: dict[str, tuple[bool, Callable[[Any], bool], str]] = {
    "variant": (False, lambda value: isinstance(value, str), "a text"),
    "strength": (False, _is_positive, "a number above 0"),
    "beta": (True, _is_positive, "a number above 0"),
    "lr": (True, _is_positive, "a number above 0"),
    "seed": (
        False,
        lambda value: isinstance(value, int) and 0 <= value < LARGEST_INT,
        "an integer from 0 to 2**63 - 1",
    ),
}
