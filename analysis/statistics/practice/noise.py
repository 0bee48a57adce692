"""Where the noise of a cell's gold comes from, the smallest difference a sweep can see, and what to buy next.

A cell's gold is a mean over P prompts with M samples each. At one strength, over repetitions with new seeds, prompts
and samples,

    V = σ²_seed + σ²_run + σ²_prompt / P + σ²_sample / (P M)

σ²_seed is shared by all variants of a seed (its pairs, their order, its draws) and σ²_prompt by all cells; both cancel
in differences that are paired by seed on the same prompts. σ²_run is what remains between seeds of one variant (seed ×
variant); the noise of samples is taken out of it. Estimated by the mean squares of two two-way layouts, variants by
seeds and cells by prompts. Strengths are kept apart: where a policy leaves π_ref far behind, runs scatter ten times as
much, and an average over strengths would speak of those alone.
"""

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.statistics.intervals import LEVEL
from analysis.statistics.practice.policies import Policies

SOURCES = ("seed", "run", "prompt", "sample")
COLUMNS = (
    "strength", "variants", "seeds", "source", "variance", "variance_low", "variance_high", "sd", "share", "cancels",
    "kind",
)  # fmt: skip
DETECTABLE_COLUMNS = ("strength", "purchase", "seeds", "prompts", "samples", "difference")
POWER = 0.8
PURCHASES = {"as it is": (1, 1, 1), "twice the seeds": (2, 1, 1), "twice the prompts": (1, 2, 1),
             "twice the samples per prompt": (1, 1, 2)}  # fmt: skip


def split_variance(policies: Policies) -> pd.DataFrame:
    """Variance components of a cell's gold at every strength that two variants or more have with the same seeds.

    Variants whose runs are the same to the last bit count once: between them there is no noise to see.

    Returns:
        COLUMNS: part of the variance of one cell's gold (SD²) with Williams' interval, and whether it cancels in paired
        differences. Without several samples per prompt their part cannot be told from that of runs: it is NaN, and
        within `run`. No rows for a strength with fewer than two seeds or variants.
    """
    rows = []
    for strength, part in policies.rows.groupby("strength"):
        places = part.reset_index().pivot_table(index="variant", columns="seed", values="index").dropna(axis=1)
        cells = places.to_numpy(dtype=int)
        if cells.size:
            cells = cells[np.sort(np.unique(policies.gold[cells], axis=0, return_index=True)[1])]
        if min(cells.shape) >= 2 and policies.gold.shape[1] >= 2:
            rows += [(strength, *cells.shape, *row) for row in _components(policies, cells)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _components(policies: Policies, cells: np.ndarray) -> list[tuple]:
    """Rows of COLUMNS from `source` on, from cells [variants, seeds] (rows of `policies`)."""
    variants, seeds = cells.shape
    by_prompt = policies.gold[cells.ravel()]
    count, prompts = by_prompt.shape
    gold = by_prompt.mean(axis=1).reshape(cells.shape)
    of_seeds, of_runs = _mean_squares(gold)
    of_prompts, of_rest = _mean_squares(by_prompt)
    freedom = (variants - 1) * (seeds - 1)
    sample, samples = float(np.mean(policies.within[cells])) / (prompts * policies.samples), policies.samples
    drawn, free = (sample, float(count * prompts * (samples - 1))) if np.isfinite(sample) else (0.0, np.inf)
    parts = [
        component(of_seeds, seeds - 1, of_runs, freedom, variants),
        component(of_runs, freedom, drawn, free, 1),
        component(of_prompts, prompts - 1, of_rest, (prompts - 1) * (count - 1), count * prompts),
        component(sample, free, 0.0, np.inf, 1) if np.isfinite(sample) else (np.nan,) * 3,
    ]
    total = np.nansum([part[0] for part in parts])
    return [
        (source, *part, np.sqrt(part[0]), part[0] / total if total > 0 else np.nan, cancels,
         "none" if np.isnan(part[1]) else "mean_squares")
        for source, part, cancels in zip(SOURCES, parts, (True, False, True, False), strict=True)
    ]  # fmt: skip


def _mean_squares(values: np.ndarray) -> tuple[float, float]:
    """Of columns and of residuals, in a two-way layout [rows, columns] with one value each."""
    rows, columns = values.shape
    residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return rows * values.mean(axis=0).var(ddof=1), (residual**2).sum() / ((rows - 1) * (columns - 1))


def component(above: float, freedom: float, below: float, freedom_below: float, count: int) -> tuple[float, ...]:
    """(above − below) / count of two mean squares, not below 0, with Williams' interval (1962, Biometrika 49:278).

    It covers at least 90 % and close to 95 %; exact where `below` is 0. Limits are NaN where all values are equal.
    """
    if above <= 1e-20:
        return max(above, 0.0), np.nan, np.nan
    limits = []
    for tail in ((1 + LEVEL) / 2, (1 - LEVEL) / 2):
        ratio = 0.0
        if below > 0:
            finite = np.isfinite(freedom_below)
            ratio = below * (stats.f.ppf(tail, freedom, freedom_below) if finite else 1.0)
        limits.append(max(freedom * (above - ratio) / (count * stats.chi2.ppf(tail, freedom)), 0.0))
    return max((above - below) / count, 0.0), *limits


def detectable(policies: Policies, components: pd.DataFrame) -> pd.DataFrame:
    """The smallest difference between two variants at one strength that a paired t test finds in 80 % of sweeps.

    Returns:
        DETECTABLE_COLUMNS, SD units; for the sweep as it is and with twice as much of one thing. Empty without
        components.
    """
    rows = []
    prompts = policies.gold.shape[1]
    for strength, part in components.groupby("strength"):
        variance = part.set_index("source")["variance"]
        seeds = int(part["seeds"].iloc[0])
        for name, (more_seeds, more_prompts, more_samples) in PURCHASES.items():
            count = seeds * more_seeds
            each = variance["run"] + np.nan_to_num(variance["sample"]) / (more_prompts * more_samples)
            difference = noncentrality(count - 1) * np.sqrt(2 * each / count)
            bought = (count, prompts * more_prompts, policies.samples * more_samples)
            rows.append((strength, name, *bought, difference))
    return pd.DataFrame(rows, columns=list(DETECTABLE_COLUMNS))


def noncentrality(freedom: float) -> float:
    """Difference over its standard error that a two-sided t test at 5 % finds with probability POWER."""
    critical = stats.t.ppf((1 + LEVEL) / 2, freedom)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, freedom, shift) - POWER, 0.1, 200.0))


def visible_at_equal_kl(pairwise: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """The smallest difference between two frontiers at equal KL that a paired t test finds in 80 % of sweeps.

    Args:
        pairwise: `analysis.statistics.frontier.Frontiers.pairwise`, with the standard error of every difference.
        seeds: of the sweep; with one, the errors are those of prompts and there is no answer.
    Returns:
        ``kl, pairs, difference``: by KL budget, from the median standard error over pairs.
    """
    known = pairwise.dropna(subset="difference_se") if seeds > 1 else pairwise.head(0)
    by_kl = known.groupby("kl")["difference_se"].agg(["size", "median"]).reset_index()
    by_kl["median"] *= noncentrality(seeds - 1) if seeds > 1 else 1.0
    return by_kl.set_axis(["kl", "pairs", "difference"], axis=1)
