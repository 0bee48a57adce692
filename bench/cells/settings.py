"""The configuration that a cell's folder was made with; it is compared on every call and never replaced."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bench.cells.cell import Cell
from bench.checked import ConfigError, build_checked
from bench.config import CellConfig
from bench.records import CONFIG_FILE, write_text

# libyaml's where PyYAML has it: a tenth of the time, which counts where hundreds of cells are compared.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def write_cell_config(cell: Cell) -> None:
    """Write the resolved configuration, which `check_cell_config` compares on the next call."""
    # Absent unless set: every other cell's file would say `external: null`.
    config = {
        key: value
        for key, value in json.loads(json.dumps(asdict(cell.config))).items()
        if key != "external" or value is not None
    }
    write_text(cell.directory / CONFIG_FILE, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def read_cell_config(cell_dir: Path) -> CellConfig:
    """The configuration that a cell was run with.

    Raises:
        ConfigError: the file is not a configuration of this version.
    """
    path = cell_dir / CONFIG_FILE
    try:
        return build_checked(CellConfig, yaml.load(path.read_text(encoding="utf-8"), _SafeLoader))
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
