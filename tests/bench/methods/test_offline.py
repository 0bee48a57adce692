"""One objective, one optimizer: gradients against closed forms, and nothing in the set-up depends on the loss."""

import copy
from itertools import islice
from typing import ClassVar

import pytest
import torch
from tiny_models import tiny_policy
from tiny_world import moved_copy, sample_pairs

from bench.config import OptimConfig
from bench.data.pairs import pair_logprobs
from bench.losses import LOSSES
from bench.methods import TrainingInputs
from bench.methods.objective import Objective
from bench.methods.offline import OfflineTrainer, accumulate_gradient, objective_of, shuffled_batches
from bench.methods.trainer import NonFiniteLoss
from bench.policies.load import load_policy
from bench.seeding import generator_for

SETTINGS = OptimConfig(lr=1e-3, steps=6, batch_pairs=8, warmup_steps=4, clip_norm=1e9)
BETA = 0.3


@pytest.fixture(scope="module")
def reference(tiny_world):
    return load_policy(tiny_world.policy)


@pytest.fixture(scope="module")
def pairs(reference):
    return sample_pairs(reference, 20)


def gradient_of(policy):
    """The whole parameter vector's gradient."""
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


def weights_of(policy):
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def optim(**changes):
    return OptimConfig(**{**vars(SETTINGS), **changes})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def train(policy, pairs, objective, settings, *, seed=0):
    """Steps of a trainer, one by one."""
    trainer = OfflineTrainer(policy, pairs, objective, settings, seed=seed)
    for _ in range(settings.steps):
        yield trainer.step()


@pytest.mark.parametrize("name", LOSSES)
def test_at_the_reference_the_loss_is_f_of_0_and_the_gradient_is_beta_slope_times_that_of_rho(reference, pairs, name):
    loss, policy = LOSSES[name], reference.trainable()
    value, _, norm = accumulate_gradient(policy, pairs, Objective(loss.fn, BETA), SETTINGS)
    assert value.item() == pytest.approx(loss.value_at_zero, abs=1e-5)
    seen = gradient_of(policy)
    policy.zero_grad()
    pair_logprobs(policy, pairs).rho.mean().backward()
    torch.testing.assert_close(seen, BETA * loss.slope_at_zero * gradient_of(policy), rtol=1e-4, atol=1e-6)
    assert norm.item() == pytest.approx(seen.norm().item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("beta", [0.01, 0.3, 10.0])
def test_the_first_scaled_gradient_is_the_same_for_every_loss_and_beta(reference, pairs, name, beta):
    """That of −mean ρ; what is recorded stays that of f."""
    loss, policy = LOSSES[name], reference.trainable()
    value, _, norm = accumulate_gradient(policy, pairs, Objective.scaled(loss, beta), SETTINGS)
    seen = gradient_of(policy)
    policy.zero_grad()
    (-pair_logprobs(policy, pairs).rho.mean()).backward()
    expected = gradient_of(policy)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5 * expected.norm().item())
    assert value.item() == pytest.approx(loss.value_at_zero, abs=1e-5)
    assert norm.item() == pytest.approx(beta * abs(loss.slope_at_zero) * expected.norm().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["savage", "squared"])
