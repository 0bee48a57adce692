"""From nothing to a report: what `make sweep` does, on the tiny world."""

import json
import sys

import pandas as pd

from analysis.report.__main__ import main as report
from bench import train
from bench.records import REFERENCE_COLUMNS, SAMPLE_COLUMNS


def test_a_sweep_and_its_report(tiny_world, tmp_path, monkeypatch):
    overrides = tiny_world.overrides(tmp_path / "runs", {"optim.steps": 12})
    swept = ["loss=logistic,squared", "beta=0.03,0.3,3", "seed=0,1", "sweep=e2e", "hydra/launcher=basic"]
    monkeypatch.setattr(sys, "argv", ["bench.train", "-m", *overrides, *swept])
    assert train.main() == 0
    sweep_dir = tmp_path / "runs" / "e2e"
    assert report([str(sweep_dir)]) == 0

    written = sweep_dir / "report"
    page = (written / "index.html").read_text(encoding="utf-8")
    assert "12" in page
    assert {"C1", "C2", "C3", "C4"} <= set(json.dumps(json.loads((written / "claims.json").read_text())).split('"'))
    for notebook in ("frontier", "optimal_beta", "regularization"):
        assert (written / f"{notebook}.html").stat().st_size > 10_000
    for kind in ("png", "svg", "pdf", "csv"):
        assert (written / "figures" / f"frontier.{kind}").stat().st_size > 0
    points = pd.read_csv(written / "tables" / "checkpoints.csv")
    truth = [json.loads(line) for path in sweep_dir.glob("*/records.jsonl") for line in path.read_text().splitlines()]
    assert sorted(points["gold"].round(9)) == sorted(round(row["gold"], 9) for row in truth)

    samples = pd.read_parquet(next(sweep_dir.glob("*/samples.parquet")))
    assert tuple(samples.columns) == SAMPLE_COLUMNS
    reference = pd.read_parquet(next(sweep_dir.glob("reference-*.parquet")))
    assert tuple(reference.columns) == REFERENCE_COLUMNS
    assert abs(reference["gold"].mean()) < 1e-5
    assert abs(reference["gold"].std() - 1) < 1e-5
