"""C1: do all variants trace the same frontier?

"All are equivalent" is an intersection–union hypothesis: it is claimed only if every single test passes, so each test
may use the whole error probability (Berger 1982, Technometrics 24:295). "Some two differ" is the union: corrected.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

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
from analysis.statistics.frontier import DIFFERENT, EQUIVALENT, UNCLEAR, SmoothedFrontier

QUANTITY = "largest difference in gold between two variants at equal KL, SD"


def same_frontier(smoothed: Mapping[str, SmoothedFrontier], evidence: Evidence, rules: Rules) -> Claim:
    """Verdict on C1.

    Args:
        smoothed: `analysis.statistics.frontier.Frontiers.smoothed`.
    """
    margin, budgets = rules.c1.margin, rules.c1.budgets
    curves = {variant: smoothed[variant] for variant in evidence.variants if variant in smoothed}
    short = {kl: [variant for variant, curve in curves.items() if not curve.covers(kl)] for kl in budgets}
    contrasts, merged = _differences(curves, evidence, budgets)
    rule = _rule(rules)
    numbers: dict[str, object] = {
        "margin": margin, "kl_budgets": list(budgets), "comparisons": len(contrasts),
        "not_covered": {f"{kl:g}": names for kl, names in short.items() if names},
        "identical_at": {f"{kl:g}": names for kl, names in merged.items() if names},
        "identical_cells": evidence.identical.to_dict("records"),
    }  # fmt: skip
    lacking = _lacking(curves, short)
    if not len(contrasts):
        reason = lacking or "All variants are the same runs at every budget."
        sentence = f"No two variants could be compared at equal KL. {reason}"
        return make_claim("C1", INCONCLUSIVE, sentence, rule=rule, quantity=QUANTITY, numbers=numbers)
    table = contrasts.table("difference", contrasts.each_level(rules.level))
    tested = contrasts.table("difference", 2 * rules.level - 1)
    equivalent = contrasts.inside(-margin, margin, level=rules.level)
    different = contrasts.beyond(-margin, margin, level=rules.level, multiplicity=rules.multiplicity) != 0
    # What a test cannot tell from equal is not thereby inside the margin, and the other way round.
    table["verdict"] = np.select([different, equivalent], [DIFFERENT, EQUIVALENT], UNCLEAR)
    table["equivalence_low"], table["equivalence_high"] = tested["difference_low"], tested["difference_high"]
    widest = table.loc[table["difference"].abs().idxmax()]
    complete = not any(short.values())
    verdict = NOT_SUPPORTED if different.any() else SUPPORTED if equivalent.all() and complete else INCONCLUSIVE
    sentence = (
        f"Of {len(table)} differences between variants at KL {listed(budgets)} nats, {int(equivalent.sum())} are shown "
        f"to lie within ±{margin:g} SD and {int(different.sum())} beyond it; the largest is {widest['variant_a']} − "
        f"{widest['variant_b']} at KL {widest['kl']:g}: {with_interval(widest, 'difference')} SD."
    )
    extra = " ".join(part for part in (lacking, evidence.words_on_identical) if part)
    numbers |= {
        "equivalent": int(equivalent.sum()),
        "different": int(different.sum()),
        "pairs": table.to_dict("records"),
    }
    return make_claim(
        "C1", verdict, f"{sentence} {extra}".strip(), rule=rule, quantity=QUANTITY, numbers=numbers,
        **interval_of(widest, "difference"),
    )  # fmt: skip


def _differences(
    curves: Mapping[str, SmoothedFrontier], evidence: Evidence, budgets: tuple[float, ...]
) -> tuple[Contrasts, dict[float, dict[str, str]]]:
    """All differences at every budget between variants that cover it, identical ones counted once; and those."""
    contrasts, merged = Contrasts(), {}
    for kl in budgets:
        first = evidence.same_at(kl)
        merged[kl] = {variant: other for variant, other in first.items() if variant != other}
        names = [variant for variant, curve in curves.items() if curve.covers(kl) and first[variant] == variant]
        gold = {variant: curves[variant].gold(np.array([kl]))[:, 0] for variant in names}
        for a, b in combinations(names, 2):
            design = curves[a].design.union(curves[b].design)
            contrasts.add(gold[a] - gold[b], design, variant_a=a, variant_b=b, kl=kl)
    return contrasts, merged


def _lacking(curves: Mapping[str, SmoothedFrontier], short: Mapping[float, list[str]]) -> str:
    if len(curves) < 2:
        return "There is only one variant with a frontier." if curves else "No variant has a frontier."
    parts = [f"KL {kl:g} ({listed(names)})" for kl, names in short.items() if names]
    return f"Not every variant's data cover {listed(parts)}, so the claim cannot be supported." if parts else ""


def _rule(rules: Rules) -> str:
    percent = f"{100 * (2 * rules.level - 1):g} %"
    return (
        f"Supported: the {percent} interval of every difference at KL {listed(rules.c1.budgets)} nats lies within "
        f"±{rules.c1.margin:g} SD (two one-sided t tests, paired by seed; all must pass, so no correction is due). Not "
        f"supported: some difference lies beyond ±{rules.c1.margin:g} SD at {100 * rules.level:g} % after "
        f"{rules.multiplicity.capitalize()}'s correction over all; one that is not 0 but inside the margin counts as "
        "equivalent."
    )
