"""Tables hold the numbers of the frames they come from."""

import numpy as np
import pandas as pd
import pytest
from synthetic_draws import simulate

from analysis.report.frames import cell_frame, frontier_frame, optimal_beta_frame
from analysis.statistics.frontier import fit_frontiers
from analysis.statistics.optimal_beta import find_optimal_betas

BETAS = (0.01, 0.03, 0.1, 0.3, 1.0)
STRENGTH = {"logistic": 0.5, "squared": 1.0, "mine:cubic": 0.1}
PREDICTIONS = pd.DataFrame({"variant": ["logistic", "squared"], "local": [1.0, 0.5], "global_": [1.0, 0.6]})


def kl_of(variant, beta, step):
    return 0.5 / (STRENGTH[variant] * beta) ** 0.8 * step


def gao(variant, kl):
    d = np.sqrt(kl)
    return d * (1.2 - 0.6 * np.log(d)) if kl else 0.0


@pytest.fixture(scope="module")
def draws():
    """Three variants, one of them a user's, of which KL starts higher and ends beyond the others'."""
    return simulate(np.random.default_rng(0), kl_of, gao, variants=tuple(STRENGTH), betas=BETAS)


def test_cell_table_has_every_planned_cell(analysis):
    table = cell_frame(analysis.sweep)
    sweep = analysis.sweep
    assert table["cell"].tolist() == sweep.cells["cell"].tolist()
    assert table["state"].value_counts().to_dict() == {"done": 30, "failed": 1, "missing": 1}
    final = sweep.final.set_index("cell")
    for row in table.itertuples():
        if row.state == "done":
            record = final.loc[row.cell]
            for name in ("step", "kl", "kl_se", "gold", "win_rate", "response_tokens", "pair_accuracy", "rho_sq_mean"):
                assert getattr(row, name) == record[name]
        else:
            assert np.isnan([row.step, row.kl, row.gold]).all()
    assert table.set_index("state").loc["failed", "error"].endswith("non-finite loss at step 12")


def test_optimal_beta_table(draws):
    betas = find_optimal_betas(draws, predictions=PREDICTIONS)
    table = optimal_beta_frame(betas).set_index("variant")
    assert table.index.tolist() == list(STRENGTH)
    pd.testing.assert_frame_equal(table[betas.table.columns[1:]], betas.table.set_index("variant"))
    for name, place in (("ratio_peak", "peak"), ("ratio_kl", "kl_mean")):
        rows = betas.ratios[betas.ratios["at"] == place].set_index("variant")
        for suffix in ("", "_low", "_high"):
            for variant in ("squared", "mine:cubic"):
                assert table.loc[variant, name + suffix] == rows.loc[variant, f"ratio{suffix}"]
    assert table.loc["squared", ["ratio_local", "ratio_global"]].tolist() == [0.5, 0.6]
    assert table.loc["mine:cubic", ["ratio_local", "ratio_global"]].isna().all()  # no theory of a user's loss
    assert table.loc["logistic", ["ratio_peak", "ratio_kl"]].isna().all()


def test_optimal_beta_table_without_the_baseline(draws):
    table = optimal_beta_frame(find_optimal_betas(draws, baseline="savage", predictions=PREDICTIONS))
    assert table["variant"].tolist() == list(STRENGTH)
    assert table["peak_beta"].notna().any()
    assert table[["ratio_peak", "ratio_kl", "ratio_local", "ratio_global"]].isna().all(axis=None)


def test_frontier_table(draws):
    frontiers = fit_frontiers(draws, budgets=(10.0, 5.0, 5000.0))
    table = frontier_frame(frontiers).set_index("variant")
    assert table.index.tolist() == list(STRENGTH)
    budgets = frontiers.budgets.set_index(["variant", "kl"])
    for variant in STRENGTH:
        for kl in (5.0, 10.0):
            for suffix in ("", "_low", "_high"):
                assert table.loc[variant, f"gold_at_{kl:g}{suffix}"] == budgets.loc[(variant, kl), f"gold{suffix}"]
    assert table["gold_at_5000"].isna().all()
    areas = frontiers.areas.set_index("variant")
    assert (table["common_kl"] == frontiers.common_kl).all()
    for name in ("mean_gold", "mean_gold_low", "mean_gold_high", "kind"):
        assert table[name].tolist() == areas.loc[table.index, name].tolist()
    assert list(table.columns[:3]) == ["gold_at_5", "gold_at_5_low", "gold_at_5_high"]
