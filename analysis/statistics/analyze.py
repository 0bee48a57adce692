"""Everything that this package computes for one sweep at one setting, in one call."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.data.held_out import held_out_rho
from analysis.data.sweep import Sweep
from analysis.statistics.best_of_n import Ceiling, find_ceiling
from analysis.statistics.claims import Claim, Rules, Standing, assess_claims, gather_evidence, standing_of
from analysis.statistics.discordance import Discordance, compare_orders
from analysis.statistics.frontier import KL_BUDGETS, Frontiers, fit_frontiers
from analysis.statistics.levels import Levels, study_levels
from analysis.statistics.optimal_beta import OptimalBetas, find_optimal_betas
from analysis.statistics.overoptimization import Overoptimization, fit_overoptimization
from analysis.statistics.practice import Practice, study_practice
from analysis.statistics.prompt_noise import SampledPrompts
from analysis.statistics.resampling import make_draws


@dataclass(frozen=True)
class Analysis:
    """Results for one sweep; `ceiling` is None when the sweep has no reference pool, `practice` without samples.

    `standing` says whether the claims are confirmatory, by `rules`; `levels` is None where only gold was recorded.
    """

    sweep: Sweep
    frontiers: Frontiers
    optimal_betas: OptimalBetas
    overoptimization: Overoptimization
    ceiling: Ceiling | None
    discordance: Discordance
    practice: Practice | None
    claims: tuple[Claim, ...]
    standing: Standing
    rules: Rules
    warnings: tuple[str, ...]
    levels: Levels | None = None


def analyze(
    sweep: Sweep,
    rng: np.random.Generator,
    *,
    predictions: pd.DataFrame | None = None,
    budgets: tuple[float, ...] = KL_BUDGETS,
    rules: Rules | None = None,
    ends_only: bool | None = None,
) -> Analysis:
    """Compute all statistics of a sweep.

    Args:
        rng: resamples the evaluation prompts; the same generator state gives the same numbers.
        predictions: ``variant, local, global_``: predicted β(variant) / β(baseline).
        budgets: KLs in nats at which variants are compared.
        rules: margins, budgets and tests of the verdicts; the variant that ratios of β are taken to.
        ends_only: fit frontiers and forms of over-optimization to trained policies, not to checkpoints on the way; as
            the rules say by default.
    Raises:
        RefusedSweep: the sweep cannot be analyzed as one (several settings, samples that contradict the records).
    """
    rules = rules or Rules()
    by_rule = rules.fit == "last"
    ends_only = by_rule if ends_only is None else ends_only
    changed = "" if ends_only == by_rule else f"{rules.name} fits frontiers to {rules.fit} checkpoints."
    draws = make_draws(sweep, rng)
    frontiers = fit_frontiers(draws, ends_only=ends_only, budgets=budgets, margin=rules.c1.margin)
    betas = find_optimal_betas(
        draws.swept(sweep.swept), baseline=rules.c2.baseline, budgets=budgets, averaged=rules.c2.budgets,
        predictions=predictions,
    )  # fmt: skip
    fitted = draws.at_ends() if ends_only else draws
    overoptimization = fit_overoptimization(fitted, frontiers.smoothed, ends=rules.c3.ends)
    ceiling = None
    if sweep.reference is not None:
        ceiling = find_ceiling(sweep.reference, draws, frontiers.smoothed, budgets=budgets)
    evidence = gather_evidence(draws, rules, sweep)
    kl_by_prompt = draws.noise.kl if isinstance(draws.noise, SampledPrompts) else None
    discordance = compare_orders(
        sweep.checkpoints, held_out_rho(sweep), kl_by_prompt, evidence.variants,
        false_discovery_rate=rules.c4.false_discovery_rate,
    )  # fmt: skip
    practice = study_practice(sweep, rng, frontiers, overoptimization)
    claims = assess_claims(frontiers, betas, overoptimization, discordance, evidence, rules)
    standing = standing_of(sweep, rules, changed=changed)
    warnings = (
        *sweep.warnings, *draws.warnings, *frontiers.warnings, *betas.warnings, *overoptimization.warnings,
        *(ceiling.warnings if ceiling else ()), *filter(None, [evidence.words_on_identical]),
    )  # fmt: skip
    return Analysis(
        sweep, frontiers, betas, overoptimization, ceiling, discordance, practice, claims, standing, rules, warnings,
        study_levels(sweep, rng),
    )  # fmt: skip
