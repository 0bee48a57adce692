"""Configurations whose E[ρ²] and KL are in opposite order, beyond what runs scatter.

A configuration is a variant at a strength after some steps. In each seed two configurations differ in log E[ρ²] and in
log KL; over seeds both differences have a paired t test. A pair is *discordant* when the configuration with the smaller
E[ρ²] has the larger KL. Its p-value is the larger of the two one-sided ones (intersection-union), and false discoveries
among all ordered pairs are controlled whatever their dependence (Benjamini & Yekutieli 2001, Annals of Statistics
29:1165). Two policies of one seed can be in opposite order by the accident of one run, however precisely they are
measured; their configurations cannot.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.intervals import LEVEL

CONFIGURATION = ["variant", "strength", "step"]
_ROUNDING = 1e-12  # of log differences: what it leaves of equal values is no variance


@dataclass(frozen=True)
class DiscordantPair:
    """Two configurations: a has the smaller E[ρ²] and the larger KL.

    Ratios are a over b, geometric means over the seeds, with paired t intervals; `seeds` is the number of seeds, of
    `of_seeds`, in which both are in this order.
    """

    variant_a: str
    strength_a: float
    step_a: int
    variant_b: str
    strength_b: float
    step_b: int
    seeds: int
    of_seeds: int
    rho_sq_ratio: float
    rho_sq_ratio_low: float
    rho_sq_ratio_high: float
    kl_ratio: float
    kl_ratio_low: float
    kl_ratio_high: float


@dataclass(frozen=True)
class Configurations:
    """What was compared.

    Attributes:
        compared: pairs of configurations that every seed has.
        discordant: those of them that are.
        clearest: of these the one with the smallest p-value; None when there is none.
    """

    compared: int
    discordant: int
    clearest: DiscordantPair | None


def compare_configurations(checkpoints: pd.DataFrame, *, false_discovery_rate: float) -> Configurations:
    """Compare the order of E[ρ²] with the order of KL among configurations.

    Args:
        checkpoints: ``variant, strength, seed, step, kl, rho_sq_mean``, KL and E[ρ²] above 0, a row per policy.
            Configurations that some seed lacks are not compared, nor is anything with fewer than two seeds.
    """
    tables = [
        np.log(checkpoints.pivot_table(index=CONFIGURATION, columns="seed", values=key).dropna())
        for key in ("rho_sq_mean", "kl")
    ]
    if len(tables[0]) < 2 or tables[0].shape[1] < 2:
        return Configurations(0, 0, None)
    a, b = np.triu_indices(len(tables[0]), 1)
    a, b = np.concatenate([a, b]), np.concatenate([b, a])  # in both orders
    rho_sq, kl = (table.to_numpy()[a] - table.to_numpy()[b] for table in tables)
    freedom = rho_sq.shape[1] - 1
    p = np.maximum(stats.t.cdf(_t(rho_sq), freedom), stats.t.sf(_t(kl), freedom))
    found = stats.false_discovery_control(p, method="by") <= false_discovery_rate
    clearest = None
    if found.any():
        best = int(np.argmin(p))
        first, second = (tables[0].index[each[best]] for each in (a, b))
        in_order = int(((rho_sq[best] < 0) & (kl[best] > 0)).sum())
        ratios = (*_ratio(rho_sq[best]), *_ratio(kl[best]))
        clearest = DiscordantPair(*first, *second, in_order, freedom + 1, *ratios)  # type: ignore[call-arg]
    return Configurations(len(a) // 2, int(found.sum()), clearest)


def _t(differences: np.ndarray) -> np.ndarray:
    """t of the mean of each row; 0 where a row does not vary."""
    se = differences.std(axis=1, ddof=1) / np.sqrt(differences.shape[1])
    known = se > _ROUNDING
    return np.where(known, differences.mean(axis=1) / np.where(known, se, 1), 0.0)


def _ratio(differences: np.ndarray) -> tuple[float, float, float]:
    """exp of the mean of log ratios [seeds], with its t interval."""
    mean, seeds = differences.mean(), len(differences)
    half = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * differences.std(ddof=1) / np.sqrt(seeds)
    return float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))
