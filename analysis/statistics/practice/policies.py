"""Trained policies with the gold of their samples, prompt by prompt."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.data.sweep import EXTERNAL, Sweep
from analysis.statistics.intervals import LEVEL


@dataclass(frozen=True)
class Policies:
    """Trained policies of a sweep, in the order of its plan.

    Attributes:
        rows: their last records: ``cell, variant, strength, seed, kl, gold, gold_se, held_out_loss, ...``.
        gold: means over each prompt's samples, [policies, prompts], SD units.
        length: likewise, tokens.
        within: mean over prompts of the variance between samples of one prompt, [policies]; NaN with one sample.
        samples: samples per prompt.
    """

    rows: pd.DataFrame
    gold: np.ndarray
    length: np.ndarray
    within: np.ndarray
    samples: int


def read_policies(sweep: Sweep) -> Policies | None:
    """The trained policies of a sweep; None where samples are missing, or not on the same prompts."""
    rows = sweep.final[sweep.final["method"] != EXTERNAL].reset_index(drop=True)
    if rows.empty or not sweep.has_samples:
        return None
    samples = sweep.samples(["prompt_id", "gold", "length"], cells=rows["cell"])
    groups = samples.groupby([pd.Categorical(samples["cell"], categories=rows["cell"]), "prompt_id"], observed=False)
    means = groups[["gold", "length"]].mean()
    if means.isna().to_numpy().any():
        return None
    per_prompt = groups.size()
    within = groups["gold"].var(ddof=1).groupby(level=0, observed=False).mean()
    gold, length = (means[key].to_numpy().reshape(len(rows), -1) for key in ("gold", "length"))
    return Policies(rows, gold, length, within.to_numpy(), int(per_prompt.min()))


def over_seeds(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and t interval of one value per seed; limits are NaN with fewer than two that differ."""
    values = np.asarray(values, dtype=float)
    count, mean = len(values), float(np.mean(values)) if len(values) else np.nan
    if count < 2 or np.ptp(values) == 0:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half
