"""Both KL estimators against brute force over every response of a four-token vocabulary.

π and π_ref are two randomly initialised models; their 40 responses of at most three tokens (cut ones included)
are enumerated token by token, unpadded and without cache.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, WITHOUT_SEPARATE_HEAD, enumerate_responses, tiny_policy

from bench.policies.kl import SequenceKL, disagreement_in_se, position_kl_
from bench.policies.policy import Policy
from bench.policies.scoring import sequence_kl
from bench.policies.tokens import TokenIds
from bench.seeding import uniforms_for

PROMPTS = [[1], [1, 2, 3]]
MAX_NEW_TOKENS = 3
PAD = 2  # an ordinary word: nothing may be read off the token that fills a batch


@pytest.fixture(scope="module", params=(*ARCHITECTURES, WITHOUT_SEPARATE_HEAD[0]))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Policy]:
    root = tmp_path_factory.mktemp(request.param)
    return tuple(tiny_policy(root / str(seed), request.param, seed=seed) for seed in (0, 1))


def estimate(
    pair: tuple[Policy, Policy], prompts: list[TokenIds], responses: list[TokenIds], pad: int = PAD
) -> SequenceKL:
    policy, reference = (replace(each, pad_id=pad) for each in pair)
    return sequence_kl(policy, reference, prompts, responses)


def exact_kl(first: dict[tuple[int, ...], float], second: dict[tuple[int, ...], float]) -> float:
    """Σ p (log p − log q) over all responses; the arguments hold log-probabilities."""
    return sum(math.exp(logp) * (logp - second[response]) for response, logp in first.items())


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_the_expectation_of_each_estimator_is_the_exact_kl(pair, prompt):
    policy, reference = (enumerate_responses(model, prompt, MAX_NEW_TOKENS) for model in pair)
    assert len(policy) == 1 + 3 + 9 + 27
    responses = [list(response) for response in policy]
    probabilities = np.exp(list(policy.values()))
    kl, opposite = exact_kl(policy, reference), exact_kl(reference, policy)
    assert abs(kl - opposite) > 0.05, "the two directions must differ, or the test cannot tell them apart"
    for estimator in estimate(pair, [prompt] * len(responses), responses):
        assert probabilities @ estimator.double().numpy() == pytest.approx(kl, rel=1e-6)


def test_means_over_samples_lie_within_their_standard_errors(pair):
    for prompt in PROMPTS:
        kl = exact_kl(*(enumerate_responses(model, prompt, MAX_NEW_TOKENS) for model in pair))
        prompts = [prompt] * 1500
        responses = pair[0].sample(
            prompts, uniforms=uniforms_for(3, "test", count=len(prompts), tokens=MAX_NEW_TOKENS), batch_size=1500
        )
        estimates = estimate(pair, prompts, responses)
        for estimator in estimates:
            assert abs(estimator.mean().item() - kl) < 3.5 * estimator.std().item() / math.sqrt(len(prompts))
        # Rao–Blackwell: same mean, smaller variance, never negative.
        assert estimates.exact_per_position.std() < estimates.k1.std()
        assert (estimates.exact_per_position >= -1e-6).all()
        assert disagreement_in_se(estimates.exact_per_position, estimates.k1) < 4
        # Samples of π_ref instead: the two no longer agree, and that is noticed.
        stale = pair[1].sample(
            prompts, uniforms=uniforms_for(3, "test", count=len(prompts), tokens=MAX_NEW_TOKENS), batch_size=1500
        )
        assert disagreement_in_se(*estimate(pair, prompts, stale)) > 4


def test_identical_policies_have_zero_kl_on_every_sequence(pair):
    responses = [[3, 3, 3], [0], [3, 0], []]
    estimates = estimate((pair[0], pair[0]), [[1, 2]] * 4, responses)
    assert estimates.exact_per_position.tolist() == [0, 0, 0, 0]
    assert estimates.k1.tolist() == [0, 0, 0, 0]
    assert disagreement_in_se(*estimates) == 0


def test_padding_and_what_it_is_padded_with_do_not_count(pair):
    alone = estimate(pair, [[1]], [[3, 0]])
    for pad in (0, 1, 2, 3):
        padded = estimate(pair, [[1], [1, 2, 3]], [[3, 0], [3, 3, 3]], pad=pad)
        for one, other in zip(alone, padded, strict=True):
            assert other[0].item() == pytest.approx(one.item(), abs=1e-5)


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_worked_example_by_hand():
    """A response of one token and EOS."""
    policy = logits_of([[0.5, 0.5], [0.8, 0.2]])
    reference = logits_of([[0.25, 0.75], [0.5, 0.5]])
    kl, log_ratio = position_kl_(policy + 3, reference - 1, torch.tensor([1, 0]))  # a constant per position cancels
    first = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    eos = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert kl.tolist() == pytest.approx([first, eos], abs=1e-6)
    assert log_ratio.tolist() == pytest.approx([math.log(0.5 / 0.75), math.log(0.8 / 0.5)], abs=1e-6)


def test_tokens_that_cannot_be_drawn_count_nothing():
    """Logits of −∞, as a model with banned tokens gives: 0 · log 0 is 0, in both policies or in one."""
    never = -math.inf
    policy, reference = torch.tensor([[0.0, 1.0, never]]), torch.tensor([[1.0, 0.0, never]])
    kl, drawn = position_kl_(policy.clone(), reference.clone(), torch.tensor([1]))
    p, q = policy[0, :2].softmax(0), reference[0, :2].softmax(0)
    assert kl.item() == pytest.approx((p * (p / q).log()).sum().item())
    assert drawn.item() == pytest.approx((p[1] / q[1]).log().item())
    kl, _ = position_kl_(policy.clone(), torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([1]))
    q = torch.tensor([1.0, 0.0, 2.0]).softmax(0)[:2]
    assert kl.item() == pytest.approx((p * (p / q).log()).sum().item())
    # What π can say and π_ref cannot makes the KL infinite; a policy that is NaN stays so.
    kl, _ = position_kl_(torch.tensor([[0.0, 1.0, 2.0]]), reference.clone(), torch.tensor([1]))
    assert kl.item() == math.inf
    kl, _ = position_kl_(torch.full((1, 3), math.nan), reference.clone(), torch.tensor([1]))
    assert kl.isnan().all()


def test_disagreement_is_counted_in_standard_errors_of_the_paired_difference():
    k1 = torch.tensor([1.0, 3.0, 2.0, 2.0])
    kl = k1 + torch.tensor([0.2, 0.4, 0.2, 0.4])  # differences: mean 0.3, SD 0.1155, SE 0.0577
    assert disagreement_in_se(kl, k1) == pytest.approx(0.3 / (math.sqrt(0.04 / 3) / 2), rel=1e-5)
    assert disagreement_in_se(k1, k1) == 0


def test_a_hundredth_of_a_nat_is_no_rounding():
    """Sampler and scorer that differ by so little on every sequence differ."""
    k1 = torch.linspace(-0.5, 0.5, 256)
    assert disagreement_in_se(k1 + 0.01 + 1e-4 * torch.sin(100 * k1), k1) > 4


def test_rounding_near_zero_is_no_disagreement(pair):
    """After one small update both estimates are rounding noise, whose bias may be many of its own errors."""
    near = pair[0].trainable()
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.mul_(1 + 1e-7)
    responses = near.sample(
        [[1]] * 512, uniforms=uniforms_for(0, "test", count=512, tokens=MAX_NEW_TOKENS), batch_size=512
    )
    estimates = estimate((near, pair[0]), [[1]] * 512, responses)
    assert estimates.k1.abs().max() < 1e-4
    assert disagreement_in_se(*estimates) < 4
