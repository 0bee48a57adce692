"""Confidence intervals that name what they cover."""

from dataclasses import dataclass

# kind -> what a caption says about an interval of that kind.
KINDS = {
    "seeds": "t interval over seeds (delete-one-seed jackknife) with the shared prompts' variance added",
    "prompts": "interval over evaluation prompts only (one seed): does not cover the variation between runs",
    "simultaneous": "max-|t| interval over all pairs of losses, seeds as blocks, seed variance pooled over losses",
}
LEVEL = 0.95
# Columns of an estimated quantity q in every frame of this package: q, q_low, q_high, q_se, and once per row `kind`.


@dataclass(frozen=True)
class Interval:
    """One estimate with its interval; NaN where there is nothing to estimate."""

    estimate: float
    low: float
    high: float
    se: float
    df: float
    kind: str
