"""Everything that this package computes for one sweep at one setting, in one call."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep
from analysis.statistics.best_of_n import Ceiling, find_ceiling
from analysis.statistics.claims import Claim, assess_claims
from analysis.statistics.discordance import Discordance, compare_orders
from analysis.statistics.frontier import EQUIVALENCE_MARGIN, KL_BUDGETS, Frontiers, fit_frontiers
from analysis.statistics.optimal_beta import BASELINE, OptimalBetas, find_optimal_betas
from analysis.statistics.overoptimization import Overoptimization, fit_overoptimization
from analysis.statistics.resampling import make_draws


@dataclass(frozen=True)
class Analysis:
    """Results for one sweep; `ceiling` is None when the sweep has no reference pool."""

    sweep: Sweep
    frontiers: Frontiers
    optimal_betas: OptimalBetas
    overoptimization: Overoptimization
    ceiling: Ceiling | None
    discordance: Discordance
    claims: tuple[Claim, ...]
    warnings: tuple[str, ...]


def analyze(
    sweep: Sweep,
    rng: np.random.Generator,
    *,
    predictions: pd.DataFrame | None = None,
    budgets: tuple[float, ...] = KL_BUDGETS,
    margin: float = EQUIVALENCE_MARGIN,
    baseline: str = BASELINE,
    ends_only: bool = True,
) -> Analysis:
    """Compute all statistics of a sweep.

    Args:
        rng: resamples the evaluation prompts; the same generator state gives the same numbers.
        predictions: ``variant, local, global_``: predicted β(variant) / β(baseline).
        budgets: KLs in nats at which variants are compared.
        margin: largest difference in gold (SD units) that still counts as the same frontier.
        baseline: variant that ratios of β are taken to.
        ends_only: fit frontiers and forms of over-optimization to trained policies, not to checkpoints on the way.
    Raises:
        RefusedSweep: the sweep cannot be analyzed as one (several settings, samples that contradict the records).
    """
    draws = make_draws(sweep, rng)
    frontiers = fit_frontiers(draws, ends_only=ends_only, budgets=budgets, margin=margin)
    betas = find_optimal_betas(draws.swept(sweep.swept), baseline=baseline, budgets=budgets, predictions=predictions)
    overoptimization = fit_overoptimization(draws.at_ends() if ends_only else draws, frontiers.smoothed)
    ceiling = None
    if sweep.reference is not None:
        ceiling = find_ceiling(sweep.reference, draws, frontiers.smoothed, budgets=budgets)
    discordance = compare_orders(sweep, frontiers.smoothed)
    claims = assess_claims(frontiers, betas, overoptimization, discordance)
    warnings = (
        *sweep.warnings, *draws.warnings, *frontiers.warnings, *betas.warnings, *overoptimization.warnings,
        *(ceiling.warnings if ceiling else ()),
    )  # fmt: skip
    return Analysis(sweep, frontiers, betas, overoptimization, ceiling, discordance, claims, warnings)
