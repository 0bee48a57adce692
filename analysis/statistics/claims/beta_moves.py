"""C2: does β at which a variant performs best differ as theory predicts?

Judged by β at equal KL, which the data place more narrowly than the peak of gold against β: where frontiers are alike,
the two ratios are one. Only the local prediction (Tang et al. 2024, section 4) takes part: a variant without curvature
at 0, as hinge, has none, and what stands in its place rests on a choice of ours.
"""

import numpy as np
import pandas as pd

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
from analysis.statistics.claims.contrasts import Contrasts
from analysis.statistics.claims.evidence import Evidence
from analysis.statistics.claims.rules import Rules
from analysis.statistics.optimal_beta import OptimalBetas

_RATIO = ["variant", "ratio", "ratio_low", "ratio_high", "kind", "predicted"]


def beta_moves(betas: OptimalBetas, evidence: Evidence, rules: Rules) -> Claim:
    """Verdict on C2."""
    budgets, baseline = rules.c2.budgets, betas.baseline
    quantity = f"β at equal KL relative to {baseline}, geometric mean over KL {listed(budgets)}"
    predicted = _predictions(betas)
    once, merged = _once(evidence, [name for name in predicted.index if name in evidence.variants], budgets)
    lacking = [variant for variant in once if variant not in betas.matched]
    contrasts, others = Contrasts(), Contrasts()
    for variant, (values, design) in betas.matched.items():
        if variant in evidence.variants and variant not in merged:
            (contrasts if variant in once else others).add(values, design, variant=variant)
    numbers: dict[str, object] = {
        "at_equal_kl": [],
        "by_kl": betas.ratios.loc[betas.ratios["at"] == "kl", ["variant", "kl", "ratio", "ratio_low", "ratio_high"]]
        .to_dict("records"),
        "at_peak": betas.ratios.loc[betas.ratios["at"] == "peak", ["variant", "ratio", "ratio_low", "ratio_high"]]
        .to_dict("records"),
        "not_covered": lacking, "identical": merged,
    }  # fmt: skip
    rule = _rule(rules, baseline)
    if not len(contrasts):
        why = (
            f"data of {listed(lacking)} or {baseline} do not cover KL {listed(budgets)}"
            if lacking
            else f"theory predicts no variant's β to differ from {baseline}'s, or there is no {baseline}"
        )
        sentence = f"Nothing could be held against a prediction: {why}."
        return make_claim("C2", INCONCLUSIVE, sentence, rule=rule, quantity=quantity, numbers=numbers)
    table = _ratios(contrasts, contrasts.each_level(rules.level)).assign(
        predicted=[float(predicted[labels["variant"]]) for labels in contrasts.labels]
    )
    side = contrasts.beyond(0.0, 0.0, level=rules.level, multiplicity=rules.multiplicity)
    agrees = side * np.sign(np.log(table["predicted"])).to_numpy()
    factor = np.log(rules.c2.same)
    same = (_within(contrasts, factor, rules)) & (agrees <= 0)
    wrong = (agrees < 0) | same
    verdict = NOT_SUPPORTED if wrong.any() else SUPPORTED if (agrees > 0).all() and not lacking else INCONCLUSIVE
    table["verdict"] = np.select([agrees > 0, agrees < 0, same], ["as predicted", "other side", "same"], "unclear")
    further = _ratios(others, rules.level).assign(predicted=np.nan, verdict="no prediction")
    numbers["at_equal_kl"] = pd.concat([part for part in (table, further) if len(part)]).to_dict("records")
    clearest = table.loc[np.log(table["ratio"] / table["predicted"]).abs().idxmax()]
    sentence = _sentence(table, agrees, same, clearest, baseline, budgets)
    if lacking:
        sentence += f" Data of {listed(lacking)} do not cover all of these KLs."
    return make_claim(
        "C2", verdict, sentence, rule=rule, quantity=quantity, numbers=numbers, **interval_of(clearest, "ratio")
    )


def _predictions(betas: OptimalBetas) -> pd.Series:
    """Local predictions by variant, other than 1: without a direction there is nothing to hold data against."""
    local = betas.predictions.set_index("variant")["local"].drop(betas.baseline, errors="ignore").dropna()
    return local[np.log(local).abs() > 0.01]


def _once(evidence: Evidence, variants: list[str], budgets: tuple[float, ...]) -> tuple[list[str], dict[str, str]]:
    """Variants without those whose runs are another's at every budget, and these with that other."""
    firsts = [evidence.same_at(kl) for kl in budgets]
    merged = {
        variant: firsts[0][variant]
        for variant in variants
        if firsts[0][variant] in variants and {first[variant] for first in firsts} == {firsts[0][variant]} != {variant}
    }
    return [variant for variant in variants if variant not in merged], merged


def _ratios(contrasts: Contrasts, level: float) -> pd.DataFrame:
    table = contrasts.table("ratio", level)
    names = ["ratio", "ratio_low", "ratio_high"]
    return table.assign(**{name: np.exp(table[name].astype(float)) for name in names})


def _within(contrasts: Contrasts, factor: float, rules: Rules) -> np.ndarray:
    """Which log ratios lie within ±factor, any of which alone decides: at the corrected level."""
    table = contrasts.table("x", contrasts.each_level(rules.level))
    return ((table["x_low"] > -factor) & (table["x_high"] < factor)).to_numpy()


def _sentence(
    table: pd.DataFrame, agrees: np.ndarray, same: np.ndarray, clearest: pd.Series, baseline: str, budgets: tuple
) -> str:
    each = listed(
        f"{row['variant']} {with_interval(row, 'ratio')} (predicted {row['predicted']:g})"
        for _, row in table.iterrows()
    )
    return (
        f"At KL {listed(budgets)} nats {int((agrees > 0).sum())} of {len(table)} variants need another β than "
        f"{baseline} on the side that theory predicts, {int((agrees < 0).sum())} on the other, and "
        f"{int(same.sum())} the same: ratios {each}. Farthest from its prediction is {clearest['variant']}."
    )


def _rule(rules: Rules, baseline: str) -> str:
    level = f"{100 * rules.level:g} %"
    correction = f"{rules.multiplicity.capitalize()}'s correction over them"
    return (
        f"Supported: of every variant whose local prediction is not 1, β at equal KL (geometric mean over KL "
        f"{listed(rules.c2.budgets)} nats, paired by seed) over {baseline}'s lies on the predicted side of 1 at "
        f"{level} after {correction}. Not supported: one lies on the other side, or is within a factor of "
        f"{rules.c2.same:g} of 1 without being on the predicted side. Variants without such a prediction are "
        "shown and take no part."
    )
