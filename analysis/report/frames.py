"""The report's CSV files: the same numbers as in the results, chosen, ordered and rounded by nobody."""

import pandas as pd

from analysis.data.sweep import Sweep
from analysis.statistics.analyze import Analysis
from analysis.statistics.frontier import Frontiers
from analysis.statistics.optimal_beta import OptimalBetas


def csv_frames(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Every frame of an analysis by the name of its CSV file."""
    betas, frontiers, ceiling = analysis.optimal_betas, analysis.frontiers, analysis.ceiling
    frames = {
        "cells": cell_frame(analysis.sweep),
        "checkpoints": analysis.sweep.checkpoints.drop(columns="versions"),
        "frontier": frontier_frame(frontiers),
        "frontier_pairwise": frontiers.pairwise,
        "frontier_points": frontiers.points,
        "optimal_beta": optimal_beta_frame(betas),
        "beta_cells": betas.cells,
        "beta_at_kl": betas.at_kl,
        "beta_ratios": betas.ratios,
        "overoptimization_fits": analysis.overoptimization.fits,
        "overoptimization_peaks": analysis.overoptimization.peaks,
    }
    if ceiling is not None:
        frames |= {
            "best_of_n": ceiling.best_of_n,
            "kl_constrained_optimum": ceiling.tilted,
            "ceiling_shares": ceiling.shares,
        }
    if analysis.practice is not None:
        practice = analysis.practice
        frames |= {
            "choosing_strength": practice.choosing,
            "gold_variance": practice.variance,
            "detectable_difference": practice.detectable,
            "visible_at_equal_kl": practice.visible,
            "residuals": practice.residuals,
            "length_controlled_gold": practice.length,
            "implicit_reward": practice.implicit,
            "below_reference": practice.below,
            "probability_of_improvement": practice.improvement,
        }
    if analysis.levels is not None:
        frames |= {
            "levels_of_policies": analysis.levels.policies,
            "level_peaks": analysis.levels.peaks,
            "levels_of_best_of_n": analysis.levels.best_of_n,
            "best_of_n_coefficients": analysis.levels.coefficients,
        }
    frames["kl_at_equal_rho_sq"] = analysis.discordance.at_equal_rho.ratios
    return frames


def cell_frame(sweep: Sweep) -> pd.DataFrame:
    """One row per planned cell: plan keys, state, attempts, steps, error, and the final record where there is one."""
    outcome = ["step", "kl", "kl_se", "kl_k1", "gold", "gold_se", "win_rate", "win_rate_se", "response_tokens",
               "eos_rate", "distinct_2", "held_out_loss", "pair_accuracy", "rho_sq_mean", "wall_s"]  # fmt: skip
    return sweep.cells.merge(sweep.final[["cell", *outcome]], on="cell", how="left", validate="one_to_one")


def optimal_beta_frame(betas: OptimalBetas) -> pd.DataFrame:
    """One row per variant: grid's best β and its spread over seeds, fitted peak, and β relative to the baseline's.

    Columns of `OptimalBetas.table`, then for the peak and at matched KL (geometric mean over budgets)
    ``ratio_peak, ratio_peak_low, ratio_peak_high, ratio_kl, ratio_kl_low, ratio_kl_high``, and the predictions
    ``ratio_local, ratio_global``.
    """
    table = betas.table
    for place, name in (("peak", "ratio_peak"), ("kl_mean", "ratio_kl")):
        rows = betas.ratios[betas.ratios["at"] == place]
        columns = {"ratio": name, "ratio_low": f"{name}_low", "ratio_high": f"{name}_high"}
        table = table.merge(rows[["variant", *columns]].rename(columns=columns), on="variant", how="left")
    predicted = betas.ratios.groupby("variant")[["local", "global_"]].first()
    predicted = predicted.rename(columns={"local": "ratio_local", "global_": "ratio_global"})
    return table.merge(predicted, left_on="variant", right_index=True, how="left")


def frontier_frame(frontiers: Frontiers) -> pd.DataFrame:
    """One row per variant: gold at each KL budget with its interval (NaN where not covered) and mean up to a common KL.

    Columns ``variant, gold_at_<kl>, gold_at_<kl>_low, gold_at_<kl>_high`` per budget, then ``common_kl, mean_gold,
    mean_gold_low, mean_gold_high, kind``.
    """
    columns = {}
    for kl, rows in frontiers.budgets.groupby("kl", sort=True):
        for suffix in ("", "_low", "_high"):
            columns[f"gold_at_{kl:g}{suffix}"] = rows.set_index("variant")[f"gold{suffix}"]
    areas = frontiers.areas.rename(columns={"kl_max": "common_kl"})
    means = areas[["variant", "common_kl", "mean_gold", "mean_gold_low", "mean_gold_high", "kind"]]
    wide = pd.DataFrame(columns, index=pd.Index(means["variant"], name="variant")).reset_index()
    return wide.merge(means, on="variant", validate="one_to_one")
