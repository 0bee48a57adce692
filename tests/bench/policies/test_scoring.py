"""Scores against a loop over whole unpadded sequences in float64; padding, batches and chunks change nothing."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tiny_models import ARCHITECTURES, EOS, WITH_HEAD_BIAS, WITHOUT_SEPARATE_HEAD, plain_logprobs, tiny_policy
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.policies.language_model import LanguageModel
from bench.policies.logprobs import sum_over_response, token_logprobs
from bench.policies.policy import Policy
from bench.policies.scoring import batch_logprobs, response_logprobs, sequence_kl
from bench.policies.tokens import SequenceBatch, TokenIds, collate

EOS_ID = 0
PROMPTS = [[1], [1, 2, 3], [3, 3], [1, 2], [2]]
RESPONSES = [[2, 3, EOS_ID], [EOS_ID], [3, 2, 2, 2], [], [EOS_ID]]
ALL_ARCHITECTURES = (*ARCHITECTURES, WITH_HEAD_BIAS, *WITHOUT_SEPARATE_HEAD)


@pytest.fixture(scope="module", params=ALL_ARCHITECTURES)
def policies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Policy]:
    root = tmp_path_factory.mktemp(request.param)
    return tuple(tiny_policy(root / str(seed), request.param, seed=seed) for seed in (0, 1))


@pytest.fixture
def policy(policies: tuple[Policy, Policy]) -> Policy:
    return policies[0]


def through_the_whole_model(policy: Policy) -> Policy:
    return replace(policy, architecture=replace(policy.architecture, has_separate_head=False))


def score(policy: Policy, prompts: list[TokenIds], responses: list[TokenIds], pad_id: int = EOS_ID) -> Tensor:
    with torch.no_grad():
        return response_logprobs(policy, collate(prompts, responses, pad_id=pad_id))


def plain_score(policy: Policy, prompt: TokenIds, response: TokenIds) -> Tensor:
    """Sum of log p(token | everything before it) in float64, whole model, unpadded."""
    of_response = plain_logprobs(policy.model, prompt + response)[len(prompt) - 1 : -1]
    return of_response.gather(1, torch.tensor(response, dtype=torch.int64)[:, None]).sum()


def plain_scores(policy: Policy) -> Tensor:
    return torch.stack([plain_score(policy, *each) for each in zip(PROMPTS, RESPONSES, strict=True)])


def plain_kl(policy: Policy, reference: Policy) -> Tensor:
    sums = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ours, theirs = (
            plain_logprobs(each.model, prompt + response)[len(prompt) - 1 : -1] for each in (policy, reference)
        )
        sums.append((ours.exp() * (ours - theirs)).sum())
    return torch.stack(sums)


def gradient(policy: Policy) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


@torch.no_grad()
def test_sums_of_token_logprobs_eos_included_prompt_and_padding_not(policy):
    torch.testing.assert_close(score(policy, PROMPTS, RESPONSES).double(), plain_scores(policy), atol=1e-5, rtol=1e-5)


def test_cross_entropy_of_torch_gives_the_same(policy):
    batch = collate(PROMPTS, RESPONSES, pad_id=EOS_ID)
    with torch.no_grad():
        logits = policy.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    labels = batch.input_ids.masked_fill(~batch.response_mask, -100)
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    torch.testing.assert_close(score(policy, PROMPTS, RESPONSES), -losses.sum(1))


@torch.no_grad()
def test_kl_is_that_of_the_whole_model_in_float64(policies):
    policy, reference = policies
    kl = sequence_kl(policy, reference, PROMPTS, RESPONSES, batch_size=3)
    torch.testing.assert_close(kl.exact_per_position.double(), plain_kl(policy, reference), atol=1e-5, rtol=1e-5)
    log_ratio = plain_scores(policy) - plain_scores(reference)
    torch.testing.assert_close(kl.k1.double(), log_ratio, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("whole_model", [False, True])
def test_chunks_move_neither_logprobs_nor_kl_nor_gradients(policies, chunk, whole_model, monkeypatch):
    policy, reference = policies
    batch = collate(PROMPTS, RESPONSES, pad_id=EOS_ID)
    weights = torch.arange(1.0, 6.0)
    naive = policy.trainable()
    (plain_scores(naive) * weights).sum().backward()

    monkeypatch.setattr(LanguageModel, "chunk_positions", chunk)
    chosen = through_the_whole_model(policy) if whole_model else policy
    trained = chosen.trainable()
    scores = response_logprobs(trained, batch)
    (scores * weights).sum().backward()
    torch.testing.assert_close(scores.detach(), plain_scores(naive).detach().float(), atol=1e-5, rtol=1e-5)
    difference = (gradient(trained) - gradient(naive)).norm() / gradient(naive).norm()
    assert difference < 1e-5
    kl = sequence_kl(chosen, reference, PROMPTS, RESPONSES)
    torch.testing.assert_close(
        kl.exact_per_position.double(), plain_kl(policy, reference).detach(), atol=1e-5, rtol=1e-5
    )


@settings(max_examples=20)
@given(order=st.permutations(range(len(PROMPTS))), batch_size=st.integers(1, 5), pad_id=st.integers(0, 3))
def test_batch_size_order_and_padding_token_do_not_matter(policies, order, batch_size, pad_id):
    policy, reference = (replace(each, pad_id=pad_id) for each in policies)
    prompts, responses = [PROMPTS[i] for i in order], [RESPONSES[i] for i in order]
    scores = policy.logprobs(prompts, responses, batch_size=batch_size)
    torch.testing.assert_close(scores, score(policy, PROMPTS, RESPONSES)[list(order)], atol=1e-5, rtol=1e-5)
    padded = collate(prompts, responses, pad_id=pad_id)
    torch.testing.assert_close(batch_logprobs(policy, padded, batch_size=batch_size), scores, atol=1e-5, rtol=1e-5)
    kl = sequence_kl(policy, reference, prompts, responses, batch_size=batch_size)
    expected = sequence_kl(*policies, PROMPTS, RESPONSES)
    for one, other in zip(kl, expected, strict=True):
        torch.testing.assert_close(one, other[list(order)], atol=1e-5, rtol=1e-5)


def test_more_padding_than_needed_does_not_matter(policy):
    tight = collate(PROMPTS, RESPONSES, pad_id=EOS_ID)
    wide = SequenceBatch(*(functional.pad(tensor, (0, 4)) for tensor in tight))
    with torch.no_grad():
        torch.testing.assert_close(
            response_logprobs(policy, wide), response_logprobs(policy, tight), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("chunk", [1, 1000])
def test_an_empty_response_has_log_probability_zero_and_a_zero_gradient(policy, chunk, monkeypatch):
    monkeypatch.setattr(LanguageModel, "chunk_positions", chunk)
    trained = policy.trainable()
    for prompts in ([[1]], [[1, 2]], [[1], [1, 2]]):  # a text of one token leaves no prediction at all
        total = response_logprobs(trained, collate(prompts, [[]] * len(prompts), pad_id=EOS_ID)).sum()
        assert total.item() == 0
        total.backward()
        assert all(p.grad is None or not p.grad.any() for p in trained.parameters())


def test_no_sequences_have_no_scores(policy):
    assert policy.logprobs([], []).shape == (0,)
    assert [values.shape for values in sequence_kl(policy, policy, [], [])] == [(0,), (0,)]


def test_scores_outside_training_carry_no_gradient(policy):
    trained = policy.trainable()
    assert not trained.logprobs(PROMPTS, RESPONSES).requires_grad
    assert not sequence_kl(trained, policy, PROMPTS, RESPONSES).k1.requires_grad
    assert response_logprobs(trained, collate(PROMPTS, RESPONSES, pad_id=EOS_ID)).requires_grad


@pytest.mark.parametrize(
    ("prompts", "responses", "complaint"),
    [([[1], [2]], [[0]], "2 prompts but 1 responses"), ([[1], []], [[0], [0]], "prompt [01] has no tokens")],
)
def test_texts_that_cannot_be_scored_are_refused(policy, prompts, responses, complaint):
    with pytest.raises(ValueError, match=complaint):
        policy.logprobs(prompts, responses)
    with pytest.raises(ValueError, match=complaint):
        sequence_kl(policy, policy, prompts, responses)


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest tensor has that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


VOCABULARY, SEQUENCES, LENGTH = 4096, 16, 12
ONE_MIB = 2**20 // 4  # float32 elements


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Policy:
    """A policy with a vocabulary so large that its logits are what takes memory."""
    words = (EOS, *(f" {index}" for index in range(VOCABULARY - 1)))
    return replace(tiny_policy(tmp_path_factory.mktemp("wide"), words=words), logits_mib=1)


def texts() -> tuple[list[TokenIds], list[TokenIds]]:
    return [[1, 2]] * SEQUENCES, [[3 + row] * LENGTH for row in range(SEQUENCES)]


@pytest.mark.parametrize("whole_model", [False, True])
def test_logits_of_all_positions_are_never_in_memory(wide, whole_model):
    policy = through_the_whole_model(wide) if whole_model else wide
    trained, (prompts, responses) = policy.trainable(), texts()
    together = SEQUENCES * LENGTH * VOCABULARY
    with LargestTensor() as scoring_pass:
        policy.logprobs(prompts, responses)
        sequence_kl(trained, policy, prompts, responses)
    with LargestTensor() as training_pass:
        response_logprobs(trained, collate(prompts, responses, pad_id=0)).sum().backward()
    assert scoring_pass.elements <= ONE_MIB < together / 2
    assert training_pass.elements <= ONE_MIB
    with LargestTensor() as all_at_once:
        replace(policy, logits_mib=64).logprobs(prompts, responses)
    assert all_at_once.elements >= together, "the test must see what it forbids"


def test_training_keeps_no_logits_for_the_backward_pass(wide):
    trained, (prompts, responses) = wide.trainable(), texts()
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() if tensor.shape[-1:] == (VOCABULARY,) and tensor.ndim == 2 else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        response_logprobs(trained, collate(prompts, responses, pad_id=0))
        assert kept == 0
        response_logprobs(replace(trained, logits_mib=64), collate(prompts, responses, pad_id=0))
    assert kept >= SEQUENCES * LENGTH * VOCABULARY, "the test must see what it forbids"


def test_one_chunk_runs_the_head_once(wide):
    """No recomputation where the logits fit: a training step on a small vocabulary costs what it did."""
    trained, (prompts, responses) = replace(wide, logits_mib=64).trainable(), texts()
    calls: list[Tensor] = []
    hook = trained.model.get_output_embeddings().register_forward_hook(lambda head, inputs, out: calls.append(out))
    response_logprobs(trained, collate(prompts, responses, pad_id=0)).sum().backward()
    hook.remove()
    assert len(calls) == 1


def test_chunks_do_not_depend_on_the_machine(wide):
    assert wide.chunk_positions == ONE_MIB // VOCABULARY
    assert replace(wide, logits_mib=None).chunk_positions == 64 * ONE_MIB // VOCABULARY
    huge = replace(wide, architecture=replace(wide.architecture, vocabulary=10**9))
    assert huge.chunk_positions == 1


def test_token_logprobs_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).log() + 5
    expected = torch.tensor([0.25, 0.7]).log()
    torch.testing.assert_close(token_logprobs(logits, torch.tensor([2, 2])), expected)


def test_infinities_outside_the_mask_do_not_reach_the_sum():
    per_token = torch.tensor([[-1.0, -2.0, float("-inf"), float("nan")]], requires_grad=True)
    total = sum_over_response(per_token, torch.tensor([[True, True, False, False]]))
    total.sum().backward()
    assert total.item() == -3
    assert per_token.grad.tolist() == [[1, 1, 0, 0]]


def test_scoring_twice_gives_the_same_bits(policies):
    first, second = (sequence_kl(*policies, PROMPTS, RESPONSES) for _ in range(2))
    assert all(torch.equal(*each) for each in zip(first, second, strict=True))
