"""From a command line to configurations: the one room that knows Hydra and OmegaConf, by their public interface.

Hydra's own multirun has no resume and composes a cell's configuration only when the cell starts. So a sweep's cells
are composed here, all before the first is built or trained; Hydra's launchers start workers (`launch_with_hydra`).
"""

import argparse
import copy
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bench.checked import ConfigError, known_keys, nearest
from bench.config import CellConfig
from bench.sweep.overrides import NOT_BY_MODE, check_overrides

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"
CONFIG_NAME = "train"
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'|Key '([^']+)' is not in struct")


@dataclass(frozen=True)
class Job:
    """One composed configuration: nested mappings for `bench.config.cell_config`, and the overrides that made it."""

    settings: dict[str, Any]
    overrides: tuple[str, ...]

    @property
    def overridden(self) -> tuple[str, ...]:
        """Keys of the overrides: ``optim.lr`` of ``+optim.lr=1e-3``."""
        return tuple(override.partition("=")[0].lstrip("+~") for override in self.overrides)


@dataclass(frozen=True)
class SweepRequest:
    """What a command line with ``-m`` asks for.

    Attributes:
        jobs: one per cell, as the sweep is spelt; two spellings of one value are two jobs here.
        launcher: name of the launcher, such as ``joblib``.
        launcher_settings: its settings.
        fixed: configuration's name, and overrides that are the same for every job, for `launch_with_hydra`.
    """

    jobs: list[Job]
    launcher: str
    launcher_settings: dict[str, Any]
    fixed: tuple[str, ...]


def asks_for_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep, and for nothing that Hydra prints instead."""
    options, rest = _parser().parse_known_args(list(arguments))
    return options.multirun and not any(word.startswith("-") for word in rest)


def compose_one(arguments: Sequence[str]) -> Job | None:
    """The configuration that a command line without ``-m`` asks for; None where Hydra prints, as with ``--cfg job``.

    Raises:
        ConfigError: a key or value that is not known, with the nearest that is.
    """
    captured: list[Job] = []

    def capture(composed: DictConfig) -> None:
        captured.append(Job(_plain(composed), tuple(HydraConfig.get().overrides.task)))

    check_overrides(arguments)
    with _explained(), _arguments(arguments):
        hydra.main(config_path=str(CONFIG_DIR), config_name=CONFIG_NAME, version_base="1.3")(capture)()
    if len(captured) > 1:
        raise ConfigError(NOT_BY_MODE)
    return captured[0] if captured else None


def compose_sweep(arguments: Sequence[str]) -> SweepRequest:
    """Every job of a sweep: the product of all values that command line and experiment list.

    The experiments that the chosen one names under `also` are composed in the same way, with the same command line.

    Raises:
        ConfigError: as in `compose_one`; or a list of values for a key that is in no cell's name.
    """
    options, overrides = _parser().parse_known_args(list(arguments))
    # Of the call, not of its cells, but what people type: short for the launcher's setting.
    overrides = [f"hydra.launcher.{word}" if word.startswith("detach=") else word for word in overrides]
    check_overrides(overrides)
    if options.config_dir:
        overrides.append(f"hydra.searchpath=[file://{Path(options.config_dir).resolve()}]")
    with _explained(), hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        name = options.config_name or CONFIG_NAME
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        given = parser.parse_overrides(overrides)
        fixed = [override.input_line for override in given if not override.is_sweep_override()]
        base = hydra.compose(name, overrides=[*map(str, fixed)], return_hydra_config=True)
        swept = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
        composer = _JobComposer(name, parser)
        jobs = [composer(job) for job in _product([*parser.parse_overrides(swept), *given])]
        further = [str(each) for each in base.get("also") or []]
        chosen = OmegaConf.to_container(base.hydra.launcher, resolve=True)
        assert isinstance(chosen, dict)
        launcher = {str(key): value for key, value in chosen.items()}
        chosen_by = (f"--config-name={name}", *map(str, fixed))
        request = SweepRequest(jobs, base.hydra.runtime.choices["hydra/launcher"], launcher, chosen_by)
    parts = [compose_sweep([*map(str, arguments), f"experiment={part}"]) for part in further]
    return replace(request, jobs=[*request.jobs, *(job for part in parts for job in part.jobs)])


def launch_with_hydra(fixed: Iterable[str], task: Callable[[], None], count: int) -> None:
    """Run `task` in `count` jobs of the Hydra launcher that the overrides choose, as one multirun of Hydra's.

    Raises:
        Exception: whatever the launcher raises, as where its pool of processes is lost.
    """

    def run(composed: DictConfig) -> None:
        task()

    # Hydra's multirun numbers jobs by what they sweep over; nobody reads it.
    numbered = f"seed={','.join(map(str, range(count)))}"
    kept = [override for override in fixed if not override.startswith("seed=")]
    with _arguments(["--multirun", *kept, "hydra.sweeper.params=null", numbered]):
        hydra.main(config_path=str(CONFIG_DIR), config_name=CONFIG_NAME, version_base="1.3")(run)()


class _JobComposer:
    """Composes the configuration of a job.

    Hydra takes 0.1 s for one. Jobs that choose the same files and add or delete the same keys therefore share one
    composition, on which their plain values are then set.
    """

    def __init__(self, config_name: str, parser: OverridesParser) -> None:
        self._name, self._parser = config_name, parser
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._parsed: dict[str, tuple[Override, bool]] = {}

    def __call__(self, overrides: Sequence[str]) -> Job:
        parsed = [self._parse(override) for override in overrides]
        choices = tuple(str(override.input_line) for override, sets_value in parsed if not sets_value)
        if choices not in self._composed:
            self._composed[choices] = hydra.compose(self._name, overrides=list(choices))
        composed = copy.deepcopy(self._composed[choices])
        for override in (override for override, sets_value in parsed if sets_value):
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
        return Job(_plain(composed), tuple(overrides))

    def _parse(self, override: str) -> tuple[Override, bool]:
        """The override, and whether it sets a value; kept, as Hydra takes 10 ms to look up a group."""
        if override not in self._parsed:
            parsed = self._parser.parse_override(override)
            self._parsed[override] = parsed, _sets_value(parsed)
        return self._parsed[override]


def _sets_value(override: Override) -> bool:
    """Whether an override sets a value of a key that exists, as opposed to choosing a file, adding or deleting."""
    key = override.key_or_group
    if override.is_add() or override.is_delete() or override.is_force_add() or key.startswith("hydra"):
        return False
    return not GlobalHydra.instance().config_loader().get_group_options(key)


def _product(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Every combination of the values listed; a later override of a key takes the place of an earlier one."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(
                f"{override.input_line}: an interval has no list of values; use range(...) or choice(...)"
            )
        if not values[key]:
            raise ConfigError(f"{override.input_line}: lists no value")
    for job in itertools.product(*values.values()):
        yield list(job)


def _plain(composed: DictConfig) -> dict[str, Any]:
    composed = composed.copy()
    with open_dict(composed):
        for key in ("hydra", "also"):  # said to the driver, not of a cell
            composed.pop(key, None)
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn")
    return parser


@contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """What Hydra reads as the command line."""
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _explained() -> Iterator[None]:
    """Hydra's and OmegaConf's complaints in our words."""
    # Hydra then raises what it would otherwise print by itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except HydraException as error:
        raise ConfigError(_explain(str(error), error)) from error
    except RuntimeError as error:
        if isinstance(error, RecursionError):
            raise ConfigError("a value is nested too deeply") from error
        if "Invalid plugin" not in str(error):
            raise
        raise ConfigError(NOT_BY_MODE) from error  # our launcher, asked for by Hydra's own sweeper
    except (OmegaConfBaseException, ValueError, TypeError) as error:  # Hydra checks little of what it is given
        raise error if isinstance(error, ConfigError) else ConfigError(_explain(str(error), error)) from error


def _explain(text: str, error: Exception) -> str:
    message = text.split("\nConfig search path")[0].strip()
    if isinstance(error, OverrideParseException):
        said = " ".join(message.split("\nSee https")[0].split())
        return f"{error.override}: not in Hydra's grammar ({said}); a value with other signs is quoted, 'KEY=\"VALUE\"'"
    if unknown := _UNKNOWN_KEY.search(message):
        key = getattr(error, "full_key", None) or unknown.group(1) or unknown.group(2)
        known = ["experiment", *known_keys(CellConfig)]
        return f"{key}: no such key; did you mean {nearest(key, known)!r}? All keys: python -m bench.train --help"
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", message):
        group, name = missing.groups()
        options = re.search(r"Available options in '[^']+':\n((?:\s+\S+\n?)+)", message)
        known = options.group(1).split() if options else []
        hint = f"; did you mean {nearest(name, known)!r}? Known are {', '.join(known)}" if known else ""
        return f"{group}={name}: no such file in conf/{group}{hint}"
    if isinstance(error.__cause__, OmegaConfBaseException):
        return f"{message}: {str(error.__cause__).splitlines()[0]}"
    return " ".join(message.split()) if isinstance(error, HydraException) else message.splitlines()[0]
