"""Proxy, gold and truth on the same policies (Gao et al. 2023): where each turns down, and Gao's coefficients.

A proxy labels, the gold model judges, and in a synthetic world the hidden rater's utility is known: three levels, each
of which may go on rising while the next one falls.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.data.best_of_n import FITS, LABELLER, LEVELS, load_best_of_n
from analysis.data.sweep import Sweep
from analysis.statistics.frontier import fit_frontiers
from analysis.statistics.gold_forms import fit_form
from analysis.statistics.intervals import LEVEL
from analysis.statistics.optimal_beta import find_optimal_betas
from analysis.statistics.overoptimization import fit_overoptimization
from analysis.statistics.resampling import make_draws

CURVE_COLUMNS = [*LABELLER, "level", "n", "kl", "kl_k1", "score", "score_low", "score_high", "proxies"]
COEFFICIENT_COLUMNS = [
    *LABELLER, "level", "alpha", "alpha_low", "alpha_high", "beta", "beta_low", "beta_high", "peak_kl", "proxies",
]  # fmt: skip
FIT_COLUMNS = [*LABELLER, *(f"{name}{end}" for name in FITS for end in ("", "_low", "_high")), "proxies"]
POLICY_COLUMNS = ["variant", "level", "strength", "kl", "kl_se", "score", "score_low", "score_high", "seeds"]
_PEAKS = ("kl_peak", "gold_peak", "peak_beta")
PEAK_COLUMNS = ["variant", "level", *(f"{name}{end}" for name in _PEAKS for end in ("", "_low", "_high"))]


@dataclass(frozen=True)
class Levels:
    """What was measured at each level.

    Attributes:
        policies: POLICY_COLUMNS, a row per variant, level and strength: means over seeds with t intervals.
        peaks: PEAK_COLUMNS, where each level of a variant peaks in KL (of the smoothed frontier) and in strength, with
            intervals over seeds and prompts; NaN where it does not peak inside the data.
        best_of_n: CURVE_COLUMNS, means over proxies with t intervals; with one proxy over prompts.
        coefficients: COEFFICIENT_COLUMNS of R(d) = d (α − β d), d = √KL, fitted to each proxy's curve: means and t
            intervals over proxies; peak_kl = (α/2β)², NaN where β is not above 0.
        fits: FIT_COLUMNS, how well proxies agree with held-out gold labels and how well they are calibrated on them:
            means and t intervals over proxies.
    """

    policies: pd.DataFrame
    peaks: pd.DataFrame
    best_of_n: pd.DataFrame
    coefficients: pd.DataFrame
    fits: pd.DataFrame

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels there are, from the labeller to the truth."""
        there = {*self.policies["level"], *self.best_of_n["level"]}
        return tuple(level for level in LEVELS if level in there)


def study_best_of_n(curves: pd.DataFrame | None) -> Levels:
    """The part that stands on best-of-n alone.

    Args:
        curves: `analysis.data.best_of_n.load_best_of_n`.
    """
    curves = pd.DataFrame() if curves is None else curves
    return Levels(
        pd.DataFrame(columns=POLICY_COLUMNS),
        pd.DataFrame(columns=PEAK_COLUMNS),
        pd.DataFrame(_curves(curves), columns=CURVE_COLUMNS),
        pd.DataFrame(_coefficients(curves), columns=COEFFICIENT_COLUMNS),
        pd.DataFrame(_fits(curves), columns=FIT_COLUMNS),
    )


def study_levels(sweep: Sweep, rng: np.random.Generator) -> Levels | None:
    """Compare the levels; None where nothing but gold was recorded.

    Args:
        rng: resamples the evaluation prompts.
    """
    curves = load_best_of_n(sweep.path, sweep.plan)
    recorded = [level for level in LEVELS if sweep.checkpoints[level].notna().all()]
    if curves is None and recorded == ["gold"]:
        return None
    peaks = [row for level in recorded for row in _peaks(sweep, level, rng)]
    return replace(
        study_best_of_n(curves),
        policies=pd.DataFrame(_policies(sweep, recorded), columns=POLICY_COLUMNS),
        peaks=pd.DataFrame(peaks, columns=PEAK_COLUMNS),
    )


