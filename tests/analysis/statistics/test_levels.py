"""Proxy, gold and truth: coefficients and peaks of curves with known parameters, and what is read of a sweep."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.best_of_n import load_best_of_n
from analysis.data.load import load_sweep
from analysis.data.sweep import RefusedSweep
from analysis.figures.report_figures import report_figures
from analysis.report.build import build_report
from analysis.report.proxies import main
from analysis.statistics.analyze import analyze
from analysis.statistics.levels import study_levels
from bench import records

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ALPHA, BETA = {"xs": 0.6, "m": 0.9}, {"xs": 0.25, "m": 0.2}
SMALL = Truth(losses=("logistic", "squared"), betas=(0.01, 0.03, 0.1, 0.3, 1.0), prompts=32)


def curve(size, shift, n, level):
    d = np.sqrt(records.best_of_n_kl(n))
    alpha, beta = (1.0, 0.05) if level == "proxy" else (ALPHA[size] + shift, BETA[size])
    return float(d * (alpha - beta * d))


@pytest.fixture
def with_best_of_n(tmp_path):
    """A synthetic sweep with two policies' losses and six cells of best-of-n; every cell also knows the proxy."""
    sweep = write_sweep(tmp_path / "gao", SMALL)
    for path in sweep.glob("*/records.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(json.dumps({**row, "proxy": np.sqrt(row["kl"]), "proxy_se": 0.05}) + "\n" for row in rows)
        )
        samples = pd.read_parquet(path.parent / "samples.parquet")
        mean_kl = samples.groupby("step")["kl"].transform("mean")
        samples.assign(proxy=np.sqrt(mean_kl)).to_parquet(path.parent / "samples.parquet")
    first = json.loads((sweep / cell_name("logistic", 0.01, 0) / "records.jsonl").read_text().splitlines()[0])
    plan = records.read_plan(sweep)
    plan["settings"]["base"] = {"method": "best_of_n", "labels": {"by": "proxy"}, "proxy": {
        "size": "xs", "pairs": 500, "loss": "logistic", "flip_rate": 0.0, "seed": 0}}  # fmt: skip
    for size in ("xs", "m"):
        for seed, shift in enumerate((-0.1, 0.0, 0.1)):
            name = f"method=best_of_n,seed=0,proxy.seed={seed},proxy.size={size}"
            identity = {"method": "best_of_n", "variant": "best_of_n", "strength": 256.0, "seed": 0}
            plan["cells"].append({"cell": name, "config": "c" * 12, **identity})
            changes = {"proxy.size": size, "proxy.seed": seed}
            plan["jobs"][name] = {"settings": "base", "prepared": "p", "changes": changes}
            (sweep / name).mkdir()
            own = {k: v for k, v in first.items() if k not in ("loss", "beta", "lr", "train_loss")}
            lines = [
                {**own, **identity, "cell_id": f"{size}{seed}", "strength": n, "step": n, "kl": records.best_of_n_kl(n),
                 "gold": curve(size, shift, n, "gold"), "proxy": curve(size, shift, n, "proxy"), "proxy_se": 0.01,
                 "proxy_agreement": 0.8 + shift, "proxy_calibration": 0.02, "proxy_log_loss": 0.4}
                for n in SIZES
            ]  # fmt: skip
            (sweep / name / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            records.write_status(sweep / name, records.CellStatus("done", name, 1, 1e9, 1e9, 256, 256, "host", 1))
    records.write_json(sweep / records.PLAN_FILE, plan)
    return sweep


def test_coefficients_are_those_that_the_curves_were_made_with(with_best_of_n):
    levels = study_levels(load_sweep(with_best_of_n), np.random.default_rng(0))
    table = levels.coefficients.set_index(["size", "level"])
    for size in ("xs", "m"):
        row = table.loc[size, "gold"]
        assert (row["alpha"], row["beta"]) == pytest.approx((ALPHA[size], BETA[size]))
        # Three proxies whose α are 0.1 apart: t with two degrees of freedom.
        assert row["alpha_high"] - row["alpha"] == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3))
        assert row["peak_kl"] == pytest.approx((ALPHA[size] / (2 * BETA[size])) ** 2)
        assert row["proxies"] == 3
    assert table.loc[("m", "proxy"), "beta"] == pytest.approx(0.05)
    at = levels.best_of_n.set_index(["size", "level", "n"]).loc[("m", "gold", 64)]
    assert at["score"] == pytest.approx(curve("m", 0.0, 64, "gold"))
    fits = levels.fits.set_index("size").loc["m"]
    assert (fits["proxy_agreement"], fits["proxy_agreement_high"]) == pytest.approx(
        (0.8, 0.8 + stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3))
    )


