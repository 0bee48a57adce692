"""The configuration that a cell's folder was made with; it is compared on every call and never replaced."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bench.cells.cell import Cell
from bench.checked import ConfigError, build_checked
from bench.config import BUILT_IN_LOSSES, CellConfig
from bench.records import CONFIG_FILE, RECORDS_FILE, read_records, write_text

_NAME_CODE = ("loss", "proxy.loss")
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
    found = _read(cell_dir)
    try:
        return build_checked(CellConfig, found)
    except ConfigError as error:
        raise _not_a_configuration(cell_dir, error) from error


def _read(cell_dir: Path) -> dict[str, Any]:
    path = cell_dir / CONFIG_FILE
    if not path.is_file():  # a pipe of that name would be waited for
        raise _not_a_configuration(cell_dir, "no regular file")
    try:
        text = path.read_text(encoding="utf-8")
        # An alias stands for what it names, again and again: a few lines are gigabytes. We write none.
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _SafeLoader)):
            raise _not_a_configuration(cell_dir, "it holds YAML aliases")
        found = yaml.load(text, _SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _not_a_configuration(cell_dir, error) from error
    if not isinstance(found, dict):
        raise _not_a_configuration(cell_dir, f"a {type(found).__name__}")
    return found


def _not_a_configuration(cell_dir: Path, why: object) -> ConfigError:
    return ConfigError(
        f"{cell_dir / CONFIG_FILE}: not a configuration of this version ({why}); move {cell_dir} away or use another "
        "sweep="
    )


def check_cell_config(cell: Cell) -> None:
    """Refuse a cell's directory that was made with another configuration.

    Raises:
        ConfigError: naming the keys that differ, or a user's loss that was edited; nothing there is touched.
    """
    if not (cell.directory / CONFIG_FILE).exists():
        return
    found, now = flat(_read(cell.directory)), flat(asdict(cell.config))
    # A module that only the folder names is not imported to find out that it is another one.
    if all(found.get(key) in (None, now[key], *BUILT_IN_LOSSES) for key in _NAME_CODE):
        earlier = read_cell_config(cell.directory)
        if earlier.fingerprint == cell.config.fingerprint:
            _check_own_loss(cell)
            return
        found = flat(asdict(earlier))
    changed = [
        f"{k}: {found.get(k)!r} there, {now.get(k)!r} now" for k in {**found, **now} if found.get(k) != now.get(k)
    ]
    raise ConfigError(
        f"{cell.directory} was made with another configuration ({'; '.join(changed)}). "
        "It is not overwritten: use another sweep=NAME, or move it away"
    )


def _check_own_loss(cell: Cell) -> None:
    """A loss of the user's own is edited in its place: records say which one it was."""
    config, path = cell.config, cell.directory / RECORDS_FILE
    if config.has_loss and config.loss not in BUILT_IN_LOSSES and path.exists():
        rows = read_records(path, allow_partial=True)
        if rows and rows[0]["config"] != config.fingerprint:
            raise ConfigError(
                f"{cell.directory}: loss {config.loss!r} was another function when it was trained (values or slopes on "
                "[−10, 10] differ). Records of two functions are not mixed: give the new one a name of its own, or "
                "use another sweep=NAME"
            )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return result
