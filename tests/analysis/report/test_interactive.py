"""What the page's scripts get: complete, rounded, within its size, and unable to break out of its element."""

import json
import shutil
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from analysis.data.load import load_sweep
from analysis.data.sample_texts import TextPool, collect_texts, evenly_spaced
from analysis.data.training import MAX_POINTS, QUANTITIES
from analysis.report import interactive
from analysis.report.interactive import page_data
from analysis.report.script_json import numbers, to_script_json
from analysis.statistics.views import analyze_views
from bench import records


def test_numbers_are_rounded_and_what_is_not_finite_is_null():
    assert numbers([0.123456789, np.nan, -np.inf, 1e-9, 3]) == [0.12346, None, None, 1e-9, 3.0]
    assert numbers(np.array([2, 3])) == [2, 3]


@pytest.mark.parametrize("text", ["</script><b>", "<!--<script>", "a & b", "\u2028 ü"])
def test_json_cannot_end_its_script_element(text):
    encoded = to_script_json({"text": text})
    assert not {"<", ">", "&"} & set(encoded)
    assert json.loads(encoded)["text"] == text


def test_nan_is_an_error_and_not_invalid_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_script_json([float("nan")])


def test_every_checkpoint_is_there_with_its_numbers_and_texts(analysis):
    data = page_data({"small": analysis})
    (view,) = data["sweeps"]
    points = pd.DataFrame(
        {name: view["points"][name] for name in ("variant", "strength", "seed", "step", "kl", "gold", "final")}
    )
    points["variant"] = [data["variants"][k]["name"] for k in points["variant"]]
    expected = analysis.sweep.checkpoints[["variant", "strength", "seed", "step", "kl", "gold"]]
    pd.testing.assert_frame_equal(points.drop(columns="final"), expected, check_dtype=False, rtol=1e-4)
    assert points["final"].sum() == len(analysis.sweep.final)
    samples = analysis.sweep.samples(["response", "prompt_id"], final_only=False).set_index(
        ["cell", "step", "prompt_id"]
    )
    row = analysis.sweep.checkpoints.iloc[7]
    for prompt in (0, 1):
        shown = data["texts"][view["points"]["texts"][prompt][7]]
        assert shown == samples.loc[(row["cell"], row["step"], prompt), "response"]


def test_sample_rows_are_those_of_the_last_checkpoint_in_order_of_gain(analysis):
    data = page_data({"small": analysis})
    (view,) = data["sweeps"]
    chosen = view["samples"][0]
    samples = analysis.sweep.samples(cells=[chosen["name"]])
    gains = (samples["gold"] - samples["gold_reference"]).sort_values(ascending=False)
    np.testing.assert_allclose([gold - reference for _, _, gold, _, reference in chosen["rows"]], gains, atol=2e-3)
    texts = {(data["texts"][prompt], data["texts"][response]) for prompt, response, *_ in chosen["rows"]}
    assert texts == set(zip(samples["prompt"], samples["response"], strict=True))


def test_display_sampling_keeps_whole_cells_and_says_so(analysis, monkeypatch):
    monkeypatch.setattr(interactive, "MAX_POINTS", 40)
    monkeypatch.setattr(interactive, "MAX_BROWSABLE", 3)
    monkeypatch.setattr(interactive, "MAX_ROWS", 30)
    (view,) = page_data({"small": analysis})["sweeps"]
    cells, steps = 10, 4
    assert len(view["points"]["kl"]) == cells * steps
    assert set(view["points"]["variant"]) == {0, 1, 2}
    assert "40 of 120 checkpoints" in view["note"]["points"]
    assert [len(cell["rows"]) for cell in view["samples"]] == [10, 10, 10]
    assert "10 of 24 evaluation prompts" in view["note"]["samples"]
    assert "3 of 30 cells" in view["note"]["samples"]
    gains = [gold - reference for _, _, gold, _, reference in view["samples"][0]["rows"]]
    samples = analysis.sweep.samples(cells=[view["samples"][0]["name"]])
    all_gains = samples["gold"] - samples["gold_reference"]
    assert (gains[0], gains[-1]) == pytest.approx((all_gains.max(), all_gains.min()), abs=2e-3)


