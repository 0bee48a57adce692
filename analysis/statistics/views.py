"""A view is what can be analyzed as one: a sweep at one setting."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep
from analysis.statistics.analyze import Analysis, analyze
from analysis.statistics.claims import Rules, read_rules
from analysis.theory.losses import LOSS_THEORY, predicted_beta_ratios
from bench.records import GPO


def analyze_views(
    sweeps: Sequence[Sweep], *, seed: int = 0, ends_only: bool | None = None, rules: Rules | None = None
) -> dict[str, Analysis]:
    """One analysis per sweep and setting (learning rate, ...), by a title that tells them apart.

    Args:
        seed: of the resampling, the same for every view.
        ends_only: see `analysis.statistics.analyze.analyze`.
        rules: of the verdicts; those of conf/claims.yaml by default.
    Raises:
        analysis.data.sweep.RefusedSweep: samples that contradict their records.
    """
    rules = read_rules() if rules is None else rules
    names = [sweep.name for sweep in sweeps]
    views = {}
    for sweep in sweeps:
        name = sweep.name if names.count(sweep.name) == 1 else str(sweep.path)
        for setting, part in sweep.by_setting():
            title = ", ".join([name, *(f"{key} = {value}" for key, value in setting.items())])
            predictions = _predictions(part, rules.c2.baseline)
            views[title] = analyze(
                part, np.random.default_rng(seed), predictions=predictions, rules=rules, ends_only=ends_only
            )
    return views


def _predictions(sweep: Sweep, baseline: str) -> pd.DataFrame | None:
    """What theory says of how β moves: of the variants that are a built-in loss of GPO, and of no other."""
    if sweep.label_probability is None or baseline not in LOSS_THEORY:
        return None
    ratios = predicted_beta_ratios(sweep.label_probability, baseline=baseline).rename(columns={"loss": "variant"})
    return ratios[ratios["variant"].map(sweep.methods) == GPO].reset_index(drop=True)
