"""LoRA on shared weights: nothing at first, what peft computes afterwards, and π_ref untouched beside it."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from tiny_models import ARCHITECTURES, plain_logprobs, random_model, tiny_policy, write_policy

from bench.checked import ConfigError
from bench.policies.directories import fingerprint_of_policy
from bench.policies.load import load_policy
from bench.policies.policy import Policy
from bench.policies.scoring import response_logprobs, sequence_kl
from bench.policies.tokens import collate
from bench.policy_section import PolicyConfig
from bench.seeding import uniforms_for

# Of peft's own wrapper, which asks transformers for a name that it has changed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
ROOT = Path(__file__).resolve().parents[3]
LORA = PolicyConfig(use_peft=True, lora_r=2, lora_alpha=6)
PROMPTS, RESPONSES = [[1], [1, 2, 3], [3, 3]], [[2, 3, 0], [0], [3, 2, 2, 3]]
ONES = [prompt + response for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]


def moved(policy: Policy, seed: int = 0) -> Policy:
    """The same with adapters that are far from nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return policy


def with_peft(model, directory: Path):
    """What peft itself makes of an adapter directory."""
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), directory, torch_device="cpu").eval()


def differences(policy: Policy, model) -> float:
    """Largest gap, over positions and tokens, between the plain log-probs of two models."""
    return max((plain_logprobs(policy.model, ids) - plain_logprobs(model, ids)).abs().max().item() for ids in ONES)


