"""GPOTrainer against our own objective at every loss; what it refuses; its policies on a frontier."""

import importlib
import json
import sys

import pytest
import torch
from preference_files import ended_rows, quiet_config, training_rows
from tiny_world import moved_copy
from torch import Tensor
from torch.nn.functional import softplus

from bench import evaluate
from bench.checked import ConfigError
from bench.config import OptimConfig
from bench.data.pairs import load_pairs
from bench.data.preferences import TRAIN
from bench.losses import LOSSES, resolve_loss
from bench.methods.objective import Objective
from bench.methods.offline import accumulate_gradient
from bench.policies.load import load_policy

# Warnings of TRL, datasets and accelerate are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

UNCLIPPED = OptimConfig(clip_norm=1e9)


def steeper(z: Tensor) -> Tensor:
    """A loss of a user's own: log(1 + exp(−2z))."""
    return softplus(-2 * z)


@pytest.fixture(scope="module")
def reference(tiny_world):
    return load_policy(tiny_world.policy)


@pytest.fixture(scope="module")
def make_trainer(reference, preferences, tmp_path_factory):
    """A function from a loss, a policy and further settings to a GPOTrainer on the parquet file as it is."""
    from bench.integrations.trl import GPOTrainer

    directory = tmp_path_factory.mktemp("trl")
    rows = training_rows(preferences, directory / "cache")

    def make(loss, policy, **settings):
        config = quiet_config(
            directory, **{"max_steps": 3, "logging_strategy": "steps", "logging_steps": 1, **settings}
        )
        return GPOTrainer(
            policy.model, loss=loss, ref_model=reference.trainable().model, args=config, train_dataset=rows,
            processing_class=policy.tokenizer,
        )  # fmt: skip

    return make


def gradient_of(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize("loss", [*LOSSES, f"{__name__}:steeper"])
def test_loss_and_gradient_are_ours(reference, preferences, make_trainer, loss, beta):
    """On pairs of unequal lengths, away from the reference, where the losses differ."""
    policy = moved_copy(reference)
    trainer = make_trainer(loss, policy, beta=beta)
    ended = ended_rows(preferences, reference.eos_id)
    lengths = {len(trainer.train_dataset[row]["chosen_ids"]) for row in ended}
    assert len(lengths) > 1
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator([trainer.train_dataset[row] for row in ended]))
    theirs.backward()
    their_gradient = gradient_of(trainer.model)

    pairs = load_pairs(preferences, TRAIN, pad_id=reference.pad_id).take(torch.tensor(ended))
    ours = accumulate_gradient(policy, pairs, Objective(resolve_loss(loss).fn, beta), UNCLIPPED).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    scale = their_gradient.abs().max()
    assert scale > 0.01
    torch.testing.assert_close(gradient_of(policy.model) / scale, their_gradient / scale, rtol=0, atol=1e-5)


def test_precomputed_reference_log_probs_change_nothing(reference, make_trainer):
    """Nor does it matter that our file holds some: they lack the EOS that TRL gives to responses that were cut."""
    policy, losses = moved_copy(reference), []
    for precompute in (False, True):
        trainer = make_trainer("savage", policy, beta=0.5, precompute_ref_log_probs=precompute)
        trainer.get_train_dataloader()  # where TRL computes them
        assert trainer.precompute_ref_logps == precompute
        batch = trainer.data_collator([trainer.train_dataset[row] for row in range(8)])
        losses.append(trainer.compute_loss(trainer.model, batch).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[0] - LOSSES["savage"].value_at_zero) > 1e-3


def test_it_starts_at_f_of_zero_and_logs_what_trl_logs_of_pairs(reference, make_trainer):
    trainer = make_trainer("exponential", reference.trainable(), beta=0.3, learning_rate=1e-3)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(1.0, abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    last = trainer.state.log_history[-2]
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], abs=1e-4)
    assert 0 <= last["rewards/accuracies"] <= 1
    assert last["logps/chosen"] < 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss_type": ["ipo"]}, r"DPOConfig\(loss_type=\['ipo'\]\) would be ignored"),
        ({"label_smoothing": 0.1}, r"DPOConfig\(label_smoothing=0.1\) would be ignored.*leave it at 0.0"),
        ({"f_divergence_type": "js_divergence"}, r"f_divergence_type='js_divergence'"),
        ({"ld_alpha": 0.5}, r"ld_alpha=0.5"),
        ({"use_weighting": True}, r"use_weighting=True"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(reference, make_trainer, settings, said):
    with pytest.raises(ConfigError, match=said):
        make_trainer("logistic", reference.trainable(), **settings)


def test_an_unknown_loss_names_the_nearest(reference, make_trainer):
    with pytest.raises(ValueError, match="did you mean 'logistic'"):
        make_trainer("logistc", reference.trainable())


def test_a_machine_without_trl_is_told_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "bench.integrations.trl", raising=False)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs TRL, which is not installed: pip install 'trl==1\.16"):
        importlib.import_module("bench.integrations.trl")


def test_what_it_has_trained_goes_onto_a_frontier(tiny_world, reference, make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer("hinge", reference.trainable(), beta=0.1, learning_rate=1e-2, max_grad_norm=100.0)
    trainer.train()
    trainer.save_model(str(tmp_path / "trained"))
    world = tiny_world.overrides(tmp_path / "runs")
    words = [f"policy={tmp_path / 'trained'}", "variant=trl_hinge", "strength=0.1", "step=3", "sweep=t", *world]
    monkeypatch.setattr(sys, "argv", ["bench.evaluate", *(word for word in words if not word.startswith("optim."))])
    assert evaluate.main() == 0
    (found,) = (tmp_path / "runs" / "t").glob("variant=trl_hinge*/records.jsonl")
    last = json.loads(found.read_text().splitlines()[-1])
    assert (last["variant"], last["step"]) == ("trl_hinge", 3)
    assert last["kl"] > 0
