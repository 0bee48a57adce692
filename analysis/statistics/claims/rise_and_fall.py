"""C3: does gold rise, peak and fall along KL?

Every variant must fall, an intersection–union hypothesis; that some variant does not fall is the union. Data that end
early can show neither, so the KL from which on a missing fall counts is fixed beforehand, well beyond where gold peaks.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.claims.claim import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    SUPPORTED,
    Claim,
    interval_of,
    listed,
    make_claim,
    with_interval,
)  # fmt: skip
from analysis.statistics.claims.evidence import Evidence
from analysis.statistics.claims.rules import Rules
from analysis.statistics.falls import Fall, measure_fall, places_of
from analysis.statistics.frontier import SmoothedFrontier
from analysis.statistics.intervals import interval
from analysis.statistics.overoptimization import Overoptimization

QUANTITY = "smallest fall in gold from a variant's peak to the largest KL compared, SD"
_UNEQUAL = 0.05  # Bartlett's p below which variances are not pooled


def rise_and_fall(
    smoothed: Mapping[str, SmoothedFrontier], overoptimization: Overoptimization, evidence: Evidence, rules: Rules
) -> Claim:
    """Verdict on C3."""
    rule, first = _rule(rules), rules.c3.ends[0]
    curves = {variant: smoothed[variant] for variant in evidence.variants if variant in smoothed}
    if not curves:
        sentence = "No variant has enough trained policies for a curve."
        return make_claim("C3", INCONCLUSIVE, sentence, rule=rule, quantity=QUANTITY, numbers={})
    ends = {variant: max(filter(curve.covers, rules.c3.ends), default=np.nan) for variant, curve in curves.items()}
    falls = {
        name: measure_fall(curve, ends[name], places_of(evidence.final[evidence.final["variant"] == name]))
        for name, curve in curves.items()
        if np.isfinite(ends[name])
    }
    short = [variant for variant in curves if variant not in falls]
    reach = {variant: curve.kl_max for variant, curve in curves.items()}
    numbers: dict[str, object] = {
        "needed_kl": first,
        "needed_kl_for_no_fall": rules.c3.reach,
        "largest_kl": reach,
        "too_short": short,
    }
    if not falls:
        sentence = f"No variant's data reach KL {first:g} nats, where a fall could be told from data that end early."
        return make_claim("C3", INCONCLUSIVE, sentence, rule=rule, quantity=QUANTITY, numbers=numbers)
    pooled = pooled_variance(falls)
    table = _table(falls, pooled, rules.level)
    corrected = _table(falls, pooled, 1 - (1 - rules.level) / len(falls))
    down = (table["fall_low"] > 0).to_numpy()
    up = (table["rise_low"] > 0).to_numpy()
    stays = (corrected["fall_high"] < rules.c3.margin).to_numpy() & ~down & (table["kl_end"] >= rules.c3.reach)
    verdict = INCONCLUSIVE
    if not short:
        verdict = NOT_SUPPORTED if stays.any() else SUPPORTED if (down & up).all() else INCONCLUSIVE
    weakest = table.loc[table["fall"].idxmin()]
    sentence = (
        f"{int(down.sum())} of {len(curves)} variants fall beyond noise from their peak to KL "
        f"{listed(sorted(set(table['kl_end'])))} nats, and {int(stays.sum())} are shown to stay within "
        f"{rules.c3.margin:g} SD of it up to KL {rules.c3.reach:g} or more; the smallest fall is "
        f"{weakest['variant']}'s: {with_interval(weakest, 'fall')} SD up to KL {weakest['kl_end']:g}."
    )
    if short:
        sentence += f" Data of {listed(short)} do not reach KL {first:g} nats, so nothing is concluded."
    peaks = overoptimization.peaks.set_index("variant")
    columns = ["kl_peak", "kl_peak_low", "kl_peak_high", "gold_peak", "kl_max", "inside", "form"]
    numbers |= {
        "variants": table.join(peaks[columns], on="variant").to_dict("records"),
        "pooled": None if pooled is None else {"variance": pooled[0], "df": pooled[1]},
    }
    return make_claim(
        "C3", verdict, sentence, rule=rule, quantity=QUANTITY, numbers=numbers, **interval_of(weakest, "fall")
    )


def pooled_variance(falls: Mapping[str, Fall]) -> tuple[float, float] | None:
    """Seed variance of a mean fall, pooled over variants, and its degrees of freedom; None where it must not be.

    Pooled where Bartlett's test finds no difference (its p is at least 5 %) and every variant has the same seeds, three
    or more. Variants share seeds, so their variances are not independent: with correlation r between two variants'
    falls the two estimates have correlation r², and L of them are worth L / (1 + (L − 1) r²) independent ones.
    """
    own = [fall.by_seed for fall in falls.values()]
    seeds = {len(values) for values in own}
    if len(own) < 2 or len(seeds) != 1 or (count := seeds.pop()) < 3:
        return None
    table = np.stack(own)
    variances = table.var(axis=1, ddof=1)
    if (variances <= 0).any() or stats.bartlett(*table).pvalue < _UNEQUAL:
        return None
    squared = np.corrcoef(table) ** 2
    common = (squared.sum() - len(own)) / (len(own) * (len(own) - 1))
    freedom = len(own) * (count - 1) / (1 + (len(own) - 1) * common)
    return float(variances.mean() / count), float(freedom)


def _table(falls: Mapping[str, Fall], pooled: tuple[float, float] | None, level: float) -> pd.DataFrame:
    """``variant, kl_end, fall, fall_low, fall_high, fall_se, kind, rise, rise_low, rise_high``, each on its own."""
    rows = []
    for variant, fall in falls.items():
        own = interval(fall.falls, fall.design, level=level)
        row = {key: float(value) for key, value in own.columns("fall").items()}
        if pooled is not None and np.isfinite(row["fall_se"]):
            variance, freedom = pooled
            seeds = len(fall.by_seed)
            prompts = max(row["fall_se"] ** 2 - fall.by_seed.var(ddof=1) / seeds, 0.0)
            critical = [stats.t.ppf((1 + level) / 2, df) for df in (freedom, fall.design.prompts - 1)]
            half = float(np.sqrt(critical[0] ** 2 * variance + critical[1] ** 2 * prompts))
            row |= {"fall_low": row["fall"] - half, "fall_high": row["fall"] + half,
                    "fall_se": float(np.sqrt(variance + prompts))}  # fmt: skip
        if not np.any(fall.falls):  # the peak is the end in every version
            row |= {"fall_low": 0.0, "fall_high": 0.0}
        rise = interval(fall.peak, fall.design, level=level)
        row |= {"rise": float(rise.estimate), "rise_low": float(rise.low), "rise_high": float(rise.high)}
        rows.append({"variant": variant, "kl_end": fall.kl_end} | row | {"kind": str(own.kind)})
    return pd.DataFrame(rows)


def _rule(rules: Rules) -> str:
    first, margin, level = rules.c3.ends[0], rules.c3.margin, f"{100 * rules.level:g} %"
    return (
        f"Supported: of every variant, gold at the frontier's peak is above π_ref's and above gold at the largest KL "
        f"of {listed(rules.c3.ends)} nats inside its data ({level} intervals, paired by seed, seed variances pooled "
        f"over variants where they agree; all must pass, so no correction is due). Not supported: some variant's fall "
        f"stays below {margin:g} SD (Bonferroni over variants) although its data reach KL {rules.c3.reach:g}. Only "
        f"where all data reach KL {first:g} nats."
    )
