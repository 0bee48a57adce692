"""What π_ref's own samples allow: best-of-n and the KL-constrained optimum, the ceiling of every frontier."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import logsumexp

from analysis.data.sweep import RefusedSweep
from analysis.statistics.frontier import KL_BUDGETS, SmoothedFrontier
from analysis.statistics.intervals import LEVEL, interval
from analysis.statistics.resampling import Draws
from bench.records import best_of_n_kl, best_of_n_sizes, best_of_n_weights

# The ceiling is trusted while, on average over prompts, at least this many samples carry the weight. What is read is
# gold at equal KL, and the errors of the two go together: at one temperature both fall short (of Gaussian gold, 64
# samples: by 21 % and 34 %), yet the curve of one against the other lies 3 % below the truth (tests/analysis).
MIN_EFFECTIVE_SAMPLES = 5.0
TEMPERATURES = np.geomspace(100.0, 0.05, 120)  # of gold in SD units


@dataclass(frozen=True)
class Ceiling:
    """Best-of-n and the KL-constrained optimum from one pool of N reference samples per prompt.

    Attributes:
        best_of_n: ``n, kl, gold, gold_low, gold_high, gold_se, kind``; kl is the bound ln n − (n − 1)/n in nats.
        tilted: ``temperature, kl, kl_low, kl_high, kl_se, gold, gold_low, gold_high, gold_se, ess, trusted, kind``;
            π* ∝ π_ref exp(gold / temperature); ess is the mean effective sample size over prompts.
        shares: ``variant, kl, gold, ceiling, share, share_low, share_high, share_se, kind``; frontier's gold over the
            ceiling's at KL budgets that both cover (the ceiling only where trusted).
        pool_size: N.
        warnings: sentences.
    """

    best_of_n: pd.DataFrame
    tilted: pd.DataFrame
    shares: pd.DataFrame
    pool_size: int
    warnings: tuple[str, ...]

    @property
    def ends_at(self) -> float:
        """Largest KL in nats at which the KL-constrained optimum is trusted; NaN where it is nowhere."""
        return float(self.tilted.loc[self.tilted["trusted"], "kl"].max())

    @property
    def rule(self) -> str:
        """A sentence on how far the KL-constrained optimum is drawn, for captions; empty where it is not."""
        if not self.tilted["trusted"].any():
            return ""
        return (
            f"The KL-constrained optimum is drawn to KL {self.ends_at:.2g}, as far as at least "
            f"{MIN_EFFECTIVE_SAMPLES:g} of {self.pool_size} reference samples per prompt carry its weight."
        )


def find_ceiling(
    reference: pd.DataFrame,
    draws: Draws,
    smoothed: Mapping[str, SmoothedFrontier],
    *,
    budgets: tuple[float, ...] = KL_BUDGETS,
) -> Ceiling:
    """Best-of-n, the KL-constrained optimum, and how much of it each variant reaches.

    Args:
        reference: π_ref's sample pool, the same number of samples for every prompt.
        smoothed: the frontiers of the same draws (`Frontiers.smoothed`).
    Raises:
        RefusedSweep: prompts have different numbers of samples.
    """
    pool, prompt_ids = pool_matrix(reference)
    # As the cells' gold is drawn (`prompt_noise.over_reference`): it moves gold of a prompt and no KL, and no mean.
    pool = pool - (pool.mean(axis=1, keepdims=True) - pool.mean())
    tilted = [tilt(pool, temperature) for temperature in TEMPERATURES]
    frame = _tilted_frame(tilted)
    size = pool.shape[1]
    warnings = []
    if not frame["trusted"].any():
        warnings.append(f"{size} reference samples per prompt are too few to estimate the KL-constrained optimum.")
    trusted = frame["trusted"].to_numpy()
    kl, gold = (
        draws.prompt_means(np.stack([getattr(row, key) for row in tilted], axis=1)[:, trusted], prompt_ids)
        for key in ("kl", "gold")
    )
    shares = _shares(kl, gold, smoothed, budgets) if trusted.any() else []
    return Ceiling(_best_of_n_frame(pool), frame, pd.DataFrame(shares, columns=_SHARE_COLUMNS), size, tuple(warnings))


_SHARE_COLUMNS = ["variant", "kl", "gold", "ceiling", "share", "share_low", "share_high", "share_se", "kind"]


def pool_matrix(reference: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Gold of the pool by prompt [prompts, N], ascending within each prompt, and the prompts' ids.

    Raises:
        RefusedSweep: prompts have different numbers of samples.
    """
    counts = reference.groupby("prompt_id").size()
    if counts.min() != counts.max():
        raise RefusedSweep(
            f"reference pool: prompts have between {counts.min()} and {counts.max()} samples; best-of-n needs the same "
            "number for each. Prepare the sweep's reference samples again"
        )
    ordered = reference.sort_values(["prompt_id", "gold"])
    return ordered["gold"].to_numpy().reshape(len(counts), -1), counts.index.to_numpy()


