"""Gold reward as a function of KL: curves, budgets, areas, Pareto sets and differences between losses.

The smoother is a penalized cubic spline in √KL over the checkpoints of all β and seeds of a loss: √KL because gold
starts out linear in it (Gao et al. 2023, arXiv 2210.10760), a spline because a frontier may rise, peak and fall or
not, and its second-order penalty because that shrinks towards a straight line, which has no peak of its own. The
penalty is the same for all losses and minimizes the error on checkpoints of a β that the fit has not seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.intervals import compare_all, interval
from analysis.statistics.resampling import Design, Draws, LossReplicates
from analysis.statistics.smoothing import PENALTIES, Basis, held_out_errors, normal_equations

KL_BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0)  # nats
EQUIVALENCE_MARGIN = 0.1  # SD of π_ref's gold scores
EQUIVALENT, DIFFERENT, UNCLEAR = "equivalent", "different", "unclear"
PAIRWISE_COLUMNS = (
    "loss_a", "loss_b", "kl", "difference", "difference_low", "difference_high", "difference_se", "kind", "verdict",
)  # fmt: skip
_CURVE_POINTS = 80
_AREA_POINTS = 200
_PENALTY_ORDER = 2


@dataclass(frozen=True)
class SmoothedFrontier:
    """One loss's spline in every version of the table.

    Attributes:
        coefficients: [R, K].
        kl_min, kl_max: range that at least two seeds cover (one, if there is only one), nats.
    """

    basis: Basis
    coefficients: np.ndarray
    design: Design
    kl_min: float
    kl_max: float

    def covers(self, kl: float) -> bool:
        """Whether `kl` lies inside the data."""
        return self.kl_min <= kl <= self.kl_max

    def gold(self, kl: np.ndarray) -> np.ndarray:
        """Gold at KLs [m] in every version, [R, m]."""
        return self.coefficients @ self.basis.matrix(np.sqrt(kl)).T

    def grid(self, points: int = _CURVE_POINTS) -> np.ndarray:
        """KLs inside the data, equally spaced in √KL."""
        return np.linspace(np.sqrt(self.kl_min), np.sqrt(self.kl_max), points).clip(0) ** 2


@dataclass(frozen=True)
class Frontiers:
    """Frontiers of all losses of a sweep; KL in nats, gold in SD units.

    Attributes:
        curves: ``loss, kl, gold, gold_low, gold_high, gold_se, kind``; pointwise band, 80 KLs per loss equally spaced
            in √KL between the smallest and the largest KL that the loss covers (nothing is extrapolated).
        budgets: ``loss, kl, covered, gold, gold_low, gold_high, gold_se, kind``; one row per loss and KL budget,
            NaN where not covered.
        areas: ``loss, kl_max, area, area_low, area_high, area_se, mean_gold, mean_gold_low, mean_gold_high,
            mean_gold_se, kind``; ∫ gold dKL up to `common_kl` (SD · nats), and that divided by its length in nats.
        pairwise: ``loss_a, loss_b, kl, difference, difference_low, difference_high, difference_se, kind, verdict``;
            gold of a minus gold of b at each KL budget that all losses cover, simultaneous over all rows; verdict is
            equivalent (interval inside ±margin) | different (interval outside ±margin) | unclear.
        points: ``loss, beta, step, is_final, seeds, kl, gold, gold_low, gold_high, gold_se, kind, pareto,
            pareto_overall``; checkpoints averaged over seeds; pareto: no other point of the same loss (of any loss)
            has smaller KL and at least as much gold, or as small a KL and more gold.
        smoothed: the splines in every version of the table, for further statistics.
        common_kl: largest KL covered by every loss.
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
    """Smooth every loss's checkpoints and compare the losses at equal KL.

    Args:
        ends_only: smooth trained policies (and the start, at KL 0) only. Checkpoints on the way can reach less gold
            at the same KL than policies trained to the end with a larger β; with all, the curve lies between.
        budgets: KLs in nats at which gold is read off and losses are compared.
        margin: largest difference in gold (SD units) that still counts as the same frontier.
    """
    smoothed, penalty = _smooth_all(draws.at_ends() if ends_only else draws)
    common_kl = min(curve.kl_max for curve in smoothed.values())
    at_budgets = pd.concat([_at_budgets(loss, curve, budgets) for loss, curve in smoothed.items()], ignore_index=True)
    shared = [kl for kl in budgets if all(curve.covers(kl) for curve in smoothed.values())]
    warnings = []
    if not shared:
        reach = ", ".join(f"{loss} {curve.kl_max:.3g}" for loss, curve in smoothed.items())
        warnings.append(f"No KL budget of {budgets} nats is covered by every loss (largest KL: {reach}).")
    return Frontiers(
        pd.concat([_curve(loss, curve) for loss, curve in smoothed.items()], ignore_index=True),
        at_budgets,
        pd.concat([_area(loss, curve, common_kl) for loss, curve in smoothed.items()], ignore_index=True),
        _compare(smoothed, shared, margin),
        _points(draws),
        smoothed,
        common_kl,
        margin,
        f"penalized cubic spline in √KL over {'the last' if ends_only else 'all'} checkpoints of a loss; "
        f"penalty {penalty:.1e} chosen on left-out β",
        tuple(warnings),
    )


