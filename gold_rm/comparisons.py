"""Human comparisons: which of two responses to a prompt a rater preferred."""

from pathlib import Path

import pandas as pd

from gold_rm.reward_model import GoldModelError

TRAIN, HELD_OUT = "train", "held_out"
COLUMNS = ("prompt", "chosen", "rejected", "split")


def read_texts(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read text columns of a parquet file.

    Raises:
        GoldModelError: no such file, no parquet, a column is missing, or a value of one is.
    """
    if not path.is_file():
        raise GoldModelError(f"{path}: no such file; a parquet file with the columns {', '.join(columns)} is needed")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise GoldModelError(f"{path}: not a readable parquet file ({error})") from error
    if absent := [column for column in columns if column not in frame]:
        raise GoldModelError(f"{path}: column {absent[0]!r} is missing; needed are {', '.join(columns)}")
    if empty := [column for column in columns if frame[column].isna().any()]:
        raise GoldModelError(f"{path}: column {empty[0]!r} has {frame[empty[0]].isna().sum()} missing values")
    return frame[list(columns)]


def select_split(comparisons: pd.DataFrame, split: str) -> pd.DataFrame:
    """The comparisons of one split.

    Raises:
        GoldModelError: there are none; the splits that there are get named.
    """
    selected = comparisons[comparisons["split"] == split]
    if selected.empty:
        known = ", ".join(map(repr, sorted(comparisons["split"].unique()))) or "no splits"
        raise GoldModelError(f"no comparisons of split {split!r}; there are {known}")
    return selected
