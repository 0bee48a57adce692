"""Gold reward as a function of KL: curves, budgets, areas, Pareto sets and differences between variants.

`analysis.statistics.curves` says how a curve is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.statistics.curves import SmoothedFrontier, smooth_all
from analysis.statistics.intervals import LEVEL, compare_all, interval
from analysis.statistics.resampling import Draws
from analysis.statistics.stacking import stack

KL_BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0)  # nats
EQUIVALENCE_MARGIN = 0.1  # SD of π_ref's gold scores
EQUIVALENT, DIFFERENT, UNCLEAR = "equivalent", "different", "unclear"
_GOLD = ("gold", "gold_low", "gold_high", "gold_se", "kind")
CURVE_COLUMNS = ("variant", "kl", *_GOLD)
BUDGET_COLUMNS = ("variant", "kl", "covered", *_GOLD)
AREA_COLUMNS = (
    "variant", "kl_max", "area", "area_low", "area_high", "area_se", "mean_gold", "mean_gold_low", "mean_gold_high",
    "mean_gold_se", "kind",
)  # fmt: skip
PAIRWISE_COLUMNS = (
    "variant_a", "variant_b", "kl", "difference", "difference_low", "difference_high", "difference_se", "kind",
    "verdict",
)  # fmt: skip
MIN_POLICIES = 3  # with fewer, a curve would be the smoother's invention
_AREA_POINTS = 200


@dataclass(frozen=True)
class Frontiers:
    """Frontiers of all variants of a sweep; KL in nats, gold in SD units.

    A variant with fewer than MIN_POLICIES trained policies has points, and nothing that rests on a curve.

    Attributes:
        curves: ``variant, kl, gold, gold_low, gold_high, gold_se, kind``; pointwise band, 80 KLs per variant equally
            spaced in √KL over what the variant's data cover (nothing is extrapolated).
        budgets: ``variant, kl, covered, gold, gold_low, gold_high, gold_se, kind``; one row per variant and KL budget,
            NaN where not covered.
        areas: ``variant, kl_max, area, area_low, area_high, area_se, mean_gold, mean_gold_low, mean_gold_high,
            mean_gold_se, kind``; ∫ gold dKL from 0 (or where the last curve begins) up to `common_kl` (SD · nats), and
            that divided by its length in nats; NaN where the curves have no KL in common.
        pairwise: ``variant_a, variant_b, kl, difference, difference_low, difference_high, difference_se, kind,
            verdict``; gold of a minus gold of b at each KL budget that all variants cover, simultaneous over all rows;
            verdict is equivalent (two one-sided 5 % tests of this difference alone pass, paired by seed) | different
            (the simultaneous interval lies outside ±margin) | unclear.
        points: ``variant, strength, step, is_final, seeds, kl, gold, gold_low, gold_high, gold_se, kind, pareto,
            pareto_overall``; checkpoints averaged over seeds; pareto: no other point of the same variant (of any
            variant) has smaller KL and at least as much gold, or as small a KL and more gold.
        smoothed: the splines in every version of the table, for further statistics.
        common_kl: largest KL covered by every variant with a curve; NaN without any.
        margin: the equivalence margin of `pairwise`.
        smoother: one sentence about the smoother, for captions.
        warnings: sentences.
    """

    curves: pd.DataFrame
    budgets: pd.DataFrame
    areas: pd.DataFrame
    pairwise: pd.DataFrame
    points: pd.DataFrame
    smoothed: Mapping[str, SmoothedFrontier]
    common_kl: float
    margin: float
    smoother: str
    warnings: tuple[str, ...]


def fit_frontiers(
    draws: Draws,
    *,
    ends_only: bool = False,
    budgets: tuple[float, ...] = KL_BUDGETS,
    margin: float = EQUIVALENCE_MARGIN,
) -> Frontiers:
    """Smooth every variant's checkpoints and compare the variants at equal KL.

    Args:
        ends_only: smooth trained policies (and the start, at KL 0) only. Checkpoints on the way can reach less gold
            at the same KL than policies trained to the end with a larger β; with all, the curve lies between.
        budgets: KLs in nats at which gold is read off and variants are compared.
        margin: largest difference in gold (SD units) that still counts as the same frontier.
    """
    smoothed_draws = draws.at_ends() if ends_only else draws
    enough, warnings = _enough_policies(smoothed_draws, "trained policies" if ends_only else "checkpoints")
    smoothed, penalty, gaps = smooth_all(smoothed_draws, enough)
    warnings += gaps
    common_kl = min((curve.kl_max for curve in smoothed.values()), default=np.nan)
    common_low = max((curve.kl_min for curve in smoothed.values()), default=np.nan)
    compared, fewer = _on_common_seeds(smoothed_draws, smoothed)
    warnings += fewer
    shared = [kl for kl in budgets if all(curve.covers(kl) for curve in compared.values())]
    if not shared:
        reach = ", ".join(f"{variant} {curve.kl_max:.3g}" for variant, curve in smoothed.items())
        warnings.append(f"No KL budget of {budgets} nats is covered by every variant (largest KL: {reach}).")
    return Frontiers(
        stack([_curve(*item) for item in smoothed.items()], CURVE_COLUMNS),
        stack([_at_budgets(*item, budgets) for item in smoothed.items()], BUDGET_COLUMNS),
        stack([_area(*item, common_low, common_kl) for item in smoothed.items()], AREA_COLUMNS),
        _compare(compared, shared, margin),
        _points(draws),
        smoothed,
        common_kl,
        margin,
        f"penalized cubic spline in log(1 + √KL) through the origin, over {'the last' if ends_only else 'all'} "
        f"checkpoints of a variant; penalty {penalty:.1e} chosen on left-out strengths",
        tuple(warnings),
    )


def _on_common_seeds(
    draws: Draws, smoothed: Mapping[str, SmoothedFrontier]
) -> tuple[Mapping[str, SmoothedFrontier], list[str]]:
    """The curves that differences are taken of: where a variant lacks a seed, those of the seeds that all have."""
    paired = draws.paired(smoothed)
    if paired is draws or len(smoothed) < 2:
        return smoothed, []
    count = paired.rows["seed"].nunique()
    seeds = f"{count} seed{'s' if count > 1 else ''} that all variants have"
    return smooth_all(paired, tuple(smoothed))[0], [f"Differences between frontiers are over the {seeds}."]


def _enough_policies(draws: Draws, what: str) -> tuple[tuple[str, ...], list[str]]:
    """Variants with enough points for a curve, and sentences about the others."""
    counts = draws.rows[draws.rows["step"] > 0].groupby("variant").size()
    counts = counts.reindex(draws.variants, fill_value=0)
    lacking = counts[counts < MIN_POLICIES]
    warnings = [
        f"{variant}: {count} {'trained policy' if count == 1 and what == 'trained policies' else what}, "
        "too few for a curve."
        for variant, count in lacking.items()
    ]
    return tuple(variant for variant in draws.variants if variant not in lacking.index), warnings


def _curve(variant: str, curve: SmoothedFrontier) -> pd.DataFrame:
    kl = curve.grid()
    band = interval(curve.gold(kl), curve.design)
    return pd.DataFrame({"variant": variant, "kl": kl, **band.columns("gold"), "kind": band.kind})


def _at_budgets(variant: str, curve: SmoothedFrontier, budgets: tuple[float, ...]) -> pd.DataFrame:
    covered = np.array([curve.covers(kl) for kl in budgets])
    values = np.where(covered, curve.gold(np.minimum(budgets, curve.kl_max)), np.nan)
    result = interval(values, curve.design)
    return pd.DataFrame(
        {"variant": variant, "kl": budgets, "covered": covered, **result.columns("gold"), "kind": result.kind}
    )


def _area(variant: str, curve: SmoothedFrontier, low: float, high: float) -> pd.DataFrame:
    if low < high:
        kl = np.linspace(low, high, _AREA_POINTS)
        area = np.trapezoid(curve.gold(kl), kl, axis=1)
    else:
        area = np.full(len(curve.coefficients), np.nan)
    results = interval(np.stack([area, area / (high - low or np.nan)], axis=1), curve.design)
    row: dict[str, object] = {"variant": variant, "kl_max": high}
    for number, name in enumerate(("area", "mean_gold")):
        row |= {key: value[number] for key, value in results.columns(name).items()}
    return pd.DataFrame([{**row, "kind": results.kind[0]}])


def _compare(smoothed: Mapping[str, SmoothedFrontier], budgets: list[float], margin: float) -> pd.DataFrame:
    frames = []
    for kl in budgets if len(smoothed) > 1 else []:
        values = np.concatenate([curve.gold(np.array([kl])) for curve in smoothed.values()], axis=1)
        designs = [curve.design for curve in smoothed.values()]
        frame = compare_all(values, list(smoothed), designs, comparisons=len(budgets))
        frame.insert(2, "kl", kl)
        alone = [
            interval(values[:, a] - values[:, b], designs[a].union(designs[b]), level=2 * LEVEL - 1)
            for a, b in combinations(range(len(designs)), 2)
        ]
        inside = np.array([bool((each.low > -margin) & (each.high < margin)) for each in alone])
        beyond = (frame["difference_low"] > margin) | (frame["difference_high"] < -margin)
        frames.append(frame.assign(verdict=np.select([beyond, inside], [DIFFERENT, EQUIVALENT], UNCLEAR)))
    return stack(frames, PAIRWISE_COLUMNS)


def _points(draws: Draws) -> pd.DataFrame:
    frames = []
    for variant in draws.variants:
        replicates = draws.of(variant)
        groups, kl, gold, _ = replicates.means_by("strength", "step", "is_final")
        result = interval(gold, replicates.design)
        frame = groups.assign(kl=kl[0], **result.columns("gold"), kind=result.kind, pareto=pareto(kl[0], gold[0]))
        frame.insert(0, "variant", variant)
        frames.append(frame)
    points = pd.concat(frames, ignore_index=True)
    points["pareto_overall"] = pareto(points["kl"].to_numpy(), points["gold"].to_numpy())
    return points


def pareto(kl: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Which points no other point beats: [n] bool. Smaller KL and larger gold are better; equal points both stay."""
    order = np.lexsort((-gold, kl))
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], gold[order]]))[:-1]
    result = np.zeros(len(kl), dtype=bool)
    result[order] = gold[order] > best_before
    # Exact duplicates of an undominated point are not beaten by it.
    kept = set(zip(kl[result], gold[result], strict=True))
    return np.array([point in kept for point in zip(kl, gold, strict=True)])
