"""What cells share: π_ref measured at step 0, and pairs that a seed draws anew."""

import pandas as pd
import torch

from bench.cells.evaluation import evaluate_samples
from bench.cells.inputs import load_inputs
from bench.data.prepared import prepare
from bench.seeding import generator_for


def inputs_of(tiny_world, tmp_path, **changes):
    config = tiny_world.cell(tmp_path / "runs", changes).config
    return load_inputs(prepare(config), config), config


def test_the_start_is_what_a_copy_of_the_reference_would_measure(tiny_world, tmp_path):
    inputs, config = inputs_of(tiny_world, tmp_path, seed=1)
    measured = evaluate_samples(
        inputs.reference.trainable(),
        inputs.reference,
        inputs.gold,
        inputs.standardization,
        inputs.evaluation,
        step=0,
        max_new_tokens=config.world.max_new_tokens,
        batch_size=config.evaluation.batch_size,
        generator=generator_for(1, "evaluation", 0),
    )
    assert inputs.start.metrics == measured.metrics
    pd.testing.assert_frame_equal(inputs.start.samples, measured.samples)
    assert inputs.start.metrics["kl"] == 0


def test_a_seed_draws_its_own_samples_and_pairs_and_a_loss_does_not(tiny_world, tmp_path):
    one, _ = inputs_of(tiny_world, tmp_path, seed=0, loss="logistic")
    other_loss, _ = inputs_of(tiny_world, tmp_path, seed=0, loss="hinge", beta=3.0)
    other_seed, _ = inputs_of(tiny_world, tmp_path, seed=1, loss="logistic")
    assert one.start is other_loss.start
    assert torch.equal(one.train.chosen.input_ids, other_loss.train.chosen.input_ids)
    assert one.start.samples["response"].tolist() != other_seed.start.samples["response"].tolist()
    assert one.train.chosen.input_ids.tolist() != other_seed.train.chosen.input_ids.tolist()
