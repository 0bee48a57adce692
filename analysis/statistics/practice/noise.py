"""Where the noise of a cell's gold comes from, the smallest difference a sweep can see, and what to buy next.

A cell's gold is a mean over P prompts with M samples each. Over repetitions, with new seeds, prompts and samples,

    V = σ²_seed + σ²_run + σ²_prompt / P + σ²_sample / (P M)

σ²_seed is shared by all variants and strengths of a seed (its pairs, their order, its draws) and σ²_prompt by all
cells; both cancel in differences that are paired by seed on the same prompts. σ²_run is what remains between seeds of
one configuration; the noise of samples is taken out of it. Estimated by the mean squares of a two-way layout,
configurations by seeds.
"""

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.practice.policies import Policies

SOURCES = ("seed", "run", "prompt", "sample")
POWER, LEVEL = 0.8, 0.95
PURCHASES = {"as it is": (1, 1, 1), "twice the seeds": (2, 1, 1), "twice the prompts": (1, 2, 1),
             "twice the samples per prompt": (1, 1, 2)}  # fmt: skip


def split_variance(policies: Policies) -> pd.DataFrame:
    """Variance components of a cell's gold, averaged over configurations that every seed has.

    Returns:
        ``source, variance, sd, share, cancels``: part of the variance of one cell's gold (SD²), and whether it cancels
        in paired differences. Without several samples per prompt their part cannot be told from that of runs: it is
        NaN, and within `run`. Empty with fewer than two seeds or configurations.
    """
    table = policies.rows.assign(gold=policies.gold.mean(axis=1)).pivot_table(
        index=["variant", "strength"], columns="seed", values="gold"
    )
    table = table.dropna()
    if min(table.shape) < 2:
        return pd.DataFrame(columns=["source", "variance", "sd", "share", "cancels"])
    values = table.to_numpy()
    configurations, seeds = values.shape
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    mean_square = (residual**2).sum() / ((configurations - 1) * (seeds - 1))
    seed = (configurations * values.mean(0).var(ddof=1) - mean_square) / configurations
    prompts, within = policies.gold.shape[1], float(np.mean(policies.within))
    sample = within / (prompts * policies.samples)
    # Prompts' own means, over all cells; what single cells add to their variance is sampling.
    between = policies.gold.mean(axis=0).var(ddof=1) - policies.gold.var(axis=0, ddof=1).mean() / len(policies.gold)
    run = mean_square if np.isnan(sample) else mean_square - sample
    parts = np.maximum([seed, run, between / prompts, sample], 0)
    total = np.nansum(parts)
    return pd.DataFrame({
        "source": SOURCES, "variance": parts, "sd": np.sqrt(parts), "share": parts / total,
        "cancels": [True, False, True, False],
    })  # fmt: skip


def detectable(policies: Policies, components: pd.DataFrame) -> pd.DataFrame:
    """The smallest difference between two variants at one strength that a paired t test finds in 80 % of sweeps.

    Returns:
        ``purchase, seeds, prompts, samples, difference``, SD units; for the sweep as it is and with twice as much of
        one thing. Empty without components.
    """
    columns = ["purchase", "seeds", "prompts", "samples", "difference"]
    if components.empty:
        return pd.DataFrame(columns=columns)
    variance = components.set_index("source")["variance"]
    seeds, prompts = policies.rows["seed"].nunique(), policies.gold.shape[1]
    rows = []
    for name, (more_seeds, more_prompts, more_samples) in PURCHASES.items():
        count = seeds * more_seeds
        each = variance["run"] + np.nan_to_num(variance["sample"]) / (more_prompts * more_samples)
        t = stats.t.ppf((1 + LEVEL) / 2, count - 1) + stats.t.ppf(POWER, count - 1)
        difference = t * np.sqrt(2 * each / count)
        rows.append((name, count, prompts * more_prompts, policies.samples * more_samples, difference))
    return pd.DataFrame(rows, columns=columns)
