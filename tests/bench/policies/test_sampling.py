"""Sampling against exact enumeration of every response, and cached steps against a full forward pass."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from tiny_models import ARCHITECTURES, WITHOUT_SEPARATE_HEAD, enumerate_responses, plain_logprobs, tiny_policy

from bench.policies.policy import Policy
from bench.policies.sampling import draw_tokens, sample_responses
from bench.policies.tokens import TokenIds
from bench.seeding import uniforms_for

SHORT, LONG = [1], [1, 2, 3, 2, 1]
MAX_NEW_TOKENS = 3


@pytest.fixture(scope="module", params=(*ARCHITECTURES, WITHOUT_SEPARATE_HEAD[0]))
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return tiny_policy(tmp_path_factory.mktemp(request.param), request.param)


def draw(policy: Policy, prompts: list[TokenIds], seed: int = 0, batch_size: int = 4096) -> list[TokenIds]:
    uniforms = uniforms_for(seed, "test", count=len(prompts), tokens=MAX_NEW_TOKENS)
    return sample_responses(policy, prompts, uniforms=uniforms, batch_size=batch_size)


def chi_square_p_value(responses: list[TokenIds], probabilities: dict[tuple[int, ...], float]) -> float:
    """P-value of the counts of `responses`; outcomes expected less than five times are pooled."""
    counts = Counter(map(tuple, responses))
    assert counts.keys() <= probabilities.keys()
    expected = {response: p * len(responses) for response, p in probabilities.items()}
    common = [response for response in expected if expected[response] >= 5]
    observed = [counts[response] for response in common]
    rare = len(responses) - sum(observed)
    expectation = [expected[response] for response in common]
    return scipy.stats.chisquare([*observed, rare], [*expectation, len(responses) - sum(expectation)]).pvalue


def exact_probabilities(policy: Policy, prompt: TokenIds) -> dict[tuple[int, ...], float]:
    return {r: float(np.exp(logp)) for r, logp in enumerate_responses(policy, prompt, MAX_NEW_TOKENS).items()}


def test_samples_follow_the_exact_distribution_whatever_the_padding(policy):
    responses = draw(policy, [SHORT, LONG] * 4000, batch_size=1000)
    for prompt, mine, other in ((SHORT, responses[::2], responses[1::2]), (LONG, responses[1::2], responses[::2])):
        exact = exact_probabilities(policy, prompt)
        assert sum(exact.values()) == pytest.approx(1, abs=1e-6)
        assert chi_square_p_value(mine, exact) > 0.001
        assert chi_square_p_value(other, exact) < 1e-6, "the prompts must differ, or the test sees nothing"


def test_the_chi_square_test_notices_a_temperature(policy):
    exact = exact_probabilities(policy, SHORT)
    cooler = {response: p**1.25 for response, p in exact.items()}
    total = sum(cooler.values())
    responses = draw(policy, [SHORT] * 4000)
    assert chi_square_p_value(responses, {r: p / total for r, p in cooler.items()}) < 1e-4


def test_every_sampling_step_sees_what_a_full_unpadded_forward_pass_sees(policy):
    steps: list[torch.Tensor] = []
    hook = policy.model.register_forward_hook(
        lambda module, inputs, output: steps.append(output.logits[:, -1].log_softmax(-1))
    )
    prompts = [SHORT, LONG, SHORT, [3, 3]] * 8
    responses = draw(policy, prompts)
    hook.remove()
    assert len(steps) == MAX_NEW_TOKENS
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        with torch.no_grad():
            full = plain_logprobs(policy.model, prompt + response).float()
        for position in range(len(response)):
            # Responses that have ended leave the batch.
            place = sum(len(earlier) > position for earlier in responses[:row])
            torch.testing.assert_close(steps[position][place], full[len(prompt) - 1 + position], atol=1e-5, rtol=1e-5)


def test_cached_steps_feed_one_token_only(policy):
    widths = []
    hook = policy.model.register_forward_pre_hook(
        lambda module, args, inputs: widths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    draw(policy, [LONG] * 16)
    hook.remove()
    without_cache = policy.model.config.model_type == "openai-gpt"
    assert widths == ([5, 6, 7] if without_cache else [5, 1, 1])


def test_responses_end_at_eos_or_at_the_limit(policy):
    responses = draw(policy, [SHORT] * 500)
    assert {len(r) for r in responses} == {1, 2, 3}
    for response in responses:
        assert policy.eos_id not in response[:-1]
        assert response[-1] == policy.eos_id or len(response) == MAX_NEW_TOKENS


def test_the_seed_decides_the_draws(policy):
    prompts = [SHORT, LONG] * 20
    assert draw(policy, prompts, seed=1) == draw(policy, prompts, seed=1)
    assert draw(policy, prompts, seed=1) != draw(policy, prompts, seed=2)


def test_the_batch_does_not_decide_the_draws(policy):
    prompts = [SHORT, LONG, [3, 3]] * 50
    assert draw(policy, prompts, batch_size=1) == draw(policy, prompts, batch_size=7) == draw(policy, prompts)


def test_a_draw_is_the_inverse_cdf_by_hand():
    probabilities = torch.tensor([[0.25, 0.0, 0.5, 0.25]])
    uniforms = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    drawn = draw_tokens(probabilities.log().expand(6, 4), uniforms)
    assert drawn.tolist() == [0, 0, 2, 2, 3, 3], "a token of probability 0 is never drawn"


def test_a_large_vocabulary_is_drawn_as_torch_draws_it():
    logits = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) * 2
    uniforms = uniforms_for(1, "test", count=20_000, tokens=1)[:, 0]
    drawn = torch.cat([draw_tokens(logits.expand(len(some), -1), some) for some in uniforms.split(500)])
    order = logits.argsort(descending=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    theirs = torch.multinomial(logits.softmax(-1), 20_000, True, generator=torch.Generator().manual_seed(2))
    assert scipy.stats.ks_2samp(rank[drawn].numpy(), rank[theirs].numpy()).pvalue > 0.001


def test_uniforms_are_one_row_per_prompt(policy):
    with pytest.raises(ValueError, match="2 prompts but 3 rows of uniforms"):
        sample_responses(policy, [SHORT, LONG], uniforms=torch.rand(3, 2, dtype=torch.float64), batch_size=2)


def test_global_random_state_is_neither_read_nor_moved(policy):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draw(policy, [SHORT] * 20)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert draw(policy, [SHORT] * 20) == first


def test_batches_of_unequal_size_return_every_prompt_in_order(policy):
    prompts = [SHORT] * 7
    assert len(draw(policy, prompts, batch_size=3)) == 7
    assert draw(policy, [], batch_size=3) == []


def test_a_response_may_fill_the_positions_exactly_but_not_exceed_them(tmp_path):
    policy = tiny_policy(tmp_path, positions=len(LONG) + MAX_NEW_TOKENS)
    draw(policy, [SHORT, LONG])
    with pytest.raises(ValueError, match=r"up to 9 tokens; the policy has 8 positions"):
        draw(policy, [SHORT, [*LONG, 2]])


def test_an_empty_prompt_is_refused(policy):
    with pytest.raises(ValueError, match=r"prompt 1 has no tokens"):
        draw(policy, [SHORT, []])
