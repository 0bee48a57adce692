"""Gold with the part that length buys taken out, and what the implicit reward goes with."""

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep
from analysis.statistics.practice.policies import Policies, over_seeds

COLUMNS = ("variant", "strength", "kl", "length", "gold", "controlled", "controlled_low", "controlled_high", "kind")


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
    """What a policy's log-ratio to π_ref, its implicit reward over β, goes with among its own samples.

    Returns:
        ``variant, strength, cells, with_gold, with_length``: Spearman's rank correlations of the sampled log-ratio with
        gold and with length, averaged over seeds; NaN where one of them is constant.
    """
    samples = sweep.samples(["gold", "length", "kl_k1"], cells=policies.rows["cell"])
    keys = ["variant", "strength", "seed"]
    ranks = samples.groupby(keys, sort=False)[["gold", "length", "kl_k1"]].rank()
    rows = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for (variant, strength, _), cell in pd.concat([samples[keys], ranks], axis=1).groupby(keys, sort=False):
            rows.append((variant, strength, cell["kl_k1"].corr(cell["gold"]), cell["kl_k1"].corr(cell["length"])))
    table = pd.DataFrame(rows, columns=["variant", "strength", "with_gold", "with_length"])
    groups = table.groupby(["variant", "strength"], sort=False)
    return groups.agg(
        cells=("with_gold", "size"), with_gold=("with_gold", "mean"), with_length=("with_length", "mean")
    ).reset_index()
