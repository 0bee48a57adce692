"""Architectures of transformers with tiny random weights: each is right, or refused with a sentence."""

import re

import pytest
import torch
from tiny_families import FAMILIES, write_family

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.policies.selfcheck import check_sampler
from bench.policy_section import PolicyConfig
from bench.seeding import uniforms_for

FAST = ("gpt2", "llama", "rwkv", "mixtral", "bamba")
# Left padding is not read (rwkv), or reaches states (mamba, recurrent_gemma) and positions (bart); the cache loses rows
# (minimax); later tokens are seen (xlnet). Everything else is right.
REFUSED = {"rwkv", "mamba", "falcon_mamba", "recurrent_gemma", "bart", "mbart", "minimax", "xlnet"}


# Recurrent layers read weights of modules without calling them, so that peft refuses; a router's output is a tuple.
WITHOUT_ADAPTERS = {"mamba2", "falcon_h1", "llama4_text"}
# Here peft does not notice.
NOT_TO_BE_MERGED = {"jamba"}
LORA = PolicyConfig(use_peft=True, lora_r=2)


def marked(families):
    return [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in families]


@pytest.mark.parametrize("family", marked(FAMILIES))
@pytest.mark.filterwarnings("ignore")
def test_a_family_is_right_or_refused_with_a_sentence(tmp_path, family):
    policy, refused = None, ""
    try:
        policy = load_policy(write_family(tmp_path, family))
    except ConfigError as error:
        refused = str(error)
    assert (policy is None) == (family in REFUSED), refused or "neither wrong nor refused any more"
    if policy is None:
        assert re.search(
            r"^policy .*: (\w+, \w+ beside other prompts, gives other predictions|\w+ cannot be sampled in batches"
            r"|predictions of \w+ depend on later tokens)",
            refused,
        )
        assert "\n" not in refused
        return
    prompts = [[1], [1, 2, 3, 4, 5, 6, 7], [8, 9], [3, 3, 2]] * 4
    responses = policy.sample(prompts, uniforms=uniforms_for(0, family, count=16, tokens=12), batch_size=16)
    scored = policy.logprobs(prompts, responses)
    with torch.no_grad():
        for prompt, response, ours in zip(prompts, responses, scored, strict=True):
            logits = policy.model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
            plain = logits.float().log_softmax(-1).gather(-1, torch.tensor(response)[:, None]).sum()
            assert ours.item() == pytest.approx(plain.item(), abs=1e-4 * max(1, len(response)))
    alone = [
        policy.sample([prompt], uniforms=uniforms_for(0, family, count=16, tokens=12)[[row]], batch_size=1)[0]
        for row, prompt in enumerate(prompts)
    ]
    assert responses == alone


def test_what_ignores_the_mask_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"RwkvForCausalLM, .* other predictions than alone, by"):
        load_policy(write_family(tmp_path, "rwkv"))


@pytest.mark.parametrize("family", marked(family for family in FAMILIES if family not in REFUSED))
@pytest.mark.filterwarnings("ignore")
def test_adapters_of_a_family_are_sampled_as_scored_or_refused_with_a_sentence(tmp_path, family):
    reference = load_policy(write_family(tmp_path, family))
    prompts, responses = [[1], [1, 2, 3, 4, 5]], [[2, 3, 0], [4, 5, 6, 7]]
    before = reference.logprobs(prompts, responses)
    if family in WITHOUT_ADAPTERS:
        with pytest.raises(ConfigError, match=r"^policy\.lora_target_modules=\w+: .*adapters") as caught:
            reference.trainable(LORA)
        assert "\n" not in str(caught.value)
        return
    policy = reference.trainable(LORA)
    assert torch.equal(policy.logprobs(prompts, responses), before)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    check_sampler(family, policy)
    after = policy.logprobs(prompts, responses)
    assert (after - before).abs().max() > 0.1
    assert torch.equal(reference.logprobs(prompts, responses), before)
    policy.save(tmp_path / "adapter")
    kept = load_policy(tmp_path / "adapter", keep_adapters=True)
    torch.testing.assert_close(kept.logprobs(prompts, responses), after, atol=1e-4, rtol=0)
    if family in NOT_TO_BE_MERGED:
        with pytest.raises(ConfigError, match="the adapters are another function than beside them"):
            load_policy(tmp_path / "adapter")
    else:
        merged = load_policy(tmp_path / "adapter")
        torch.testing.assert_close(merged.logprobs(prompts, responses), after, atol=1e-4, rtol=0)
