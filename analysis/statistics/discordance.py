"""Does a smaller μ-weighted squared loss go with a smaller KL? Pairs of policies, tested against noise.

A policy is one checkpoint after step 0 of one cell. Two policies of one seed are measured on the same held-out pairs
and on the same evaluation prompts, with the same draws, so both differences, of E[ρ²] and of KL, have paired standard
errors. A pair of policies is *discordant* when the one with the smaller E[ρ²] has the larger KL: one such pair shows
that the implication fails. Pairs are chosen on one half of the held-out pairs and prompts and tested on the other, so
that the choice does not flatter the test. The p-value of a pair is the larger of its two one-sided ones
(intersection-union), and false discoveries among all chosen pairs of all seeds are controlled whatever their dependence
(Benjamini & Yekutieli 2001, Annals of Statistics 29:1165). What is tested is about these policies; how far it is about
their configurations is said by the number of seeds in which the same two configurations are discordant.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.equal_rho import EqualRho, compare_at_equal_rho
from analysis.statistics.intervals import LEVEL

FALSE_DISCOVERY_RATE = 0.05
_CHOSEN_BEYOND = 2.0  # |t| of both differences on the first half
_SMALLEST = 1e-9
KINDS = ("within_variant", "across_variants")


@dataclass(frozen=True)
class DiscordantPair:
    """Two policies of one seed: a has the smaller E[ρ²] and the larger KL.

    Ratios are a over b, on the half that did not choose the pair, with paired 95 % intervals; `seeds` is the number of
    seeds in which these two configurations are discordant.
    """

    variant_a: str
    strength_a: float
    step_a: int
    variant_b: str
    strength_b: float
    step_b: int
    seed: int
    seeds: int
    rho_sq_ratio: float
    rho_sq_ratio_low: float
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
        pairs: ``pairs`` (within_variant | across_variants | all), ``compared`` (pairs of policies of one seed),
            ``chosen`` (in opposite order on the first half), ``discordant`` (confirmed on the other), ``share``
            (discordant over compared).
        by_seed: ``seed, compared, chosen, discordant``.
        at_equal_rho: KL of the variants' policies at equal E[ρ²], step by step.
        clearest: of the configurations that are discordant in most seeds, the pair furthest from noise; None when no
            pair is discordant.
        tested: False where ρ or KL of single pairs or prompts are not kept; nothing is compared then.
    """

    rank_correlations: pd.DataFrame
    pairs: pd.DataFrame
    by_seed: pd.DataFrame
    at_equal_rho: EqualRho
    clearest: DiscordantPair | None
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

    def ratio(self, a: int, b: int) -> tuple[float, float, float]:
        """Mean of a over mean of b on the second half, with the delta method's interval of its logarithm."""
        mean, covariance = self.mean[1], self.covariance[1]
        mean = np.maximum(mean, _SMALLEST)  # half of the prompts can measure a KL below 0
        log = np.log(mean[a] / mean[b])
        variance = covariance[a, a] / mean[a] ** 2 + covariance[b, b] / mean[b] ** 2
        variance -= 2 * covariance[a, b] / (mean[a] * mean[b])
        half = stats.t.ppf((1 + LEVEL) / 2, self.freedom[1]) * np.sqrt(max(variance, 0))
        return float(np.exp(log)), float(np.exp(log - half)), float(np.exp(log + half))


@dataclass(frozen=True)
class _SeedPairs:
    """Policies of one seed, and the pairs of them: a, b, p-value of those chosen, direction of E[ρ²] on that half."""

    policies: pd.DataFrame
    rho_sq: _Halves
    kl: _Halves
    compared: Counter
    a: np.ndarray
    b: np.ndarray
    p: np.ndarray
    strength: np.ndarray


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
    described = (
        rank_correlations(checkpoints[measured & checkpoints["is_final"]]),
        compare_at_equal_rho(checkpoints[moved]),
    )
    if rho is None or kl is None:
        return Discordance(described[0], _counted([], []), _by_seed([], []), described[1], None, False)
    seeds = [
        _choose(checkpoints.loc[rows], rho[rows], kl[rows])
        for rows in checkpoints[moved].groupby("seed").groups.values()
        if len(rows) > 1
    ]
    found = _discoveries([each.p for each in seeds], false_discovery_rate)
    counts = _counted(seeds, found), _by_seed(seeds, found)
    return Discordance(described[0], *counts, described[1], _clearest(seeds, found), True)


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
    return _SeedPairs(policies.reset_index(drop=True), *halves, compared, a, b, p, np.minimum(-t_rho, t_kl))


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


def _clearest(seeds: list[_SeedPairs], found: list[np.ndarray]) -> DiscordantPair | None:
    pairs = [
        (_configuration(each, a), _configuration(each, b), strength, each, a, b)
        for each, discordant in zip(seeds, found, strict=True)
        for a, b, strength in zip(each.a[discordant], each.b[discordant], each.strength[discordant], strict=True)
    ]
    if not pairs:
        return None
    replicated = Counter((first, second) for first, second, *_ in pairs)
    first, second, _, each, a, b = max(pairs, key=lambda pair: (replicated[pair[0], pair[1]], pair[2]))
    return DiscordantPair(
        *first, *second, int(each.policies["seed"].iloc[0]), replicated[first, second],
        *each.rho_sq.ratio(a, b), *each.kl.ratio(a, b),
    )  # fmt: skip


def _configuration(seed: _SeedPairs, number: int) -> tuple[str, float, int]:
    row = seed.policies.iloc[number]
    return str(row["variant"]), float(row["strength"]), int(row["step"])
