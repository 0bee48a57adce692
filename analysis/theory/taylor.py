"""The Taylor split behind "offline regularization", and how far from the reference it holds.

At ρ = 0, E f(βρ) = f(0) + β f'(0) E[ρ] + ½ β² f''(0) E[ρ²] + O(β³): a constant, a term that optimizes preferences, and
the μ-weighted squared loss, which regularizes (Tang et al. 2024, arXiv 2402.05749, section 4). The error of the split
is measured here as a share of the change of the loss, |E f(βρ) − f(0)|: a share of the loss itself would be flattered
by the constant. That measure, and the 10 % at which the split counts as holding, are ours.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis.theory.losses import LOSS_THEORY, LossTheory

TOLERANCE = 0.1
_SEARCHED = np.linspace(0, 50, 50001)[1:]  # |βρ|; what holds up to the end of this holds throughout


class TaylorSplit(NamedTuple):
    """Terms of the split and the exact mean, all dimensionless."""

    constant: float
    preference: float
    regularization: float
    exact: float

    @property
    def error(self) -> float:
        """|sum of the terms − exact| / |exact − constant|."""
        return abs(self.constant + self.preference + self.regularization - self.exact) / abs(self.exact - self.constant)


def taylor_split(theory: LossTheory, beta_rho: ArrayLike) -> TaylorSplit:
    """Split the mean of f over margins βρ.

    Raises:
        FloatingPointError: a term is not finite; names it.
    """
    z, zero = np.asarray(beta_rho, dtype=np.float64), np.zeros(1)
    split = TaylorSplit(
        constant=float(theory.value(zero)[0]),
        preference=float(theory.slope(zero)[0] * z.mean()),
        regularization=float(theory.curvature(zero)[0] * (z**2).mean() / 2),
        exact=float(theory.value(z).mean()),
    )
    for term, value in split._asdict().items():
        if not np.isfinite(value):
            raise FloatingPointError(f"Taylor split of {theory.name}: the {term} term is {value}")
    return split


def taylor_range(theory: LossTheory, tolerance: float = TOLERANCE) -> tuple[float, float]:
    """Lowest and highest βρ between which the split of f(βρ) errs by `tolerance` or less; ±inf if unlimited."""

    def first_violation(direction: int) -> float:
        z = direction * _SEARCHED
        constant, slope, curvature = (f(np.zeros(1))[0] for f in (theory.value, theory.slope, theory.curvature))
        change = theory.value(z) - constant
        off = np.abs(slope * z + curvature * z**2 / 2 - change) > tolerance * np.abs(change) + 1e-12
        return float(z[off.argmax()]) if off.any() else direction * np.inf

    return first_violation(-1), first_violation(1)


def taylor_ranges(tolerance: float = TOLERANCE) -> pd.DataFrame:
    """`taylor_range` of every loss: loss, low, high (βρ, to 0.001)."""
    ranges = [(name, *taylor_range(theory, tolerance)) for name, theory in LOSS_THEORY.items()]
    return pd.DataFrame(ranges, columns=["loss", "low", "high"])


def taylor_trajectories(checkpoints: pd.DataFrame) -> pd.DataFrame:
    """The split along real training, from the terms that every cell records on held-out pairs.

    Args:
        checkpoints: `analysis.data.sweep.Sweep.checkpoints`.
    Returns:
        One row per checkpoint after step 0 (where all is constant) of a loss with a split: variant, strength, seed,
        step, constant, preference, regularization, exact (E f(βρ)), error (as `TaylorSplit.error`), beta_rho_rms
        (root mean square of βρ).
    """
    rows = checkpoints[(checkpoints["step"] > 0) & checkpoints["taylor_constant"].notna()]
    terms = {
        "constant": rows["taylor_constant"],
        "preference": rows["taylor_preference"],
        "regularization": rows["taylor_regularization"],
        "exact": rows["held_out_loss"],
    }
    off = terms["constant"] + terms["preference"] + terms["regularization"] - terms["exact"]
    result = rows[["variant", "strength", "seed", "step"]].assign(
        **terms,
        error=off.abs() / (terms["exact"] - terms["constant"]).abs(),
        beta_rho_rms=rows["beta"] * np.sqrt(rows["rho_sq_mean"]),
    )
    return result.reset_index(drop=True)
