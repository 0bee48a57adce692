"""Two sweeps, or two settings of one sweep, side by side: differences of matched cells with intervals.

Limits of a difference come from the limits of its two terms (MOVER; Zou & Donner 2008, Statistics in Medicine 27:1693):

    low  = (b − a) − √((b − b_low)² + (a_high − a)²)
    high = (b − a) + √((b_high − b)² + (a − a_low)²)

which needs nothing but the two intervals and keeps their asymmetry. The terms are taken to be independent; where two
sweeps share evaluation prompts or seeds, the interval is wider than need be, not narrower.
"""

import numpy as np
import pandas as pd

from analysis.statistics.analyze import Analysis

# What sets the scale of gold and KL; the preference data may well be what two sweeps differ in.
_SCALE_KEYS = ("world", "gold_model", "reference")


def differing_scales(first: Analysis, other: Analysis) -> list[str]:
    """Which of world, gold model and reference samples are not the same in both: then no difference means anything."""
    one, two = (analysis.sweep.checkpoints.iloc[0] for analysis in (first, other))
    return [key for key in _SCALE_KEYS if one[key] != two[key]]


def matched_differences(first: Analysis, other: Analysis) -> pd.DataFrame:
    """`other` minus `first` for every variant and β that both have finished.

    Returns:
        ``variant, strength, seeds_first, seeds_other, gold, gold_low, gold_high, kl, kl_low, kl_high, kind``:
        differences of final gold (SD units) and KL (nats); kind is the two terms'.
    """
    keys = ["variant", "strength"]
    columns = [*keys, "seeds", "kind", *(q + suffix for q in ("gold", "kl") for suffix in ("", "_low", "_high"))]
    both = first.optimal_betas.cells[columns].merge(
        other.optimal_betas.cells[columns], on=keys, suffixes=("_first", "_other")
    )
    result = both[[*keys, "seeds_first", "seeds_other"]].copy()
    for quantity in ("gold", "kl"):
        terms = [both[[f"{quantity}{part}_{side}" for part in ("", "_low", "_high")]] for side in ("first", "other")]
        difference, low, high = _mover(*(term.to_numpy().T for term in terms))
        result[quantity], result[f"{quantity}_low"], result[f"{quantity}_high"] = difference, low, high
    result["kind"] = both["kind_other"].where(both["kind_first"] == both["kind_other"], "prompts")
    return result


def _mover(first: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate and limits of other − first, each given as rows (estimate, low, high)."""
    a, a_low, a_high = first
    b, b_low, b_high = other
    difference = b - a
    return difference, difference - np.hypot(b - b_low, a_high - a), difference + np.hypot(b_high - b, a - a_low)
