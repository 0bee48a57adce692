"""The paper's claims C1 to C4 and what a sweep says about them.

Rules of the verdicts, fixed before any sweep was looked at:

C1  supported when every pair of variants is equivalent at every KL budget that all cover (simultaneous 95 % interval
    inside ±margin); not supported when some interval lies outside ±margin.
C2  supported when some variant's β at the peak, relative to the baseline's, differs from 1 in the predicted direction
    and none in the other (intervals simultaneous over all pairs); not supported when some differs in the other
    direction, or all intervals lie within a factor of 1.25 of 1.
C3  supported when every variant falls from its peak to the end of its data (95 % interval of the drop above 0: all must
    pass, so no correction is due); not supported when some variant's drop stays below 0.1 SD although its data reach
    the largest peak KL of the variants that fall (or none falls).
C4  supported when a pair of checkpoints has E[ρ²] and KL in opposite order beyond noise; not supported when none has
    among at least 100 pairs whose order is resolved.

Everything else is inconclusive. Variants with too few trained policies for a curve are left out of all four.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.discordance import Discordance
from analysis.statistics.frontier import DIFFERENT, EQUIVALENT, Frontiers
from analysis.statistics.optimal_beta import OptimalBetas
from analysis.statistics.overoptimization import Overoptimization
from bench.records import write_json

STATEMENTS = {
    "C1": "All variants trace similar KL–performance frontiers.",
    "C2": "The β at which performance peaks differs by variant, in the direction the theory predicts.",
    "C3": "Performance against KL rises, peaks and falls, though every label comes from the gold model.",
    "C4": "A smaller μ-weighted squared loss does not imply a smaller KL.",
}
SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
SAME_BETA_FACTOR = 1.25
NO_DROP = 0.1  # SD
ENOUGH_PAIRS = 100


@dataclass(frozen=True)
class Claim:
    """A verdict.

    Attributes:
        id: C1 to C4.
        statement: the claim.
        verdict: supported | not supported | inconclusive.
        sentence: what was found, with the numbers.
        quantity: what `estimate` is, with its unit.
        estimate, low, high: the number that the verdict rests on and its interval; None where there is none.
        kind: kind of the interval (`analysis.statistics.intervals.KINDS`), or None.
        numbers: further numbers, JSON values.
    """

    id: str
    statement: str
    verdict: str
    sentence: str
    quantity: str
    estimate: float | None
    low: float | None
    high: float | None
    kind: str | None
    numbers: dict[str, Any]


def assess_claims(
    frontiers: Frontiers, betas: OptimalBetas, overoptimization: Overoptimization, discordance: Discordance
) -> tuple[Claim, ...]:
    """Verdicts on C1 to C4, in this order."""
    return (
        _same_frontier(frontiers),
        _optimal_beta_moves(betas),
        _rises_and_falls(overoptimization),
        _squared_loss_is_not_kl(discordance),
    )


def write_claims(claims: Iterable[Claim], path: Path) -> None:
    """Write ``{"claims": [...]}``; what is not a finite number becomes null."""
    write_json(path, {"claims": [_finite(asdict(claim)) for claim in claims]})


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _claim(id_: str, verdict: str, sentence: str, quantity: str, numbers: dict[str, Any], **interval: Any) -> Claim:
    none = dict.fromkeys(("estimate", "low", "high", "kind"))
    return Claim(
        id_, STATEMENTS[id_], verdict, sentence, quantity, numbers=_finite(numbers), **none | _finite(interval)
    )


def _same_frontier(frontiers: Frontiers) -> Claim:
    pairs, margin = frontiers.pairwise, frontiers.margin
    quantity = "largest difference in gold between two variants at equal KL, SD"
    if pairs.empty:
        reason = " ".join(frontiers.warnings) or "There is only one variant."
        return _claim("C1", INCONCLUSIVE, f"No two variants could be compared at equal KL. {reason}", quantity, {})
    widest = pairs.loc[pairs["difference"].abs().idxmax()]
    counts = pairs["verdict"].value_counts()
    equivalent, different = int(counts.get(EQUIVALENT, 0)), int(counts.get(DIFFERENT, 0))
    verdict = NOT_SUPPORTED if different else SUPPORTED if equivalent == len(pairs) else INCONCLUSIVE
    budgets = sorted(pairs["kl"].unique())
    sentence = (
        f"Of {len(pairs)} differences between variants at KL {_join(budgets)} nats, {equivalent} are within "
        f"±{margin:g} SD and {different} are beyond it; the largest is {widest['variant_a']} − {widest['variant_b']} "
        f"at KL {widest['kl']:g}: {_with_interval(widest, 'difference')} SD."
    )
    numbers = {
        "comparisons": len(pairs), "equivalent": equivalent, "different": different, "margin": margin,
        "kl_budgets": budgets, "common_kl": frontiers.common_kl,
        "nonzero": int(((pairs["difference_low"] > 0) | (pairs["difference_high"] < 0)).sum()),
    }  # fmt: skip
    return _claim("C1", verdict, sentence, quantity, numbers, **_interval(widest, "difference"))


def _optimal_beta_moves(betas: OptimalBetas) -> Claim:
    quantity = f"β at the peak relative to {betas.baseline}"
    versus = _versus_baseline(betas)
    matched = betas.ratios[betas.ratios["at"] == "kl_mean"]
    numbers: dict[str, Any] = {
        "at_peak": versus.to_dict("records"),
        "at_matched_kl": matched[["variant", "ratio", "ratio_low", "ratio_high", "kind"]].to_dict("records"),
    }
    if versus.empty:
        sentence = f"No variant beside {betas.baseline} has a peak inside the grid of β together with it."
        return _claim("C2", INCONCLUSIVE, sentence, quantity, numbers)
    side = np.select([versus["ratio_low"] > 1, versus["ratio_high"] < 1], [1, -1], 0)
    predicted = np.sign(np.log(versus["predicted"]).round(2)).fillna(0).to_numpy()
    right, wrong = (side * predicted > 0), (side * predicted < 0)
    same = (versus["ratio_low"] > 1 / SAME_BETA_FACTOR) & (versus["ratio_high"] < SAME_BETA_FACTOR)
    verdict = NOT_SUPPORTED if wrong.any() or same.all() else SUPPORTED if right.any() else INCONCLUSIVE
    clearest = versus.loc[(np.log(versus["ratio"]).abs()).idxmax()]
    sentence = (
        f"Of {len(versus)} variants, {int((side != 0).sum())} peak at another β than {betas.baseline} beyond noise; of "
        f"{int((predicted != 0).sum())} for which theory predicts a direction, {int(right.sum())} differ that way and "
        f"{int(wrong.sum())} the other; farthest is {clearest['variant']} with a ratio of "
        f"{_with_interval(clearest, 'ratio')}."
    )
    return _claim("C2", verdict, sentence, quantity, numbers, **_interval(clearest, "ratio"))


def _versus_baseline(betas: OptimalBetas) -> pd.DataFrame:
    """``variant, ratio, ratio_low, ratio_high, kind, predicted``: ratios to the baseline, simultaneous intervals."""
    pairs = betas.peak_pairs
    forward = pairs[pairs["variant_b"] == betas.baseline].rename(columns={"variant_a": "variant"})
    backward = pairs[pairs["variant_a"] == betas.baseline].rename(columns={"variant_b": "variant"})
    inverted = {"ratio": 1 / backward["ratio"], "ratio_low": 1 / backward["ratio_high"],
                "ratio_high": 1 / backward["ratio_low"]}  # fmt: skip
    columns = ["variant", "ratio", "ratio_low", "ratio_high", "kind"]
    both = pd.concat([frame[columns] for frame in (forward, backward.assign(**inverted)) if len(frame)] or [pairs[:0]])
    predictions = betas.ratios[betas.ratios["at"] == "peak"].set_index("variant")
    predicted = predictions["local"].fillna(predictions["global_"])
    return (
        both.reindex(columns=columns)
        .assign(predicted=both.get("variant", pd.Series()).map(predicted))
        .reset_index(drop=True)
    )


def _rises_and_falls(overoptimization: Overoptimization) -> Claim:
    peaks = overoptimization.peaks
    quantity = "smallest drop in gold from a variant's peak to the end of its data, SD"
    if peaks.empty:
        return _claim("C3", INCONCLUSIVE, "No variant has enough trained policies for a curve.", quantity, {})
    falls = peaks["drop_low"] > 0
    reach = peaks.loc[falls, "kl_peak"].max() if falls.any() else 0.0
    stays = (peaks["drop_high"].fillna(peaks["drop"]) < NO_DROP) & (
        peaks["kl_max"] >= (reach if reach == reach else 0.0)
    )
    verdict = SUPPORTED if falls.all() else NOT_SUPPORTED if stays.any() else INCONCLUSIVE
    weakest = peaks.loc[peaks["drop"].idxmin()]
    sentence = (
        f"{int(falls.sum())} of {len(peaks)} variants fall beyond noise from their peak to the end of their data, "
        f"{int(stays.sum())} stay within {NO_DROP:g} SD of it; the smallest drop is {weakest['variant']}'s: "
        f"{_with_interval(weakest, 'drop')} SD up to KL {weakest['kl_max']:.3g} nats; "
        f"for {int(peaks['inside'].sum())} the form that predicts best has a peak inside the data."
    )
    columns = ["variant", "form", "inside", "kl_peak", "kl_peak_low", "kl_peak_high", "gold_peak", "kl_max",
               "drop", "drop_low", "drop_high", "kind"]  # fmt: skip
    numbers = {"variants": peaks[columns].to_dict("records")}
    return _claim("C3", verdict, sentence, quantity, numbers, **_interval(weakest, "drop"))


def _squared_loss_is_not_kl(discordance: Discordance) -> Claim:
    quantity = "KL of the checkpoint with the smaller E[ρ²] over KL of the other, clearest discordant pair"
    totals = discordance.pairs.set_index("pairs").loc["all"]
    numbers = {
        "pairs": discordance.pairs.to_dict("records"),
        "rank_correlations": discordance.rank_correlations.to_dict("records"),
        "clearest": None if discordance.clearest is None else asdict(discordance.clearest),
    }
    if discordance.seeds < 2:
        return _claim("C4", INCONCLUSIVE, "Noise between runs is unknown with one seed.", quantity, numbers)
    counted = f"Of {int(totals['resolved'])} pairs of checkpoints ordered beyond noise in E[ρ²] and in KL,"
    pair = discordance.clearest
    if pair is None:
        verdict = NOT_SUPPORTED if totals["resolved"] >= ENOUGH_PAIRS else INCONCLUSIVE
        return _claim("C4", verdict, f"{counted} none has the two in opposite order.", quantity, numbers)
    sentence = (
        f"{counted} {int(totals['discordant'])} ({totals['share']:.1%}) have the two in opposite order; clearest: "
        f"{pair.variant_a} at strength {pair.strength_a:g}, step {pair.step_a} has {pair.rho_sq_ratio:.2f} times the "
        f"E[ρ²] of {pair.variant_b} at strength {pair.strength_b:g}, step {pair.step_b}, and {pair.kl_ratio:.2f} times "
        f"its KL [{pair.kl_ratio_low:.2f}, {pair.kl_ratio_high:.2f}]."
    )
    interval = {"estimate": pair.kl_ratio, "low": pair.kl_ratio_low, "high": pair.kl_ratio_high, "kind": "pairs"}
    return _claim("C4", SUPPORTED, sentence, quantity, numbers, **interval)


def _interval(row: pd.Series, name: str) -> dict[str, Any]:
    return {"estimate": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"], "kind": row["kind"]}


def _with_interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = f"{row[name]:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low == low else "")
    return text.replace("-", "−")


def _join(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
