"""A cell: one run, named by the settings that tell it apart."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from bench.checked import fingerprint_of
from bench.config import CellConfig, WorldConfig
from bench.records import BEST_OF_N, ONLINE, RLOO, DamagedRecord, read_status

# Settings that say where a cell runs or is filed, not what it is; `world` alone is named by its group.
NOT_IN_NAMES = (
    "sweep", "experiment", "device", "runs_dir", "artifacts_dir", "tracking", "save", "resume", "workers",
    "parallel", "hydra",
)  # fmt: skip
ALWAYS_IN_NAMES = ("loss", "beta", "seed")
_FIRST = {  # in its place, of methods that may stand beside it in one sweep
    ONLINE: ("method", *ALWAYS_IN_NAMES),
    RLOO: ("method", "beta", "seed"),
    BEST_OF_N: ("method", "seed"),
}
_EXTERNAL_KEYS = ("external.variant", "external.strength", "seed")
_LONGEST_NAME = 200  # bytes; file systems take 255, and temporary files have longer names


@dataclass(frozen=True)
class Cell:
    """One cell: its directory's name, its configuration, the keys it is named by, and the sweep it belongs to."""

    name: str
    config: CellConfig
    keys: tuple[str, ...]
    sweep_dir: Path

    @classmethod
    def of(cls, config: CellConfig, overridden: Iterable[str] = ()) -> "Cell":
        """The cell of a configuration, in the sweep that it names.

        Args:
            overridden: keys given on the command line or by the sweep, such as ``optim.lr``.
        """
        keys = named_keys(config, overridden)
        return cls(cell_name(config, keys), config, keys, Path(config.runs_dir) / config.sweep)

    def on(self, device: str, processes: int) -> "Cell":
        """The same cell where this process runs it.

        Args:
            processes: that share its work.
        Raises:
            ConfigError: its batches cannot be shared among so many.
        """
        parallel = replace(self.config.parallel, processes=processes)
        return replace(self, config=replace(self.config, device=device, parallel=parallel))

    @property
    def directory(self) -> Path:
        return self.sweep_dir / self.name

    @property
    def id(self) -> str:
        """12 hex digits: the same for the same cell of the same sweep, wherever it runs."""
        return fingerprint_of([self.config.sweep, self.name, self.config.fingerprint])

    @property
    def is_finished(self) -> bool:
        """Whether the cell's status says that another attempt is not needed or not useful.

        One that cannot be read is for its user to look at; it stops no other cell.
        """
        try:
            status = read_status(self.directory)
        except DamagedRecord:
            return False
        return status is not None and status.is_final

    def summary(self) -> dict[str, Any]:
        """The cell's row in plan.json."""
        config = self.config
        row: dict[str, Any] = {
            "cell": self.name, "config": config.fingerprint, "method": config.method, "variant": config.variant,
            "strength": config.strength, "seed": config.seed,
        }  # fmt: skip
        if config.external is not None:
            return row
        row["lr"] = config.optim.lr
        return row | {key: select(config, key) for key in self.keys}


def named_keys(config: CellConfig, overridden: Iterable[str] = ()) -> tuple[str, ...]:
    """The keys that a cell is named by: loss, β and seed, then other overridden ones that can change results."""
    if config.external is not None:
        return _EXTERNAL_KEYS
    first = _FIRST.get(config.method, ALWAYS_IN_NAMES)
    hidden = (*NOT_IN_NAMES, *ALWAYS_IN_NAMES, *first)
    return (*first, *sorted({key for key in overridden if re.split(r"[./]", key)[0] not in hidden}))


def cell_name(config: CellConfig, keys: Iterable[str]) -> str:
    """Directory name of a cell: its named keys, values in one spelling.

    A name that file systems would refuse holds a hash of the keys after the seed instead of the keys.
    """
    parts = [f"{key.removeprefix('external.')}={_spell(select(config, key))}" for key in keys]
    if len(",".join(parts).encode()) > _LONGEST_NAME:
        shown = len(_FIRST.get(config.method, ALWAYS_IN_NAMES))
        parts = [*parts[:shown], f"others={fingerprint_of(parts[shown:])}"]
    return ",".join(parts)


def select(config: CellConfig, key: str) -> Any:
    """Value of a dotted key such as ``optim.lr``; a world is given by its name."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    if isinstance(value, WorldConfig):
        return value.name
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, (list, tuple)):
        return "+".join(map(_spell, value)) or "none"
    return "null" if value is None else str(value).replace("/", "_").replace(",", ";")