def _policies(sweep: Sweep, levels: Sequence[str]) -> Iterator[dict[str, Any]]:
    for (variant, strength), rows in sweep.final.groupby(["variant", "strength"], sort=False):
        kl = {"kl": rows["kl"].mean(), "kl_se": rows["kl"].std(ddof=1) / np.sqrt(len(rows)), "seeds": len(rows)}
        for level in levels:
            spread = _over(rows[level].to_numpy(), float(rows[f"{level}_se"].mean()))
            yield {"variant": variant, "level": level, "strength": strength, **kl, **_named("score", spread)}


def _peaks(sweep: Sweep, level: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    draws = make_draws(sweep, rng, level=level)
    frontiers = fit_frontiers(draws, ends_only=True)
    betas = find_optimal_betas(draws.swept(sweep.swept)).table.set_index("variant")
    for row in fit_overoptimization(draws.at_ends(), frontiers.smoothed).peaks.to_dict("records"):
        strengths = {key: betas[key].get(row["variant"], np.nan) for key in PEAK_COLUMNS[-3:]}
        yield {key: row.get(key) for key in PEAK_COLUMNS[:-3]} | strengths | {"level": level}


def _curves(curves: pd.DataFrame) -> Iterator[dict[str, Any]]:
    if curves.empty:
        return
    for key, rows in curves.groupby([*LABELLER, "n"], sort=False, dropna=False):
        labeller = dict(zip([*LABELLER, "n"], key, strict=True))
        kl = {"kl": rows["kl"].iloc[0], "kl_k1": rows["kl_k1"].mean(), "proxies": len(rows)}
        for level in _recorded(rows):
            yield (
                labeller
                | kl
                | {"level": level}
                | _named("score", _over(rows[level].to_numpy(), rows[f"{level}_se"].mean()))
            )


def _coefficients(curves: pd.DataFrame) -> Iterator[dict[str, Any]]:
    if curves.empty:
        return
    for key, rows in curves.groupby(LABELLER, sort=False, dropna=False):
        for level in _recorded(rows):
            fitted = np.array([_fit(own, level) for _, own in rows.groupby("cell", sort=False)])
            alpha, beta = (_named(name, _over(fitted[:, i], np.nan)) for i, name in enumerate(("alpha", "beta")))
            mean = fitted.mean(axis=0)
            peak = (mean[0] / (2 * mean[1])) ** 2 if mean[1] > 0 else np.nan
            labeller = dict(zip(LABELLER, key, strict=True))
            yield labeller | {"level": level, "proxies": len(fitted), "peak_kl": peak} | alpha | beta


def _fits(curves: pd.DataFrame) -> Iterator[dict[str, Any]]:
    if curves.empty:
        return
    proxies = curves[curves["by"] == "proxy"].drop_duplicates("cell")
    for key, rows in proxies.groupby(LABELLER, sort=False, dropna=False):
        fit: dict[str, Any] = {"proxies": len(rows)}
        for name in FITS:
            fit |= _named(name, _over(rows[name].to_numpy(dtype=float), np.nan))
        yield dict(zip(LABELLER, key, strict=True)) | fit


def _fit(rows: pd.DataFrame, level: str) -> np.ndarray:
    """α and β of one proxy's curve, every n above 1 with equal weight."""
    moved = rows[rows["n"] > 1]
    d, score = np.sqrt(moved["kl"].to_numpy())[None], moved[level].to_numpy()[None]
    return fit_form("best_of_n", d, score, np.ones_like(d))[0]


def _recorded(rows: pd.DataFrame) -> list[str]:
    return [level for level in LEVELS if rows[level].notna().all()]


def _over(values: np.ndarray, se_of_one: float) -> tuple[float, float, float]:
    """Mean with a t interval over `values`; with a single one from the standard error that it has by itself."""
    if len(values) > 1:
        se, critical = values.std(ddof=1) / np.sqrt(len(values)), stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    else:
        se, critical = se_of_one, stats.norm.ppf((1 + LEVEL) / 2)
    mean = float(values.mean())
    return mean, float(mean - critical * se), float(mean + critical * se)


def _named(name: str, spread: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), spread, strict=True))