def test_the_scale_moves_nothing_but_what_is_clipped(reference, pairs, name):
    """AdamW divides by the gradient's own size: without a clip, scaled and plain gradients train one policy."""
    loss, margins = LOSSES[name], []
    for objective in (Objective(loss.fn, BETA), Objective.scaled(loss, BETA)):
        policy = reference.trainable()
        list(train(policy, pairs, objective, SETTINGS))
        # Not the weights: keys' biases have gradient 0, and AdamW makes steps of its rounding.
        margins.append(pair_logprobs(policy, pairs).rho.detach())
    assert margins[0].abs().max() > 0.1
    torch.testing.assert_close(*margins, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("length_normalized", [False, True])
def test_a_cells_objective_is_what_its_configuration_says(tiny_world, tmp_path, length_normalized):
    config = tiny_world.config(tmp_path, {"length_normalized": length_normalized, "loss": "hinge", "beta": 0.3})
    objective = objective_of(TrainingInputs(config, None, None, [], None))
    assert (objective.fn, objective.beta) == (LOSSES["hinge"].fn, 0.3)
    assert objective.length_normalized is length_normalized


@pytest.mark.parametrize("size", [1, 3, 8, 20, 50])
@pytest.mark.parametrize("length_normalized", [False, True])
def test_micro_batches_sum_to_the_batch(reference, pairs, size, length_normalized):
    policy = moved_copy(reference)
    results = []
    for micro in (None, size):
        objective = Objective(LOSSES["squared"].fn, BETA, length_normalized)
        value, _, norm = accumulate_gradient(policy, pairs, objective, optim(micro_batch_pairs=micro))
        results.append((gradient_of(policy) / norm, value, norm))
    whole, pieces = results
    assert (whole[0] - pieces[0]).abs().max() < 1e-6
    torch.testing.assert_close(whole[1:], pieces[1:], rtol=1e-5, atol=0)


def test_a_gradient_longer_than_the_clip_is_shortened_and_reported_as_it_was(reference, pairs):
    policy = moved_copy(reference)
    objective = Objective(LOSSES["squared"].fn, BETA)
    free_norm = accumulate_gradient(policy, pairs, objective, SETTINGS).grad_norm
    free = gradient_of(policy)
    norm = accumulate_gradient(policy, pairs, objective, optim(clip_norm=0.5)).grad_norm
    assert norm == free_norm == pytest.approx(free.norm().item(), rel=1e-5)
    torch.testing.assert_close(gradient_of(policy), 0.5 * free / free.norm(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("beta", [0.01, 2.5])
def test_a_clip_shortens_the_first_gradient_of_every_loss_and_beta_alike(reference, pairs, name, beta):
    policy, objective = reference.trainable(), Objective.scaled(LOSSES[name], beta)
    free_norm = accumulate_gradient(policy, pairs, objective, SETTINGS).grad_norm
    free = gradient_of(policy)
    norm = accumulate_gradient(policy, pairs, objective, optim(clip_norm=free.norm().item() / 4)).grad_norm
    torch.testing.assert_close(gradient_of(policy), free / 4, rtol=1e-4, atol=1e-7)
    assert norm == free_norm == pytest.approx(beta * abs(LOSSES[name].slope_at_zero) * free.norm().item(), rel=1e-5)


class SpyAdamW(torch.optim.AdamW):
    """Remembers how each optimizer was made, and the learning rate of every step."""

    seen: ClassVar[list] = []

    def __init__(self, parameters, **settings):
        parameters = list(parameters)
        super().__init__(parameters, **settings)
        self.rates: list[float] = []
        SpyAdamW.seen.append((sorted(settings.items()), [p.shape for p in parameters], self.rates))

    def step(self, *args, **kwargs):
        self.rates += [group["lr"] for group in self.param_groups]
        return super().step(*args, **kwargs)


def test_optimizer_schedule_and_order_do_not_depend_on_the_loss(reference, pairs, monkeypatch):
    monkeypatch.setattr(torch.optim, "AdamW", SpyAdamW)
    monkeypatch.setattr(SpyAdamW, "seen", [])
    batches = {}
    for name, loss in LOSSES.items():
        seen = batches[name] = []

        def fn(z, loss=loss, seen=seen):
            seen.append(len(z))
            return loss.fn(z)

        list(train(reference.trainable(), pairs, Objective(fn, BETA), SETTINGS))
    first, *others = SpyAdamW.seen
    assert len(others) == len(LOSSES) - 1
    assert all(other == first for other in others)
    settings, shapes, rates = first
    assert dict(settings) == {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0, "fused": True}
    assert len(shapes) == len(list(reference.model.parameters()))
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3]), "linear warm-up, then constant"
    assert set(map(tuple, batches.values())) == {(8,) * 6}


def test_the_first_step_is_adams(reference, pairs):
    """Bias-corrected Adam's first step is −lr · g / (|g| + ε); warm-up makes lr a quarter."""
    policy = reference.trainable()
    before = weights_of(policy)
    objective = Objective(LOSSES["logistic"].fn, BETA)
    batch = pairs.take(next(shuffled_batches(len(pairs), 8, generator_for(0, "order"))))
    probe = reference.trainable()
    accumulate_gradient(probe, batch, objective, SETTINGS)
    gradient = gradient_of(probe)
    next(iter(train(policy, pairs, objective, SETTINGS)))
    expected = -0.25e-3 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weights_of(policy) - before, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_lowers_the_loss_on_its_batch(reference, pairs, name):
    loss, policy = LOSSES[name], moved_copy(reference, size=0.05)
    objective = Objective(loss.fn, BETA)
    settings = optim(batch_pairs=len(pairs), steps=1, warmup_steps=0)
    (first,) = train(policy, pairs, objective, settings)
    after = accumulate_gradient(policy, pairs, objective, settings).loss
    assert after.item() < first.loss - 1e-4


def test_dropout_is_off(tmp_path, pairs):
    """π_ref was scored without it, and at step 0 the policy has to be π_ref (PITFALLS 13)."""
    policy = tiny_policy(tmp_path, dropout=0.5, words=("<eos>", *map(str, range(8)))).trainable()
    objective = Objective(LOSSES["logistic"].fn, BETA)
    values = [accumulate_gradient(policy, pairs, objective, SETTINGS).loss for _ in range(2)]
    assert values[0] == values[1]
    list(train(policy, pairs, objective, SETTINGS))
    assert not any(module.training for module in policy.model.modules())


def test_the_same_seed_trains_the_same_weights_and_another_order_does_not(reference, pairs):
    def trained(seed):
        policy = reference.trainable()
        metrics = list(train(policy, pairs, Objective(LOSSES["hinge"].fn, BETA), SETTINGS, seed=seed))
        assert [each.step for each in metrics] == [1, 2, 3, 4, 5, 6]
        return weights_of(policy)

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


@pytest.mark.parametrize(
    ("poison", "value"),
    [(lambda z: z * float("nan"), "loss nan, gradient norm nan"),
     (lambda z: z - z.detach() + float("inf"), "loss inf, gradient norm"),
     (lambda z: (z - z.detach()).sqrt(), "loss 0, gradient norm nan")],
)  # fmt: skip
def test_a_loss_that_is_not_finite_ends_training_before_its_update(reference, pairs, poison, value):
    policy, calls = reference.trainable(), []

    def fn(z):
        calls.append(len(z))
        return LOSSES["logistic"].fn(z) if len(calls) < 3 else poison(z)

    steps = train(policy, pairs, Objective(fn, BETA), SETTINGS)
    list(islice(steps, 2))
    before = copy.deepcopy(weights_of(policy))
    with pytest.raises(NonFiniteLoss, match=f"^step 3: {value}"):
        next(steps)
    assert torch.equal(weights_of(policy), before)
    assert before.isfinite().all()


def test_batches_visit_every_pair_once_an_epoch_and_run_across_epochs():
    batches = list(islice(shuffled_batches(10, 4, generator()), 15))
    assert {len(batch) for batch in batches} == {4}
    epochs = torch.cat(batches).reshape(6, 10)
    assert epochs.sort(dim=1).values.tolist() == [list(range(10))] * 6
    assert len(set(map(tuple, epochs.tolist()))) == 6, "each in its own order"


def test_batches_larger_than_the_data():
    batch = next(shuffled_batches(3, 7, generator()))
    assert batch.bincount().tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("name", ["logistic", "truncated_quadratic"])
def test_a_trainer_that_was_kept_and_taken_up_goes_on_to_the_last_bit(reference, pairs, name, stop):
    settings, objective = optim(weight_decay=0.01, micro_batch_pairs=3), Objective(LOSSES[name].fn, BETA)
    through, first, second = (
        OfflineTrainer(reference.trainable(), pairs, objective, settings, seed=4) for _ in range(3)
    )
    whole = [through.step() for _ in range(6)]
    before = [first.step() for _ in range(stop)]
    kept = {key: tensor.clone() for key, tensor in first.state_dict().items()}
    first.step()  # what is done after the state was taken does not reach it
    second.load_state_dict(kept)
    assert second.steps_done == stop
    assert before + [second.step() for _ in range(6 - stop)] == whole
    ends = [trainer.state_dict() for trainer in (through, second)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_preview_is_the_first_step_without_an_update(reference, pairs):
    policy = reference.trainable()
    trainer = OfflineTrainer(policy, pairs, Objective(LOSSES["squared"].fn, BETA), SETTINGS, seed=0)
    preview, untouched = trainer.preview(), weights_of(policy)
    assert torch.equal(untouched, weights_of(reference.trainable()))
    first = trainer.step()
    assert (preview.step, first.step, trainer.steps_done) == (0, 1, 1)
    assert (preview.loss, preview.grad_norm, preview.lr) == (first.loss, first.grad_norm, first.lr)


def test_step_metrics_are_those_of_the_batch(reference, pairs):
    """Accuracy and ρ from log-probs of the batch's pairs, scored anew."""
    policy = moved_copy(reference, size=0.05)
    trainer = OfflineTrainer(policy, pairs, Objective(LOSSES["hinge"].fn, BETA), optim(batch_pairs=20), seed=0)
    with torch.no_grad():
        rho = pair_logprobs(policy, pairs).rho
    metrics = trainer.step()
    assert metrics.rho == pytest.approx(rho.mean().item(), abs=1e-5)
    assert metrics.pair_accuracy == pytest.approx((rho > 0).float().mean().item())
    assert metrics.loss == pytest.approx((1 - BETA * rho).clamp(min=0).mean().item(), rel=1e-5)
