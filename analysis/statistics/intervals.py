"""Confidence intervals that name what they cover.

Variance of a statistic over runs and prompts, both drawn anew: with S seeds that share P prompts,

    V = σ²_seed/S + σ²_prompt/P + σ²_both/(S P)
    delete-one-seed jackknife              estimates  σ²_seed/S + σ²_both/(S P)
    prompts resampled for all cells        estimates  σ²_prompt/P + σ²_both/(S P)
    prompts resampled per seed             estimates  σ²_prompt/(S P) + σ²_both/(S P)

so V = jackknife + (joint − within)·S/(S − 1). The half-width is √(t²_{S−1} · jackknife + t²_{P−1} · prompts' part)
(Howe 1974, JASA 69:789): each part with the t of its own degrees of freedom. Satterthwaite's single t covers too little
with two seeds (88 % instead of 95 %), as it mistakes two runs that agree by luck for a precise estimate, and so does a
percentile bootstrap over few seeds (71 % and 81 % with two and three); tests/analysis/test_intervals.py simulates.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.resampling import Design

LEVEL = 0.95
_FLOOR = 1e-9  # where logarithms begin
# kind -> what a caption says about an interval of that kind.
KINDS = {
    "seeds": "t interval over seeds (delete-one-seed jackknife), with the variance of the shared prompts added",
    "prompts": "interval over evaluation prompts only (one seed): it does not cover the variation between runs",
    "simultaneous": "Tukey interval, simultaneous over all comparisons shown; seeds are blocks, seed variance is "
    "pooled over variants, variance of the shared prompts added",
    "simultaneous_prompts": "Tukey interval, simultaneous over all comparisons shown, over evaluation prompts only "
    "(one seed): it does not cover the variation between runs",
    "pool": "t interval over the evaluation prompts of π_ref's sample pool",
    "equal_rho": "t interval over seeds, simultaneous over pairs of variants and values of E[ρ²] (Bonferroni)",
    "seeds_only": "t interval over seeds, for these evaluation prompts",
    "mean_squares": "interval of a variance component from mean squares (Williams)",
    "exact_binomial": "Clopper and Pearson's interval, as if runs were independent",
    "seed_bootstrap": "percentiles over seeds drawn anew",
    "none": "no interval can be given",
}


@dataclass(frozen=True)
class Intervals:
    """Estimates of any shape with their intervals; every field has that shape.

    `kind` is a key of KINDS. Where the estimate is NaN or has no variance at all, `low` and `high` are NaN and the
    kind is ``none``: a zero-width interval is never given.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    se: np.ndarray
    kind: np.ndarray

    def columns(self, name: str) -> dict[str, np.ndarray]:
        """Columns ``name, name_low, name_high, name_se``."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high, f"{name}_se": self.se}


def interval(values: np.ndarray, design: Design, *, level: float = LEVEL) -> Intervals:
    """t intervals from replicate values.

    Args:
        values: [R, ...] a statistic in every version of the table (`analysis.statistics.resampling`).
    """
    values = np.asarray(values, dtype=float)
    seed_variance, prompt_variance = _variances(values, design)
    by_seeds = np.isfinite(seed_variance)
    kind = np.where(by_seeds, "seeds", "prompts")
    critical = [stats.t.ppf((1 + level) / 2, df) for df in (max(design.seed_count - 1, 1), design.prompts - 1)]
    return _intervals(values[0], np.where(by_seeds, seed_variance, 0.0), prompt_variance, critical, kind)


def log_interval(values: np.ndarray, design: Design, *, level: float = LEVEL) -> Intervals:
    """`interval` of a positive quantity, such as KL, made on its logarithm: no end is ever below 0.

    `se` is that of the quantity itself, by the delta method. An estimate of 0 or less has no interval.
    """
    estimate = np.asarray(values, dtype=float)[0]
    logs = interval(np.log(np.maximum(values, _FLOOR)), design, level=level)
    known = (estimate > _FLOOR) & (logs.kind != "none")
    low, high, se = (
        np.where(known, part, np.nan) for part in (np.exp(logs.low), np.exp(logs.high), estimate * logs.se)
    )
    return Intervals(estimate, low, high, se, np.where(known, logs.kind, "none"))


def _variances(values: np.ndarray, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Variance over seeds (NaN where only one seed, or a statistic that one seed alone determines) and over prompts."""
    seeds = design.seed_count
    without = design.without_seed(values)
    # Resampling P prompts has variance (P − 1)/P of the unbiased one.
    correction = design.prompts / (design.prompts - 1)
    joint, within = (part.var(axis=0) * correction for part in (design.joint(values), design.within(values)))
    if seeds < 2:
        return np.full(values.shape[1:], np.nan), np.maximum(joint, within)
    seed_variance = (seeds - 1) / seeds * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    shared = np.maximum(joint - within, 0) * seeds / (seeds - 1)
    return seed_variance, np.where(np.isfinite(seed_variance), shared, np.maximum(joint, within))


