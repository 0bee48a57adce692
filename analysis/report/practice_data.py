"""What the interactive page draws of choosing a strength, length, implicit reward and residuals."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.report.practice_tables import rule_words
from analysis.report.script_json import by_variant, numbers
from analysis.statistics.analyze import Analysis
from analysis.statistics.gold_forms import FORMS
from analysis.statistics.practice.choosing import ORACLE


def practice_data(analysis: Analysis, index: dict[str, int]) -> dict[str, Any] | None:
    """``choosing, length, implicit, residuals`` for the scripts; None without samples.

    Args:
        index: number of every variant.
    """
    practice = analysis.practice
    if practice is None:
        return None
    length = practice.length.reindex(columns=["variant", *_LENGTH])
    return {
        "choosing": _choosing(analysis, practice.choosing, index),
        "length": by_variant(length, index, _LENGTH),
        "implicit": by_variant(practice.implicit, index, _IMPLICIT),
        "residuals": _residuals(analysis, practice.residuals, index),
    }


_LENGTH = ("strength", "kl", "gold", "controlled", "controlled_low", "controlled_high")
_IMPLICIT = ("strength", "kl", "length", "reward", "reward_low", "reward_high")
_RESIDUAL = ("strength", "kl", "residual", "residual_low", "residual_high")


def _choosing(analysis: Analysis, table: pd.DataFrame, index: dict[str, int]) -> dict[str, Any]:
    """Rules in their order, and each variant's regret under them (null where it cannot be told)."""
    regret = table[table["rule"] != ORACLE]
    rules = list(dict.fromkeys(regret["rule"]))
    columns = ["regret", "regret_low", "regret_high"]
    values = {
        index[str(variant)]: {
            key: numbers(column) for key, column in part.set_index("rule")[columns].reindex(rules).items()
        }
        for variant, part in regret.groupby("variant", sort=False)
    }
    return {"rules": [rule_words(rule, analysis.sweep.strength_name) for rule in rules], "variants": values}


def _residuals(analysis: Analysis, table: pd.DataFrame, index: dict[str, int]) -> dict[str, Any]:
    """From the frontier, and from the form with the least held-out error, whether or not it fits."""
    fits = analysis.overoptimization.fits.dropna(subset="held_out_rmse")
    best = fits.loc[fits.groupby("variant")["held_out_rmse"].idxmin()].set_index("variant")["form"] if len(fits) else {}
    of_best = np.array([best.get(row.variant) == row.line for row in table.itertuples()], dtype=bool)
    return {
        "frontier": by_variant(table[table["line"] == "frontier"], index, _RESIDUAL),
        "form": by_variant(table[of_best], index, _RESIDUAL),
        "names": {index[variant]: FORMS[form] for variant, form in dict(best).items() if variant in index},
    }
