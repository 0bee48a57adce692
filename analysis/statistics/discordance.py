"""Does a smaller μ-weighted squared loss go with a smaller KL? Pairs of policies, tested against noise.

A policy is one checkpoint after step 0 of one cell. Two policies of one seed are measured on the same held-out pairs
and on the same evaluation prompts, with the same draws, so both differences, of E[ρ²] and of KL, have paired standard
errors. A pair of policies is *discordant* when the one with the smaller E[ρ²] has the larger KL: one such pair shows
that the implication fails. Pairs are chosen on one half of the held-out pairs and prompts and tested on the other, so
that the choice does not flatter the test. The p-value of a pair is the larger of its two one-sided ones
(intersection-union), and false discoveries among all chosen pairs of all seeds are controlled whatever their dependence
(Benjamini & Yekutieli 2001, Annals of Statistics 29:1165). That is about these policies, any of which may be an
accident of its run; `configurations` tests what holds over seeds.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.configurations import Configurations, compare_configurations
from analysis.statistics.equal_rho import EqualRho, compare_at_equal_rho

FALSE_DISCOVERY_RATE = 0.05
_CHOSEN_BEYOND = 2.0  # |t| of both differences on the first half
KINDS = ("within_variant", "across_variants")


@dataclass(frozen=True)
class Discordance:
    """How far E[ρ²] orders KL.

    Attributes:
        rank_correlations: ``variant, cells, spearman, kendall`` of E[ρ²] and KL over final checkpoints; a last row has
            variant ``all``; NaN with fewer than three cells.
        pairs: ``pairs`` (within_variant | across_variants | all), ``compared`` (pairs of policies of one seed),
            ``chosen`` (in opposite order on the first half), ``discordant`` (confirmed on the other), ``share``
            (discordant over compared).
        by_seed: ``seed, compared, chosen, discordant``.
        at_equal_rho: KL of the variants' policies at equal E[ρ²], step by step.
        configurations: the same of configurations, over seeds.
        tested: False where ρ or KL of single pairs or prompts are not kept; policies are not compared then.
    """

    rank_correlations: pd.DataFrame
    pairs: pd.DataFrame
    by_seed: pd.DataFrame
    at_equal_rho: EqualRho
    configurations: Configurations
    tested: bool


@dataclass(frozen=True)
class _Halves:
    """One quantity of n policies on the two halves of its units: means and covariances of the means."""

    mean: tuple[np.ndarray, np.ndarray]
    covariance: tuple[np.ndarray, np.ndarray]
    freedom: tuple[int, int]

    @classmethod
    def of(cls, values: np.ndarray) -> "_Halves":
        """From values [policies, units]; even units are the first half."""
        parts = values[:, ::2], values[:, 1::2]
        means = tuple(part.mean(axis=1) for part in parts)
        covariances = tuple(np.atleast_2d(np.cov(part)) / part.shape[1] for part in parts)
        return cls(means, covariances, (parts[0].shape[1] - 1, parts[1].shape[1] - 1))  # type: ignore[arg-type]

    def t(self, half: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Paired t of policies a minus policies b; 0 where they do not differ at all."""
        mean, covariance = self.mean[half], self.covariance[half]
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        # What rounding leaves of equal values is no variance.
        known = variance > 1e-12 * (covariance[a, a] + covariance[b, b])
        return np.where(known, (mean[a] - mean[b]) / np.sqrt(np.where(known, variance, 1)), 0.0)


@dataclass(frozen=True)
class _SeedPairs:
    """Policies of one seed, and the pairs of them that were chosen: a, b and the p-value."""

    policies: pd.DataFrame
    compared: Counter
    a: np.ndarray
    b: np.ndarray
    p: np.ndarray


def compare_orders(
    checkpoints: pd.DataFrame,
    rho: np.ndarray | None,
    kl: np.ndarray | None,
    variants: Collection[str] | None = None,
    *,
    false_discovery_rate: float = FALSE_DISCOVERY_RATE,
) -> Discordance:
    """Compare the order of E[ρ²] with the order of KL among the policies of each seed.

    Args:
        checkpoints: ``variant, strength, seed, step, is_final, kl, rho_sq_mean``, numbered from 0.
        rho: of every held-out pair in nats, [checkpoints, pairs] (`analysis.data.held_out.held_out_rho`).
        kl: of every evaluation prompt in nats, [checkpoints, prompts]; without this or `rho` nothing can be tested.
        variants: those to compare, all by default. Checkpoints that were not measured on held-out pairs never count.
    """
    measured = checkpoints["rho_sq_mean"].notna()
    if variants is not None:
        measured &= checkpoints["variant"].isin(list(variants))
    moved = measured & (checkpoints["step"] > 0) & (checkpoints["kl"] > 0)
    tested = rho is not None and kl is not None
    seeds = [
        _choose(checkpoints.loc[rows], rho[rows], kl[rows])  # type: ignore[index]
        for rows in checkpoints[moved & tested].groupby("seed").groups.values()
        if len(rows) > 1
    ]
    found = _discoveries([each.p for each in seeds], false_discovery_rate)
    return Discordance(
        rank_correlations(checkpoints[measured & checkpoints["is_final"]]),
        _counted(seeds, found),
        _by_seed(seeds, found),
        compare_at_equal_rho(checkpoints[moved]),
        compare_configurations(checkpoints[moved], false_discovery_rate=false_discovery_rate),
        tested,
    )