def test_reading_in_parts_changes_nothing(analysis, monkeypatch):
    cells = analysis.sweep.final["cell"].tolist()
    whole = collect_texts(analysis.sweep, cells, TextPool(), browsable=4, rows=5)
    monkeypatch.setattr("analysis.data.sample_texts._CELLS_PER_READ", 7)
    assert collect_texts(analysis.sweep, cells, TextPool(), browsable=4, rows=5) == whole


def test_points_know_their_cells_and_where_its_files_are(analysis, tmp_path):
    (view,) = page_data({"small": analysis}, analysis.sweep.path / "report")["sweeps"]
    names = [view["cell_names"][place] for place in view["points"]["cell"]]
    assert names == analysis.sweep.checkpoints["cell"].tolist()
    assert view["folder"] == ".."
    (elsewhere,) = page_data({"small": analysis}, tmp_path / "a b" / "report")["sweeps"]
    assert (tmp_path / "a b" / "report" / unquote(elsewhere["folder"])).resolve() == analysis.sweep.path.resolve()


def test_a_sweep_without_samples_says_so(analysis, tmp_path):
    bare = replace(analysis, sweep=replace(analysis.sweep, path=tmp_path))
    (view,) = page_data({"small": bare})["sweeps"]
    assert view["samples"] == []
    assert view["points"]["texts"] == [[None] * 120] * 2
    assert "No samples" in view["note"]["samples"]


def test_text_pool_stores_a_text_once_and_cuts_long_ones_visibly():
    pool = TextPool(longest=5)
    assert [pool.place(text) for text in ("abc", "abcdefgh", "abc")] == [0, 1, 0]
    assert pool.texts == ["abc", "abcde […]"]


@pytest.mark.parametrize(("length", "most"), [(1, 1), (5, 5), (100, 7), (3, 10)])
def test_evenly_spaced_keeps_order_and_both_ends(length, most):
    items = [f"{i:03}" for i in range(length)]
    kept = evenly_spaced(items, most)
    assert len(kept) == min(length, most)
    assert kept == sorted(set(kept))
    assert {kept[0], kept[-1]} == {items[0], items[-1]}


def test_training_of_some_cells_is_embedded_and_the_page_says_of_which(hostile_sweep_dir, tmp_path, monkeypatch):
    sweep_dir = shutil.copytree(hostile_sweep_dir, tmp_path / "s")
    for number, cell in enumerate(row["cell"] for row in records.read_plan(sweep_dir)["cells"]):
        if (sweep_dir / cell).is_dir():
            step = {"step": 0, "loss": float(number), "pair_accuracy": 0.5, "rho": 0.0, "grad_norm": 1.0, "lr": 0.1}
            (sweep_dir / cell / records.TRAINING_FILE).write_text(json.dumps(step) + "\n")
    sweep = load_sweep(sweep_dir)
    (view,) = page_data(analyze_views([sweep]))["sweeps"]
    assert [cell["loss"] for cell in view["training"]["cells"]] == [[float(number)] for number in range(31)]
    assert {cell["name"]: cell["state"] for cell in view["training"]["cells"] if cell["state"] != "done"} == {
        "loss=logistic,beta=3,seed=0": "failed"
    }
    assert "Shown" not in view["training"]["note"]
    monkeypatch.setattr(interactive, "MAX_TRAINING_CELLS", 4)
    (view,) = page_data(analyze_views([sweep]))["sweeps"]
    assert [cell["loss"] for cell in view["training"]["cells"]] == [[0.0], [10.0], [20.0], [30.0]]
    assert "Shown: 4 of 31 cells" in view["training"]["note"]


def test_as_many_training_curves_as_are_allowed_stay_within_three_megabytes():
    rng = np.random.default_rng(0)
    columns = {key: numbers(rng.normal(size=MAX_POINTS)) for key in ("step", *QUANTITIES)}
    one = to_script_json({"name": "loss=truncated_quadratic,beta=0.03,seed=2", "state": "done"} | columns)
    assert len(one) * interactive.MAX_TRAINING_CELLS < 3e6
