"""Many simulated sweeps through the same functions as a real one: coverage, half-widths, verdicts."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.power.simulate import Simulated, Size, simulate
from analysis.power.truth import PEAK_KL, PREDICTED, SCENARIOS, Truth, rise_and_fall
from analysis.statistics.claims import INCONCLUSIVE, Rules, assess_claims, gather_evidence
from analysis.statistics.discordance import compare_orders
from analysis.statistics.frontier import Frontiers, fit_frontiers
from analysis.statistics.intervals import interval
from analysis.statistics.optimal_beta import OptimalBetas, find_optimal_betas
from analysis.statistics.overoptimization import fit_overoptimization

BUDGETS = (0.5, 1.0, 2.0)
CLAIMS = ("C1", "C2", "C3", "C4")


def replicate(scenario: str, size: Size, seed: int) -> dict[str, Any]:
    """One sweep: verdicts by claim; which intervals cover the truth; half-widths of the equivalence test."""
    truth, rules = SCENARIOS[scenario], Rules()
    simulated = simulate(truth, size, np.random.default_rng([seed, sum(scenario.encode())]))
    draws = simulated.draws
    frontiers = fit_frontiers(draws, ends_only=True, budgets=BUDGETS)
    predictions = pd.DataFrame({"variant": list(PREDICTED), "local": list(PREDICTED.values()), "global_": np.nan})
    betas = find_optimal_betas(draws, averaged=rules.c2.budgets, budgets=BUDGETS, predictions=predictions)
    overoptimization = fit_overoptimization(draws, frontiers.smoothed, ends=rules.c3.ends)
    discordance = _discordance(simulated)
    evidence = gather_evidence(draws, rules)
    claims = assess_claims(frontiers, betas, overoptimization, discordance, evidence, rules)
    result: dict[str, Any] = {claim.id: claim.verdict for claim in claims}
    if not evidence.obstacles:
        result |= _coverage(truth, frontiers, betas) | _half_widths(frontiers)
    return result


def _discordance(simulated: Simulated) -> Any:
    table = simulated.draws.rows.assign(rho_sq_mean=(simulated.rho**2).mean(axis=1))
    return compare_orders(table, simulated.rho, simulated.draws.noise.kl)  # type: ignore[union-attr]


def _coverage(truth: Truth, frontiers: Frontiers, betas: OptimalBetas) -> dict[str, list[bool]]:
    gold = [
        bool(row.gold_low <= truth.gold_of(row.variant, row.kl) <= row.gold_high)
        for row in frontiers.budgets.itertuples()
        if row.covered
    ]
    ratios = betas.ratios[betas.ratios["at"] == "kl_mean"]
    beta = [bool(row.ratio_low <= truth.ratio[row.variant] <= row.ratio_high) for row in ratios.itertuples()]
    covered = {"gold at equal KL": gold, "β ratio at equal KL": beta}
    if truth.gold is rise_and_fall and not truth.better and not truth.scatter:
        peaks = betas.table.dropna(subset=["peak_beta_low", "peak_beta_high"])
        at = {name: _beta_at(truth, name, PEAK_KL) for name in PREDICTED}
        covered["β at the peak"] = [
            bool(row.peak_beta_low <= at[row.variant] <= row.peak_beta_high) for row in peaks.itertuples()
        ]
    return covered


def _beta_at(truth: Truth, variant: str, kl: float) -> float:
    """β whose KL is `kl`: `Truth.kl` the other way round."""
    return float((kl / truth.kl(variant, 1.0)) ** (-1 / 0.75))


def _half_widths(frontiers: Frontiers) -> dict[str, float]:
    """Half of the 90 % interval of a difference between two variants, averaged over pairs, by budget."""
    result = {}
    for kl in BUDGETS:
        covering = [curve for curve in frontiers.smoothed.values() if curve.covers(kl)]
        widths = []
        for a, b in combinations(covering, 2):
            gap = interval(a.gold(np.array([kl])) - b.gold(np.array([kl])), a.design.union(b.design), level=0.9)
            widths.append(float((gap.high - gap.low)[0]) / 2)
        result[f"half-width at {kl:g}"] = float(np.mean(widths)) if widths else np.nan
    return result


def study(scenario: str, size: Size, replications: int, processes: int = 1) -> pd.DataFrame:
    """`replications` sweeps of a scenario, a row each, the columns of `replicate`."""
    one = partial(replicate, scenario, size)
    if processes == 1:
        return pd.DataFrame(map(one, range(replications)))
    with ProcessPoolExecutor(processes) as pool:
        return pd.DataFrame(pool.map(one, range(replications), chunksize=2))


def summarize(scenario: str, results: pd.DataFrame) -> dict[str, str]:
    """A row of the table: verdicts as supported / not supported / inconclusive in %, and coverage in %."""
    truth, row = SCENARIOS[scenario], {"scenario": scenario}
    for claim in CLAIMS:
        share = results[claim].value_counts(normalize=True)
        counts = [share.get(verdict, 0.0) for verdict in ("supported", "not supported", INCONCLUSIVE)]
        wrong = sum(share.get(v, 0.0) for v in ("supported", "not supported") if v != truth.expected.get(claim))
        row[claim] = " / ".join(f"{100 * part:.0f}" for part in counts) + (
            f" ({100 * wrong:.0f} wrong)" if wrong else ""
        )
    for name in ("gold at equal KL", "β ratio at equal KL", "β at the peak"):
        hits = [hit for each in results.get(name, pd.Series(dtype=object)).dropna() for hit in each]
        row[name] = f"{100 * np.mean(hits):.0f}" if hits else "–"
    return row


def markdown(rows: list[dict[str, str]]) -> Iterator[str]:
    """Lines of a table."""
    if not rows:
        return
    yield "| " + " | ".join(rows[0]) + " |"
    yield "|" + "---|" * len(rows[0])
    for row in rows:
        yield "| " + " | ".join(row.values()) + " |"