def test_a_level_that_rises_has_no_peak_and_gold_has_its_own(with_best_of_n):
    sweep = load_sweep(with_best_of_n)
    assert set(sweep.cells["method"]) == {"gpo"}, "best-of-n is on no frontier"
    levels = study_levels(sweep, np.random.default_rng(0))
    assert levels.levels == ("proxy", "gold")
    peaks = levels.peaks.set_index(["variant", "level"])
    true = np.exp(2 * (SMALL.alpha / SMALL.slope - 1))  # of √KL (α − β ln √KL)
    for variant in ("logistic", "squared"):
        assert np.isnan(peaks.loc[(variant, "proxy"), "kl_peak"])
        assert peaks.loc[(variant, "gold"), "kl_peak"] == pytest.approx(true, rel=0.35)
    policies = levels.policies.set_index(["variant", "level", "strength"])
    final = sweep.final[(sweep.final["variant"] == "squared") & (sweep.final["strength"] == 0.1)]
    row = policies.loc[("squared", "gold", 0.1)]
    low, high = stats.t.interval(0.95, len(final) - 1, final["gold"].mean(), stats.sem(final["gold"]))
    assert (row["score"], row["score_low"], row["score_high"]) == pytest.approx((final["gold"].mean(), low, high))


def test_where_only_gold_is_recorded_there_are_no_levels(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path / "plain", SMALL))
    assert study_levels(sweep, np.random.default_rng(0)) is None
    assert load_best_of_n(sweep.path, sweep.plan) is None
    assert analyze(sweep, np.random.default_rng(0)).levels is None


def test_figures_and_the_page_show_the_levels(with_best_of_n, tmp_path):
    analysis = analyze(load_sweep(with_best_of_n), np.random.default_rng(0))
    figures = {figure.name: figure for figure in report_figures(analysis)}
    titles = [ax.get_title(loc="left") for ax in figures["levels"].figure.axes if ax.get_visible()]
    assert titles[:2] == ["logistic (DPO)", "squared (IPO)"]
    assert titles[2:] == ["proxy xs, 500 pairs", "proxy m, 500 pairs"]
    (panel,) = (ax for ax in figures["levels"].figure.axes if ax.get_title(loc="left") == titles[3])
    gold = next(line for line in panel.get_lines() if line.get_linestyle() == "-")
    assert gold.get_ydata() == pytest.approx([curve("m", 0.0, n, "gold") for n in SIZES])
    page = build_report([load_sweep(with_best_of_n)], tmp_path / "report", notebooks=False).read_text()
    assert "Proxy and gold" in page
    assert "0.900 [0.652, 1.148]" in page  # α of m


def test_best_of_n_alone_has_a_command_of_its_own(with_best_of_n, tmp_path, capsys):
    assert main([str(with_best_of_n), "--output", str(tmp_path / "out")]) == 0
    assert "0.800" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "proxies.csv")) == 2
    assert (tmp_path / "out" / "proxy_fits.png").stat().st_size > 5000
    plan = records.read_plan(with_best_of_n)
    plan["cells"] = [row for row in plan["cells"] if row["method"] == "best_of_n"]
    records.write_json(with_best_of_n / records.PLAN_FILE, plan)
    with pytest.raises(RefusedSweep, match="all 6 cells are best-of-n; a frontier needs trained policies"):
        load_sweep(with_best_of_n)
    assert main([str(tmp_path)]) == 2
    assert "no finished cell of method best_of_n by a proxy" in capsys.readouterr().err
