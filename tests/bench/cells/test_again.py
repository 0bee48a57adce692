"""Saved policies measured again: fresh samples, other counts, another gold model; rows that take the place of rows."""

import json
import math

import pandas as pd
import pytest
import torch
from running import CACHE, prepared_for, run
from tiny_models import word_tokenizer
from tiny_world import WORDS
from transformers import AutoModelForSequenceClassification

import bench.cells.again
from bench.cells.again import ScaledGold, measure_again, saved_policies, write_evaluation
from bench.checked import ConfigError
from bench.data.reference_samples import load_reference
from bench.records import DamagedRecord, read_records
from gold_rm.reward_model import load_gold_model


@pytest.fixture(scope="module")
def cell(tiny_world, tmp_path_factory):
    """A cell that has kept its policies of the steps 4 and 8."""
    cell = tiny_world.cell(tmp_path_factory.mktemp("runs"), {"save": "all"})
    assert run(cell).state == "done"
    return cell


@pytest.fixture(scope="module")
def shared(cell):
    return CACHE.shared(prepared_for(cell), cell.config)


@pytest.fixture(scope="module")
def own(shared):
    return ScaledGold(shared.gold, shared.standardization, "own")


def measured(cell, shared, judge, *, step=8, prompts=None, samples_per_prompt=1):
    (saved,) = (each for each in saved_policies([cell]) if each.step == step)
    return measure_again(
        saved.load(shared.reference, device="cpu"), shared, judge, seed=0, step=step, max_new_tokens=6, batch_size=24,
        prompts=prompts, samples_per_prompt=samples_per_prompt,
    )  # fmt: skip


def test_saved_policies_come_in_the_order_of_their_steps(cell):
    assert [(each.cell.name, each.step, each.directory.name) for each in saved_policies([cell])] == [
        (cell.name, 4, "step-000004"), (cell.name, 8, "step-000008"),
    ]  # fmt: skip


def test_a_saved_policy_that_does_not_say_where_it_is_from_is_named(tiny_world, tmp_path):
    cell = tiny_world.cell(tmp_path)
    (cell.directory / "policy").mkdir(parents=True)
    assert list(saved_policies([cell])) == []
    (cell.directory / "policy" / "gpo_bench.json").write_text("{")
    with pytest.raises(DamagedRecord, match=r"gpo_bench\.json: not the origin of a saved policy"):
        list(saved_policies([cell]))


def test_each_checkpoint_measures_as_its_record_says(cell, shared, own):
    """On other samples, so within four standard errors; the two steps are further apart than 1.5."""
    again = {step: measured(cell, shared, own, step=step, samples_per_prompt=12) for step in (4, 8)}
    for row in read_records(cell.directory / "records.jsonl")[1:]:
        for key in ("kl", "gold"):
            gap = again[row["step"]][key] - row[key]
            assert 0 < abs(gap) < 4 * math.hypot(again[row["step"]][f"{key}_se"], row[f"{key}_se"])
    assert abs(again[4]["kl"] - again[8]["kl"]) > 1.5 * again[8]["kl_se"]


def rescaled_gold(world, directory, factor):
    """The world's gold model with its scores multiplied by `factor`: its head has no bias."""
    model = AutoModelForSequenceClassification.from_pretrained(world.gold, local_files_only=True)
    with torch.no_grad():
        model.score.weight *= factor
    model.save_pretrained(directory)
    word_tokenizer(WORDS).save_pretrained(directory)
    return load_gold_model(directory)


@pytest.mark.parametrize("factor", [3.0, -0.5])
def test_another_gold_model_is_put_on_the_scale_of_the_references_samples(
    cell, shared, own, tiny_world, tmp_path, factor
):
    """A multiple of the world's gold model has the same standardized scores, up to the sign; KL does not see it."""
    other = rescaled_gold(tiny_world, tmp_path / "gold", factor)
    reference = load_reference(prepared_for(cell).reference.path)
    judge = ScaledGold.on(reference, other)
    scores = judge.standardization.apply(other.score(reference["prompt"].tolist(), reference["response"].tolist()))
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)
    assert scores.std().item() == pytest.approx(1, rel=1e-5)
    ours, theirs = (measured(cell, shared, each, samples_per_prompt=2) for each in (own, judge))
    assert theirs["gold"] == pytest.approx(math.copysign(1, factor) * ours["gold"], abs=1e-4)
    assert theirs["gold_se"] == pytest.approx(ours["gold_se"], rel=1e-3)
    assert theirs["kl"] == ours["kl"]
    assert (ours["gold_model"], theirs["gold_model"]) == ("own", other.fingerprint)


def test_the_first_prompts_count_and_each_draw_is_fresh(cell, shared, own, monkeypatch):
    seen = []
    evaluate = bench.cells.again.evaluate_samples

    def recorded(*arguments, **settings):
        seen.append(evaluate(*arguments, **settings))
        return seen[-1]

    monkeypatch.setattr(bench.cells.again, "evaluate_samples", recorded)
    row = measured(cell, shared, own, prompts=10, samples_per_prompt=2)
    assert (row["prompts"], row["samples_per_prompt"]) == (10, 2)
    (part,) = seen
    assert part.samples["prompt"].tolist() == shared.evaluation.prompts[:10] * 2
    first, second = (part.samples.query(f"sample_id == {draw}")["response"].reset_index(drop=True) for draw in (0, 1))
    means = part.samples.groupby("prompt_id")["gold"].mean()
    assert (row["gold"], row["gold_se"]) == (pytest.approx(means.mean()), pytest.approx(means.sem()))
    recorded_at_8 = pd.read_parquet(cell.directory / "samples.parquet").query("step == 8")["response"][:10]
    assert (first != second).mean() > 0.3
    assert (first.to_numpy() != recorded_at_8.to_numpy()).mean() > 0.3
    assert measured(cell, shared, own, prompts=10, samples_per_prompt=2) == row, "the same draws on the next call"
    assert measured(cell, shared, own, prompts=None)["prompts"] == 24


@pytest.mark.parametrize("prompts", [0, 1, 25])
def test_a_number_of_prompts_that_the_sweep_does_not_have(cell, shared, own, prompts):
    with pytest.raises(ConfigError, match=rf"prompts={prompts}: .* on 24; from 2 to 24 are possible"):
        measured(cell, shared, own, prompts=prompts)


def row(**changes):
    return {"cell": "a", "step": 8, "prompts": 24, "samples_per_prompt": 1, "gold_model": "g", "kl": 1.0} | changes


def test_a_row_takes_the_place_of_one_of_the_same_measurement_only(tmp_path):
    others = [row(cell="b"), row(step=4), row(prompts=10), row(samples_per_prompt=4), row(gold_model="h")]
    for each in (row(), *others, row(kl=2.0)):
        write_evaluation(tmp_path, each)
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(kl=2.0), *others]


def test_a_damaged_file_of_evaluations_is_kept_and_named(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    path.write_text(json.dumps(row()) + "\n" + '{"cell": "ha')
    with pytest.raises(DamagedRecord, match=r"evaluations\.jsonl:2: not a JSON object .* move the file away"):
        write_evaluation(tmp_path, row())
    assert path.read_text().endswith('"ha')
