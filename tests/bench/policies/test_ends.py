"""Where responses end: the tokenizer's EOS, those of generation_config.json, stop strings; ids beyond the tokenizer."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import enumerate_responses, plain_logprobs, random_model, tiny_policy, word_tokenizer, write_policy

import bench.cells.evaluation
from bench.policies.kl import SequenceKL
from bench.policies.load import load_policy
from bench.policies.scoring import sequence_kl
from bench.policy_section import PolicyConfig
from bench.seeding import uniforms_for

STOP = PolicyConfig(stop_strings=(" b b",))


def sampled(policy, count=400, tokens=6):
    uniforms = uniforms_for(0, "ends", count=count, tokens=tokens)
    return policy.sample([[1]] * count, uniforms=uniforms, batch_size=count)


def until_stop(response):
    """A response of the words " a" (2) and " b" (3) up to where " b b" is complete, or whole."""
    ends = [place + 1 for place in range(1, len(response)) if response[place - 1 : place + 1] == [3, 3]]
    return response[: min(ends, default=None)]


def test_a_response_stops_where_a_stop_string_is_complete(tmp_path):
    without = tiny_policy(tmp_path, "llama", seed=1)
    with_stops = load_policy(tmp_path, settings=STOP)
    free, stopped = sampled(without), sampled(with_stops)
    assert stopped == [until_stop(each) for each in free]
    assert sum(one != other for one, other in zip(free, stopped, strict=True)) > 20
    ended = [ids[-1] == 0 or ids[-2:] == [3, 3] for ids in stopped]
    assert [with_stops.has_ended(ids) for ids in stopped] == ended
    assert {True, False} == set(ended)
    one_by_one = [
        with_stops.sample([[1]], uniforms=uniforms_for(0, "ends", count=400, tokens=6)[[row]], batch_size=1)[0]
        for row in range(40)
    ]
    assert one_by_one == stopped[:40]


def test_the_text_ends_before_the_stop_string(tmp_path):
    write_policy(tmp_path, "llama")
    policy = load_policy(tmp_path, settings=STOP)
    assert policy.decode([[2, 3, 3], [3, 3], [2, 3, 0], [3, 2]]) == [" a", "", " a b", " b a"]
    several = load_policy(tmp_path, settings=PolicyConfig(stop_strings=("b a", " a b")))
    assert several.decode([[2, 3], [3, 3, 2]]) == ["", " b "]


def test_the_kl_of_stopped_responses_is_that_of_the_stopped_distribution(tmp_path):
    """By enumeration: the stop string makes several whole responses one, in both policies alike."""
    write_policy(tmp_path / "one", "llama", seed=1)
    write_policy(tmp_path / "two", "llama", seed=5)
    policy, reference = (load_policy(tmp_path / name, settings=STOP) for name in ("one", "two"))
    mass: dict[tuple[int, ...], list[float]] = {}
    for index, each in enumerate((policy, reference)):
        for response, logp in enumerate_responses(each, [1], 4).items():
            cut = tuple(until_stop(list(response)))
            mass.setdefault(cut, [0.0, 0.0])[index] += torch.tensor(logp).exp().item()
    exact = sum(p * (torch.tensor(p).log() - torch.tensor(q).log()).item() for p, q in mass.values())
    responses = list(mass)
    kl: SequenceKL = sequence_kl(policy, reference, [[1]] * len(responses), [list(each) for each in responses])
    weights = torch.tensor([p for p, _ in mass.values()])
    assert (weights * kl.k1).sum().item() == pytest.approx(exact, abs=1e-4)
    assert (weights * kl.exact_per_position).sum().item() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(("named", "expected"), [(3, {3}), ([0, 3], {3}), ([3, 99, None], {3}), (None, set())])
def test_generation_config_adds_ends_that_exist(tmp_path, named, expected):
    write_policy(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    policy = load_policy(tmp_path)
    assert policy.further_ends == expected
    free = replace(policy, further_ends=frozenset())
    cut = [
        ids[: min((place + 1 for place, token in enumerate(ids) if token in expected), default=None)]
        for ids in sampled(free)
    ]
    assert sampled(policy) == cut


def test_ids_beyond_the_tokenizer_are_never_drawn_and_have_no_probability(tmp_path):
    """Embeddings with 60 padded rows of large logits: nearly all of the probability would be theirs."""
    model = random_model("llama", vocabulary=64, positions=16, seed=0)
    with torch.no_grad():
        model.lm_head.weight[4:] *= 20
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    responses = sampled(policy)
    assert {token for ids in responses for token in ids} == {0, 1, 2, 3}
    logits = policy.model(input_ids=torch.tensor([[1]])).logits[0, 0, :4].double()
    assert plain_logprobs(policy.model, [1])[0, :4].exp().sum() < 0.5
    expected = logits.log_softmax(-1)
    ours = policy.logprobs([[1]] * 4, [[token] for token in range(4)])
    torch.testing.assert_close(ours.double(), expected.detach(), atol=1e-5, rtol=0)


def test_few_responses_that_end_are_worth_a_warning(tmp_path):
    policy = tiny_policy(tmp_path)
    none = SequenceKL(torch.zeros(8), torch.zeros(8))
    few = [[2, 0], *[[2, 3]] * 7]
    (said,) = bench.cells.evaluation._doubts(policy, few, none)
    assert said.startswith("1 of 8 responses end by themselves")
    assert "world.max_new_tokens" in said
    assert bench.cells.evaluation._doubts(policy, [[2, 0]] * 2 + [[2, 3]] * 6, none) == []
