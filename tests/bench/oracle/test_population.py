"""The optimum of every loss over all pairs: closed forms, another solver, and what training a policy reaches."""

import numpy as np
import pytest
import torch
from oracle_worlds import SMALL, build_small_world

from analysis.theory.losses import LOSS_THEORY, predicted_beta_ratios
from bench.config import LabelsConfig
from bench.losses import LOSSES, Loss
from bench.oracle.exact import tilted
from bench.oracle.population import implicit_reward, pair_probabilities, population_loss

TEMPERATURE = 0.7
NOISY = LabelsConfig(rule="bradley_terry", temperature=TEMPERATURE)
# Links: βρ* = logit p, or half of it, and logit p of Bradley–Terry labels is a difference of gold / temperature.
EXACTLY_TILTED = {"logistic": 1.0, "savage": 1.0, "exponential": 0.5}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build_small_world(tmp_path_factory.mktemp("world"), policy="tabular")


@pytest.fixture(scope="module")
def noisy(small):
    return pair_probabilities(small.world, NOISY)


def centred(values):
    return values - values.mean(-1, keepdim=True)


@pytest.mark.parametrize(("loss", "share"), EXACTLY_TILTED.items())
def test_bradley_terry_optimum_is_the_kl_constrained_one(small, noisy, loss, share):
    """DPO's identity (Rafailov et al. 2023): the optimum is π* at λ = β · temperature; for exponential, twice that."""
    reward = implicit_reward(noisy, LOSSES[loss])
    expected = share * small.world.gold / TEMPERATURE
    np.testing.assert_allclose(centred(reward), centred(expected), atol=1e-3)
    beta = 0.5
    np.testing.assert_allclose(
        tilted(small.world, reward, beta).exp(),
        tilted(small.world, small.world.gold, beta * TEMPERATURE / share).exp(),
        atol=1e-5,
    )


def test_squared_optimum_is_a_weighted_least_squares_fit(noisy):
    """(v_i − v_j − 1)² is quadratic in v: its normal equations are a Laplacian, solved without iterating."""
    reward = implicit_reward(noisy, LOSSES["squared"])
    for pairs, found in zip(noisy.numpy(), reward, strict=True):
        both = pairs + pairs.T
        laplacian = np.diag(both.sum(1)) - both
        expected = np.linalg.pinv(laplacian) @ (pairs.sum(1) - pairs.sum(0))
        np.testing.assert_allclose(centred(found), expected - expected.mean(), atol=1e-4)


@pytest.mark.parametrize("labels", [NOISY, LabelsConfig(flip_rate=0.2)], ids=["bradley_terry", "flips"])
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "hinge"])
def test_slope_vanishes_at_the_optimum(small, loss, labels):
    """Slopes from analysis.theory, written out by hand. Where f is convex (all but savage), that is the optimum."""
    pairs = pair_probabilities(small.world, labels)
    reward = implicit_reward(pairs, LOSSES[loss]).numpy()
    margin = reward[:, :, None] - reward[:, None, :]
    pull = pairs.numpy() * LOSS_THEORY[loss].slope(margin)
    weight = pairs.numpy().sum(1) + pairs.numpy().sum(2)
    assert np.abs((pull.sum(2) - pull.sum(1)) / weight).max() < 1e-3