def _smooth_all(draws: Draws) -> tuple[dict[str, SmoothedFrontier], float]:
    errors = np.zeros(len(PENALTIES))
    bases: dict[str, Basis] = {}
    for loss, rows in draws.rows.groupby("loss", sort=False):
        d = np.sqrt(rows["kl"].to_numpy())
        bases[str(loss)] = basis = Basis(0.0, max(d.max(), 1e-6))
        fold = rows["beta" if len(rows["beta"].unique()) > 2 else "seed"].to_numpy()
        if len(np.unique(fold)) > 1:
            errors += held_out_errors(basis, d, rows["gold"].to_numpy(), fold, _PENALTY_ORDER)
    # The smoothest of the best where nothing could be held out.
    penalty = float(PENALTIES[len(PENALTIES) - 1 - np.argmin(errors[::-1])])
    return {loss: _smooth(draws.of(loss), bases[loss], penalty) for loss in draws.losses}, penalty


def _smooth(replicates: LossReplicates, basis: Basis, penalty: float) -> SmoothedFrontier:
    # Drawn prompts can push the largest KL past the basis; it then counts as the end.
    d = np.minimum(np.sqrt(replicates.kl), basis.high)
    equations = normal_equations(basis, d, replicates.gold, replicates.weight)
    by_seed = replicates.rows.groupby("seed")["kl"]
    covering = min(2, by_seed.ngroups)
    kl_min = by_seed.min().nsmallest(covering).iloc[-1]
    kl_max = by_seed.max().nlargest(covering).iloc[-1]
    return SmoothedFrontier(
        basis, equations.solve(penalty, _PENALTY_ORDER), replicates.design, float(kl_min), float(kl_max)
    )


def _curve(loss: str, curve: SmoothedFrontier) -> pd.DataFrame:
    kl = curve.grid()
    band = interval(curve.gold(kl), curve.design)
    return pd.DataFrame({"loss": loss, "kl": kl, **band.columns("gold"), "kind": band.kind})


def _at_budgets(loss: str, curve: SmoothedFrontier, budgets: tuple[float, ...]) -> pd.DataFrame:
    covered = np.array([curve.covers(kl) for kl in budgets])
    values = np.where(covered, curve.gold(np.minimum(budgets, curve.kl_max)), np.nan)
    result = interval(values, curve.design)
    return pd.DataFrame(
        {"loss": loss, "kl": budgets, "covered": covered, **result.columns("gold"), "kind": result.kind}
    )


def _area(loss: str, curve: SmoothedFrontier, common_kl: float) -> pd.DataFrame:
    kl = np.linspace(curve.kl_min, common_kl, _AREA_POINTS)
    area = np.trapezoid(curve.gold(kl), kl, axis=1)
    results = interval(np.stack([area, area / (common_kl - curve.kl_min)], axis=1), curve.design)
    row: dict[str, object] = {"loss": loss, "kl_max": common_kl}
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
        frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=list(PAIRWISE_COLUMNS))
    pairwise = pd.concat(frames, ignore_index=True)
    low, high = pairwise["difference_low"], pairwise["difference_high"]
    pairwise["verdict"] = np.select(
        [(low > -margin) & (high < margin), (low > margin) | (high < -margin)], [EQUIVALENT, DIFFERENT], UNCLEAR
    )
    return pairwise


def _points(draws: Draws) -> pd.DataFrame:
    frames = []
    for loss in draws.losses:
        replicates = draws.of(loss)
        groups, kl, gold, _ = replicates.means_by("beta", "step", "is_final")
        result = interval(gold, replicates.design)
        frame = groups.assign(kl=kl[0], **result.columns("gold"), kind=result.kind, pareto=pareto(kl[0], gold[0]))
        frame.insert(0, "loss", loss)
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
