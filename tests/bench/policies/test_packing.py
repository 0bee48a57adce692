"""Packed sequences are all there, each on its own, and give what padded ones give."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from tiny_models import WORDS, random_model, tiny_policy
from transformers import AutoConfig, AutoModelForCausalLM

from bench.policies.architecture import inspect_architecture
from bench.policies.language_model import LanguageModel
from bench.policies.packing import first_fit, is_worth_packing, pack
from bench.policies.policy import Policy
from bench.policies.scoring import response_logprobs
from bench.policies.tokens import SequenceBatch, collate

# Prompt tokens and response tokens of each sequence: far from alike, as in a batch drawn at random.
SIZES = [(1, 2), (4, 9), (2, 0), (1, 1), (3, 6), (2, 2), (1, 7)]
SHAPE = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.5, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def batch_of(sizes: list[tuple[int, int]], *, vocabulary: int, seed: int = 0) -> SequenceBatch:
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(1, vocabulary, (p + r,), generator=generator).tolist() for p, r in sizes]
    prompts = [text[:p] for text, (p, _) in zip(texts, sizes, strict=True)]
    responses = [text[p:] for text, (p, _) in zip(texts, sizes, strict=True)]
    return collate(prompts, responses, pad_id=0)


def built(name: str, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**SHAPE, **changes})).eval()


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=30), spare=st.integers(0, 12))
def test_every_sequence_has_a_place_of_its_own_and_no_two_rows_fit_into_one(lengths, spare):
    width = max(lengths) + spare
    rows, starts, used = first_fit(lengths, width)
    taken = sorted((row, start + k) for row, start, n in zip(rows, starts, lengths, strict=True) for k in range(n))
    assert taken == [(row, column) for row, count in enumerate(used) for column in range(count)]
    assert max(used) <= width
    assert all(one + other > width for i, one in enumerate(used) for other in used[:i])


@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 8)), min_size=1, max_size=12),
    positions=st.sampled_from([None, 13, 15, 100]),
)
def test_packed_rows_hold_every_token_at_its_position(sizes, positions):
    batch = batch_of(sizes, vocabulary=20)
    packed = pack(batch, pad_id=0, positions=positions)
    assert positions is None or packed.input_ids.shape[1] <= positions
    filled = torch.zeros_like(packed.input_ids).flatten()
    for row, length in enumerate(batch.lengths.tolist()):
        place = packed.place[row, :length]
        assert place.tolist() == list(range(place[0], place[0] + length))
        assert packed.input_ids.flatten()[place].tolist() == batch.input_ids[row, :length].tolist()
        assert packed.position_ids.flatten()[place].tolist() == list(range(length))
        filled[place] += 1
    assert filled.max() == 1
    assert not packed.position_ids.flatten()[filled == 0].any()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "phi"])
def test_log_probs_and_gradients_are_those_of_padded_batches(architecture, tmp_path, monkeypatch):
    words = (*WORDS, *(f" w{k}" for k in range(16)))
    packing = tiny_policy(tmp_path, architecture, words=words)
    assert packing.architecture.keeps_packed_apart
    batch = batch_of(SIZES, vocabulary=len(words))
    results = []
    for policy in (packing, padding(packing)):
        seen, trained = rows_seen(policy.trainable(), monkeypatch)
        scores = response_logprobs(trained, batch)
        (scores * torch.linspace(-1, 1, len(scores))).sum().backward()
        gradient = torch.cat([each.grad.flatten() for each in trained.parameters()])
        results.append((seen[0], scores.detach(), gradient / gradient.norm()))
    packed, padded = results
    assert packed[0] < padded[0] == len(SIZES)
    torch.testing.assert_close(packed[1], padded[1], atol=1e-5, rtol=1e-5)
    assert (packed[2] - padded[2]).norm() < 1e-6


def padding(policy: Policy) -> Policy:
    return replace(policy, architecture=replace(policy.architecture, keeps_packed_apart=False))


def rows_seen(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], Policy]:
    """How many rows the base model gets, forward pass by forward pass."""
    seen: list[int] = []
    forward = policy.model.base_model.forward

    def noting(*args, **kwargs):
        seen.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(policy.model.base_model, "forward", noting)
    return seen, policy


def test_a_batch_of_alike_lengths_is_left_as_it_is(tmp_path, monkeypatch):
    policy = tiny_policy(tmp_path, positions=16)
    alike = batch_of([(2, 5), (1, 6), (3, 3)], vocabulary=len(WORDS))
    assert not is_worth_packing(alike)
    seen, policy = rows_seen(policy, monkeypatch)
    response_logprobs(policy, alike)
    assert seen == [3]


@pytest.mark.parametrize("window", [2, 3])
def test_sliding_windows_stop_at_the_beginning_of_a_sequence(window):
    model = built("mistral", sliding_window=window)
    policy = LanguageModel(model, inspect_architecture(model), eos_id=0, pad_id=0, logits_mib=None)
    assert policy.architecture.keeps_packed_apart
    batch = batch_of(SIZES, vocabulary=20)
    padded = replace(policy, architecture=replace(policy.architecture, keeps_packed_apart=False))
    torch.testing.assert_close(response_logprobs(policy, batch), response_logprobs(padded, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", [1.0, 0.05])
def test_models_that_would_mix_sequences_are_noticed(weights):
    """Recurrent; alibi by the place in the row; and absolute positions with a mask of its own; also if hardly."""
    models = [
        built("mamba", state_size=4),
        built("bloom", n_layer=2, n_head=2),
        random_model("openai-gpt", vocabulary=20, positions=32, seed=0).eval(),
    ]
    for model in models:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(weights)
        assert not inspect_architecture(model).keeps_packed_apart, type(model).__name__


def test_a_model_that_takes_no_rows_of_this_kind_gets_padded_ones():
    model = built("llama")
    forward = model.base_model.forward

    def refusing(input_ids=None, attention_mask=None, position_ids=None, use_cache=None, **others):
        if attention_mask is None:
            raise NotImplementedError("give a mask")
        return forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **others)

    model.base_model.forward = refusing
    architecture = inspect_architecture(model)
    assert architecture.has_separate_head
    assert not architecture.keeps_packed_apart
