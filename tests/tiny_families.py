"""Architectures of transformers with tiny random weights, as directories that a policy is loaded from."""

from pathlib import Path
from typing import Any

import torch
from tiny_models import WORDS, word_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

_IDS = {"vocab_size": 12, "bos_token_id": 0, "eos_token_id": 0}
_BASE = {
    **_IDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "initializer_range": 0.4, "pad_token_id": None,
}  # fmt: skip
_GPT = {**_IDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.4}
_GQA = {**_BASE, "num_key_value_heads": 1}
_MAMBA = {**_IDS, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 1, "linear_key_head_dim": 4, "linear_value_head_dim": 4}
_BART = {
    **_IDS, "d_model": 16, "decoder_layers": 2, "encoder_layers": 2, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32,
    "decoder_attention_heads": 2, "encoder_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 1,
    "init_std": 0.4,
}  # fmt: skip
# What is said of one is found in the table below by whoever wonders whether theirs is known to work.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "llama": _GQA,
    "qwen2": {**_GQA, "vocab_size": 13, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {**_GQA, "head_dim": 8},
    "gpt_neox": _BASE,
    "gpt_neo": {**_IDS, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "window_size": 4, "initializer_range": 0.4,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 32},
    "gptj": {**_GPT, "rotary_dim": 4},
    "codegen": {**_GPT, "n_head": 4, "rotary_dim": 4},
    "gpt_bigcode": _GPT,
    "opt": {**_IDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32,
            "max_position_embeddings": 32, "pad_token_id": 1, "word_embed_proj_dim": 16, "init_std": 0.4},
    "mistral": {**_GQA, "sliding_window": 4},
    "gemma": {**_GQA, "head_dim": 8},
    "gemma2": {**_GQA, "head_dim": 8, "sliding_window": 4},
    "gemma3_text": {**_GQA, "head_dim": 8, "sliding_window": 4},
    "phi": {**_BASE, "partial_rotary_factor": 0.5},
    "phi3": {**_GQA, "sliding_window": 4},
    "falcon": _BASE,
    "bloom": {**_IDS, "hidden_size": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.4},
    "mpt": {**_IDS, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 32, "initializer_range": 0.4},
    "mamba": _MAMBA,
    "mamba2": {**_MAMBA, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "falcon_mamba": _MAMBA,
    "rwkv": {**_IDS, "hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2, "context_length": 32},
    "recurrent_gemma": {**_GQA, "num_hidden_layers": 3, "lru_width": 16, "attention_window_size": 4},
    "lfm2": {**_GQA, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "bamba": {**_GQA, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4,
              "mamba_chunk_size": 8},
    "jamba": {**_GQA, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
              "expert_layer_offset": 1, "num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False,
              "mamba_d_state": 4},
    "falcon_h1": {**_GQA, "mamba_d_ssm": 16, "mamba_n_heads": 4, "mamba_d_head": 4, "mamba_d_state": 4,
                  "mamba_chunk_size": 8, "mamba_n_groups": 1},
    "qwen3_next": {**_GQA, "num_hidden_layers": 4, "head_dim": 8, **_LINEAR, "num_experts": 4, **_EXPERTS,
                   "shared_expert_intermediate_size": 16},
    "qwen3_5_text": {**_GQA, "num_hidden_layers": 4, "head_dim": 8, **_LINEAR},
    "minimax": {**_GQA, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 8,
                "layer_types": ["linear_attention", "full_attention"]},
    "bart": {**_BART, "is_decoder": True, "is_encoder_decoder": False},
    "mbart": {**_BART, "is_decoder": True, "is_encoder_decoder": False},
    "gpt_oss": {**_GQA, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "deepseek_v3": {**_BASE, "num_key_value_heads": 2, "moe_intermediate_size": 16, "n_routed_experts": 4,
                    "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "kv_lora_rank": 8,
                    "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4,
                    "first_k_dense_replace": 1},
    "llama4_text": {**_GQA, "head_dim": 8, "intermediate_size_mlp": 32, "num_local_experts": 4,
                    "num_experts_per_tok": 1, "attention_chunk_size": 8},
    "gemma4_text": {**_GQA, "head_dim": 8, "sliding_window": 4},
    "cohere2": {**_GQA, "logit_scale": 0.25, "sliding_window": 4},
    "modernbert-decoder": {**_BASE, "pad_token_id": 1, "cls_token_id": 2, "sep_token_id": 3,
                           "local_attention": 4},
    "ctrl": {"vocab_size": 12, "n_embd": 16, "dff": 32, "n_layer": 2, "n_head": 2, "n_positions": 32,
             "initializer_range": 0.4, "eos_token_id": 0},
    "xlnet": {**_IDS, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.4},
    "openai-gpt": _GPT,
    "mixtral": {**_GQA, "num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True},
    "qwen3_moe": {**_GQA, "head_dim": 8, "num_experts": 4, **_EXPERTS, "output_router_logits": True},
    "olmoe": {**_GQA, "num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {**_GQA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": {**_GQA, "logits_scaling": 4.0},
    "cohere": {**_GQA, "logit_scale": 0.25},
    "olmo2": _GQA,
    "smollm3": _GQA,
    "stablelm": _GQA,
    "starcoder2": {**_GQA, "sliding_window": 4},
    "xglm": {**_IDS, "d_model": 16, "ffn_dim": 32, "num_layers": 2, "attention_heads": 2,
             "max_position_embeddings": 32, "pad_token_id": 1, "init_std": 0.4},
    "biogpt": {**_BASE, "pad_token_id": 1},
    "nemotron": {**_GQA, "head_dim": 8},
}  # fmt: skip
TEXT = (*WORDS, *(f" {letter}" for letter in "cdefghij"))


def write_family(directory: Path, family: str) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
        # Some families draw small weights whatever is asked for: every state counts, and predictions are not uniform.
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() >= 2 and weight.std() < 0.2:
                    weight.mul_(8 if "embed" not in name else 3)
    model.save_pretrained(directory)
    word_tokenizer(TEXT).save_pretrained(directory)
    return directory
