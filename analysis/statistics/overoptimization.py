"""Does gold rise, peak and fall with KL? The frontier's own peak, and Gao et al.'s two forms against a monotone one.

The forms pass through gold 0 at KL 0 and have two parameters. They are fitted to the checkpoints of a variant by least
squares weighted with 1/gold_se²; of the forms that the data do not reject (`analysis.statistics.lack_of_fit`) the one
that best predicts the checkpoints of a β (with fewer than three β: of a seed) that it was not fitted to is chosen, and
none where all are rejected. Where gold peaks is read off the smoothed frontier, which follows the data where the forms
do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.falls import measure_fall, places_of
from analysis.statistics.frontier import SmoothedFrontier
from analysis.statistics.gold_forms import FORMS, fit_form, form_gold
from analysis.statistics.intervals import LEVEL, interval
from analysis.statistics.lack_of_fit import by_configuration, lack_of_fit
from analysis.statistics.peaks import highest_point
from analysis.statistics.resampling import Design, Draws, VariantReplicates
from analysis.statistics.stacking import stack, stack_rows

NO_PEAK = "no peak inside the data"
NONE_FITS = "none fits"
SPLINE = "spline"
FIT_COLUMNS = [
    "variant", "form", "first", "first_low", "first_high", "second", "second_low", "second_high", "kind",
    "held_out_rmse", "folds", "lack_of_fit", "chosen",
]  # fmt: skip
CURVE_COLUMNS = ["variant", "form", "kl", "chosen", "gold"]
_PEAK = ("kl_peak", "kl_peak_low", "kl_peak_high", "gold_peak", "gold_peak_low", "gold_peak_high")
PEAK_COLUMNS = [
    "variant", "form", *_PEAK, "kl_max", "inside", "note", "drop_kl", "drop", "drop_low", "drop_high", "drop_se",
    "kind",
]  # fmt: skip
_CURVE_POINTS = 80
_PEAK_POINTS = 401


@dataclass(frozen=True)
class Overoptimization:
    """The frontier's peak and fits of gold against d = √KL, per variant.

    Attributes:
        fits: ``variant, form, first, first_low, first_high, second, second_low, second_high, kind, held_out_rmse,
            folds, lack_of_fit, chosen``; first and second are α, β (or a, s) in SD units and √nats; held_out_rmse in
            SD, NaN where there is a single fold (then no form is chosen); lack_of_fit is p of the test against the
            spread between seeds, NaN where there is none; a form whose p is below 5 % is not chosen.
        curves: ``variant, form, kl, gold, chosen``; the fitted forms inside the data, and the frontier (``spline``),
            which is the chosen one where no form fits.
        peaks: one row per variant: ``variant, form, kl_peak, kl_peak_low, kl_peak_high, gold_peak, gold_peak_low,
            gold_peak_high, kl_max, inside, note, drop_kl, drop, drop_low, drop_high, drop_se, kind``; form is the
            chosen one, ``none fits`` or ``none`` (it cannot be known); the peak is the smoothed frontier's, NaN and a
            note ("no peak inside the data") where gold is highest at an end. A kl_peak_high of ∞ says that the interval
            leaves the data. drop is gold at the peak minus gold at drop_kl, the largest of the ends that the data cover
            (without one: kl_max), from the highest place where data lie, located without the seed on which it is
            measured (with one seed: on the same data, which favors a positive drop).
        warnings: sentences.
    """

    fits: pd.DataFrame
    curves: pd.DataFrame
    peaks: pd.DataFrame
    warnings: tuple[str, ...]


def fit_overoptimization(
    draws: Draws, smoothed: Mapping[str, SmoothedFrontier], *, ends: Sequence[float] = ()
) -> Overoptimization:
    """Fit the forms to every variant with a frontier and say where gold peaks.

    Args:
        smoothed: the frontiers of the same draws (`Frontiers.smoothed`).
        ends: KLs in nats at which a fall may end.
    """
    fits, curves, peaks = [], [], []
    for variant in smoothed:
        replicates = draws.of(variant)
        weight = replicates.weight * _precision(replicates.rows["gold_se"].to_numpy())
        d = np.sqrt(replicates.kl)
        parameters = {form: fit_form(form, d, replicates.gold, weight) for form in FORMS}
        errors, folds = _held_out_rmse(replicates, weight[0])
        configurations = by_configuration(replicates.rows)
        misfit = {form: lack_of_fit(form, values[0], *configurations) for form, values in parameters.items()}
        chosen = _choose(errors, folds, misfit)
        fits += [
            _fit_row(variant, form, values, replicates.design, errors[form], folds)
            | {"lack_of_fit": misfit[form], "chosen": form == chosen}
            for form, values in parameters.items()
        ]
        curves += _curves(variant, parameters, smoothed[variant], chosen)
        peaks.append(_peak_row(variant, chosen, smoothed[variant], ends, places_of(replicates.rows)))
    table = stack_rows(peaks, PEAK_COLUMNS)
    warnings = [f"{row.variant}: {row.note}" for row in table.itertuples() if row.note and row.note != NO_PEAK]
    return Overoptimization(
        stack_rows(fits, FIT_COLUMNS),
        stack(curves, CURVE_COLUMNS),
        table,
        tuple(warnings),
    )


def _choose(errors: Mapping[str, float], folds: int, misfit: Mapping[str, float]) -> str:
    if folds < 2:
        return "none"
    fitting = [form for form in FORMS if not misfit[form] < 1 - LEVEL]
    return min(fitting, key=lambda form: errors[form]) if fitting else NONE_FITS


def _curves(
    variant: str, parameters: Mapping[str, np.ndarray], curve: SmoothedFrontier, chosen: str
) -> list[pd.DataFrame]:
    kl = curve.grid(_CURVE_POINTS)
    lines = {form: form_gold(form, values[0], np.sqrt(kl)) for form, values in parameters.items()}
    lines[SPLINE] = curve.gold(kl)[0]
    drawn = SPLINE if chosen == NONE_FITS else chosen
    return [
        pd.DataFrame({"variant": variant, "form": form, "kl": kl, "chosen": form == drawn, "gold": gold})
        for form, gold in lines.items()
    ]


def _precision(gold_se: np.ndarray) -> np.ndarray:
    """1/SE², relative to the median; equal weights where no SE is known to be positive."""
    positive = gold_se[gold_se > 0]
    typical = np.median(positive) if len(positive) else 1.0
    return (typical / np.where(gold_se > 0, gold_se, typical)) ** 2


def _held_out_rmse(replicates: VariantReplicates, weight: np.ndarray) -> tuple[dict[str, float], int]:
    """Weighted root mean squared error of each form on folds it was not fitted to, and the number of folds."""
    rows = replicates.rows
    fold = rows["strength"] if len(rows["strength"].unique()) > 2 else rows["seed"]
    labels = fold.unique()
    if len(labels) < 2:
        return dict.fromkeys(FORMS, np.nan), len(labels)
    d, gold = np.sqrt(replicates.kl[0]), replicates.gold[0]
    kept = (fold.to_numpy()[None, :] != labels[:, None]) * weight  # [folds, n]
    everywhere = np.broadcast_to(d, kept.shape), np.broadcast_to(gold, kept.shape)
    held_out = weight - kept
    errors = {}
    for form in FORMS:
        residual = form_gold(form, fit_form(form, *everywhere, kept), d) - gold
        errors[form] = float(np.sqrt((held_out * residual**2).sum() / held_out.sum()))
    return errors, len(labels)


def _fit_row(
    variant: str, form: str, parameters: np.ndarray, design: Design, error: float, folds: int
) -> dict[str, object]:
    result = interval(parameters, design)
    row: dict[str, object] = {"variant": variant, "form": form}
    for number, name in enumerate(("first", "second")):
        for suffix, values in (("", result.estimate), ("_low", result.low), ("_high", result.high)):
            row[name + suffix] = values[number]
    return row | {"kind": result.kind[0], "held_out_rmse": error, "folds": folds}


def _peak_row(
    variant: str, chosen: str, curve: SmoothedFrontier, ends: Sequence[float], places: np.ndarray
) -> dict[str, object]:
    row: dict[str, object] = {"variant": variant, "form": chosen, **dict.fromkeys(_PEAK, np.nan)}
    d = np.sqrt(curve.grid(_PEAK_POINTS))
    gold = curve.gold(d**2)
    where, height, inside = highest_point(d, gold)
    row |= {"kl_max": curve.kl_max, "inside": inside, "note": "" if inside else NO_PEAK}
    if inside:
        place, top = interval(where, curve.design), interval(height, curve.design)
        # Squares of the limits of d*; an interval that leaves the data is open.
        low, high = max(float(place.low), 0.0) ** 2, float(place.high) ** 2
        row |= {
            "kl_peak": float(place.estimate) ** 2, "kl_peak_low": np.nan if np.isnan(place.low) else low,
            "kl_peak_high": np.inf if high > curve.kl_max else high, "gold_peak": float(top.estimate),
            "gold_peak_low": float(top.low), "gold_peak_high": float(top.high),
        }  # fmt: skip
    if chosen == "none":
        row["note"] = "a single β and seed: no form can be chosen by held-out error"
    end = max(filter(curve.covers, ends), default=curve.kl_max)
    fall = measure_fall(curve, end, places)
    drop = interval(fall.falls, curve.design)
    return row | {"drop_kl": end, "kind": str(drop.kind)} | {k: float(v) for k, v in drop.columns("drop").items()}
