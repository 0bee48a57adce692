"""Versions of the checkpoint table against loops over its definition, and what cannot be resampled."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_draws import Noise, simulate
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.load import RefusedSweep, load_sweep
from analysis.statistics import prompt_noise
from analysis.statistics.resampling import make_draws
from bench import records

SMALL = Truth(losses=("logistic", "squared"), betas=(0.1, 1.0), seeds=(0, 1, 2), steps=(0, 5), prompts=12)
FIRST = cell_name("logistic", 0.1, 0)


@pytest.fixture
def sweep_dir(tmp_path):
    return write_sweep(tmp_path / "small", SMALL)


@pytest.fixture
def draws(sweep_dir):
    return make_draws(load_sweep(sweep_dir), np.random.default_rng(0), draws=30)


def test_versions_are_what_their_names_say(sweep_dir, draws):
    replicates = draws.of("squared")
    rows, design = replicates.rows, replicates.design
    assert replicates.gold.shape == (1 + 3 + 2 * 30, 2 * 3 * 2)
    np.testing.assert_allclose(replicates.gold[0], rows["gold"], rtol=1e-12)
    assert (replicates.weight[0] == 1).all()
    without = design.without_seed(replicates.weight)
    for number in range(3):
        np.testing.assert_array_equal(without[number], rows["seed"] != number)
    # One draw by hand: the mean of the samples under the draw's weights, and under the row's seed's weights.
    samples = load_sweep(sweep_dir).samples(["prompt_id", "kl"], final_only=False)
    for index in (0, 7, 11):
        row = rows.iloc[index]
        kl = samples.query(
            "variant == 'squared' and strength == @row.strength and seed == @row.seed and step == @row.step"
        )["kl"]
        np.testing.assert_allclose(design.joint(replicates.kl)[4, index], (draws.noise.joint[4] * kl).sum())
        expected = (draws.noise.within[int(row["seed"]), 4] * kl).sum()
        np.testing.assert_allclose(design.within(replicates.kl)[4, index], expected)


def test_joint_draws_keep_shared_prompt_effects_shared():
    noise = Noise(seed=0, cell=0, prompt=1.0, sample=0, log_kl=0)
    draws = simulate(np.random.default_rng(0), lambda *_: 1.0, lambda *_: 0.0, seeds=2, noise=noise)
    replicates = draws.of("logistic")
    joint, within = replicates.design.joint(replicates.gold), replicates.design.within(replicates.gold)
    assert np.ptp(joint, axis=1).max() < 1e-12  # the same prompts for every cell
    assert joint.std() > 0.05
    by_seed = [within[:, replicates.rows["seed"] == seed] for seed in (0, 1)]
    assert max(np.ptp(part, axis=1).max() for part in by_seed) < 1e-12
    assert abs(np.corrcoef(by_seed[0][:, 0], by_seed[1][:, 0])[0, 1]) < 0.4  # 60 independent draws


def test_weights_resample_the_number_of_prompts(draws):
    counts = draws.noise.joint * SMALL.prompts
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    np.testing.assert_allclose(counts.sum(1), SMALL.prompts)


def test_means_by_group_match_pandas(draws):
    replicates = draws.of("logistic")
    groups, kl, gold, count = replicates.means_by("strength", "step")
    expected = replicates.rows.groupby(["strength", "step"])[["kl", "gold"]].mean()
    np.testing.assert_allclose(kl[0], expected["kl"])
    np.testing.assert_allclose(gold[0], expected["gold"])
    assert (groups["seeds"] == 3).all()
    version = 1 + 1  # without seed 1
    kept = replicates.rows.query("seed != 1").groupby(["strength", "step"])["gold"].mean()
    np.testing.assert_allclose(gold[version], kept)
    assert (count[version] == 2).all()


def test_a_group_emptied_by_a_seed_is_nan(sweep_dir):
    for seed in (1, 2):
        cell = sweep_dir / cell_name("logistic", 1.0, seed)
        records.write_status(cell, records.CellStatus("failed", cell.name, 1, 0.0, 0.0, 0, 5, "h", 1, "x"))
    draws = make_draws(load_sweep(sweep_dir), np.random.default_rng(0), draws=5)
    _, _, gold, _ = draws.of("logistic", final_only=True).means_by("strength")
    assert np.isnan(gold).sum() == 1  # β = 1 without seed 0
    assert np.isnan(gold[1, 1])


def test_the_only_seed_stays():
    draws = simulate(np.random.default_rng(0), lambda *_: 1.0, lambda *_: 0.0, seeds=1)
    replicates = draws.of("logistic")
    assert (replicates.weight == 1).all()
    assert replicates.design.seed_count == 1
    np.testing.assert_array_equal(
        np.sort(replicates.design.joint(replicates.gold)).shape, replicates.design.within(replicates.gold).shape
    )


def test_the_generator_decides(sweep_dir):
    sweep = load_sweep(sweep_dir)
    first, same, other = (make_draws(sweep, np.random.default_rng(seed)).of("logistic").gold for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_prompt_means_of_a_table_pair_with_the_cells(draws):
    table = np.arange(12.0)
    means = draws.prompt_means(table[:, None], draws.noise.prompt_ids)[:, 0]
    np.testing.assert_allclose(means[:4], table.mean())
    np.testing.assert_allclose(means[4 : 4 + 30], draws.noise.joint @ table)
    np.testing.assert_allclose(means[4 + 30 :], np.mean([w @ table for w in draws.noise.within], axis=0))
    assert (draws.prompt_means(table[:, None], np.arange(100, 112)) == table.mean()).all()  # of other prompts


def test_records_stand_in_for_missing_samples(sweep_dir):
    (sweep_dir / FIRST / records.SAMPLES_FILE).unlink()
    with pytest.raises(RefusedSweep, match=f"{FIRST}/samples.parquet: missing, while other cells have theirs"):
        make_draws(load_sweep(sweep_dir), np.random.default_rng(0))
    for path in sweep_dir.glob(f"*/{records.SAMPLES_FILE}"):
        path.unlink()
    draws = make_draws(load_sweep(sweep_dir), np.random.default_rng(0), draws=4000)
    (sentence,) = draws.warnings
    assert "No cell has its samples.parquet any more" in sentence
    replicates = draws.of("squared")
    joint, within = replicates.design.joint(replicates.gold), replicates.design.within(replicates.gold)
    np.testing.assert_allclose(joint.std(0), replicates.rows["gold_se"], rtol=0.05)
    np.testing.assert_allclose(within.std(0), replicates.rows["gold_se"], rtol=0.05)
    assert np.corrcoef(joint.T).min() > 0.999  # errors wholly shared
    first, other = (np.flatnonzero(replicates.rows["seed"] == seed)[:2] for seed in (0, 1))
    assert np.corrcoef(within[:, first].T)[0, 1] > 0.999
    assert abs(np.corrcoef(within[:, first[0]], within[:, other[0]])[0, 1]) < 0.05
    assert (replicates.kl >= 0).all()
    assert draws.noise.prompts == 12  # of the reference pool
    assert (draws.prompt_means(np.arange(12.0), np.arange(12)) == 5.5).all()


def test_a_checkpoint_that_is_missing_in_the_middle_is_noticed(tmp_path):
    sweep_dir = write_sweep(tmp_path / "three", replace(SMALL, steps=(0, 5, 10)))
    path = sweep_dir / FIRST / records.RECORDS_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(RefusedSweep, match=r"records.jsonl: no record of step 5, of which there are samples"):
        make_draws(load_sweep(sweep_dir), np.random.default_rng(0))


def test_with_one_seed_and_no_samples_errors_are_taken_both_ways(tmp_path):
    truth = Truth(losses=("squared",), betas=(0.1, 1.0), seeds=(0,), steps=(0, 5), prompts=12)
    sweep = load_sweep(write_sweep(tmp_path / "one", truth, with_samples=False))
    replicates = make_draws(sweep, np.random.default_rng(0), draws=2000).of("squared")
    within = replicates.design.within(replicates.gold)
    np.testing.assert_allclose(within.std(0), replicates.rows["gold_se"], rtol=0.06)
    assert abs(np.corrcoef(within.T) - np.eye(4)).max() < 0.1


def test_too_many_samples_are_not_read(sweep_dir, monkeypatch):
    monkeypatch.setattr(prompt_noise, "MAX_SAMPLES", 24 * 12 - 1)
    draws = make_draws(load_sweep(sweep_dir), np.random.default_rng(0))
    assert isinstance(draws.noise, prompt_noise.RecordedErrors)
    assert "More than 287 samples" in draws.warnings[0]


def change_samples(sweep_dir, change):
    path = sweep_dir / cell_name("squared", 1.0, 2) / records.SAMPLES_FILE
    change(pd.read_parquet(path)).to_parquet(path)


def raise_gold(frame):
    return frame.assign(gold=frame["gold"] + 0.1 * (frame["step"] == 5))


@pytest.mark.parametrize(
    "change",
    [
        raise_gold,
        lambda frame: frame.query("prompt_id != 3"),
        lambda frame: frame.assign(prompt_id=frame["prompt_id"] + 100),
        lambda frame: frame.query("step == 0"),
    ],
)
def test_samples_that_contradict_the_records_are_refused(sweep_dir, change):
    change_samples(sweep_dir, change)
    sweep = load_sweep(sweep_dir)
    with pytest.raises(RefusedSweep, match=r"seed=2: samples of step \d do not average to the recorded"):
        make_draws(sweep, np.random.default_rng(0))


def test_one_prompt_is_refused(tmp_path):
    sweep_dir = write_sweep(tmp_path / "few", Truth(losses=("squared",), prompts=3))
    for path in sweep_dir.glob(f"*/{records.SAMPLES_FILE}"):
        pd.read_parquet(path).query("prompt_id == 0").to_parquet(path)
    with pytest.raises(RefusedSweep, match="1 evaluation prompt; intervals need at least 2"):
        make_draws(load_sweep(sweep_dir), np.random.default_rng(0))


def test_several_settings_are_refused_with_the_way_out(sweep_dir):
    path = sweep_dir / records.PLAN_FILE
    plan = json.loads(path.read_text())
    for row in plan["cells"]:
        row["optim.warmup"] = row["seed"]
    path.write_text(json.dumps(plan))
    with pytest.raises(RefusedSweep, match=r"optim.warmup.*\[0, 1, 2\].*only\(\*\*\{'optim.warmup': 0\}\).*by_setting"):
        make_draws(load_sweep(sweep_dir), np.random.default_rng(0))


def test_a_loss_that_never_moved_is_refused(sweep_dir):
    for path in sweep_dir.glob(f"loss=squared*/{records.RECORDS_FILE}"):
        rows = [json.loads(line) | {"kl": 0.0} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RefusedSweep, match="KL is 0 at every checkpoint of squared"):
        make_draws(load_sweep(sweep_dir), np.random.default_rng(0))
