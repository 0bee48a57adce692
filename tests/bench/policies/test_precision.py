"""bfloat16: the same function for the policy and π_ref, so that step 0 is 0; a rounding that has a stated limit."""

from dataclasses import replace

import pytest
import torch
from tiny_families import write_family
from tiny_models import WORDS, plain_logprobs, random_model, tiny_policy, word_tokenizer, write_policy
from tiny_world import sample_pairs
from transformers import LlamaConfig, LlamaForCausalLM

import bench.policies.load
from bench.checked import ConfigError
from bench.data.pairs import measure_pairs, pair_logprobs
from bench.policies import selfcheck
from bench.policies.load import load_policy
from bench.policies.scoring import response_logprobs, sequence_kl
from bench.policies.tokens import collate
from bench.policy_section import PolicyConfig

BF16 = PolicyConfig(dtype="bfloat16")
LORA = replace(BF16, use_peft=True, lora_r=2)
PROMPTS, RESPONSES = [[1], [1, 2, 3], [3, 3]], [[2, 3, 0], [0], [3, 2, 2, 3]]
WIDE = tuple(WORDS[:2] + tuple(f" {number}" for number in range(510)))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A policy wide enough that bfloat16 sums depend on the shapes of batches."""
    directory = tmp_path_factory.mktemp("wide")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(WIDE), hidden_size=512, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=8,
            max_position_embeddings=64, bos_token_id=0, eos_token_id=0, initializer_range=0.08,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(directory)
    word_tokenizer(WIDE).save_pretrained(directory)
    return directory


def test_weights_and_numbers_are_those_of_transformers_in_bfloat16(tmp_path):
    policy = load_policy(write_policy(tmp_path, "llama", seed=3), settings=BF16)
    assert (policy.dtype, policy.is_float32) == ("bfloat16", False)
    plain = random_model("llama", vocabulary=4, positions=16, seed=3).bfloat16().eval()
    for prompt, response, ours in zip(PROMPTS, RESPONSES, policy.logprobs(PROMPTS, RESPONSES), strict=True):
        logps = plain(input_ids=torch.tensor([prompt + response])).logits[0].float().log_softmax(-1)
        expected = sum(logps[len(prompt) + i - 1, token] for i, token in enumerate(response))
        assert ours.item() == pytest.approx(expected.item(), abs=1e-4)
    in_float32 = load_policy(tmp_path).logprobs(PROMPTS, RESPONSES)
    assert 1e-3 < (policy.logprobs(PROMPTS, RESPONSES) - in_float32).abs().max() < 0.2, "not float32 by another name"


def test_step_0_is_0_whatever_bfloat16_makes_of_batches(wide):
    reference = load_policy(wide, settings=BF16)
    policy = reference.trainable(LORA)
    assert {each.dtype for each in policy.parameters()} == {torch.float32}, "AdamW's steps are not rounded away"
    pairs = sample_pairs(load_policy(wide), 24, seed=1)
    noise = 0.3 * torch.randn(2, 24, generator=torch.Generator().manual_seed(0))  # of other batches, as seen on SmolLM2
    pairs = replace(pairs, ref_logp_chosen=pairs.ref_logp_chosen + noise[0], ref_logp_rejected=noise[1])
    assert pair_logprobs(policy, pairs).rho.tolist() == [0.0] * 24
    assert measure_pairs(policy, pairs, length_normalized=False, batch_size=7).rho.tolist() == [0.0] * 24
    prompts, responses = [[1, 2], [3]] * 8, [[5, 6, 7], [8, 9]] * 8
    kl = sequence_kl(policy, reference, prompts, responses, batch_size=3)
    assert kl.exact_per_position.tolist() == kl.k1.tolist() == [0.0] * 16


def test_the_gradient_is_that_of_float32_but_for_rounding(wide):
    gradients, batch = [], collate([[1, 2], [3]], [[5, 6, 7], [8, 9]], pad_id=0)
    for settings in (LORA, replace(LORA, dtype="float32")):
        policy = load_policy(wide, settings=settings).trainable(settings)
        response_logprobs(policy, batch).sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in policy.parameters()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99


def test_the_limit_of_the_self_check_holds_what_rounding_does_and_no_more(wide):
    policy = load_policy(wide, settings=BF16)
    with torch.no_grad():
        sampled, scored, limit = selfcheck._deviations(policy)
        pairs = zip(*selfcheck._texts(policy), strict=True)
        logits = (policy.model(input_ids=torch.tensor([[*x, *y]])).logits[0, len(x) - 1 : -1] for x, y in pairs)
        largest = max(each.abs().max().item() for each in logits)
    assert max(sampled, scored) < limit == 2**-6 * largest
    assert limit < 0.25, "what was wrong in the field was so by 0.2 nats or more"


@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_in_float32_is_refused_in_bfloat16_too(tmp_path):
    with pytest.raises(ConfigError, match=r"RwkvForCausalLM, .* other predictions than alone, by"):
        load_policy(write_family(tmp_path, "rwkv"), settings=BF16)


@pytest.mark.filterwarnings("ignore")
def test_an_architecture_without_bfloat16_is_refused_with_a_sentence(tmp_path, monkeypatch):
    write_family(tmp_path, "mamba")
    with pytest.raises(ConfigError, match=r"MambaForCausalLM cannot .* \(RuntimeError: .*dtype") as caught:
        load_policy(tmp_path, settings=BF16)
    assert "\n" not in str(caught.value)

    def fail(model):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(bench.policies.load, "inspect_architecture", fail)
    with pytest.raises(
        ConfigError, match=r"MambaForCausalLM does not run here in bfloat16 \(RuntimeError: two lines\)"
    ):
        load_policy(tmp_path, settings=BF16)


def test_all_weights_are_trained_in_float32_only(tmp_path):
    policy = load_policy(write_policy(tmp_path), settings=BF16)
    with pytest.raises(ConfigError, match=r"these are bfloat16: .*policy\.use_peft=true trains adapters on them"):
        policy.trainable()


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_auto_is_what_is_on_disk(tmp_path, stored):
    model = random_model("llama", vocabulary=4, positions=16, seed=0).to(getattr(torch, stored))
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    assert load_policy(tmp_path, settings=PolicyConfig(dtype="auto")).dtype == stored
    assert load_policy(tmp_path).dtype == "float32"


def test_float16_on_disk_is_refused_for_auto(tmp_path):
    random_model("llama", vocabulary=4, positions=16, seed=0).half().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"policy\.dtype=auto: the weights of .* are float16; float32 or bfloat16"):
        load_policy(tmp_path, settings=PolicyConfig(dtype="auto"))
    assert load_policy(tmp_path, settings=BF16).dtype == "bfloat16"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_what_was_asked_for_and_moves_nothing(tmp_path, attention):
    default = tiny_policy(tmp_path, "llama")
    policy = load_policy(tmp_path, settings=PolicyConfig(attn_implementation=attention))
    assert policy.attention == attention
    torch.testing.assert_close(policy.logprobs(PROMPTS, RESPONSES), default.logprobs(PROMPTS, RESPONSES))
    assert plain_logprobs(policy.model, [1, 2]).shape == (2, 4)


def test_attention_that_is_not_installed_is_one_sentence(tmp_path):
    write_policy(tmp_path, "llama")
    with pytest.raises(ConfigError, match="the package for FlashAttention2") as caught:
        load_policy(tmp_path, settings=PolicyConfig(dtype="bfloat16", attn_implementation="flash_attention_2"))
    assert "\n" not in str(caught.value)
