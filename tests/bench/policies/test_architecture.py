"""What is found out about a model when it is loaded, and what must not mislead it."""

import inspect

import pytest
import torch
from tiny_models import ARCHITECTURES, WITH_HEAD_BIAS, WITHOUT_SEPARATE_HEAD, WORDS, random_model, tiny_policy
from torch import nn

from bench.policies.architecture import inspect_architecture
from bench.policies.tabular import TabularConfig, TabularForCausalLM


def model_of(architecture: str):
    return random_model(architecture, vocabulary=len(WORDS), positions=16, seed=0).eval()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, WITH_HEAD_BIAS])
def test_a_head_that_has_the_last_word_is_used_alone(architecture):
    assert inspect_architecture(model_of(architecture)).has_separate_head


@pytest.mark.parametrize("architecture", WITHOUT_SEPARATE_HEAD)
@pytest.mark.parametrize("weights", [1.0, 1e-3], ids=["large logits", "small logits"])
def test_logits_changed_after_the_head_are_noticed_whatever_the_weights(architecture, weights):
    """A cap hardly moves the logits of an untrained model: comparing those would let it pass."""
    model = model_of(architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(weights)
    assert not inspect_architecture(model).has_separate_head


class Doubled(nn.Module):
    """A last layer between base model and head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(2 * hidden)


def test_a_layer_between_base_model_and_head_is_noticed():
    model = model_of("llama")
    head = model.lm_head
    model.lm_head = Doubled(head)
    model.get_output_embeddings = lambda: head
    assert not inspect_architecture(model).has_separate_head


def test_a_model_without_base_model_or_head_is_taken_whole():
    tabular = TabularForCausalLM(TabularConfig(vocab_size=3, window=2)).eval()
    assert not inspect_architecture(tabular).has_separate_head
    headless = model_of("llama")
    headless.get_output_embeddings = lambda: None
    assert not inspect_architecture(headless).has_separate_head


def test_nothing_is_left_behind_on_the_model():
    model = model_of("gpt2")
    tokens = torch.tensor([[1, 2]])
    before = model(input_ids=tokens).logits
    inspect_architecture(model)
    assert torch.equal(model(input_ids=tokens).logits, before)
    assert not model.get_output_embeddings()._forward_hooks


def test_arguments_of_the_forward_pass():
    gpt2, openai = (inspect_architecture(model_of(name)) for name in ("gpt2", "openai-gpt"))
    assert gpt2.options == {"position_ids", "use_cache", "cache", "logits_to_keep"}
    assert openai.options == {"position_ids", "logits_to_keep"}
    assert openai.base_options == {"position_ids"}
    assert inspect_architecture(TabularForCausalLM(TabularConfig(vocab_size=3, window=2))).options == {"use_cache"}


def test_signatures_are_read_once(tmp_path, monkeypatch):
    policy = tiny_policy(tmp_path)
    read, signature = [], inspect.signature

    def counted(function, *args, **kwargs):
        read.append(getattr(function, "__qualname__", ""))
        return signature(function, *args, **kwargs)

    monkeypatch.setattr(inspect, "signature", counted)
    policy.sample([[1]], uniforms=torch.full((1, 2), 0.5, dtype=torch.float64), batch_size=1)
    policy.logprobs([[1]], [[2]])
    assert [name for name in read if name.endswith(".forward")] == []
    inspect_architecture(policy.model)
    assert any(name.endswith(".forward") for name in read), "they are read where a policy is loaded"
