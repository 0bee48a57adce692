"""Figures show the estimates that they are given, touch nothing else, and are fit for print."""

import re
import zlib
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures import beta_plots, frontier_plots, report_figures
from analysis.figures.style import LOSS_STYLES
from analysis.statistics.intervals import KINDS


def line_of(ax, color):
    (line,) = [
        line for line in ax.lines if line.get_color() == color and line.get_linestyle() == "-" and len(line.get_xdata())
    ]
    return line


def test_frontier_draws_the_curve_and_its_band(analysis):
    ax = frontier_plots.frontier(analysis.frontiers)
    for variant in analysis.sweep.variants:
        curve = analysis.frontiers.curves.query("variant == @variant")
        line = line_of(ax, LOSS_STYLES[variant].color)
        np.testing.assert_allclose(line.get_xydata(), curve[["kl", "gold"]])
        bands = [band.get_paths()[0].vertices for band in ax.collections]
        corners = {(round(x, 9), round(y, 9)) for band in bands for x, y in band}
        for row in curve.itertuples():
            assert {(round(row.kl, 9), round(row.gold_low, 9)), (round(row.kl, 9), round(row.gold_high, 9))} <= corners


def test_frontier_axes_carry_units_and_positions_are_square_roots(analysis):
    ax = frontier_plots.frontier(analysis.frontiers)
    assert "nats" in ax.get_xlabel()
    assert "SD" in ax.get_ylabel()
    place = ax.transData.transform([[0, 0], [1, 0], [4, 0]])[:, 0]
    assert (place[2] - place[0]) / (place[1] - place[0]) == pytest.approx(2)


def test_a_wide_band_does_not_push_the_points_together(analysis):
    curves = analysis.frontiers.curves.assign(gold_low=-100.0, gold_high=100.0)
    low, high = frontier_plots.frontier(replace(analysis.frontiers, curves=curves)).get_ylim()
    points = pd.concat([analysis.frontiers.points["gold"], curves["gold"]])
    assert low < points.min()
    assert points.max() < high
    assert high - low < 1.2 * (points.max() - points.min())


def test_frontier_by_seed_draws_every_checkpoint(analysis):
    ax = frontier_plots.frontier(analysis.frontiers, highlight="squared", checkpoints=analysis.sweep.checkpoints)
    rows = analysis.sweep.checkpoints.query("variant == 'squared'")
    drawn = np.concatenate(
        [line.get_xydata() for line in ax.lines if line.get_marker() == LOSS_STYLES["squared"].marker]
    )
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, rows[["kl", "gold"]].to_numpy()))


def test_against_beta_draws_intervals(analysis):
    cells = analysis.optimal_betas.cells
    ax = beta_plots.against_beta(cells, "gold")
    segments = np.concatenate([bars.get_segments() for container in ax.containers for bars in container[2]])
    expected = cells.sort_values(["variant", "strength"])[["strength", "gold_low", "gold_high"]].to_numpy()
    drawn = sorted((a[0], a[1], b[1]) for a, b in segments)
    np.testing.assert_allclose(drawn, sorted(map(tuple, expected)))


def test_optimum_is_marked_where_the_fit_peaks(analysis):
    table = analysis.optimal_betas.table.dropna(subset="peak_beta")
    assert len(table)
    ax = beta_plots.mark_optima(table, ax=beta_plots.against_beta(analysis.optimal_betas.cells, "gold"))
    peaks = {tuple(np.round(container[0].get_xydata()[0], 9)) for container in ax.containers[-len(table) :]}
    assert peaks == {tuple(np.round(row, 9)) for row in table[["peak_beta", "peak_gold"]].to_numpy()}


def test_infinite_predictions_and_missing_ones_are_left_out():
    ratios = pd.DataFrame({
        "variant": ["squared", "hinge"], "at": "peak", "kl": np.nan, "ratio": [0.5, 0.7], "ratio_low": [0.4, 0.0],
        "ratio_high": [0.6, np.inf], "kind": "seeds", "local": [0.5, np.inf], "global_": np.nan,
    })  # fmt: skip
    ax = beta_plots.beta_ratios(ratios, "logistic")
    assert "theory, global" not in ax.get_legend_handles_labels()[1]
    low, high = ax.get_xlim()
    assert 0 < low < 0.4
    assert 0.7 < high < np.inf