def rank_correlations(final: pd.DataFrame) -> pd.DataFrame:
    """See `Discordance`; of the last checkpoints."""
    rows = []
    for variant, cells in [*final.groupby("variant", sort=False), ("all", final)]:
        distinct = min(len(cells["rho_sq_mean"].unique()), len(cells["kl"].unique()))
        known = len(cells) > 2 and distinct > 1
        both = cells["rho_sq_mean"], cells["kl"]
        spearman = stats.spearmanr(*both).statistic if known else np.nan
        kendall = stats.kendalltau(*both).statistic if known else np.nan
        rows.append((variant, len(cells), spearman, kendall))
    return pd.DataFrame(rows, columns=["variant", "cells", "spearman", "kendall"])


def _choose(policies: pd.DataFrame, rho: np.ndarray, kl: np.ndarray) -> _SeedPairs:
    """All pairs of one seed's policies; those in opposite order on the first half get a p-value from the second."""
    halves = _Halves.of(rho**2), _Halves.of(kl)
    a, b = np.triu_indices(len(policies), 1)
    variant = policies["variant"].to_numpy()
    compared = Counter(_kinds(variant[a] == variant[b]).tolist())
    t_rho, t_kl = (each.t(0, a, b) for each in halves)
    chosen = (np.minimum(np.abs(t_rho), np.abs(t_kl)) > _CHOSEN_BEYOND) & (t_rho * t_kl < 0)
    a, b = np.where(t_rho < 0, a, b)[chosen], np.where(t_rho < 0, b, a)[chosen]  # a has the smaller E[ρ²]
    t_rho, t_kl = (each.t(1, a, b) for each in halves)
    p = np.maximum(stats.t.cdf(t_rho, halves[0].freedom[1]), stats.t.sf(t_kl, halves[1].freedom[1]))
    return _SeedPairs(policies.reset_index(drop=True), compared, a, b, p)


def _discoveries(p: list[np.ndarray], rate: float) -> list[np.ndarray]:
    """Which of all p-values are discoveries (Benjamini & Yekutieli), in the parts they came in."""
    every = np.concatenate([np.empty(0), *p])
    if not len(every):
        return [np.zeros(len(part), bool) for part in p]
    adjusted = stats.false_discovery_control(every, method="by")
    return np.split(adjusted <= rate, np.cumsum([len(part) for part in p])[:-1])


def _kinds(same_variant: np.ndarray) -> np.ndarray:
    return np.where(same_variant, *KINDS)


def _counted(seeds: list[_SeedPairs], found: list[np.ndarray]) -> pd.DataFrame:
    counts = {name: Counter({kind: 0 for kind in KINDS}) for name in ("compared", "chosen", "discordant")}
    for each, discordant in zip(seeds, found, strict=True):
        variant = each.policies["variant"].to_numpy()
        kinds = _kinds(variant[each.a] == variant[each.b])
        counts["compared"] += each.compared
        counts["chosen"].update(kinds.tolist())
        counts["discordant"].update(kinds[discordant].tolist())
    frame = pd.DataFrame({name: [count[kind] for kind in KINDS] for name, count in counts.items()})
    frame = pd.concat([frame, frame.sum().to_frame().T], ignore_index=True)
    frame.insert(0, "pairs", [*KINDS, "all"])
    return frame.assign(share=frame["discordant"] / frame["compared"].where(frame["compared"] > 0))


def _by_seed(seeds: list[_SeedPairs], found: list[np.ndarray]) -> pd.DataFrame:
    rows = [
        (int(each.policies["seed"].iloc[0]), sum(each.compared.values()), len(each.a), int(discordant.sum()))
        for each, discordant in zip(seeds, found, strict=True)
    ]
    return pd.DataFrame(rows, columns=["seed", "compared", "chosen", "discordant"])
