"""Causal language models small enough that every response can be enumerated: random weights, no training.

A text is a prompt and a response; every token but the first of a text begins with a space, so that prompt +
response is plain concatenation, as everywhere in the harness.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from bench.policies.load import load_policy
from bench.policies.policy import Policy

EOS = "<eos>"
# Token ids are positions in this tuple: 0 is EOS.
WORDS = (EOS, "p", " a", " b")

# Learned positions with a cache; rotary positions with a cache; learned positions and no cache at all.
ARCHITECTURES = ("gpt2", "llama", "openai-gpt")
# The head has a bias, and its weights are its own.
WITH_HEAD_BIAS = "phi"
# What the head returns is changed afterwards: capped, multiplied, divided.
WITHOUT_SEPARATE_HEAD = ("gemma2", "cohere", "granite")


# Factors far from 1, and a cap that the random logits reach.
_MODERN: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "phi": (PhiConfig, PhiForCausalLM, {}),
    "gemma2": (
        Gemma2Config, Gemma2ForCausalLM,
        {"num_key_value_heads": 1, "head_dim": 4, "query_pre_attn_scalar": 4, "final_logit_softcapping": 2.0,
         "pad_token_id": 0},
    ),
    "cohere": (CohereConfig, CohereForCausalLM, {"logit_scale": 0.5, "pad_token_id": 0}),
    "granite": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 3.0}),
}  # fmt: skip


def word_tokenizer(words: Sequence[str] = WORDS, *, pad: str | None = None) -> PreTrainedTokenizerFast:
    """One token per word with the space before it; unknown words are the second token."""
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" ?[^ ]+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=pad)


def random_model(
    architecture: str, *, vocabulary: int, positions: int, seed: int, dropout: float = 0.0
) -> PreTrainedModel:
    """A model of `architecture` with weights wide enough that its predictions are far from uniform."""
    ids = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.6}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if architecture in _MODERN:
            config_type, model_type, changes = _MODERN[architecture]
            config = config_type(
                hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=positions, attention_dropout=dropout, **ids, **changes,
            )  # fmt: skip
            return model_type(config)
        shape = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": positions}
        drop = {"attn_pdrop": dropout, "embd_pdrop": dropout, "resid_pdrop": dropout}
        if architecture == "openai-gpt":
            return OpenAIGPTLMHeadModel(OpenAIGPTConfig(**shape, **drop, **ids))
        return GPT2LMHeadModel(GPT2Config(**shape, **drop, **ids))


def write_policy(
    directory: Path,
    architecture: str = "gpt2",
    *,
    seed: int = 0,
    words: Sequence[str] = WORDS,
    positions: int = 16,
    dropout: float = 0.0,
    pad: str | None = None,
) -> Path:
    """Write a policy directory (safetensors weights and tokenizer); returns `directory`."""
    model = random_model(architecture, vocabulary=len(words), positions=positions, seed=seed, dropout=dropout)
    model.save_pretrained(directory)
    word_tokenizer(words, pad=pad).save_pretrained(directory)
    return directory


def tiny_policy(directory: Path, architecture: str = "gpt2", *, seed: int = 0, **settings: Any) -> Policy:
    """`write_policy`, loaded as the harness loads it."""
    return load_policy(write_policy(directory, architecture, seed=seed, **settings))


@torch.no_grad()
def next_token_logprobs(policy: Policy, tokens: Sequence[int]) -> np.ndarray:
    """log p(next token | tokens) in float64, from one unpadded sequence without cache: [vocabulary]."""
    return plain_logprobs(policy.model, tokens)[-1].numpy()


def plain_logprobs(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """log p(next token | tokens so far) in float64, whole model, one unpadded sequence: [tokens, vocabulary]."""
    return model(input_ids=torch.tensor([list(tokens)])).logits[0].double().log_softmax(-1)


def enumerate_responses(policy: Policy, prompt: Sequence[int], max_new_tokens: int) -> dict[tuple[int, ...], float]:
    """Log-probability, in nats, of every response: those that end in EOS, and those cut at `max_new_tokens`."""
    complete: dict[tuple[int, ...], float] = {}
    unfinished: dict[tuple[int, ...], float] = {(): 0.0}
    for _ in range(max_new_tokens):
        longer = {}
        for response, logp in unfinished.items():
            for token, token_logp in enumerate(next_token_logprobs(policy, [*prompt, *response])):
                ended = token == policy.eos_id
                (complete if ended else longer)[(*response, token)] = logp + float(token_logp)
        unfinished = longer
    return complete | unfinished