def test_differences_are_drawn_with_their_names(analysis):
    pairwise = analysis.frontiers.pairwise
    kl = pairwise["kl"].iloc[0]
    rows = pairwise[pairwise["kl"] == kl].sort_values("difference")
    ax = frontier_plots.frontier_differences(pairwise, 0.1, kl)
    names = [label.get_text() for label in ax.get_yticklabels()]
    first = rows.iloc[0]
    assert names[0] == f"{LOSS_STYLES[first['variant_a']].label} − {LOSS_STYLES[first['variant_b']].label}"
    assert len(names) == len(rows)


@pytest.mark.parametrize("quantity", frontier_plots.HEALTH_LABELS)
def test_health_and_regularization_draw_every_checkpoint(analysis, quantity):
    checkpoints = analysis.sweep.checkpoints
    assert sum(len(line.get_xdata()) for line in frontier_plots.health(checkpoints, quantity).lines) == len(checkpoints)
    moved = checkpoints.query("step > 0")
    assert sum(len(line.get_xdata()) for line in frontier_plots.regularization(checkpoints).lines) == len(moved)


def test_plotting_leaves_no_trace(analysis):
    settings, open_figures = dict(mpl.rcParams), plt.get_fignums()
    ax = Figure().add_subplot()
    assert frontier_plots.overoptimization(analysis.overoptimization, analysis.frontiers, ax=ax) is ax
    frontier_plots.frontier(analysis.frontiers, analysis.ceiling)
    report_figures.report_figures(analysis)
    assert dict(mpl.rcParams) == settings
    assert plt.get_fignums() == open_figures


def test_report_figures_name_their_intervals(analysis):
    made = report_figures.report_figures(analysis)
    assert [figure.name for figure in made] == [
        "frontier", "frontier_by_variant", "frontier_differences", "gold_and_kl_against_beta", "beta_ratios",
        "overoptimization", "regularization", "health",
    ]  # fmt: skip
    for figure in made:
        kinds = figure.data["kind"].dropna().unique() if "kind" in figure.data else []
        assert all(KINDS[kind] in figure.caption for kind in kinds), figure.name


@pytest.fixture(scope="module")
def saved(analysis, tmp_path_factory):
    directory = tmp_path_factory.mktemp("figures")
    report_figures.save_figure(report_figures.frontier_figure(analysis), directory)
    return directory


def test_pdf_embeds_its_fonts_as_truetype(saved):
    pdf = (saved / "frontier.pdf").read_bytes()
    streams = [zlib.decompress(part) for part in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", pdf, re.S)]
    everything = pdf + b"".join(streams)
    assert b"/FontFile2" in everything
    assert b"/Type3" not in everything


def test_svg_is_vector_and_asks_for_no_font(saved):
    svg = (saved / "frontier.svg").read_text()
    assert "<image" not in svg
    assert "font-family" not in svg


def test_saving_twice_gives_the_same_bytes(saved, analysis, tmp_path):
    report_figures.save_figure(report_figures.frontier_figure(analysis), tmp_path)
    for extension in (*report_figures.FORMATS, "csv"):
        assert (tmp_path / f"frontier.{extension}").read_bytes() == (saved / f"frontier.{extension}").read_bytes()


def test_csv_holds_the_numbers_drawn(saved, analysis):
    pd.testing.assert_frame_equal(pd.read_csv(saved / "frontier.csv"), analysis.frontiers.curves, check_dtype=False)


def test_a_large_sweep_is_thinned_and_says_so(analysis, monkeypatch):
    monkeypatch.setattr(report_figures, "MAX_MARKERS", 50)
    made = report_figures.health_figure(analysis)
    assert [sum(len(line.get_xdata()) for line in ax.lines) for ax in made.figure.axes] == [50] * 3
    assert "50 of 120 checkpoints" in made.caption
    assert len(made.data) == 120
    assert "every checkpoint" not in report_figures.frontier_by_variant_figure(analysis).caption


def test_notebook_picture_escapes_its_words(analysis):
    figure = report_figures.ReportFigure("x", "<b>title</b>", "a < b", Figure(), pd.DataFrame())
    assert "&lt;b&gt;title&lt;/b&gt;" in figure._repr_html_()
    assert "a &lt; b" in figure._repr_html_()
