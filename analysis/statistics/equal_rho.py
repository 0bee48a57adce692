"""KL of the variants' policies at equal E[ρ²]: how much of KL the μ-weighted squared loss leaves open."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.intervals import LEVEL

COLUMNS = ("variant_a", "variant_b", "rho_sq", "ratio", "ratio_low", "ratio_high", "seeds")
_POINTS = 7


@dataclass(frozen=True)
class EqualRho:
    """KL of one variant over KL of another where both have the same E[ρ²].

    Attributes:
        ratios: ``variant_a, variant_b, rho_sq, ratio, ratio_low, ratio_high, seeds``; t intervals over seeds of the log
            ratio, paired by seed, simultaneous over all rows (Bonferroni).
        largest, low, high: the ratio furthest from 1, made larger than 1, with its interval; `high` is the largest that
            any row's interval allows. NaN without rows.
    """

    ratios: pd.DataFrame
    largest: float
    low: float
    high: float


def compare_at_equal_rho(final: pd.DataFrame) -> EqualRho:
    """Compare the last checkpoints of all pairs of variants.

    Log KL is interpolated linearly in log E[ρ²] between the policies of one variant and seed. Points are spaced evenly
    in log E[ρ²] over what every variant and seed covers.

    Args:
        final: ``variant, seed, kl, rho_sq_mean`` of trained policies.
    """
    known = final[(final["kl"] > 0) & (final["rho_sq_mean"] > 0)]
    logs = known[["variant", "seed"]].assign(x=np.log(known["rho_sq_mean"]), y=np.log(known["kl"]))
    lines = {key: rows.groupby("x")["y"].mean() for key, rows in logs.groupby(["variant", "seed"], sort=False)}
    lines = {key: line for key, line in lines.items() if len(line) > 1}
    low = max((line.index[0] for line in lines.values()), default=np.nan)
    high = min((line.index[-1] for line in lines.values()), default=np.nan)
    if not low < high:
        return EqualRho(pd.DataFrame(columns=list(COLUMNS)), np.nan, np.nan, np.nan)
    at = np.linspace(low, high, _POINTS)
    values = {key: np.interp(at, line.index, line.to_numpy()) for key, line in lines.items()}
    pairs = list(combinations(dict.fromkeys(variant for variant, _ in values), 2))
    rows = [row for a, b in pairs for row in _compare(a, b, at, values, comparisons=len(pairs) * _POINTS)]
    ratios = pd.DataFrame(rows, columns=list(COLUMNS))
    return EqualRho(ratios, *_largest(ratios))


def _compare(
    a: str, b: str, at: np.ndarray, values: dict[tuple[str, int], np.ndarray], *, comparisons: int
) -> list[tuple]:
    seeds = [seed for variant, seed in values if variant == a and (b, seed) in values]
    if len(seeds) < 2:
        return []
    gaps = np.stack([values[a, seed] - values[b, seed] for seed in seeds])
    critical = stats.t.isf((1 - LEVEL) / 2 / comparisons, len(seeds) - 1)
    mean, half = gaps.mean(axis=0), critical * gaps.std(axis=0, ddof=1) / len(seeds) ** 0.5
    columns = (np.exp(each) for each in (at, mean, mean - half, mean + half))
    return [(a, b, *map(float, row), len(seeds)) for row in zip(*columns, strict=True)]


def _largest(ratios: pd.DataFrame) -> tuple[float, float, float]:
    if ratios.empty:
        return np.nan, np.nan, np.nan
    estimate, low, high = (np.log(ratios[key].to_numpy(float)) for key in ("ratio", "ratio_low", "ratio_high"))
    row = int(np.abs(estimate).argmax())
    ends = (low[row], high[row]) if estimate[row] >= 0 else (-high[row], -low[row])
    return float(np.exp(abs(estimate[row]))), float(np.exp(ends[0])), float(np.exp(np.maximum(high, -low).max()))
