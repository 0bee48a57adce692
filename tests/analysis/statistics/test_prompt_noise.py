"""Gold over the reference: a mean that stays, a spread that is right for gains, differences that do not notice."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import Truth, cell_name, write_sweep

from analysis.data.load import load_sweep
from analysis.statistics.prompt_noise import make_prompt_noise, over_reference

PROMPTS = 40


def reference_of(gold):
    """REFERENCE_COLUMNS that matter here, from [prompts, samples]."""
    prompts, samples = gold.shape
    return pd.DataFrame({"prompt_id": np.repeat(np.arange(prompts), samples), "gold": gold.ravel()})


def test_by_hand():
    reference = reference_of(np.array([[1.0, 3.0], [-2.0, -2.0]]))  # means 2 and −2, overall 0
    seen = over_reference(np.array([[5.0, 1.0], [2.0, -2.0]]), np.arange(2), reference)
    assert seen.tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_without_samples_of_the_same_prompts_gold_stays_as_it_is():
    gold, reference = np.arange(6.0).reshape(2, 3), reference_of(np.ones((3, 2)))
    for prompt_ids, samples in ((np.arange(3), None), (np.arange(1, 4), reference)):
        assert over_reference(gold, prompt_ids, samples) is gold


def test_gains_over_the_reference_are_covered_as_often_as_said_and_gold_alone_too_often():
    """Prompts drawn anew 4,000 times; the truth is a mean gain of 1. The interval is narrower by what prompts share."""
    rng, hits, widths = np.random.default_rng(0), {"over": 0, "raw": 0}, {"over": [], "raw": []}
    t, repetitions = stats.t.ppf(0.975, PROMPTS - 1), 4000
    for _ in range(repetitions):
        of_prompts = rng.normal(0.7, 0.3, PROMPTS)
        pool = of_prompts[:, None] + rng.normal(0, 0.95, (PROMPTS, 64))
        gold = of_prompts + 1 + rng.normal(0, 0.2, PROMPTS) + rng.normal(0, 0.4, PROMPTS)
        gold, pool = gold - pool.mean(), pool - pool.mean()  # π_ref's mean is the zero of gold
        over = over_reference(gold, np.arange(PROMPTS), reference_of(pool))
        assert over.mean() == pytest.approx(gold.mean(), abs=1e-12)
        for name, values in (("over", over), ("raw", gold)):
            half = t * values.std(ddof=1) / np.sqrt(PROMPTS)
            hits[name] += abs(values.mean() - 1) <= half
            widths[name].append(half)
    assert hits["over"] / repetitions == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / repetitions))
    assert hits["raw"] / repetitions > 0.965
    assert np.mean(widths["over"]) < 0.9 * np.mean(widths["raw"])


def test_a_sweeps_gold_is_drawn_over_its_reference_and_differences_are_not_moved(tmp_path):
    truth = Truth(losses=("logistic", "squared"), betas=(0.1, 1.0), seeds=(0, 1), steps=(0, 5), prompts=PROMPTS)
    sweep = load_sweep(write_sweep(tmp_path / "small", truth))
    noise, _ = make_prompt_noise(sweep, 50, np.random.default_rng(0))
    reference = sweep.reference.groupby("prompt_id")["gold"].mean().to_numpy()
    for row, (cell, step) in enumerate(zip(sweep.checkpoints["cell"], sweep.checkpoints["step"], strict=True)):
        samples = pd.read_parquet(sweep.path / cell / "samples.parquet")
        raw = samples[samples["step"] == step].sort_values("prompt_id")["gold"].to_numpy()
        np.testing.assert_allclose(noise.gold[row], raw - reference + reference.mean(), atol=1e-12)
        assert noise.gold[row].mean() == pytest.approx(sweep.checkpoints["gold"].iloc[row])
        if row == 0:
            first = raw
        np.testing.assert_allclose(noise.gold[row] - noise.gold[0], raw - first, atol=1e-12)


def test_samples_of_a_prompt_are_averaged_before_prompts_are_drawn(tmp_path):
    """Three samples of each prompt at the last step, whose mean and spread between prompts are known."""
    truth = Truth(losses=("logistic",), betas=(0.1, 1.0), seeds=(0,), steps=(0, 5), prompts=12)
    sweep_dir, rng = write_sweep(tmp_path / "small", truth), np.random.default_rng(3)
    (sweep_dir / "reference-r1.parquet").unlink()
    cell = sweep_dir / cell_name("logistic", 0.1, 0)
    frame = pd.read_parquet(cell / "samples.parquet")
    last = frame["step"] == 5
    more = pd.concat([frame[last].assign(sample_id=i) for i in range(3)])
    more["gold"] += rng.normal(size=len(more))
    more = more.sample(frac=1, random_state=0)  # rows in any order
    pd.concat([frame[~last], more]).to_parquet(cell / "samples.parquet", index=False)
    rows = [json.loads(line) for line in (cell / "records.jsonl").read_text().splitlines()]
    rows[-1] |= {"gold": more["gold"].mean(), "samples_per_prompt": 3}
    (cell / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sweep = load_sweep(sweep_dir)
    noise, _ = make_prompt_noise(sweep, 5000, np.random.default_rng(0))
    row = sweep.checkpoints.query("cell == @cell.name and step == 5").index[0]
    expected = [more.loc[more["prompt_id"] == prompt, "gold"].mean() for prompt in range(12)]
    np.testing.assert_allclose(noise.gold[row], expected)
    # A bootstrap's variance lacks the factor n / (n − 1); 5,000 draws know it to 2 %.
    se = np.std(expected, ddof=0) / np.sqrt(12)
    assert (noise.joint @ noise.gold[row]).std() == pytest.approx(se, rel=0.04)
