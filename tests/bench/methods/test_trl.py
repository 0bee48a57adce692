"""TRL's DPOTrainer (1.16) as a second opinion: it trains on our parquet as it is, and has our gradients.

Its losses in our terms, with β_TRL for its `beta` and ρ for the difference of log-ratios:

    sigmoid   −log σ(β_TRL ρ)                f = logistic,  β = β_TRL
    hinge     max(0, 1 − β_TRL ρ)            f = hinge,     β = β_TRL
    ipo       (ρ̄ − 1/(2 β_TRL))²             f = squared,   β = 2 β_TRL, times 1/β² = 1/(4 β_TRL²)

where ρ̄ averages each log-ratio over its response's tokens: our `length_normalized=true`.
"""

import pandas as pd
import pytest
import torch
from preference_files import ended_rows, quiet_config, training_rows
from tiny_world import moved_copy

from bench.config import OptimConfig
from bench.data.artifacts import PAIRS_FILE
from bench.data.pairs import load_pairs
from bench.data.preferences import TRAIN
from bench.losses import LOSSES
from bench.methods.objective import Objective
from bench.methods.offline import accumulate_gradient
from bench.policies.load import load_policy

# Warnings of TRL, datasets and accelerate are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

BETA_TRL = 0.3
UNCLIPPED = OptimConfig(clip_norm=1e9)


@pytest.fixture(scope="module")
def reference(tiny_world):
    return load_policy(tiny_world.policy)


@pytest.fixture(scope="module")
def make_trainer(reference, preferences, tmp_path_factory):
    """A function from loss type and policy to a DPOTrainer on the parquet file, read by `datasets`."""
    from trl import DPOTrainer

    directory = tmp_path_factory.mktemp("trl")
    rows = training_rows(preferences, directory / "cache")

    def make(loss_type, policy):
        config = quiet_config(directory, beta=BETA_TRL, loss_type=[loss_type])
        return DPOTrainer(
            policy.model, ref_model=reference.trainable().model, args=config,
            train_dataset=rows, processing_class=policy.tokenizer,
        )  # fmt: skip

    return make


def gradient_of(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("moved", [False, True], ids=["first step", "away from the reference"])
@pytest.mark.parametrize(
    ("loss_type", "name", "beta", "length_normalized", "factor"),
    [("sigmoid", "logistic", BETA_TRL, False, 1.0), ("hinge", "hinge", BETA_TRL, False, 1.0),
     ("ipo", "squared", 2 * BETA_TRL, True, 1 / (2 * BETA_TRL) ** 2)],
)  # fmt: skip
def test_gradient_of_all_parameters(
    reference, preferences, make_trainer, moved, loss_type, name, beta, length_normalized, factor
):
    policy = moved_copy(reference) if moved else reference.trainable()
    trainer = make_trainer(loss_type, policy)
    ended = ended_rows(preferences, reference.eos_id)
    assert len(ended) >= 5
    batch = trainer.data_collator([trainer.train_dataset[row] for row in ended])
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    their_gradient = gradient_of(trainer.model)

    pairs = load_pairs(preferences, TRAIN, pad_id=reference.pad_id).take(torch.tensor(ended))
    objective = Objective(LOSSES[name].fn, beta, length_normalized)
    ours = accumulate_gradient(policy, pairs, objective, UNCLIPPED).loss
    assert factor * ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    scale = their_gradient.abs().max()
    assert scale > 0.01
    torch.testing.assert_close(factor * gradient_of(policy.model) / scale, their_gradient / scale, rtol=0, atol=1e-5)


def test_trl_trains_on_the_parquet_and_tokenises_it_as_we_did(reference, preferences, make_trainer):
    trainer = make_trainer("sigmoid", reference.trainable())
    ours = pd.read_parquet(preferences / PAIRS_FILE).query("split == 'train'")
    assert len(trainer.train_dataset) == len(ours)
    for theirs, row in zip(trainer.train_dataset, ours.itertuples(), strict=True):
        assert theirs["prompt_ids"] == row.prompt_ids.tolist()
        for side in ("chosen", "rejected"):
            ids = getattr(row, f"{side}_ids").tolist()
            assert theirs[f"{side}_ids"] == (ids if ids[-1] == reference.eos_id else [*ids, reference.eos_id])
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert any(not torch.equal(*each) for each in zip(before, trainer.model.parameters(), strict=True))
