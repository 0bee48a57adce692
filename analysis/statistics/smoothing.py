"""Penalized regression splines, fitted to all replicates at once.

Cubic B-splines on equal segments with a difference penalty on neighboring coefficients (P-splines; Eilers & Marx
1996, Statistical Science 11). Chosen because the fit is linear in the response, needs no shape assumption (a
frontier may rise, peak and fall, or not), bridges gaps in x smoothly, and is fast enough to refit per replicate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

PENALTIES = np.logspace(-6, 2, 17)  # relative to the total weight of the observations
_CERTAIN = 1e5  # weight of a known point, relative to all observations
_CHUNK = 4_000_000  # observations × replicates handled at once, to bound memory


@dataclass(frozen=True)
class Basis:
    """Cubic B-splines on `segments` equal parts of [low, high]; segments + 3 functions."""

    low: float
    high: float
    segments: int = 12

    @property
    def size(self) -> int:
        """Number of basis functions."""
        return self.segments + 3

    def local(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First non-zero function at each x, and the values of the four non-zero ones: [...], [4, ...]."""
        position = (x - self.low) / (self.high - self.low) * self.segments
        first = np.clip(np.floor(position), 0, self.segments - 1).astype(np.intp)
        u = position - first
        values = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]) / 6
        return first, values

    def matrix(self, x: np.ndarray) -> np.ndarray:
        """All functions at x [m]: [m, size]."""
        first, values = self.local(x)
        result = np.zeros((len(x), self.size))
        for offset in range(4):
            result[np.arange(len(x)), first + offset] = values[offset]
        return result


@dataclass(frozen=True)
class NormalEquations:
    """Σ w b bᵀ [R, K, K], Σ w b y [R, K] and Σ w [R] of R data sets in one basis."""

    gram: np.ndarray
    moment: np.ndarray
    weight: np.ndarray

    def __sub__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(self.gram - other.gram, self.moment - other.moment, self.weight - other.weight)

    def through_zero(self, basis: Basis) -> "NormalEquations":
        """The same with a point (0, 0) that outweighs all others: what is known there is not fitted."""
        at = basis.matrix(np.zeros(1))[0]
        return replace(self, gram=self.gram + _CERTAIN * self.weight[:, None, None] * np.outer(at, at))

    def solve(self, penalty: float, order: int) -> np.ndarray:
        """Coefficients [R, K] under `penalty` × Σw × the squared differences of `order` of the coefficients."""
        size = self.gram.shape[-1]
        difference = np.diff(np.eye(size), n=order, axis=0)
        # A trace of ridge keeps the system solvable where fewer distinct x than `order` carry weight.
        ridge = difference.T @ difference * penalty + 1e-10 * np.eye(size)
        return np.linalg.solve(self.gram + self.weight[:, None, None] * ridge, self.moment[..., None])[..., 0]


def normal_equations(basis: Basis, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> NormalEquations:
    """Accumulate the normal equations of R data sets; x, y, weight are [R, n]."""
    parts = max(1, -(-x.size // _CHUNK))
    pieces = [
        _accumulate(basis, *piece)
        for piece in zip(*(np.array_split(a, parts) for a in (x, y, weight)), strict=True)
        if len(piece[0])
    ]
    return NormalEquations(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def _accumulate(basis: Basis, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple:
    replicates, size = len(x), basis.size
    first, values = basis.local(x)
    slot = first + size * np.arange(replicates)[:, None]
    gram = np.zeros((replicates, size, size))
    moment = np.zeros((replicates, size))
    rows = np.arange(size)
    for a in range(4):
        weighted = weight * values[a]
        moment += _sum_by(slot + a, weighted * y, replicates, size)
        for b in range(a, 4):
            band = _sum_by(slot + a, weighted * values[b], replicates, size)[:, : size - (b - a)]
            gram[:, rows[: size - (b - a)], rows[b - a :]] += band
            if b > a:
                gram[:, rows[b - a :], rows[: size - (b - a)]] += band
    return gram, moment, weight.sum(1)


def _sum_by(slot: np.ndarray, values: np.ndarray, replicates: int, size: int) -> np.ndarray:
    return np.bincount(slot.ravel(), values.ravel(), minlength=replicates * size).reshape(replicates, size)


def held_out_errors(
    basis: Basis,
    x: np.ndarray,
    y: np.ndarray,
    fold: np.ndarray,
    order: int,
    known: Callable[[NormalEquations], NormalEquations] = lambda equations: equations,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Weighted sum of squared errors at each of PENALTIES when each fold is predicted from the others.

    Only held-out points inside the x range of the remaining data count: a smoother is not asked to extrapolate.

    Args:
        x, y: [n] observations.
        fold: [n] labels, such as β.
        known: adds what is known without data, such as `NormalEquations.through_zero`.
        weight: [n] of each observation, all alike by default.
    """
    weight = np.ones(len(x)) if weight is None else weight
    total = normal_equations(basis, x[None], y[None], weight[None])
    errors = np.zeros(len(PENALTIES))
    for label in np.unique(fold):
        out = fold == label
        rest = known(total - normal_equations(basis, x[None, out], y[None, out], weight[None, out]))
        inside = out & (x >= x[~out].min()) & (x <= x[~out].max())
        at = basis.matrix(x[inside])
        for number, penalty in enumerate(PENALTIES):
            errors[number] += weight[inside] @ (at @ rest.solve(penalty, order)[0] - y[inside]) ** 2
    return errors
