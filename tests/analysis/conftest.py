"""One small sweep with everything a report must cope with, and its report, made once per test session."""

import json

import pandas as pd
import pytest
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.load import load_sweep
from analysis.figures import report_figures
from analysis.report.build import build_report
from analysis.statistics.views import analyze_views
from bench import records

# Texts that would do something if the page took them for markup; every sample of a cell is one of them.
HOSTILE_TEXTS = (
    " <script>window.hacked = 1</script> fine .",
    " </script><script>window.hacked = 2</script>",
    ' <img src="x" onerror="window.hacked = 3"> good .',
    " <b>bold</b> & <a href='javascript:window.hacked=4'>link</a> {{ 7 * 7 }} <!-- \u2028",
)
HOSTILE_ERROR = '<img src="x" onerror="window.hacked = 5"> non-finite loss at step 12'
TRUTH = Truth(
    losses=("logistic", "squared", "hinge"), betas=(0.01, 0.03, 0.1, 0.3, 1.0), seeds=(0, 1), steps=(0, 12, 48, 192),
    prompts=24,
)  # fmt: skip


@pytest.fixture(scope="session")
def hostile_sweep_dir(tmp_path_factory):
    """A sweep with hostile texts in every cell, one failed cell and one that was never started."""
    sweep_dir = write_sweep(tmp_path_factory.mktemp("runs") / "small", TRUTH)
    for path in sweep_dir.glob(f"*/{records.SAMPLES_FILE}"):
        samples = pd.read_parquet(path)
        samples["response"] = [HOSTILE_TEXTS[i % len(HOSTILE_TEXTS)] for i in samples["prompt_id"]]
        samples.to_parquet(path, index=False)
    plan = json.loads((sweep_dir / records.PLAN_FILE).read_text())
    for beta in (3.0, 10.0):
        name = cell_name("logistic", beta, 0)
        plan["cells"].append(plan["cells"][0] | {"cell": name, "strength": beta})
    records.write_json(sweep_dir / records.PLAN_FILE, plan)
    failed = sweep_dir / cell_name("logistic", 3.0, 0)
    failed.mkdir()
    records.write_status(
        failed, records.CellStatus("failed", failed.name, 1, 1e9, 1e9, 12, 192, "host", 1, HOSTILE_ERROR)
    )
    return sweep_dir


@pytest.fixture(scope="session")
def analysis(hostile_sweep_dir):
    """All statistics of the small sweep."""
    (only,) = analyze_views([load_sweep(hostile_sweep_dir)]).values()
    return only


@pytest.fixture(scope="session")
def report_dir(hostile_sweep_dir, tmp_path_factory):
    """The small sweep's report, without notebooks."""
    page = build_report([load_sweep(hostile_sweep_dir)], tmp_path_factory.mktemp("out") / "report", notebooks=False)
    return page.parent


@pytest.fixture
def one_format(monkeypatch):
    """Every figure as SVG only."""
    monkeypatch.setattr(report_figures, "FORMATS", ("svg",))


@pytest.fixture
def few_figures(monkeypatch, one_format):
    """The two figures that the page cannot do without: most tests of the report's files need no more."""
    monkeypatch.setattr(report_figures, "BUILDERS", (report_figures.frontier_figure, report_figures.beta_figure))