@pytest.fixture
def reference(tmp_path) -> Policy:
    return tiny_policy(tmp_path / "base", "llama", seed=3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_untrained_adapters_add_exactly_nothing(tmp_path, architecture):
    reference = tiny_policy(tmp_path, architecture)
    policy = reference.trainable(LORA)
    assert policy.reference() is reference
    kl = sequence_kl(policy, reference, PROMPTS, RESPONSES)
    assert kl.exact_per_position.tolist() == kl.k1.tolist() == [0, 0, 0]
    assert torch.equal(policy.logprobs(PROMPTS, RESPONSES), reference.logprobs(PROMPTS, RESPONSES))


def test_pi_ref_shares_the_weights_and_stays_what_it_was(reference):
    before = reference.logprobs(PROMPTS, RESPONSES)
    policy = reference.trainable(LORA)
    pointers = {each.data_ptr() for each in reference.model.parameters()}
    own = [each for each in policy.model.parameters() if each.data_ptr() not in pointers]
    assert len(own) == len(list(policy.parameters())) > 0, "nothing but adapters is new"
    # Two layers of 7 linear modules, rank 2: 2 · (in + out) numbers each. Attention is 8 → 8 four times (two heads of
    # 4, and as many keys), the rest 8 → 16 twice and 16 → 8.
    assert sum(each.numel() for each in policy.parameters()) == 2 * (4 * 2 * (8 + 8) + 3 * 2 * (8 + 16))
    moved(policy)
    assert torch.equal(reference.logprobs(PROMPTS, RESPONSES), before)
    assert (policy.logprobs(PROMPTS, RESPONSES) - before).abs().min() > 1e-2


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_sampled_and_scored_as_peft_computes(tmp_path, architecture):
    reference = tiny_policy(tmp_path / "base", architecture, seed=3)
    policy = moved(reference.trainable(LORA))
    policy.save(tmp_path / "adapter")
    theirs = with_peft(random_model(architecture, vocabulary=4, positions=16, seed=3), tmp_path / "adapter")
    assert differences(policy, theirs) < 1e-5
    assert differences(reference, theirs) > 0.1, "the adapters do count"
    uniforms = uniforms_for(0, "adapters", count=32, tokens=8)
    prompts = [PROMPTS[i % 3] for i in range(32)]
    responses = policy.sample(prompts, uniforms=uniforms, batch_size=32)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        logps = plain_logprobs(theirs, prompt + response).exp()
        for place, token in enumerate(response):  # the inverse CDF, by hand
            cumulative = logps[len(prompt) + place - 1].cumsum(0)
            assert int((cumulative < uniforms[row, place] - 1e-6).sum()) <= token
            assert int((cumulative < uniforms[row, place] + 1e-6).sum()) >= token


@pytest.mark.parametrize("keep", [True, False])
def test_an_adapter_directory_is_a_policy(tmp_path, reference, keep):
    policy = moved(reference.trainable(LORA))
    policy.save(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {"adapter_config.json", "tokenizer.json"}
    loaded = load_policy(tmp_path / "adapter", keep_adapters=keep)
    assert differences(loaded, policy.model) < 1e-5
    assert not loaded.is_trainable
    assert loaded.encode(["p a"]) == [[1, 2]]
    again = loaded.trainable(LORA) if not keep else loaded
    assert differences(again, policy.model) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_on_a_policy_that_is_an_adapter_name_it_as_their_base(tmp_path, monkeypatch, dtype):
    settings = replace(LORA, dtype=dtype)
    write_policy(tmp_path / "base", "llama", seed=3)
    monkeypatch.chdir(tmp_path)
    moved(load_policy(Path("base"), settings=settings).trainable(settings)).save(tmp_path / "first")
    reference = load_policy(Path("first"), settings=settings)
    policy = moved(reference.trainable(settings), seed=1)
    policy.save(tmp_path / "second")
    assert json.loads((tmp_path / "second" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "first"
    )
    monkeypatch.chdir("/")
    loaded = load_policy(tmp_path / "second", settings=settings, keep_adapters=True)
    assert torch.equal(loaded.logprobs(PROMPTS, RESPONSES), policy.logprobs(PROMPTS, RESPONSES))
    gap = (policy.logprobs(PROMPTS, RESPONSES) - reference.logprobs(PROMPTS, RESPONSES)).abs()
    assert gap.max() > 0.1


def test_in_bfloat16_adapters_are_kept_as_trained_or_added_and_rounded_once(tmp_path):
    base = load_policy(write_policy(tmp_path / "base", "llama", seed=3), settings=replace(LORA, dtype="bfloat16"))
    policy = moved(base.trainable(LORA))
    policy.save(tmp_path / "adapter")
    kept = load_policy(tmp_path / "adapter", settings=PolicyConfig(dtype="bfloat16"), keep_adapters=True)
    assert torch.equal(kept.logprobs(PROMPTS, RESPONSES), policy.logprobs(PROMPTS, RESPONSES))
    added = load_policy(tmp_path / "adapter", settings=PolicyConfig(dtype="bfloat16"))
    assert (added.dtype, {each.dtype for each in added.model.parameters()}) == ("bfloat16", {torch.bfloat16})
    weights = dict(policy.model.model.layers[0].mlp.up_proj.named_parameters())
    whole = (
        weights["base_layer.weight"].float() + 3 * weights["lora_B.default.weight"] @ weights["lora_A.default.weight"]
    )
    torch.testing.assert_close(added.model.model.layers[0].mlp.up_proj.weight, whole.bfloat16())


def test_peft_is_not_imported_where_there_are_no_adapters(tmp_path):
    write_policy(tmp_path)
    code = "import sys; from pathlib import Path; from bench.policies.load import load_policy; "
    code += "load_policy(Path(sys.argv[1])).trainable(); sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 0


def test_what_trl_saves_is_a_policy(tmp_path, reference):
    """An adapter that peft's own wrapper saved, with its base by a path relative to it, and without a tokenizer."""
    model = peft.get_peft_model(
        random_model("llama", vocabulary=4, positions=16, seed=3),
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5, generator=generator)
    model.save_pretrained(tmp_path / "adapter")
    described = tmp_path / "adapter" / "adapter_config.json"
    said = json.loads(described.read_text()) | {"base_model_name_or_path": "../base"}
    described.write_text(json.dumps(said))
    assert differences(load_policy(tmp_path / "adapter"), model.eval()) < 1e-4
    assert differences(reference.with_adapters_in(tmp_path / "adapter"), model) < 1e-4


def test_gradients_are_those_of_peft(tmp_path, reference):
    policy = moved(reference.trainable(LORA))
    policy.save(tmp_path / "adapter")
    theirs = with_peft(random_model("llama", vocabulary=4, positions=16, seed=3), tmp_path / "adapter")
    theirs.set_requires_grad("default")
    response_logprobs(policy, collate(PROMPTS, RESPONSES, pad_id=0)).sum().backward()
    total = torch.zeros(())
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logps = theirs(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        total = total + sum(logps[len(prompt) + place - 1, token] for place, token in enumerate(response))
    total.backward()
    ours = {name.replace(".default", ""): each.grad for name, each in policy.model.named_parameters() if "lora" in name}
    for name, parameter in theirs.base_model.model.named_parameters():
        if "lora" in name:
            torch.testing.assert_close(ours.pop(name.replace(".default", "")), parameter.grad, rtol=1e-4, atol=1e-5)
    assert not ours


def test_a_seed_draws_the_first_factor(reference):
    first, same, other = (
        torch.cat([each.flatten() for each in reference.trainable(LORA, seed=seed).parameters()]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    reference.trainable(LORA, seed=2)
    assert torch.equal(torch.get_rng_state(), state), "whoever draws next does not notice"


def test_state_is_that_of_the_adapters_alone(reference):
    policy, other = moved(reference.trainable(LORA)), reference.trainable(LORA)
    state = policy.state_dict()
    assert all("lora_" in name for name in state)
    other.load_state_dict(state)
    assert torch.equal(other.logprobs(PROMPTS, RESPONSES), policy.logprobs(PROMPTS, RESPONSES))


def test_checkpoints_of_layers_change_no_gradient(reference):
    batch, gradients, calls = collate(PROMPTS, RESPONSES, pad_id=0), [], []
    for settings in (LORA, PolicyConfig(use_peft=True, lora_r=2, lora_alpha=6, gradient_checkpointing=True)):
        policy = moved(reference.trainable(settings))
        count: list[int] = []
        policy.model.model.layers[0].self_attn.register_forward_hook(lambda *args, count=count: count.append(1))
        response_logprobs(policy, batch).sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in policy.parameters()]))
        calls.append(len(count))
    assert torch.equal(*gradients)
    assert calls == [1, 2], "layers are computed again in the backward pass"
    policy.logprobs(PROMPTS, RESPONSES)
    assert len(count) == 3, "but not where there is none"


def test_what_has_no_layers_to_checkpoint_is_refused(tmp_path):
    policy = tiny_policy(tmp_path, "openai-gpt")
    with pytest.raises(ConfigError, match=r"gradient_checkpointing=true: OpenAIGPTLMHeadModel has no layers made for"):
        policy.trainable(PolicyConfig(gradient_checkpointing=True))


def test_modules_that_are_not_there_are_named(reference):
    settings = PolicyConfig(use_peft=True, lora_target_modules=("query",))
    with pytest.raises(ConfigError, match=r"policy\.lora_target_modules=\['query'\]: no adapters .*query.* not found"):
        reference.trainable(settings)
    q_only = reference.trainable(PolicyConfig(use_peft=True, lora_target_modules=("q_proj",)))
    assert all("q_proj.lora_" in name for name in q_only.state_dict())


def test_an_adapter_is_known_by_its_base_and_its_weights(tmp_path, reference):
    moved(reference.trainable(LORA)).save(tmp_path / "adapter")
    fingerprint = fingerprint_of_policy(tmp_path / "adapter")
    base = tmp_path / "base" / "model.safetensors"
    moved(reference.trainable(LORA), seed=1).save(tmp_path / "other")
    assert fingerprint_of_policy(tmp_path / "other") != fingerprint
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    described = tmp_path / "adapter" / "adapter_config.json"
    said = json.loads(described.read_text()) | {"base_model_name_or_path": str(tmp_path / "elsewhere")}
    described.write_text(json.dumps(said))
    assert fingerprint_of_policy(tmp_path / "adapter") == fingerprint, "where the base lies does not count"
    write_policy(tmp_path / "elsewhere", "llama", seed=4)
    assert base.name in {path.name for path in (tmp_path / "elsewhere").iterdir()}
    assert fingerprint_of_policy(tmp_path / "adapter") != fingerprint, "what it is does"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "a PREFIX_TUNING adapter; LoRA adapters are read here"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "/nowhere"}, "policy /nowhere: no such directory"),
        ({"target_modules": ["q_proj", "lm_head"]}, "adapters that cannot be loaded (Found missing adapter keys"),
        ({"r": 5}, "adapters that cannot be loaded ("),
        ({"megatron_config": {"x": 1}, "megatron_core": "antigravity"}, "LoRA adapters are read here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_adapters_are_refused_with_a_sentence(tmp_path, reference, changes, complaint):
    moved(reference.trainable(LORA)).save(tmp_path / "adapter")
    described = tmp_path / "adapter" / "adapter_config.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | changes))
    with pytest.raises(ConfigError) as caught:
        load_policy(tmp_path / "adapter")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adapters_in_pickle_are_refused(tmp_path, reference):
    moved(reference.trainable(LORA)).save(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"no adapter_model\.safetensors there"):
        load_policy(tmp_path / "adapter")


def test_a_missing_peft_is_one_sentence(reference, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"adapters need the package peft .*pip install peft"):
        reference.trainable(LORA)
