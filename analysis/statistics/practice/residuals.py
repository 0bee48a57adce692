"""How far policies lie from the lines that are drawn through them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.statistics.frontier import SmoothedFrontier
from analysis.statistics.gold_forms import FORMS, form_gold
from analysis.statistics.practice.policies import over_seeds

LINES = ("frontier", *FORMS)
COLUMNS = ("variant", "line", "strength", "kl", "residual", "residual_low", "residual_high", "seeds", "kind")


def residuals(rows: pd.DataFrame, smoothed: Mapping[str, SmoothedFrontier], fits: pd.DataFrame) -> pd.DataFrame:
    """Gold of the trained policies minus the smoothed frontier and minus each form of over-optimization.

    A line that passes by its data on one side shows as residuals of one sign whose intervals leave 0.

    Args:
        rows: trained policies, ``variant, strength, seed, kl, gold``.
        smoothed: frontiers by variant; policies beyond what they cover have no residual.
        fits: `analysis.statistics.overoptimization.Overoptimization.fits`.
    Returns:
        COLUMNS: per variant, line and strength, the mean over seeds in SD with a t interval.
    """
    found = []
    for variant, curve in smoothed.items():
        own = rows[(rows["variant"] == variant) & rows["kl"].between(curve.kl_min, curve.kl_max)]
        kl = own["kl"].clip(lower=0).to_numpy(float)
        drawn = {"frontier": curve.gold(kl)[0]} if len(own) else {}
        for fit in fits[fits["variant"] == variant].itertuples():
            drawn[fit.form] = form_gold(fit.form, np.array([fit.first, fit.second]), np.sqrt(kl))
        for line, gold in drawn.items():
            table = own[["strength", "kl"]].assign(residual=own["gold"].to_numpy() - gold)
            for strength, part in table.groupby("strength"):
                kind = "seeds_only" if len(part) > 1 else "none"
                limits = over_seeds(part["residual"].to_numpy())
                found.append((variant, line, strength, float(part["kl"].mean()), *limits, len(part), kind))
    return pd.DataFrame(found, columns=list(COLUMNS))
