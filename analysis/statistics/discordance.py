"""Does a smaller μ-weighted squared loss go with a smaller KL? Pairs of checkpoints, ordered beyond noise.

A configuration is one (variant, strength, step), averaged over seeds in log E[ρ²] and log KL (both are spread by
factors). A pair of configurations is *resolved* when both quantities differ beyond noise, and *discordant* when they
then differ in opposite directions: one such pair shows that the implication fails. Noise is the variation between
seeds, the pooled or the configuration's own standard deviation, whichever is larger; the critical t is Bonferroni's
over all pairs, so that the chance of any false discordant pair is at most 5 %.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.data.sweep import Sweep
from analysis.statistics.intervals import LEVEL

_BLOCK = 256  # configurations compared with all others at once, to bound memory


@dataclass(frozen=True)
class DiscordantPair:
    """The clearest discordant pair: configuration a has the smaller E[ρ²] and the larger KL.

    `kl_ratio` is KL(a) / KL(b) and `rho_sq_ratio` E[ρ²](a) / E[ρ²](b), with intervals simultaneous over all pairs.
    """

    variant_a: str
    strength_a: float
    step_a: int
    variant_b: str
    strength_b: float
    step_b: int
    rho_sq_ratio: float
    rho_sq_ratio_high: float
    kl_ratio: float
    kl_ratio_low: float
    kl_ratio_high: float


@dataclass(frozen=True)
class Discordance:
    """How far E[ρ²] orders KL.

    Attributes:
        rank_correlations: ``variant, cells, spearman, kendall`` of E[ρ²] and KL over final checkpoints; a last row has
            variant ``all``; NaN with fewer than three cells.
        pairs: ``pairs`` (within_variant | across_variants | all), ``compared, resolved, discordant, share`` (discordant
            over resolved, NaN when none is resolved).
        clearest: None when no pair is discordant.
        seeds: fewest seeds of a compared configuration; pairs are compared from two on.
    """

    rank_correlations: pd.DataFrame
    pairs: pd.DataFrame
    clearest: DiscordantPair | None
    seeds: int


def compare_orders(sweep: Sweep, variants: Collection[str] | None = None) -> Discordance:
    """Compare the order of E[ρ²] with the order of KL over all checkpoints after step 0.

    Args:
        variants: those to compare, all by default. Checkpoints that were not measured on held-out pairs never count.
    """
    checkpoints = sweep.checkpoints
    measured = checkpoints[checkpoints["rho_sq_mean"].notna()]
    if variants is not None:
        measured = measured[measured["variant"].isin(list(variants))]
    moved = measured.query("step > 0 and rho_sq_mean > 0 and kl > 0")
    configurations = _configurations(moved)
    counts = {"within_variant": np.zeros(3, dtype=int), "across_variants": np.zeros(3, dtype=int)}
    clearest = None
    if len(configurations) > 1:
        counts, clearest = _compare(configurations)
    counts["all"] = counts["within_variant"] + counts["across_variants"]
    pairs = pd.DataFrame(
        [(name, *values, values[2] / values[1] if values[1] else np.nan) for name, values in counts.items()],
        columns=["pairs", "compared", "resolved", "discordant", "share"],
    )
    seeds = int(configurations["seeds"].min()) if len(configurations) else 1
    return Discordance(_rank_correlations(measured[measured["is_final"]]), pairs, clearest, seeds)


def _rank_correlations(final: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for variant, cells in [*final.groupby("variant", sort=False), ("all", final)]:
        distinct = min(len(cells["rho_sq_mean"].unique()), len(cells["kl"].unique()))
        known = len(cells) > 2 and distinct > 1
        both = cells["rho_sq_mean"], cells["kl"]
        spearman = stats.spearmanr(*both).statistic if known else np.nan
        kendall = stats.kendalltau(*both).statistic if known else np.nan
        rows.append((variant, len(cells), spearman, kendall))
    return pd.DataFrame(rows, columns=["variant", "cells", "spearman", "kendall"])


def _configurations(rows: pd.DataFrame) -> pd.DataFrame:
    """Configurations with at least two seeds: ``variant, strength, step, seeds, x, y, x_variance, y_variance, df``.

    x is log E[ρ²], y log KL, averaged over seeds; variances are of these means.
    """
    logs = rows[["variant", "strength", "step"]].assign(x=np.log(rows["rho_sq_mean"]), y=np.log(rows["kl"]))
    groups = logs.groupby(["variant", "strength", "step"], sort=False)
    result = groups[["x", "y"]].mean()
    variance = groups[["x", "y"]].var(ddof=1)
    result["seeds"] = groups.size()
    repeated = result["seeds"] > 1
    result, variance = result[repeated], variance[repeated]
    freedom = result["seeds"] - 1
    for name in ("x", "y"):
        pooled = (variance[name] * freedom).sum() / max(freedom.sum(), 1)
        result[f"{name}_variance"] = np.maximum(variance[name], pooled) / result["seeds"]
    return result.assign(df=freedom.sum()).reset_index()


def _compare(configurations: pd.DataFrame) -> tuple[dict[str, np.ndarray], DiscordantPair | None]:
    """(compared, resolved, discordant) within a variant and across variants, and the clearest discordant pair."""
    number = len(configurations)
    level = 1 - (1 - LEVEL) / (number * (number - 1) / 2)
    critical = float(stats.t.ppf((1 + level) / 2, configurations["df"].iloc[0]))
    x, y, x_variance, y_variance = (configurations[key].to_numpy() for key in ("x", "y", "x_variance", "y_variance"))
    variant = pd.factorize(configurations["variant"])[0]
    counts = {"within_variant": np.zeros(3, dtype=int), "across_variants": np.zeros(3, dtype=int)}
    best, best_strength = None, 0.0
    for start in range(0, number, _BLOCK):
        a = np.arange(start, min(start + _BLOCK, number))
        later = a[:, None] < np.arange(number)  # each pair once
        t_x = (x[a, None] - x) / np.sqrt(x_variance[a, None] + x_variance)
        t_y = (y[a, None] - y) / np.sqrt(y_variance[a, None] + y_variance)
        strength = np.minimum(np.abs(t_x), np.abs(t_y))
        resolved = later & (strength > critical)
        discordant = resolved & (t_x * t_y < 0)
        same_variant = variant[a, None] == variant
        for name, chosen in (("within_variant", same_variant), ("across_variants", ~same_variant)):
            counts[name] += [int((part & chosen).sum()) for part in (later, resolved, discordant)]
        if discordant.any():
            index = np.unravel_index(np.where(discordant, strength, 0).argmax(), strength.shape)
            if strength[index] > best_strength:
                best, best_strength = (int(a[index[0]]), int(index[1])), strength[index]
    return counts, None if best is None else _describe(configurations, best, critical)


def _describe(configurations: pd.DataFrame, pair: tuple[int, int], critical: float) -> DiscordantPair:
    a, b = sorted(pair, key=lambda number: configurations["x"].iloc[number])
    first, second = configurations.iloc[a], configurations.iloc[b]
    half_x, half_y = (critical * np.sqrt(first[key] + second[key]) for key in ("x_variance", "y_variance"))
    gap_x, gap_y = first["x"] - second["x"], first["y"] - second["y"]
    return DiscordantPair(
        str(first["variant"]), float(first["strength"]), int(first["step"]),
        str(second["variant"]), float(second["strength"]), int(second["step"]),
        *(float(np.exp(value)) for value in (gap_x, gap_x + half_x, gap_y, gap_y - half_y, gap_y + half_y)),
    )  # fmt: skip
