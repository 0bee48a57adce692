"""The cells a sweep consists of, resolved and checked before anything is built or trained."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from bench.config import CellConfig, ConfigError, build_checked, named_keys, select
from bench.records import CONFIG_FILE, GPO, PLAN_FILE, SCHEMA_VERSION, read_plan, read_status, write_json, write_text


def overridden_keys(overrides: Sequence[str]) -> list[str]:
    """Keys of command-line overrides: ``optim.lr`` of ``+optim.lr=1e-3``."""
    return [override.partition("=")[0].lstrip("+~") for override in overrides]


@dataclass(frozen=True)
class PlannedCell:
    """One cell: its directory's name, its configuration and the command-line overrides that made it."""

    name: str
    config: CellConfig
    overrides: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        return self.config.sweep_dir / self.name

    @property
    def is_finished(self) -> bool:
        """Whether the cell's status says that another attempt is not needed or not useful."""
        status = read_status(self.directory)
        return status is not None and status.is_final

    def summary(self) -> dict[str, Any]:
        """The cell's row in plan.json: name, fingerprint, and every key that it is named by."""
        config = self.config
        row: dict[str, Any] = {
            "cell": self.name, "config": config.fingerprint, "method": GPO, "variant": config.loss,
            "strength": config.beta, "lr": config.optim.lr,
        }  # fmt: skip
        for key in named_keys(overridden_keys(self.overrides)):
            row[key] = select(config, key)
        return row


def write_plan(sweep_dir: Path, cells: Sequence[PlannedCell], command: Sequence[str]) -> None:
    """Add `cells` to the sweep's plan; cells planned by an earlier call stay."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(sweep_dir / f".{PLAN_FILE}.lock"):
        earlier = read_plan(sweep_dir)
        planned = {row["cell"]: row for row in earlier["cells"]}
        planned.update((cell.name, cell.summary()) for cell in cells)
        plan = {
            "schema": SCHEMA_VERSION, "sweep": sweep_dir.name, "command": list(command),
            "cells": list(planned.values()),
        }  # fmt: skip
        if plan != earlier:  # an untouched file tells the report that nothing changed
            write_json(sweep_dir / PLAN_FILE, plan)


def write_cell_config(cell_dir: Path, config: CellConfig) -> None:
    """Write the resolved configuration, which `check_cell_config` compares on the next call."""
    write_text(cell_dir / CONFIG_FILE, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def check_cell_config(cell: PlannedCell) -> None:
    """Refuse a cell's directory that was made with another configuration.

    Raises:
        ConfigError: naming the keys that differ; nothing in the directory is touched.
    """
    path = cell.directory / CONFIG_FILE
    if not path.exists():
        return
    try:
        earlier = build_checked(CellConfig, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(
            f"{path}: not a configuration of this version ({error}); move {cell.directory} away or use another sweep="
        ) from error
    if earlier.fingerprint != cell.config.fingerprint:
        was, now = _flat(asdict(earlier)), _flat(asdict(cell.config))
        changed = [f"{k}: {was.get(k)!r} there, {now.get(k)!r} now" for k in {**was, **now} if was.get(k) != now.get(k)]
        raise ConfigError(
            f"{cell.directory} was made with another configuration ({'; '.join(changed)}). "
            "It is not overwritten: use another sweep=NAME, or move it away"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
