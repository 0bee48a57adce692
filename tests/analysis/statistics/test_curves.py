"""The curves of several variants: where gold scatters more between seeds, it weighs less."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.statistics import curves
from analysis.statistics.resampling import make_draws

TRUTH = Truth(losses=("logistic", "squared"), seeds=(0, 1, 2, 3), steps=(0, 96, 192), prompts=16)


def test_the_spread_between_seeds_is_measured_along_the_axis():
    rng, rows = np.random.default_rng(0), []
    for number, kl in enumerate(np.geomspace(0.1, 10, 40)):
        place = np.log1p(np.sqrt(kl))
        rows += [("f", number, 8, kl, gold) for gold in rng.normal(0, np.exp(0.75 * place), 200)]
    frame = pd.DataFrame(rows, columns=["variant", "strength", "step", "kl", "gold"])
    assert curves._steepness(frame) == pytest.approx(1.5, abs=0.1)


def test_a_policy_weighs_less_where_seeds_scatter_more(tmp_path, monkeypatch):
    sweep = load_sweep(write_sweep(tmp_path / "s", TRUTH))
    weights = []

    def note(basis, x, y, fold, order, known, weight):
        weights.append((x, weight))
        return np.zeros(len(curves.PENALTIES))

    monkeypatch.setattr(curves, "held_out_errors", note)
    monkeypatch.setattr(curves, "_steepness", lambda rows: 1.5)
    curves.smooth_all(make_draws(sweep, np.random.default_rng(0), draws=5), ("logistic", "squared"))
    assert len(weights) == 2
    for x, weight in weights:
        np.testing.assert_allclose(np.log(weight), -1.5 * x)
