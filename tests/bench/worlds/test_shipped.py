"""The world that comes with the code: whole, the one that its settings name, never another without a word."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import bench.sweep.building
import bench.sweep.preparing
from bench.checked import ConfigError
from bench.config import cell_config
from bench.data.artifacts import DamagedArtifact, verify
from bench.data.shipped import frozen_directory, shipped_inputs
from bench.sweep.compose import compose_one
from bench.sweep.preparing import prepare, training_pairs_in
from bench.worlds import SHIPPED_KINDS, read_world, reviews
from bench.worlds.reviews.language import PROMPTS
from bench.worlds.reviews.rater import utility
from gold_rm.evaluate import evaluate
from gold_rm.reward_model import load_gold_model

FROZEN = frozen_directory(reviews)
assert FROZEN is not None


def configured(tmp_path: Path, *overrides: str):
    job = compose_one([*overrides, f"artifacts_dir={tmp_path / 'artifacts'}"])
    assert job is not None
    return cell_config(job.settings)


def prepared(tmp_path: Path, *overrides: str):
    return prepare(configured(tmp_path, *overrides))


@pytest.fixture
def no_training(monkeypatch):
    def trained(*arguments, **settings):
        raise AssertionError("nothing is trained for the world that ships")

    monkeypatch.setattr(reviews, "build", trained)
    monkeypatch.setattr(bench.sweep.preparing, "train_gold_model", trained)
    monkeypatch.setattr(bench.sweep.building, "sample_reference", trained)


def test_what_ships_is_whole_and_each_part_stands_on_the_one_before():
    world, gold, reference, _ = (verify(FROZEN / kind).fingerprint for kind in SHIPPED_KINDS)
    assert shipped_inputs(FROZEN, "world")["version"] == reviews.VERSION
    assert shipped_inputs(FROZEN, "gold")["world"] == world
    for kind in ("reference", "pool"):
        inputs = shipped_inputs(FROZEN, kind)
        assert (inputs["world"], inputs["gold"]) == (world, gold)
    assert shipped_inputs(FROZEN, "pool")["reference"] == reference
    listed = {path for kind in SHIPPED_KINDS for path in (FROZEN / kind).rglob("*") if path.is_file()}
    assert {path for path in FROZEN.rglob("*") if path.is_file()} == listed
    assert {path.suffix for path in listed} <= {".json", ".parquet", ".safetensors"}


def test_the_default_settings_are_those_that_it_was_built_with(tmp_path, no_training, monkeypatch):
    monkeypatch.setattr(
        bench.sweep.building, "sample_pool", lambda *arguments, **settings: pytest.fail("the pool ships")
    )
    built = prepared(tmp_path)
    for kind, artifact in (("world", built.world), ("gold", built.gold), ("reference", built.reference)):
        assert artifact.fingerprint == verify(FROZEN / kind).fingerprint
    assert training_pairs_in(built.preferences) >= 10 * 2560, "a part of their own for ten seeds"


def test_other_pairs_are_drawn_from_the_models_that_ship(tmp_path, no_training):
    built = prepared(tmp_path, "pairs.seed=1", "pairs.pool=64", "pairs.per_cell=32", "pairs.held_out=8")
    assert built.gold.fingerprint == verify(FROZEN / "gold").fingerprint
    assert training_pairs_in(built.preferences) <= 64


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("world.params.seed=1", r"world\.params\.seed=1: world reviews comes with the code as it was built, with 0;"),
        ("world.params.policy.steps=7", r"world\.params\.policy\.steps=7: .* with 1000; world\.params\.rebuild=true"),
        ("world.gold.lr=1e-4", r"world\.gold\.lr=0\.0001: .* with 0\.002;"),
    ],
)
def test_other_settings_are_not_taken_for_it(tmp_path, no_training, override, named):
    with pytest.raises(ConfigError, match=named):
        prepared(tmp_path, override)


def test_rebuild_builds(tmp_path, monkeypatch):
    class Built(Exception):
        pass

    def build(params, directory, progress):
        assert params.seed == 1
        raise Built

    monkeypatch.setattr(reviews, "build", build)
    with pytest.raises(Built):
        prepared(tmp_path, "world.params.seed=1", "world.params.rebuild=true")


@pytest.mark.parametrize("damage", ["flipped", "missing", "manifest"])
def test_a_damaged_copy_of_the_code_is_named(tmp_path, no_training, monkeypatch, damage):
    frozen = tmp_path / "frozen"
    shutil.copytree(FROZEN, frozen)
    monkeypatch.setattr(bench.sweep.building, "frozen_directory", lambda builder: frozen)
    file = frozen / "world" / ("manifest.json" if damage == "manifest" else "prompts.parquet")
    if damage == "flipped":
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_text("{")
    with pytest.raises(DamagedArtifact, match=rf"{file.name}.*comes with the code: restore it"):
        prepared(tmp_path)


def test_the_gold_model_and_its_ceiling_are_of_prompts_that_it_was_not_fitted_to():
    """Agreement of the gold model below that of the utility itself, which is what the noise of the labels leaves."""
    world = read_world(FROZEN / "world")
    comparisons = pd.read_parquet(world.comparisons)
    held_out = comparisons[comparisons["split"] == "held_out"]
    assert set(held_out["prompt"]) <= set(world.eval_prompts)
    assert set(comparisons.loc[comparisons["split"] == "train", "prompt"]) <= set(world.train_prompts)
    works = {prompt.text: prompt for prompt in PROMPTS}
    margins = np.array([
        utility(works[row.prompt], row.chosen.split()) - utility(works[row.prompt], row.rejected.split())
        for row in held_out.itertuples()
    ])  # fmt: skip
    facts = json.loads((FROZEN / "world" / "facts.json").read_text())
    assert facts["perfect_rater_agreement"] == pytest.approx(((margins > 0) + 0.5 * (margins == 0)).mean())
    # What a Bradley–Terry rater at temperature 1 chooses, from the margins' sizes alone.
    expected = expit(np.abs(margins)).mean()
    assert abs(facts["perfect_rater_agreement"] - expected) < 4 * facts["perfect_rater_agreement_se"]
    agreement = evaluate(load_gold_model(FROZEN / "gold" / "model"), comparisons, "held_out").agreement.share
    assert 0.7 < agreement < facts["perfect_rater_agreement"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_rebuilt_world_agrees_with_the_one_that_ships(tmp_path):
    """Within what other rounding in training makes of it: four standard errors, and a tenth of the gold's scale."""
    rebuilt = prepared(tmp_path, "world.params.rebuild=true", "pairs.pool=2560", "evaluation.reference_samples=16")
    ours, theirs = (json.loads((path / "facts.json").read_text()) for path in (rebuilt.world.path, FROZEN / "world"))
    for key in ("language_nats", "policy_nats", "excess_nats", "utility_mean", "sample_tokens"):
        assert abs(ours[key] - theirs[key]) < 4 * np.hypot(ours[f"{key}_se"], theirs[f"{key}_se"]) + 0.02, key
    assert ours["perfect_rater_agreement"] == theirs["perfect_rater_agreement"], "the comparisons are not trained"
    comparisons = pd.read_parquet(FROZEN / "world" / "comparisons.parquet")
    agreements = [
        evaluate(load_gold_model(directory), comparisons, "held_out").agreement.share
        for directory in (rebuilt.gold_dir, FROZEN / "gold" / "model")
    ]
    # On the same 2,000 comparisons: a standard error of .009 each, smaller for the difference.
    assert abs(agreements[0] - agreements[1]) < 0.03
    scales = [
        json.loads((path / "standardisation.json").read_text())
        for path in (rebuilt.reference.path, FROZEN / "reference")
    ]
    assert scales[0]["sd"] == pytest.approx(scales[1]["sd"], rel=0.15)
