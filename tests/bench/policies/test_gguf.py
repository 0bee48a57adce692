"""GGUF files: the dequantized weights of the file, by gguf's own arithmetic, as a policy that is trained and saved."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_models import plain_logprobs
from transformers import LlamaConfig, LlamaForCausalLM

from bench.checked import ConfigError
from bench.policies.directories import fingerprint_of_policy
from bench.policies.load import load_policy
from bench.policies.scoring import response_logprobs
from bench.policies.tokens import collate
from bench.policy_section import PolicyConfig

WORDS = ("<|endoftext|>", "<unk>", "Ġ", "a", "b", "c", "Ġa", "Ġb", "Ġc")
Q8_0 = gguf.GGMLQuantizationType.Q8_0
LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
HEADS = {"q_proj": 2, "k_proj": 1}


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of a head's rows: it rotates neighbours where transformers rotates halves."""
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path: Path) -> LlamaForCausalLM:
    """Write a tiny Llama in 8 bits; returns the model of the dequantized weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, initializer_range=0.4,
        )).eval()  # fmt: skip
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    names |= {f"model.layers.{i}.{ours}": f"blk.{i}.{theirs}" for i in range(2) for ours, theirs in LAYER.items()}
    file = gguf.GGUFWriter(str(path), "llama")
    for name, value in (
        ("context_length", 32), ("embedding_length", 32), ("block_count", 2), ("feed_forward_length", 64),
        ("head_count", 2), ("head_count_kv", 1), ("layer_norm_rms_eps", 1e-6), ("rope_dimension_count", 16),
        ("rope_freq_base", 10000.0), ("vocab_size", len(WORDS)), ("tokenizer_model", "gpt2"), ("token_list", WORDS),
        ("token_types", [3, 3] + [1] * (len(WORDS) - 2)), ("token_merges", ["Ġ a", "Ġ b", "Ġ c"]),
        ("eos_token_id", 0), ("unk_token_id", 1),
    ):  # fmt: skip
        getattr(file, f"add_{name}")(list(value) if isinstance(value, tuple) else value)
    for name, parameter in model.named_parameters():
        module, weights = name.removesuffix(".weight"), parameter.detach().numpy()
        if weights.ndim == 1:
            file.add_tensor(f"{names[module]}.weight", weights)
            continue
        dequantized = gguf.quants.dequantize(gguf.quants.quantize(weights, Q8_0), Q8_0)
        parameter.data.copy_(torch.from_numpy(dequantized))
        heads = HEADS.get(module.rpartition(".")[2])
        stored = dequantized if heads is None else permuted(dequantized, heads)
        file.add_tensor(f"{names[module]}.weight", gguf.quants.quantize(stored, Q8_0), raw_dtype=Q8_0)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return model


@pytest.mark.parametrize("named", ["file", "directory"])
def test_a_policy_is_the_dequantized_weights(tmp_path, named):
    model = write_gguf(tmp_path / "tiny.gguf")
    policy = load_policy(tmp_path / "tiny.gguf" if named == "file" else tmp_path)
    assert policy.encode([" a b", "c"]) == [[6, 7], [5]]
    assert policy.decode([[6, 7, 0]]) == [" a b"]
    for ids in ([6], [3, 7, 8, 6]):
        torch.testing.assert_close(plain_logprobs(policy.model, ids), plain_logprobs(model, ids))


def test_it_is_trained_and_saved_as_any_other(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    reference = load_policy(tmp_path / "tiny.gguf")
    for settings in (PolicyConfig(), PolicyConfig(use_peft=True, lora_r=2)):
        policy = reference.trainable(settings)
        response_logprobs(policy, collate([[6]], [[7, 8]], pad_id=0)).sum().backward()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.1 if parameter.grad is None else 0.1 * parameter.grad
        policy.save(tmp_path / f"saved-{settings.use_peft}")
        loaded = load_policy(tmp_path / f"saved-{settings.use_peft}")
        ours, theirs = (plain_logprobs(each.model, [6, 7]) for each in (policy, loaded))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert (ours - plain_logprobs(reference.model, [6, 7])).abs().max() > 1e-3 or settings.use_peft


def test_it_is_known_by_its_bytes(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    fingerprint = fingerprint_of_policy(tmp_path / "tiny.gguf")
    assert fingerprint_of_policy(tmp_path) == fingerprint
    with (tmp_path / "tiny.gguf").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\1")
    assert fingerprint_of_policy(tmp_path) != fingerprint


def test_a_damaged_file_and_two_files_are_one_sentence(tmp_path):
    (tmp_path / "one.gguf").write_bytes(b"GGUF no more")
    with pytest.raises(ConfigError, match=r"one\.gguf: not a causal language model") as caught:
        load_policy(tmp_path / "one.gguf")
    assert "\n" not in str(caught.value)
    (tmp_path / "two.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no config\.json there; .* or a \.gguf file"):
        load_policy(tmp_path)
