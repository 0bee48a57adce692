"""KL of policies at equal E[ρ²]: how much of KL the μ-weighted squared loss leaves open."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.intervals import LEVEL

COLUMNS = (
    "variant_a", "step_a", "variant_b", "step_b", "rho_sq", "ratio", "ratio_low", "ratio_high", "bound", "seeds",
)  # fmt: skip
_POINTS = 7
_Family = tuple[str, int]  # variant, step


@dataclass(frozen=True)
class EqualRho:
    """KL of one family of policies over KL of another where both have the same E[ρ²].

    A family is one variant at one step, such as its last checkpoints: policies that differ in strength.

    Attributes:
        ratios: ``variant_a, step_a, variant_b, step_b, rho_sq, ratio, ratio_low, ratio_high, bound, seeds``; t
            intervals over seeds of the log ratio, paired by seed, simultaneous over all rows (Bonferroni); bound: the
            factor that the ratio or its inverse stays below by two one-sided tests of this row alone.
        largest, low: the ratio furthest from 1, made larger than 1, with the low end of its interval. NaN without rows.
        high: the largest that any row's interval allows.
        bound: the largest of the rows. That all ratios lie below a factor is an intersection-union hypothesis, which
            needs no correction: it is shown at 95 % where `bound` is below that factor. NaN without rows.
    """

    ratios: pd.DataFrame
    largest: float
    low: float
    high: float
    bound: float

    @property
    def sentence(self) -> str:
        """What is known, for captions and verdicts."""
        if self.ratios.empty:
            return "KL at equal E[ρ²] could not be compared: that needs two variants or steps with several seeds."
        return (
            f"At equal E[ρ²], KL differs between variants and steps by a factor of up to {self.largest:.2f} "
            f"[{self.low:.2f}, {self.high:.2f}]."
        )


def compare_at_equal_rho(policies: pd.DataFrame) -> EqualRho:
    """Compare all pairs of families.

    Log KL is interpolated linearly in log E[ρ²] between the policies of one family and seed. A pair of families is
    compared at points spaced evenly in log E[ρ²] over what all seeds of both cover.

    Args:
        policies: ``variant, step, seed, kl, rho_sq_mean`` of checkpoints after step 0.
    """
    known = policies[(policies["kl"] > 0) & (policies["rho_sq_mean"] > 0)]
    logs = known[["variant", "step", "seed"]].assign(x=np.log(known["rho_sq_mean"]), y=np.log(known["kl"]))
    families: dict[_Family, dict[int, pd.Series]] = {}
    for (variant, step, seed), rows in logs.groupby(["variant", "step", "seed"], sort=False):
        line = rows.groupby("x")["y"].mean()
        if len(line) > 1:
            families.setdefault((str(variant), int(step)), {})[int(seed)] = line
    pairs = [pair for pair in combinations(families, 2) if len(families[pair[0]].keys() & families[pair[1]].keys()) > 1]
    rows = [row for a, b in pairs for row in _compare(a, b, families, comparisons=len(pairs) * _POINTS)]
    ratios = pd.DataFrame(rows, columns=list(COLUMNS))
    return EqualRho(ratios, *_largest(ratios), float(ratios["bound"].max()))


def _compare(
    a: _Family, b: _Family, families: dict[_Family, dict[int, pd.Series]], *, comparisons: int
) -> list[tuple[object, ...]]:
    seeds = [seed for seed in families[a] if seed in families[b]]
    lines = [[families[family][seed] for seed in seeds] for family in (a, b)]
    low = max(line.index[0] for each in lines for line in each)
    high = min(line.index[-1] for each in lines for line in each)
    if not low < high:
        return []
    at = np.linspace(low, high, _POINTS)
    one, other = (np.stack([np.interp(at, line.index, line.to_numpy()) for line in each]) for each in lines)
    gaps = one - other
    critical = stats.t.isf((1 - LEVEL) / 2 / comparisons, len(seeds) - 1)
    mean, se = gaps.mean(axis=0), gaps.std(axis=0, ddof=1) / len(seeds) ** 0.5
    bound = np.abs(mean) + stats.t.ppf(LEVEL, len(seeds) - 1) * se
    with np.errstate(over="ignore"):  # of two seeds the critical value is thousands, and an interval may have no end
        columns = [np.exp(each) for each in (at, mean, mean - critical * se, mean + critical * se, bound)]
    return [(*a, *b, *map(float, row), len(seeds)) for row in zip(*columns, strict=True)]


def _largest(ratios: pd.DataFrame) -> tuple[float, float, float]:
    if ratios.empty:
        return np.nan, np.nan, np.nan
    with np.errstate(divide="ignore"):  # the other end of such an interval is a ratio of 0
        estimate, low, high = (np.log(ratios[key].to_numpy(float)) for key in ("ratio", "ratio_low", "ratio_high"))
    row = int(np.abs(estimate).argmax())
    ends = (low[row], high[row]) if estimate[row] >= 0 else (-high[row], -low[row])
    return float(np.exp(abs(estimate[row]))), float(np.exp(ends[0])), float(np.exp(np.maximum(high, -low).max()))
