"""Human comparisons: which of two responses to a prompt a rater preferred."""

import pandas as pd

from gold_rm.reward_model import GoldModelError

TRAIN, HELD_OUT = "train", "held_out"
COLUMNS = ("prompt", "chosen", "rejected", "split")


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
