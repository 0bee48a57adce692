"""What a policy's directory says beside its weights: end tokens, padded embeddings, adapters, quantization, code."""

import json

import pytest
from tiny_models import WORDS, random_model, tiny_policy, word_tokenizer, write_policy
from tokenizers import processors

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.seeding import uniforms_for


def test_end_tokens_of_generation_config_end_responses(tmp_path):
    write_policy(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 3, 99]}')
    policy = load_policy(tmp_path)
    assert (policy.eos_id, policy.further_ends) == (0, {3})
    responses = policy.sample([[1]] * 64, uniforms=uniforms_for(0, "ends", count=64, tokens=8), batch_size=16)
    assert {0, 3} <= {response[-1] for response in responses}
    assert not {0, 3} & {token for response in responses for token in response[:-1]}
    assert policy.decode([[2, 3], [2, 0]]) == [" a", " a"]


def test_rows_beyond_the_tokenizer_are_never_drawn_and_have_no_probability(tmp_path):
    random_model("gpt2", vocabulary=16, positions=16, seed=0).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.vocabulary == len(WORDS)
    responses = policy.sample([[1]] * 64, uniforms=uniforms_for(0, "rows", count=64, tokens=8), batch_size=64)
    assert max(map(max, responses)) < len(WORDS)
    every = policy.logprobs([[1]] * len(WORDS), [[token] for token in range(len(WORDS))])
    assert every.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_a_beginning_token_in_the_prompt_is_not_doubled(tmp_path):
    words = ("<eos>", "<bos>", " a", " b")
    tiny_policy(tmp_path, "llama", words=words)
    tokenizer = word_tokenizer(words)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer.save_pretrained(tmp_path)
    assert load_policy(tmp_path).encode(["<bos> a b", " a b"]) == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "compressed-tensors"])
def test_quantized_weights_are_refused(tmp_path, method):
    config = write_policy(tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": method}}))
    with pytest.raises(ConfigError, match=rf"weights are quantized \({method}\)"):
        load_policy(tmp_path)


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    (write_policy(tmp_path) / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="an adapter lies beside the weights"):
        load_policy(tmp_path)


def test_code_in_a_directory_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    config = write_policy(tmp_path) / "config.json"
    mine = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | mine))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(ConfigError, match="its model is code of its own"):
        load_policy(tmp_path)
    assert not (tmp_path / "ran").exists()
