"""Gold with the part that length buys taken out, and what the implicit reward goes with."""

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep
from analysis.statistics.practice.policies import Policies, over_seeds

COLUMNS = ("variant", "strength", "kl", "length", "gold", "controlled", "controlled_low", "controlled_high", "kind")
_AVERAGED = ("reward", "with_gold", "with_length")
IMPLICIT_COLUMNS = (
    "variant", "strength", "kl", "length", "cells",
    *(f"{key}{suffix}" for key in _AVERAGED for suffix in ("", "_low", "_high")), "kind",
)  # fmt: skip


def length_slope(reference: pd.DataFrame) -> float:
    """Gold per token among π_ref's samples of one prompt: least squares with a level for every prompt, SD per token."""
    groups = reference.groupby("prompt_id")
    length = reference["length"] - groups["length"].transform("mean")
    gold = reference["gold"] - groups["gold"].transform("mean")
    return float((length * gold).sum() / (length**2).sum()) if (length**2).sum() > 0 else 0.0


def control_length(policies: Policies, reference: pd.DataFrame) -> pd.DataFrame:
    """Gold of every configuration at π_ref's length of the same prompt.

    controlled = gold − slope · (length − π_ref's mean length on the prompt), with the slope among π_ref's own samples:
    linear, and only as good as that line is outside of π_ref's lengths.

    Returns:
        COLUMNS, averaged over seeds, with t intervals over seeds.
    """
    slope = length_slope(reference)
    usual = reference.groupby("prompt_id")["length"].mean().to_numpy()
    if len(usual) != policies.length.shape[1]:
        return pd.DataFrame(columns=list(COLUMNS))
    controlled = (policies.gold - slope * (policies.length - usual)).mean(axis=1)
    table = policies.rows[["variant", "strength", "kl", "gold"]].assign(
        controlled=controlled, length=policies.length.mean(axis=1)
    )
    rows = []
    for (variant, strength), part in table.groupby(["variant", "strength"], sort=False):
        kind = "seeds_only" if len(part) > 1 else "none"
        means = (float(part[key].mean()) for key in ("kl", "length", "gold"))
        rows.append((variant, strength, *means, *over_seeds(part["controlled"].to_numpy()), kind))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def implicit_reward(sweep: Sweep, policies: Policies) -> pd.DataFrame:
    """The implicit reward β · log(π / π_ref) of a policy's own samples, and what it goes with.

    Returns:
        IMPLICIT_COLUMNS: mean over a policy's samples (nats; NaN where a method has no β), and among the samples of a
        policy Spearman's rank correlations with gold and with length (NaN where one of them is constant); all averaged
        over seeds, with t intervals.
    """
    samples = sweep.samples(["gold", "length", "kl_k1"], cells=policies.rows["cell"])
    rows = []
    by_cell = dict(iter(samples.groupby("cell", sort=False)))
    beta = policies.rows["beta"] if "beta" in policies.rows else pd.Series(np.nan, policies.rows.index)
    for row, strength_of_reward in zip(policies.rows.itertuples(), beta, strict=True):
        own = by_cell[row.cell]
        ranks = own[["kl_k1", "gold", "length"]].rank().to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.corrcoef(ranks, rowvar=False)[0]
        reward = (np.nan if strength_of_reward is None else strength_of_reward) * own["kl_k1"].mean()
        rows.append((row.variant, row.strength, row.kl, own["length"].mean(), reward, *correlation[1:]))
    table = pd.DataFrame(rows, columns=["variant", "strength", "kl", "length", *_AVERAGED])
    found = []
    for (variant, strength), part in table.groupby(["variant", "strength"], sort=False):
        averaged = [limit for key in _AVERAGED for limit in over_seeds(part[key].dropna().to_numpy())]
        kind = "seeds_only" if len(part) > 1 else "none"
        found.append((variant, strength, part["kl"].mean(), part["length"].mean(), len(part), *averaged, kind))
    return pd.DataFrame(found, columns=list(IMPLICIT_COLUMNS))
