"""A chat model small enough for a test: a tokenizer with roles and a template, and random weights of Llama's kind."""

from pathlib import Path

import torch
from tiny_models import random_model, word_tokenizer
from tokenizers import processors
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

WORDS = ("<eos>", "<unk>", "<bos>", "<user>", "<bot>", "<sys>", " a", " b", " c")
# Llama's shape: the template writes BOS, and so would the tokenizer.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}"
    "{{ {'user': '<user>', 'assistant': '<bot>', 'system': '<sys>'}[message['role']] + ' ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)


def chat_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A tokenizer that begins every text with BOS, as its template does."""
    tokenizer = word_tokenizer(WORDS)
    tokenizer.add_special_tokens({"bos_token": "<bos>", "additional_special_tokens": ["<user>", "<bot>", "<sys>"]})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    tokenizer.chat_template = template
    return tokenizer


def write_chat_policy(directory: Path, template: str | None = TEMPLATE, *, seed: int = 0) -> Path:
    """Write a policy directory; returns it."""
    random_model("llama", vocabulary=len(WORDS), positions=32, seed=seed).save_pretrained(directory)
    chat_tokenizer(template).save_pretrained(directory)
    return directory


def write_chat_gold(directory: Path) -> Path:
    """Write a random reward model that reads the same conversations; returns its directory."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=1, n_head=2, num_labels=1, bos_token_id=2,
            eos_token_id=0, pad_token_id=0, initializer_range=0.6,
        )  # fmt: skip
        GPT2ForSequenceClassification(config).save_pretrained(directory)
    chat_tokenizer().save_pretrained(directory)
    return directory
