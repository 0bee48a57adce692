"""Response log-probs against a loop in float64, and against cross-entropy; padding and batches change nothing."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tiny_models import ARCHITECTURES, next_token_logprobs, tiny_policy
from torch.nn import functional

from bench.policies.load import Policy
from bench.policies.logprobs import next_token_logits, response_logprobs, sum_over_response, token_logprobs
from bench.policies.tokens import SequenceBatch, TokenIds, collate

EOS = 0
PROMPTS = [[1], [1, 2, 3], [3, 3], [1, 2], [2]]
RESPONSES = [[2, 3, EOS], [EOS], [3, 2, 2, 2], [], [EOS]]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return tiny_policy(tmp_path_factory.mktemp(request.param), request.param)


def score(policy: Policy, prompts: list[TokenIds], responses: list[TokenIds], pad_id: int = EOS) -> torch.Tensor:
    with torch.no_grad():
        return response_logprobs(policy.model, collate(prompts, responses, pad_id=pad_id))


def token_by_token(policy: Policy, prompt: TokenIds, response: TokenIds) -> float:
    """Sum of log p(token | everything before it), one unpadded forward pass per token."""
    return float(sum(next_token_logprobs(policy, [*prompt, *response[:i]])[token] for i, token in enumerate(response)))


def test_sums_of_token_logprobs_eos_included_prompt_and_padding_not(policy):
    expected = [token_by_token(policy, p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert score(policy, PROMPTS, RESPONSES).tolist() == pytest.approx(expected, abs=1e-5)


def test_cross_entropy_of_torch_gives_the_same(policy):
    batch = collate(PROMPTS, RESPONSES, pad_id=EOS)
    with torch.no_grad():
        logits = policy.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    labels = batch.input_ids.masked_fill(~batch.response_mask, -100)
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    torch.testing.assert_close(score(policy, PROMPTS, RESPONSES), -losses.sum(1))


@settings(max_examples=20)
@given(order=st.permutations(range(len(PROMPTS))), batch_size=st.integers(1, 5), pad_id=st.integers(0, 3))
def test_batch_size_order_and_padding_token_do_not_matter(policy, order, batch_size, pad_id):
    scores = [
        score(policy, [PROMPTS[i] for i in rows], [RESPONSES[i] for i in rows], pad_id)
        for rows in (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    ]
    torch.testing.assert_close(torch.cat(scores), score(policy, PROMPTS, RESPONSES)[list(order)], atol=1e-5, rtol=1e-5)


def test_more_padding_than_needed_does_not_matter(policy):
    tight = collate(PROMPTS, RESPONSES, pad_id=EOS)
    wide = SequenceBatch(*(functional.pad(tensor, (0, 4)) for tensor in tight))
    with torch.no_grad():
        torch.testing.assert_close(
            response_logprobs(policy.model, wide), response_logprobs(policy.model, tight), atol=1e-5, rtol=1e-5
        )


def test_an_empty_response_has_log_probability_zero_and_a_zero_gradient(policy):
    trainable = policy.trainable_copy().model
    for prompts in ([[1]], [[1, 2]]):  # a text of one token leaves no prediction at all
        total = response_logprobs(trainable, collate(prompts, [[]], pad_id=EOS)).sum()
        assert total.item() == 0
        total.backward()
        assert all(p.grad is None or not p.grad.any() for p in trainable.parameters())


def test_gradients_are_those_of_the_unpadded_sequences(policy):
    one_by_one, together = policy.trainable_copy().model, policy.trainable_copy().model
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        response_logprobs(one_by_one, collate([prompt], [response], pad_id=EOS)).sum().backward()
    response_logprobs(together, collate(PROMPTS, RESPONSES, pad_id=EOS)).sum().backward()
    for mine, other in zip(together.parameters(), one_by_one.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_predictions_line_up_with_their_targets(policy):
    batch = collate([[1, 2]], [[3, EOS]], pad_id=EOS)
    with torch.no_grad():
        predictions = next_token_logits(policy.model, batch)
    assert predictions.targets.tolist() == [[2, 3, EOS]]
    assert predictions.mask.tolist() == [[False, True, True]]
    expected = [
        next_token_logprobs(policy, prefix)[token] for prefix, token in (([1], 2), ([1, 2], 3), ([1, 2, 3], EOS))
    ]
    assert token_logprobs(predictions)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_infinities_outside_the_mask_do_not_reach_the_sum():
    per_token = torch.tensor([[-1.0, -2.0, float("-inf"), float("nan")]], requires_grad=True)
    total = sum_over_response(per_token, torch.tensor([[True, True, False, False]]))
    total.sum().backward()
    assert total.item() == -3
    assert per_token.grad.tolist() == [[1, 1, 0, 0]]
