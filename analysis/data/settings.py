"""Settings: what a sweep varies beside variant, strength and seed, and the parts it falls into by them."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import pandas as pd

# What may differ between cells of one analysis; anything else that a sweep varies is a *setting*.
ANALYZED_KEYS = ("variant", "strength", "seed")
# Said by variant and strength.
_OF_THE_VARIANT = ("method", "loss", "beta")

Setting = dict[str, Any]


def further_keys(plan: Mapping[str, Any]) -> list[str]:
    """Swept keys of the plan beside variant, strength, seed and learning rate (``lr``, however it was swept)."""
    known = {"cell", "config", "lr", "optim.lr", *ANALYZED_KEYS, *_OF_THE_VARIANT}
    return [key for key in dict.fromkeys(chain(*plan["cells"])) if key not in known]


def key_names(plan: Mapping[str, Any]) -> str:
    """Keys of the plan that cells can be selected by, for messages."""
    return ", ".join([*ANALYZED_KEYS, "lr", *further_keys(plan)])


def varied(cells: pd.DataFrame, checkpoints: pd.DataFrame, plan: Mapping[str, Any]) -> dict[str, set[str]]:
    """Settings, and the methods of whose finished cells each has several values."""
    keys = [key for key in cells.columns if key in ("lr", *further_keys(plan))]
    counts = checkpoints.groupby("method")[keys].nunique()
    return {key: methods for key in keys if (methods := set(counts.index[counts[key] > 1]))}


def split(
    cells: pd.DataFrame, checkpoints: pd.DataFrame, plan: Mapping[str, Any]
) -> Iterator[tuple[Setting, pd.DataFrame, pd.DataFrame]]:
    """Every setting with its planned cells and its checkpoints; one without keys where nothing else was swept.

    A method that has one value of a key, or none, was not trained at several settings: it stands beside the others
    at each.
    """
    methods = varied(cells, checkpoints, plan)
    if not methods:
        yield {}, cells, checkpoints
        return
    planned, measured = (_values(frame, methods) for frame in (cells, checkpoints))
    distinct = list(dict.fromkeys(measured))
    for chosen in distinct:
        if any(other != chosen and _agrees(chosen, other) for other in distinct):
            continue  # it stands in the more specific parts
        setting = {key: value for key, value in zip(methods, chosen, strict=True) if value is not None}
        yield setting, _part(cells, planned, chosen), _part(checkpoints, measured, chosen)


def _values(frame: pd.DataFrame, methods: Mapping[str, set[str]]) -> list[tuple[Any, ...]]:
    """The setting of every row, None for a key that its method does not vary or has not."""
    columns = [
        [
            value if method in methods[key] and pd.notna(value) else None
            for value, method in zip(values, of, strict=True)
        ]
        for key, values, of in ((key, frame[key].tolist(), frame["method"]) for key in methods)
    ]
    return list(zip(*columns, strict=True))


def _part(frame: pd.DataFrame, rows: list[tuple[Any, ...]], chosen: tuple[Any, ...]) -> pd.DataFrame:
    return frame[[_agrees(row, chosen) for row in rows]].reset_index(drop=True)


def _agrees(general: tuple[Any, ...], specific: tuple[Any, ...]) -> bool:
    """Whether every key that `general` has a value of has the same in `specific`."""
    return all(value is None or value == other for value, other in zip(general, specific, strict=True))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def made_with(plan: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every planned cell with its settings by dotted key; those of plans by older versions are not known."""
    bases = {key: flat(value) for key, value in plan["settings"].items()}
    for cell, job in plan["jobs"].items():
        yield cell, bases.get(job["settings"], {}) | job["changes"]
