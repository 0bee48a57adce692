"""What cells share: π_ref measured at step 0, pairs that a seed draws anew, and one set of data at a time."""

import gc
import math
import weakref

import pandas as pd
import pytest
import torch
from running import prepared_for
from tiny_world import write_gold

import bench.cells.inputs
from bench.cells.evaluation import evaluate_held_out, evaluate_samples
from bench.cells.inputs import InputCache, evaluation_uniforms, training_pairs
from bench.cells.measure import Measurement
from bench.data.artifacts import DamagedArtifact
from bench.losses import LOSSES
from bench.records import StepMetrics
from bench.seeding import uniforms_for


@pytest.fixture
def cache():
    return InputCache()


@pytest.fixture
def make_cell(tiny_world, tmp_path):
    return lambda **changes: tiny_world.cell(tmp_path / "runs", changes)


def test_the_start_is_what_a_copy_of_the_reference_would_measure(cache, make_cell):
    cell = make_cell(seed=1)
    prepared, config = prepared_for(cell), cell.config
    shared = cache.shared(prepared, config)
    measured = evaluate_samples(
        shared.reference.trainable(),
        shared.gold,
        shared.standardization,
        shared.evaluation,
        step=0,
        uniforms=uniforms_for(1, "evaluation", 0, count=config.evaluation.prompts, tokens=config.world.max_new_tokens),
        batch_size=config.evaluation.batch_size,
    )
    start = cache.start(prepared, config)
    assert start.sampled.metrics == measured.metrics
    pd.testing.assert_frame_equal(start.sampled.samples, measured.samples)
    assert start.sampled.metrics["kl"] == 0
    of_the_copy = evaluate_held_out(
        shared.reference.trainable(), shared.evaluation.held_out, length_normalized=False, batch_size=5
    )
    for ours, theirs in zip(start.on_pairs, of_the_copy, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert start.on_pairs.rho.abs().max() < 1e-4


def test_a_seed_draws_its_own_samples_and_pairs_and_a_loss_does_not(cache, make_cell):
    cells = [make_cell(seed=0), make_cell(seed=0, loss="hinge", beta=3.0), make_cell(seed=1)]
    starts = [cache.start(prepared_for(cell), cell.config) for cell in cells]
    pool = cache.shared(prepared_for(cells[0]), cells[0].config).pool
    one, other_loss, other_seed = (training_pairs(pool, cell.config).chosen.input_ids for cell in cells)
    assert starts[0] is starts[1]
    assert torch.equal(one, other_loss)
    assert starts[0].sampled.samples["response"].tolist() != starts[2].sampled.samples["response"].tolist()
    assert one.tolist() != other_seed.tolist()


def test_cells_on_one_set_of_data_load_it_once(cache, make_cell, monkeypatch):
    cells = [make_cell(seed=seed, beta=beta) for seed in (0, 1) for beta in (0.1, 1.0)]
    prepared = prepared_for(cells[0])
    first = cache.shared(prepared, cells[0].config)
    for name in ("load_policy", "load_gold_model", "load_pairs"):
        monkeypatch.setattr(f"bench.cells.inputs.{name}", pytest.fail)
    assert all(cache.shared(prepared_for(cell), cell.config) is first for cell in cells)


def test_another_set_of_data_takes_the_place_and_the_memory_of_the_first(cache, make_cell):
    cells = [make_cell(), make_cell(**{"pairs.seed": 1})]
    weights = weakref.ref(cache.shared(prepared_for(cells[0]), cells[0].config).reference.model)
    assert weights() is not None
    cache.start(prepared_for(cells[1]), cells[1].config)
    gc.collect()
    assert weights() is None


def test_step_0_is_measured_once_for_all_losses_of_a_seed_and_has_each_losss_own_terms(cache, make_cell, monkeypatch):
    measured = []
    for name in ("evaluate_samples", "evaluate_held_out"):
        evaluate = getattr(bench.cells.inputs, name)

        def counted(*arguments, name=name, evaluate=evaluate, **settings):
            measured.append(name)
            return evaluate(*arguments, **settings)

        monkeypatch.setattr(bench.cells.inputs, name, counted)
    records = {}
    for loss, beta in (("logistic", 0.1), ("savage", 3.0), ("squared", 1.0)):
        cell = make_cell(loss=loss, beta=beta)
        prepared = prepared_for(cell)
        policy = cache.shared(prepared, cell.config).reference.trainable()
        first = StepMetrics(0, LOSSES[loss].value_at_zero, 0.5, 0.0, 1.0, 0.0)
        records[loss] = Measurement(cell, prepared, cache).at(0, policy, [first], wall_s=0.0).record
    assert measured == ["evaluate_samples", "evaluate_held_out"]
    for loss, at_zero in (("logistic", math.log(2)), ("savage", 0.25), ("squared", 1.0)):
        assert records[loss].held_out_loss == pytest.approx(at_zero, abs=1e-6)
        assert records[loss].taylor_constant == pytest.approx(at_zero)
        assert records[loss].logp_chosen == records["squared"].logp_chosen


def test_cells_with_another_reading_of_rho_share_no_start(cache, make_cell):
    for length_normalized in (False, True):
        cell = make_cell(length_normalized=length_normalized)
        cache.start(prepared_for(cell), cell.config)
    assert len(cache._starts) == 2


def test_more_samples_leave_the_first_of_every_prompt_as_they_are(make_cell):
    one, four = (make_cell(**{"evaluation.samples_per_prompt": n}).config for n in (1, 4))
    last, prompts = one.optim.steps, one.evaluation.prompts
    many = evaluation_uniforms(four, last)
    assert many.shape == (4 * prompts, one.world.max_new_tokens)
    assert torch.equal(evaluation_uniforms(one, last), many[:prompts])
    assert len(many.unique(dim=0)) == 4 * prompts, "each sample of a prompt is drawn anew"
    for step in (0, 4):
        assert torch.equal(evaluation_uniforms(four, step), evaluation_uniforms(one, step)), "one on the way"
    assert not torch.equal(evaluation_uniforms(one, 0), evaluation_uniforms(one, 4))
    other_loss, other_seed = (make_cell(**change).config for change in ({"loss": "hinge", "beta": 3.0}, {"seed": 1}))
    assert torch.equal(evaluation_uniforms(other_loss, last), many)
    assert not torch.equal(evaluation_uniforms(other_seed, last), many)


def test_what_every_checkpoint_is_measured_on_is_what_was_prepared(cache, make_cell):
    """Held against the files: the prompts, in their order, π_ref's first sample of each, and the held-out pairs."""
    cell = make_cell()
    prepared = prepared_for(cell)
    shared, on = cache.shared(prepared, cell.config), cache.shared(prepared, cell.config).evaluation
    samples = pd.read_parquet(prepared.reference.path / "samples.parquet")
    first = samples[samples["sample_id"] == 0].sort_values("prompt_id")
    assert on.prompts == first["prompt"].tolist()
    assert on.prompt_ids == shared.reference.encode(on.prompts)
    assert on.reference_responses == first["response"].tolist()
    assert on.reference_gold[:, 0].tolist() == first["gold"].tolist()
    pairs = pd.read_parquet(prepared.preferences.path / "pairs.parquet")
    for split, loaded in (("held_out", on.held_out), ("train", shared.pool)):
        of_split = pairs[pairs["split"] == split]
        assert loaded.ref_logp_chosen.tolist() == pytest.approx(of_split["ref_chosen_logps"].tolist())
        assert loaded.ref_logp_rejected.tolist() == pytest.approx(of_split["ref_rejected_logps"].tolist())
    assert set(pairs.loc[pairs["split"] == "held_out", "prompt"]) <= set(on.prompts) | set(samples["prompt"])


def test_few_starts_are_kept(cache, make_cell):
    for seed in range(20):
        cell = make_cell(seed=seed)
        cache.start(prepared_for(cell), cell.config)
    assert len(cache._starts) == 16


def test_cells_that_round_differently_share_no_start(cache, make_cell):
    for threads in (1, 2):
        cell = make_cell(cpu_threads=threads)
        cache.start(prepared_for(cell), cell.config)
    assert len(cache._starts) == 2


def test_a_model_that_was_exchanged_since_the_sweep_was_planned_is_refused(cache, tiny_world, tmp_path):
    gold = write_gold(tmp_path / "gold", seed=5)
    cell = tiny_world._replace(gold=gold, artifacts=tmp_path / "artifacts").cell(tmp_path / "runs")
    prepared = prepared_for(cell)
    write_gold(gold, seed=6)
    with pytest.raises(DamagedArtifact, match=r"gold .* is \w+, the sweep was planned on \w+"):
        cache.shared(prepared, cell.config)