def _intervals(
    estimate: np.ndarray,
    seed_variance: np.ndarray,
    prompt_variance: np.ndarray,
    critical: list[float],
    kind: np.ndarray,
) -> Intervals:
    """Howe's interval; `critical` are the quantiles that belong to the two variances."""
    variance = seed_variance + prompt_variance
    # Relative to the estimate, rounding noise of identical values is not a variance.
    known = np.isfinite(estimate) & (variance > (1e-12 * (1 + np.abs(estimate))) ** 2)
    with np.errstate(invalid="ignore"):
        half = np.sqrt(critical[0] ** 2 * seed_variance + critical[1] ** 2 * prompt_variance)
        se = np.sqrt(variance)
    half, se = (np.where(known, values, np.nan) for values in (half, se))
    return Intervals(estimate, estimate - half, estimate + half, se, np.where(known, kind, "none"))


def compare_all(
    values: np.ndarray, names: list[str], designs: list[Design], *, comparisons: int = 1, level: float = LEVEL
) -> pd.DataFrame:
    """Differences between all pairs of variants, with simultaneous intervals.

    Seeds are blocks of a two-way layout without replication: a seed's effect that all variants share cancels, and what
    remains is pooled over variants, which gives (L − 1)(S − 1) degrees of freedom where one variant alone has S − 1
    (Tukey's method; it takes the remaining variance as equal between variants). The critical value is that of
    the studentized range, which is the distribution of the largest |t| over pairs.

    Args:
        values: [R, L] one statistic per variant in every version of the table.
        designs: of the variants; with other seeds in one than in another there is no interval (take `Draws.paired`).
        comparisons: how many such families are shown together; Bonferroni over them.
    Returns:
        ``variant_a, variant_b, difference, difference_low, difference_high, difference_se, kind``.
    """
    variants = len(names)
    pairs = list(combinations(range(variants), 2))
    design = designs[0]
    same_seeds = all(np.array_equal(each.seeds_used, design.seeds_used) for each in designs)
    contrasts = np.stack([values[:, a] - values[:, b] for a, b in pairs], axis=1)
    _, prompt_variance = _variances(contrasts, design)
    seeds = design.seed_count
    if seeds > 1:
        pseudo = seeds * values[0] - (seeds - 1) * design.without_seed(values)  # [S, L]
        residual = pseudo - pseudo.mean(0) - pseudo.mean(1, keepdims=True) + pseudo.mean()
        seeds_df = (variants - 1) * (seeds - 1)
        seed_variance = np.full(len(pairs), 2 * (residual**2).sum() / seeds_df / seeds)
    else:
        seed_variance, seeds_df = np.zeros(len(pairs)), 1
    family_level = 1 - (1 - level) / comparisons
    critical = [_tukey(family_level, variants, df) for df in (seeds_df, design.prompts - 1)]
    kind = np.full(len(pairs), "simultaneous" if seeds > 1 else "simultaneous_prompts", dtype=object)
    result = _intervals(contrasts[0], seed_variance, prompt_variance, critical, kind)
    if not same_seeds:
        nothing = np.full(len(pairs), np.nan)
        result = Intervals(contrasts[0], nothing, nothing, nothing, np.full(len(pairs), "none", dtype=object))
    names_a, names_b = ([names[pair[side]] for pair in pairs] for side in (0, 1))
    return pd.DataFrame(
        {"variant_a": names_a, "variant_b": names_b, **result.columns("difference"), "kind": result.kind}
    )


@lru_cache(maxsize=64)  # a fifth of a second each
def _tukey(level: float, variants: int, df: int) -> float:
    """Quantile of the largest |t| over pairs of variants."""
    return float(stats.studentized_range.ppf(level, variants, df) / np.sqrt(2))
