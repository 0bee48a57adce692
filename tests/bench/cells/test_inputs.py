"""What cells share: π_ref measured at step 0, pairs that a seed draws anew, and one set of data at a time."""

import gc
import weakref

import pandas as pd
import pytest
import torch
from running import prepared_for
from tiny_world import write_gold

from bench.cells.evaluation import evaluate_held_out, evaluate_samples
from bench.cells.inputs import InputCache, training_pairs
from bench.data.artifacts import DamagedArtifact
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
    assert start.metrics == measured.metrics
    pd.testing.assert_frame_equal(start.samples, measured.samples)
    assert start.metrics["kl"] == 0


def test_the_start_on_held_out_pairs_is_what_a_copy_of_the_reference_would_measure(cache, make_cell):
    cell = make_cell(seed=1)
    prepared, config = prepared_for(cell), cell.config
    shared = cache.shared(prepared, config)
    measured = evaluate_held_out(
        shared.reference.trainable(),
        shared.evaluation.held_out,
        length_normalized=config.length_normalized,
        batch_size=config.evaluation.batch_size,
    )
    start = cache.start_on_pairs(prepared, config)
    assert all(torch.equal(*each) for each in zip(start, measured, strict=True))
    assert cache.start_on_pairs(prepared, make_cell(seed=2, loss="hinge", beta=3.0).config) is start


def test_a_seed_draws_its_own_samples_and_pairs_and_a_loss_does_not(cache, make_cell):
    cells = [make_cell(seed=0), make_cell(seed=0, loss="hinge", beta=3.0), make_cell(seed=1)]
    starts = [cache.start(prepared_for(cell), cell.config) for cell in cells]
    pool = cache.shared(prepared_for(cells[0]), cells[0].config).pool
    one, other_loss, other_seed = (training_pairs(pool, cell.config).chosen.input_ids for cell in cells)
    assert starts[0] is starts[1]
    assert torch.equal(one, other_loss)
    assert starts[0].samples["response"].tolist() != starts[2].samples["response"].tolist()
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