def best_of_n_gold(pool: np.ndarray, n: int) -> np.ndarray:
    """Expected gold of the best of n draws, unbiased, per prompt; see `bench.records.best_of_n_weights`.

    Args:
        pool: [prompts, N], ascending in each row.
    """
    return pool @ np.array(best_of_n_weights(pool.shape[1], n))


def _best_of_n_frame(pool: np.ndarray) -> pd.DataFrame:
    sizes = best_of_n_sizes(pool.shape[1])
    rows = [
        {"n": n, "kl": best_of_n_kl(n), **_over_prompts("gold", best_of_n_gold(pool, n)), "kind": "pool"} for n in sizes
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Tilted:
    """π* ∝ π_ref exp(gold / temperature): KL (nats), gold (SD units), effective sample size, each [prompts]."""

    temperature: float
    kl: np.ndarray
    gold: np.ndarray
    ess: np.ndarray


def tilt(pool: np.ndarray, temperature: float) -> Tilted:
    """Self-normalized estimates of the KL-constrained optimum, with the jackknife's bias correction.

    With weights w ∝ exp(gold / temperature) over N samples of π_ref: gold = Σ w·gold, KL = Σ w·gold / temperature −
    ln mean exp(gold / temperature). Both have a bias of order 1/N, which N·T − (N − 1)·mean(T without one sample)
    takes off.

    Args:
        pool: [prompts, N], ascending in each row.
    """
    size = pool.shape[1]
    if size == 1:  # nothing to leave out
        return Tilted(temperature, np.zeros(len(pool)), pool[:, 0], np.ones(len(pool)))
    scaled = pool / temperature
    log_total = logsumexp(scaled, axis=1)
    weights = np.exp(scaled - log_total[:, None])
    rest = 1 - weights  # weight left when one sample goes; by summation for the largest, where 1 − w would cancel
    rest[:, -1] = weights[:, :-1].sum(1)
    first_moment = (weights * pool).sum(1)
    rest_moment = first_moment[:, None] - weights * pool
    rest_moment[:, -1] = (weights[:, :-1] * pool[:, :-1]).sum(1)
    gold_without = rest_moment / rest
    log_mean_without = log_total[:, None] + np.log(rest) - np.log(size - 1)
    kl_without = gold_without / temperature - log_mean_without
    kl = first_moment / temperature - (log_total - np.log(size))
    corrected_kl = size * kl - (size - 1) * kl_without.mean(1)
    corrected_gold = size * first_moment - (size - 1) * gold_without.mean(1)
    return Tilted(temperature, corrected_kl, corrected_gold, 1 / (weights**2).sum(1))


def _tilted_frame(tilted: list[Tilted]) -> pd.DataFrame:
    rows = []
    for row in tilted:
        ess = row.ess.mean()
        kl, gold = _over_prompts("kl", row.kl), _over_prompts("gold", row.gold)
        trusted = bool(ess >= MIN_EFFECTIVE_SAMPLES)
        rows.append({"temperature": row.temperature, **kl, **gold, "ess": ess, "trusted": trusted, "kind": "pool"})
    return pd.DataFrame(rows)


def _over_prompts(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean over prompts with its t interval."""
    se = values.std(ddof=1) / np.sqrt(len(values))
    half = se * stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    mean = values.mean()
    low, high = mean - half, mean + half
    if name == "kl" and mean > 0:  # on the logarithm, so that no end is below 0
        low, high = mean * np.exp([-half / mean, half / mean])
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_se": se}


def _shares(
    kl: np.ndarray, gold: np.ndarray, smoothed: Mapping[str, SmoothedFrontier], budgets: tuple[float, ...]
) -> list[dict[str, object]]:
    """Rows of _SHARE_COLUMNS; kl, gold: the ceiling in every version, [R, temperatures], KL ascending."""
    rows = []
    for budget in budgets:
        if not kl[0, 0] <= budget <= kl[0, -1]:
            continue
        ceiling = np.array([np.interp(budget, x, y) for x, y in zip(kl, gold, strict=True)])
        for variant, curve in smoothed.items():
            if not curve.covers(budget):
                continue
            reached = curve.gold(np.array([budget]))[:, 0]
            share = interval(reached / ceiling, curve.design)
            values = (
                variant,
                budget,
                reached[0],
                ceiling[0],
                *map(float, share.columns("share").values()),
                str(share.kind),
            )
            rows.append(dict(zip(_SHARE_COLUMNS, values, strict=True)))
    return rows
