"""The acts of a policy: copies that train apart from their reference, states and directories that come back whole."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, WORDS, tiny_policy

from bench.policies.load import load_policy
from bench.policies.policy import Policy
from bench.policies.scoring import response_logprobs
from bench.policies.tokens import collate
from bench.seeding import uniforms_for

PROMPTS, RESPONSES = [[1], [1, 2]], [[2, 0], [3, 3, 3]]


@pytest.fixture(params=ARCHITECTURES)
def reference(request, tmp_path) -> Policy:
    return tiny_policy(tmp_path / "reference", request.param)


def step(policy: Policy) -> None:
    """One step up the log-probs of RESPONSES."""
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1, maximize=True)
    policy.zero_grad()
    response_logprobs(policy, collate(PROMPTS, RESPONSES, pad_id=0)).sum().backward()
    optimizer.step()


def test_training_the_copy_leaves_the_reference_alone(reference):
    weights = {name: tensor.clone() for name, tensor in reference.model.state_dict().items()}
    before = reference.logprobs(PROMPTS, RESPONSES)
    policy = reference.trainable()
    assert torch.equal(policy.logprobs(PROMPTS, RESPONSES), before)
    step(policy)
    assert (policy.logprobs(PROMPTS, RESPONSES).sum() - before.sum()) > 0.1
    assert torch.equal(reference.logprobs(PROMPTS, RESPONSES), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in reference.model.state_dict().items())


def test_a_frozen_policy_is_its_own_reference_and_trains_nothing(reference):
    assert reference.reference() is reference
    assert list(reference.parameters()) == []
    assert reference.state_dict() == {}
    assert not any(parameter.requires_grad for parameter in reference.model.parameters())


def test_a_trainable_policy_remembers_the_frozen_one(reference):
    policy = reference.trainable()
    assert policy.reference() is reference
    assert policy.trainable().reference() is reference
    assert len(list(policy.parameters())) == len(list(reference.model.parameters()))
    for name in ("eos_id", "pad_id", "device", "context_length", "vocabulary"):
        assert getattr(policy, name) == getattr(reference, name)
    assert (policy.context_length, policy.vocabulary) == (16, len(WORDS))


def test_gradients_are_forgotten(reference):
    policy = reference.trainable()
    step(policy)
    assert any(parameter.grad is not None for parameter in policy.parameters())
    policy.zero_grad()
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_a_state_brings_a_policy_back_exactly(reference):
    policy, other = reference.trainable(), reference.trainable()
    step(policy)
    state, scores = policy.state_dict(), policy.logprobs(PROMPTS, RESPONSES)
    step(policy)
    assert not torch.equal(policy.logprobs(PROMPTS, RESPONSES), scores), "a state is a copy"
    for each in (policy, other):
        each.load_state_dict(state)
        assert torch.equal(each.logprobs(PROMPTS, RESPONSES), scores)
        assert all(parameter.requires_grad for parameter in each.parameters())
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[name])
        assert not tensor.requires_grad


def test_a_state_of_another_policy_is_refused_by_name_and_changes_nothing(reference):
    policy = reference.trainable()
    before, state = policy.state_dict(), policy.state_dict()
    first, second, third, *_ = state
    size = list(state[second].shape)
    del state[first]
    state[second] = torch.zeros(2, 3)
    state[third] = state[third].double()
    state["adapter"] = torch.zeros(1)
    with pytest.raises(ValueError, match="this state is of another policy: ") as caught:
        policy.load_state_dict(state)
    for complaint in (
        f"{first} is missing",
        f"{second} is float32 [2, 3] where float32 {size} is needed",
        f"{third} is float64",
        "adapter is not a trained parameter",
    ):
        assert complaint in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    with pytest.raises(ValueError, match="is missing"):
        policy.load_state_dict({})
    with pytest.raises(ValueError, match="is not a trained parameter"):
        reference.load_state_dict(before)


def test_a_saved_policy_is_an_ordinary_directory_and_gives_the_same_scores(reference, tmp_path):
    policy = reference.trainable()
    step(policy)
    policy.save(tmp_path / "saved")
    loaded = load_policy(tmp_path / "saved")
    assert torch.equal(loaded.logprobs(PROMPTS, RESPONSES), policy.logprobs(PROMPTS, RESPONSES))
    assert list(loaded.parameters()) == []
    assert loaded.encode(["p a b"]) == reference.encode(["p a b"])
    assert (loaded.eos_id, loaded.pad_id) == (reference.eos_id, reference.pad_id)
    assert load_file(tmp_path / "saved" / "model.safetensors")
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_sampling_is_that_of_the_sampler(reference):
    prompts = [[1]] * 50
    policy = reference.trainable()
    draws = [
        each.sample(prompts, uniforms=uniforms_for(0, "test", count=50, tokens=3), batch_size=size)
        for each, size in ((reference, 50), (policy, 50))
    ]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 50