def test_hinge_optimum_sorts_responses_into_whole_numbers_and_cannot_be_improved(small, noisy):
    reward = implicit_reward(noisy, LOSSES["hinge"])
    steps = reward - reward[:, :1]
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    best = float(population_loss(reward, noisy, LOSSES["hinge"], 1.0))
    rng = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        for _ in range(50):
            other = reward + size * torch.randn(reward.shape, generator=rng, dtype=torch.float64)
            assert float(population_loss(other, noisy, LOSSES["hinge"], 1.0)) >= best
    # A response is never set above one with a higher gold score.
    order = small.world.gold.argsort(dim=1)
    assert (steps.gather(1, order).diff(dim=1) >= -1e-6).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_trained_tabular_policy_reaches_the_optimum(small, noisy, loss):
    """Full-batch training of the policy's own parameters, through the code that scores responses in training."""
    beta = 0.5
    optimum = tilted(small.world, implicit_reward(noisy, loss), beta)
    lowest = float(population_loss(optimum - small.world.log_reference, noisy, loss, beta))
    policy = small.policy.trainable()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    steps = 600
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        trained = small.world.logprobs(policy)
        value = population_loss(trained - small.world.log_reference, noisy, loss, beta)
        value.backward()
        optimizer.step()
        schedule.step()
    assert lowest - 1e-6 < value.item() < lowest + 2e-4
    apart = (optimum.exp() * (optimum - trained.detach())).sum(-1)
    moved = small.world.kl(optimum)
    # Hinge is flat around its optimum: policies of one loss differ more there.
    assert (apart < (0.1 if loss.name == "hinge" else 0.01) * moved).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_links_are_recovered_from_a_single_pair(tmp_path, loss, temperature):
    """Two responses, one pair: the optimum's margin is the link of its label probability."""
    world = build_small_world(tmp_path, policy="tabular", tokens=2, length=1, contexts=1).world
    labels = LabelsConfig(rule="bradley_terry", temperature=temperature)
    reward = implicit_reward(pair_probabilities(world, labels), loss)[0]
    probability = torch.sigmoid((world.gold[0, 0] - world.gold[0, 1]) / temperature).numpy()
    assert float(reward[0] - reward[1]) == pytest.approx(float(LOSS_THEORY[loss.name].link(probability)), rel=1e-3)


def test_predicted_beta_ratios_give_equal_kl(small):
    """To second order KL is E[ρ²]/4: with soft labels the global prediction is right within a few per cent."""
    labels = LabelsConfig(rule="bradley_terry", temperature=8.0)
    pairs = pair_probabilities(small.world, labels)
    margin = (small.world.gold[:, :, None] - small.world.gold[:, None, :]).abs()
    drawn = torch.multinomial(pairs.flatten(), 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    predicted = predicted_beta_ratios(torch.sigmoid(margin / 8.0).flatten()[drawn].numpy()).set_index("loss")
    beta = 1.0  # at which π stays close to π_ref
    kl = {}
    for loss in ("logistic", "squared", "exponential", "truncated_quadratic", "savage"):
        scaled = beta * predicted["global_"][loss]
        optimum = tilted(small.world, implicit_reward(pairs, LOSSES[loss]), scaled)
        kl[loss] = small.world.mean(small.world.kl(optimum))
    assert kl == pytest.approx(dict.fromkeys(kl, kl["logistic"]), rel=0.05)
    # Unequal by far without the prediction.
    unscaled = tilted(small.world, implicit_reward(pairs, LOSSES["squared"]), beta)
    assert small.world.mean(small.world.kl(unscaled)) < 0.5 * kl["logistic"]


def test_optimum_at_infinity_is_refused(small):
    certain = pair_probabilities(small.world, LabelsConfig())
    for loss in EXACTLY_TILTED:
        with pytest.raises(ValueError, match=f"{loss}: with labels that are certain"):
            implicit_reward(certain, LOSSES[loss])
    for loss in ("squared", "hinge", "truncated_quadratic"):
        assert implicit_reward(certain, LOSSES[loss]).isfinite().all()


def test_a_loss_that_is_not_finite_is_named(small, noisy):
    overflowing = Loss("overflow", lambda z: torch.exp(-1e6 * z), 1.0, -1e6, 1e12, True, "user", "user-defined")
    with pytest.raises(FloatingPointError, match=r"overflow loss, β = 1, of the pair at \[\d, \d+, \d+\] is inf"):
        population_loss(small.world.gold, noisy, overflowing, 1.0)


def test_labels_without_any_preference_are_refused(small):
    flat = torch.zeros_like(small.world.gold)
    world = type(small.world)(**{**vars(small.world), "gold": flat})
    with pytest.raises(ValueError, match="all gold scores are equal"):
        pair_probabilities(world, LabelsConfig())


def test_only_responses_that_can_be_told_apart_are_paired(small, noisy):
    assert float(noisy.sum()) == pytest.approx(1)
    assert noisy.diagonal(dim1=1, dim2=2).abs().max() == 0
    assert noisy.shape == (SMALL.contexts, 13, 13)
