"""Numbers and frames as JSON that may stand inside a page."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd


def to_script_json(value: Any) -> str:
    """JSON that may stand inside a <script> element: no text in it can end the element or open another.

    Raises:
        ValueError: NaN or infinity in it.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def numbers(values: Iterable[float]) -> list[float | int | None]:
    """JSON numbers with five significant digits; None where not finite."""
    array = np.asarray(list(values) if not hasattr(values, "__array__") else values)
    if array.dtype.kind in "iub":
        return array.astype(int).tolist()
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in array.astype(float)]


def by_variant(frame: pd.DataFrame, index: dict[str, int], columns: tuple[str, ...]) -> dict[int, dict[str, Any]]:
    """Number of the variant -> column -> numbers."""
    return {
        index[str(variant)]: {column: numbers(rows[column]) for column in columns}
        for variant, rows in frame.groupby("variant", sort=False)
    }
