"""Runs that ended below the reference, and how often one variant's run beats another's."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.intervals import LEVEL
from analysis.statistics.practice.policies import Policies

KL_BUDGETS = (0.5, 1.0, 2.0)  # nats
BELOW_COLUMNS = ("variant", "seed", "cells", "below", "rate", "rate_low", "rate_high", "kind")
IMPROVEMENT_COLUMNS = ("variant_a", "variant_b", "kl", "probability", "probability_low", "probability_high", "seeds",
                       "kind")  # fmt: skip
_RESAMPLES = 2000


def below_reference(rows: pd.DataFrame) -> pd.DataFrame:
    """How many trained policies score below π_ref beyond noise (one-sided 97.5 % over prompts).

    Returns:
        BELOW_COLUMNS; a row per variant over all seeds (seed is NaN) with Clopper and Pearson's interval, which takes
        runs as independent, and one per variant and seed without.
    """
    below = rows["gold"] + stats.norm.ppf((1 + LEVEL) / 2) * rows["gold_se"] < 0
    counted = rows[["variant", "seed"]].assign(below=below)
    table = []
    for variant, part in counted.groupby("variant", sort=False):
        count = int(part["below"].sum())
        exact = stats.binomtest(count, len(part)).proportion_ci(LEVEL, method="exact")
        table.append((variant, np.nan, len(part), count, count / len(part), *exact, "exact_binomial"))
        for seed, own in part.groupby("seed"):
            count = int(own["below"].sum())
            table.append((variant, seed, len(own), count, count / len(own), np.nan, np.nan, "none"))
    return pd.DataFrame(table, columns=list(BELOW_COLUMNS))


def gold_by_seed(rows: pd.DataFrame, kl: float) -> pd.Series:
    """Gold of each seed at a KL, [seeds]: linear in √KL between that seed's own policies; NaN outside of them."""

    def at(part: pd.DataFrame) -> float:
        points = part.groupby("kl")["gold"].mean()
        d = np.sqrt(points.index.to_numpy())
        return float(np.interp(np.sqrt(kl), d, points.to_numpy(), left=np.nan, right=np.nan))

    return rows.groupby("seed").apply(at, include_groups=False)


def probability_of_improvement(policies: Policies, rng: np.random.Generator) -> pd.DataFrame:
    """P(a run of a beats a run of b) at equal KL, ties count 1/2 (Agarwal et al. 2021, arXiv 2108.13264, section 4.3).

    Over all pairs of runs, also of different seeds; limits are percentiles over seeds drawn anew, which are a little
    narrow with few seeds.

    Returns:
        IMPROVEMENT_COLUMNS; only where every seed of both variants covers the KL.
    """
    groups = list(policies.rows.groupby("variant", sort=False))
    rows = []
    for kl in KL_BUDGETS:
        values = {str(variant): gold_by_seed(part, kl).to_numpy() for variant, part in groups}
        covering = {variant: own for variant, own in values.items() if len(own) > 1 and not np.isnan(own).any()}
        for (a, own), (b, other) in combinations(covering.items(), 2):
            drawn = rng.integers(0, len(own), (_RESAMPLES, len(own)))
            drawn_other = drawn if len(own) == len(other) else rng.integers(0, len(other), (_RESAMPLES, len(other)))
            wins = (own[:, None] > other) + 0.5 * (own[:, None] == other)
            resampled = wins[drawn[:, :, None], drawn_other[:, None, :]].mean(axis=(1, 2))
            limits = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            rows.append((a, b, kl, wins.mean(), *limits, len(own), "seed_bootstrap"))
    return pd.DataFrame(rows, columns=list(IMPROVEMENT_COLUMNS))
