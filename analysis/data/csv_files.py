"""Tables as CSV that a spreadsheet shows and does not execute."""

from pathlib import Path

import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` without its index; texts that a spreadsheet would take for formulas begin with an apostrophe."""
    frame = frame.copy()
    for place in range(frame.shape[1]):
        if not pd.api.types.is_numeric_dtype(frame.dtypes.iloc[place]):
            frame.isetitem(place, frame.iloc[:, place].map(_as_text))
    frame.columns = [_as_text(column) for column in frame.columns]
    frame.to_csv(path, index=False)


def _as_text(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
