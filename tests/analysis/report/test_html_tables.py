"""Numbers as readers see them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.report import html_tables
from analysis.statistics.intervals import KINDS
from analysis.statistics.wording import interval_text, interval_words, number_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.23456, "1.23"), (-0.5, "−0.5"), (0, "0"), (1e-7, "1.0e−07"), (1234567.0, "1.2e+06"), (np.nan, "–"),
     (np.inf, "∞"), (-np.inf, "−∞")],
)  # fmt: skip
def test_number_text(value, text):
    assert number_text(value) == text


def test_interval_text_keeps_limits_that_leave_the_grid_and_names_missing_ones():
    def row(value, low, high):
        return SimpleNamespace(q=value, q_low=low, q_high=high)

    assert interval_text(row(1.0, -0.5, 2.25), "q", 2) == "1.00 [−0.50, 2.25]"
    assert interval_text(row(0.05, 0.0, np.inf), "q") == "0.05 [0, ∞]"
    assert interval_text(row(0.05, 0.0, np.inf), "q", 2) == "0.05 [0.00, ∞]"
    assert interval_text(row(1.0, np.nan, np.nan), "q", 1) == "1.0 [no interval]"
    assert interval_text(row(np.nan, np.nan, np.nan), "q") == "–"


def test_interval_words_name_each_kind_once():
    assert interval_words(["none", "seeds"]) == f"95 % {KINDS['seeds']}"
    assert interval_words(["none"]) == f"95 % {KINDS['none']}"
    assert interval_words(["seeds", "seeds", "prompts"]) == f"95 % {KINDS['seeds']}; {KINDS['prompts']}"


def test_budget_table_holds_the_frontier_at_its_budgets(analysis):
    table = html_tables.budget_table(analysis)
    budgets = analysis.frontiers.budgets
    covered = sorted(budgets.loc[budgets["covered"].astype(bool), "kl"].unique())
    assert [column.title for column in table.columns[1:-1]] == [f"KL {kl:g} nats" for kl in covered]
    row = next(budgets.query("variant == 'squared' and kl == 1").itertuples())
    squared = next(row for row in table.rows if row[0] == "squared (IPO)")
    assert squared[1 + covered.index(1.0)] == f"{row.gold:.2f} [{row.gold_low:.2f}, {row.gold_high:.2f}]".replace(
        "-", "−"
    )


def test_optimal_beta_table_warns_of_edges(analysis):
    betas = analysis.optimal_betas.table.assign(edge=["low", "none", "high"])
    table = html_tables.optimal_beta_table(
        SimpleNamespace(sweep=analysis.sweep, optimal_betas=SimpleNamespace(table=betas))
    )
    edges = [row[1] for row in table.rows]
    assert "low edge of the grid" in edges[0]
    assert "edge" not in edges[1]
    assert "high edge of the grid" in edges[2]


def test_cell_table_shows_unfinished_cells_first_with_their_errors(analysis):
    table = html_tables.cell_table(analysis.sweep)
    assert [row[1] for row in table.rows[:3]] == ["failed", "missing", "done"]
    assert "non-finite loss at step 12" in table.rows[0][-1]
    assert len(table.rows) == len(analysis.sweep.cells)


def test_cell_table_cut_short_says_so(analysis, monkeypatch):
    monkeypatch.setattr(html_tables, "MAX_CELL_ROWS", 5)
    table = html_tables.cell_table(analysis.sweep)
    assert len(table.rows) == 5
    assert "first 5 of 32" in table.caption


def test_columns_that_say_nothing_are_left_out(analysis):
    finished = replace(analysis.sweep, cells=analysis.sweep.cells.query("state == 'done'"))
    assert "error" not in [column.title for column in html_tables.cell_table(finished).columns]
