"""The policy gradient against enumeration on the oracle world, and its trainer."""

import itertools

import pytest
import torch
from oracle_worlds import build_small_world
from tiny_world import SETTINGS

from bench.methods.rloo import leave_one_out, surrogate

BETA = 0.4


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build_small_world(tmp_path_factory.mktemp("world"))


def gradient(policy, value):
    policy.zero_grad()
    value.backward()
    return torch.cat([parameter.grad.flatten().double() for parameter in policy.parameters()])


def test_its_expected_gradient_is_that_of_reward_less_kl(small):
    """Expectation over all pairs of responses, two samples of one prompt; both sides by enumeration."""
    policy, world, context = small.moved(), small.world, 0
    logp = world.logprobs(policy)
    gold, reference = world.gold[context], world.log_reference[context]
    own = logp[context]
    objective = (own.exp() * (gold - BETA * (own - reference))).sum()
    exact = gradient(policy, -objective)

    logp = world.logprobs(policy)[context]
    pairs = torch.tensor(list(itertools.product(range(len(world.responses)), repeat=2)))
    probability = logp.detach()[pairs].sum(1).exp()
    losses = surrogate(logp[pairs], reference[pairs], gold[pairs], BETA).mean(1)
    expected = gradient(policy, (probability * losses).sum())
    assert expected.norm() > 1e-2
    assert torch.allclose(expected, exact, atol=1e-6 * float(exact.norm()) + 1e-7)


def test_a_baseline_of_its_own_sample_would_be_biased(small):
    """The same with the mean of all samples: half of the gradient is lost, which the test above would see."""
    regularized = torch.tensor([[1.0, 3.0]])
    assert leave_one_out(regularized).tolist() == [[-2.0, 2.0]]
    assert (regularized - regularized.mean(1, keepdim=True)).tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("micro", [None, 2])
def test_pieces_of_a_batch_give_its_gradient(tiny_world, tmp_path, micro):
    from running import CACHE, prepared_for

    from bench.cells.inputs import training_pairs
    from bench.methods import METHODS, TrainingInputs

    def first_step(micro):
        cell = tiny_world.cell(tmp_path, {"method": "rloo", "optim.micro_batch_pairs": micro})
        shared = CACHE.shared(prepared_for(cell), cell.config)
        policy = shared.reference.trainable()
        pairs = training_pairs(shared.pool, cell.config)
        trainer = METHODS["rloo"].trainer(
            TrainingInputs(cell.config, policy, pairs, shared.train_prompts, shared.labeller)
        )
        return trainer.step(), torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])

    whole, pieces = first_step(None), first_step(micro)
    assert torch.allclose(whole[1], pieces[1], atol=1e-6)
    assert whole[0].loss == pytest.approx(pieces[0].loss, abs=1e-6)
    assert (whole[0].pair_accuracy, whole[0].rho) == (None, None)
    assert SETTINGS["optim.batch_pairs"] == 8
