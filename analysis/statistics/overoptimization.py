"""Does gold rise, peak and fall with KL? Gao et al.'s two forms against a monotone one.

All three pass through gold 0 at KL 0 and have two parameters. They are fitted to the checkpoints of a variant by least
squares weighted with 1/gold_se²; the form that best predicts the checkpoints of a β (with fewer than three β: of a
seed) that it was not fitted to is chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.frontier import SmoothedFrontier
from analysis.statistics.gold_forms import FORMS, fit_form, form_gold, inverse_peak
from analysis.statistics.intervals import interval
from analysis.statistics.resampling import Design, Draws, VariantReplicates
from analysis.statistics.stacking import stack, stack_rows

NO_PEAK = "no peak inside the data"
FIT_COLUMNS = [
    "variant", "form", "first", "first_low", "first_high", "second", "second_low", "second_high", "kind",
    "held_out_rmse", "folds", "chosen",
]  # fmt: skip
CURVE_COLUMNS = ["variant", "form", "kl", "chosen", "gold"]
_PEAK = ("kl_peak", "kl_peak_low", "kl_peak_high", "gold_peak", "gold_peak_low", "gold_peak_high")
PEAK_COLUMNS = [
    "variant", "form", *_PEAK, "kl_max", "inside", "note", "drop", "drop_low", "drop_high", "drop_se", "kind",
]  # fmt: skip
_CURVE_POINTS = 80


@dataclass(frozen=True)
class Overoptimization:
    """Fits of gold against d = √KL, per variant.

    Attributes:
        fits: ``variant, form, first, first_low, first_high, second, second_low, second_high, kind, held_out_rmse,
            folds, chosen``; first and second are α, β (or a, s) in SD units and √nats; held_out_rmse in SD, NaN
            where there is a single fold (then no form is chosen).
        curves: ``variant, form, kl, gold, chosen``; the fitted forms inside the data.
        peaks: one row per variant: ``variant, form, kl_peak, kl_peak_low, kl_peak_high, gold_peak, gold_peak_low,
            gold_peak_high, kl_max, inside, drop, drop_low, drop_high, drop_se, kind, note``; of the chosen form, NaN
            and a note ("no peak inside the data") where it has none up to kl_max. drop is gold at the peak of the
            smoothed frontier minus gold at kl_max, the peak located without the seed on which it is measured (with
            one seed: on the same data, which favors a positive drop).
        warnings: sentences.
    """

    fits: pd.DataFrame
    curves: pd.DataFrame
    peaks: pd.DataFrame
    warnings: tuple[str, ...]


def fit_overoptimization(draws: Draws, smoothed: Mapping[str, SmoothedFrontier]) -> Overoptimization:
    """Fit the forms to every variant with a frontier and say where gold peaks.

    Args:
        smoothed: the frontiers of the same draws (`Frontiers.smoothed`).
    """
    fits, curves, peaks = [], [], []
    for variant in smoothed:
        replicates = draws.of(variant)
        weight = replicates.weight * _precision(replicates.rows["gold_se"].to_numpy())
        d = np.sqrt(replicates.kl)
        parameters = {form: fit_form(form, d, replicates.gold, weight) for form in FORMS}
        errors, folds = _held_out_rmse(replicates, weight[0])
        chosen = min(errors, key=lambda form: errors[form]) if folds > 1 else None
        fits += [
            _fit_row(variant, form, values, replicates.design, errors[form], folds, chosen)
            for form, values in parameters.items()
        ]
        kl = smoothed[variant].grid(_CURVE_POINTS)
        curves += [
            pd.DataFrame({"variant": variant, "form": form, "kl": kl, "chosen": form == chosen,
                          "gold": form_gold(form, values[0], np.sqrt(kl))})
            for form, values in parameters.items()
        ]  # fmt: skip
        peaks.append(_peak_row(variant, chosen, parameters, smoothed[variant]))
    table = stack_rows(peaks, PEAK_COLUMNS)
    warnings = [f"{row.variant}: {row.note}" for row in table.itertuples() if row.note and row.note != NO_PEAK]
    return Overoptimization(
        stack_rows(fits, FIT_COLUMNS),
        stack(curves, CURVE_COLUMNS),
        table,
        tuple(warnings),
    )


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
    variant: str, form: str, parameters: np.ndarray, design: Design, error: float, folds: int, chosen: str | None
) -> dict[str, object]:
    result = interval(parameters, design)
    row: dict[str, object] = {"variant": variant, "form": form}
    for number, name in enumerate(("first", "second")):
        for suffix, values in (("", result.estimate), ("_low", result.low), ("_high", result.high)):
            row[name + suffix] = values[number]
    return row | {"kind": result.kind[0], "held_out_rmse": error, "folds": folds, "chosen": form == chosen}


def _peak_row(
    variant: str, chosen: str | None, parameters: Mapping[str, np.ndarray], curve: SmoothedFrontier
) -> dict[str, object]:
    row: dict[str, object] = {"variant": variant, "form": chosen or "none", **dict.fromkeys(_PEAK, np.nan)}
    row |= {"kl_max": curve.kl_max, "inside": False}
    if chosen is None:
        row["note"] = "a single β and seed: no form can be chosen by held-out error"
    else:
        inverse = inverse_peak(chosen, parameters[chosen])
        row["inside"] = bool(inverse[0] * np.sqrt(curve.kl_max) > 1)
        row["note"] = "" if row["inside"] else NO_PEAK
        if row["inside"]:
            where = interval(inverse, curve.design)
            d = np.clip(1 / np.maximum(inverse, 1e-9), None, np.sqrt(curve.kl_max))
            gold = np.stack([form_gold(chosen, p, at) for p, at in zip(parameters[chosen], d[:, None], strict=True)])
            height = interval(gold[:, 0], curve.design)
            values = (*(float(_kl_of(x)) for x in (where.estimate, where.high, where.low)),
                      float(height.estimate), float(height.low), float(height.high))  # fmt: skip
            row |= dict(zip(_PEAK, values, strict=True))
    drop = interval(_drop(curve), curve.design)
    return row | {key: float(value) for key, value in drop.columns("drop").items()} | {"kind": str(drop.kind)}


def _kl_of(inverse: np.ndarray) -> np.ndarray:
    """KL* = d*² from 1/d*; infinite where no peak is."""
    return np.where(inverse <= 0, np.inf, 1 / np.maximum(inverse, 1e-9) ** 2)  # NaN, where no interval, stays


def _drop(curve: SmoothedFrontier) -> np.ndarray:
    """Gold at the frontier's peak minus gold at its end, in every version, [R].

    With the peak located on the same seeds, noise alone would make the drop positive. Seed s's own drop, by its
    pseudo-value S·full − (S − 1)·without_s, is therefore taken at the peak of the other seeds; the average over seeds
    replaces the full value, and the values without a seed are set so that the jackknife sees these drops.
    """
    gold = curve.gold(curve.grid())
    drops = gold - gold[:, -1:]
    seeds, used = curve.design.seed_count, np.flatnonzero(curve.design.seeds_used)
    at = int(gold[0].argmax())
    values = drops[:, at].copy()
    if seeds < 2:
        return values
    own = np.empty(seeds)
    for number, seed in enumerate(used):
        left_out = 1 + seed
        place = gold[left_out].argmax()
        own[number] = seeds * drops[0, place] - (seeds - 1) * drops[left_out, place]
    values[0] = own.mean()
    values[1 + used] = (own.sum() - own) / (seeds - 1)
    return values
