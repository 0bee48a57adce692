"""Frames below each other, where there may be none."""

from collections.abc import Sequence

import pandas as pd

_TEXTS = {"variant", "variant_a", "variant_b", "form", "edge", "kind", "note", "verdict", "at"}


def stack(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One frame; without any, one of no rows with `columns`, of the types that drawing and merging expect."""
    if frames:
        return pd.concat(frames, ignore_index=True)
    return pd.DataFrame({name: pd.Series(dtype=str if name in _TEXTS else float) for name in columns})


def stack_rows(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """`stack` for rows of `columns`."""
    return stack([pd.DataFrame(rows, columns=list(columns))] if rows else [], columns)
