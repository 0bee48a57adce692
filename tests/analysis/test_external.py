"""A policy that was trained elsewhere has one measurement: it stands beside the others and changes none of them."""

import json
import re

import pandas as pd
import pytest
from synthetic_runs import Truth, add_external, write_sweep

from analysis.data.load import load_sweep
from analysis.figures.frontier_plots import frontier
from analysis.report.build import build_report
from analysis.report.html_tables import cell_table
from analysis.statistics.views import analyze_views
from bench import records

TRUTH = Truth(losses=("logistic", "squared"), betas=(0.03, 0.1, 0.3, 1.0), seeds=(0, 1), steps=(0, 24, 192), prompts=16)
NAME = "a-7b-chat"


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory):
    sweep_dir = write_sweep(tmp_path_factory.mktemp("runs") / "with", TRUTH)
    add_external(sweep_dir, NAME, kl=3.0, gold=0.7, prompts=TRUTH.prompts)
    return sweep_dir


@pytest.fixture(scope="module")
def analysis(sweep_dir):
    (only,) = analyze_views([load_sweep(sweep_dir)]).values()
    return only


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    (only,) = analyze_views([load_sweep(write_sweep(tmp_path_factory.mktemp("runs") / "with", TRUTH))]).values()
    return only


def measured(sweep_dir):
    (path,) = sweep_dir.glob(f"variant={NAME}*/{records.RECORDS_FILE}")
    return json.loads(path.read_text().splitlines()[-1])


def test_it_is_a_point_with_its_numbers_and_has_no_curve(analysis, sweep_dir):
    points = analysis.frontiers.points.query("variant == @NAME and is_final")
    record = measured(sweep_dir)
    assert points[["kl", "gold"]].to_numpy().tolist() == [pytest.approx([record["kl"], record["gold"]])]
    assert (points["gold_low"] < points["gold"]).all()
    for frame in (analysis.frontiers.curves, analysis.frontiers.budgets, analysis.overoptimization.peaks,
                  analysis.optimal_betas.table, analysis.optimal_betas.cells):  # fmt: skip
        assert set(frame["variant"]) == {"logistic", "squared"}
    assert f"{NAME}: 1 trained policy, too few for a curve." in analysis.warnings


def test_it_changes_nothing_of_the_others(analysis, without):
    assert analysis.claims == without.claims
    pd.testing.assert_frame_equal(analysis.frontiers.curves, without.frontiers.curves)
    pd.testing.assert_frame_equal(analysis.optimal_betas.table, without.optimal_betas.table)
    pd.testing.assert_frame_equal(analysis.overoptimization.peaks, without.overoptimization.peaks)


def test_it_is_on_the_page_and_in_the_tables(sweep_dir, tmp_path, one_format):
    page = build_report([load_sweep(sweep_dir)], tmp_path / "report", notebooks=False).read_text()
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)[1])
    (view,) = data["sweeps"]
    number = [variant["name"] for variant in data["variants"]].index(NAME)
    rows = [k for k, variant in enumerate(view["points"]["variant"]) if variant == number]
    record = measured(sweep_dir)
    assert [view["points"]["kl"][k] for k in rows] == pytest.approx([0.0, record["kl"]], rel=1e-4)
    assert [view["points"]["lr"][k] for k in rows] == [None, None]
    assert [view["points"]["final"][k] for k in rows] == [0, 1]
    assert str(number) not in view["curves"]
    assert view["strengths"] == list(TRUTH.betas)  # it has no β
    assert view["strength_name"] == "β"
    drawn = pd.read_csv(tmp_path / "report" / "tables" / "frontier_points.csv").query("variant == @NAME")
    assert drawn["kl"].tolist() == pytest.approx([0.0, record["kl"]])
    (row,) = (row for row in cell_table(load_sweep(sweep_dir)).rows if NAME in row[0])
    assert row[1:5] == ("done", "1", "–", "0")
    assert row[6].startswith(f"{record['gold']:.2f} ± ")


def test_it_is_drawn_as_a_marker_without_a_line(analysis, sweep_dir):
    ax = frontier(analysis.frontiers)
    (entry,) = (line for line in ax.lines if line.get_label() == NAME)
    assert entry.get_linestyle() == "None"
    look = (entry.get_marker(), entry.get_color())
    drawn = [line for line in ax.lines if (line.get_marker(), line.get_color()) == look and len(line.get_xdata())]
    record = measured(sweep_dir)
    assert [tuple(map(float, line.get_xydata()[0])) for line in drawn][-1] == pytest.approx(
        (record["kl"], record["gold"])
    )
    assert min(line.get_markersize() for line in drawn) > 6


def test_alone_it_has_a_report_too(tmp_path, one_format):
    sweep_dir = tmp_path / "only"
    sweep_dir.mkdir()
    records.write_json(sweep_dir / records.PLAN_FILE, records.empty_plan("only"))
    add_external(sweep_dir, NAME, kl=2.0, gold=0.3, prompts=8)
    page = build_report([load_sweep(sweep_dir)], tmp_path / "report", notebooks=False)
    verdicts = [claim["verdict"] for claim in json.loads((page.parent / "claims.json").read_text())["claims"]]
    assert verdicts == ["inconclusive"] * 4


def test_three_policies_of_one_variant_have_a_curve(tmp_path):
    truth = Truth(losses=("logistic",), betas=(0.1,), seeds=(0, 1, 2), steps=(0, 24), prompts=8)
    (enough,) = analyze_views([load_sweep(write_sweep(tmp_path / "three", truth))]).values()
    assert set(enough.frontiers.curves["variant"]) == {"logistic"}
    (few,) = analyze_views(
        [load_sweep(write_sweep(tmp_path / "two", Truth(**vars(truth) | {"seeds": (0, 1)})))]
    ).values()
    assert few.frontiers.curves.empty
    assert "logistic: 2 trained policies, too few for a curve." in few.warnings


def test_an_imported_sweep_is_a_variant_like_the_others(tmp_path):
    sweep_dir = write_sweep(tmp_path / "both", TRUTH)
    for strength, kl in ((0.1, 6.0), (1.0, 2.0), (10.0, 0.5)):
        add_external(sweep_dir, NAME, kl=kl, gold=kl**0.5 - 0.2 * kl, prompts=TRUTH.prompts, strength=strength)
    (imported,) = analyze_views([load_sweep(sweep_dir)]).values()
    assert imported.sweep.strength_name == "strength"
    assert NAME in set(imported.frontiers.curves["variant"])
    cells = imported.optimal_betas.cells.query("variant == @NAME")
    assert cells["strength"].tolist() == [0.1, 1.0, 10.0]
    recorded = imported.sweep.final.query("variant == @NAME").sort_values("strength")
    assert cells["kl"].tolist() == pytest.approx(recorded["kl"].tolist())
