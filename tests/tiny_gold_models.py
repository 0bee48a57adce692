"""Sequence classifiers with one output, small and random, behind tokenizers of every habit met in the wild."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

# Decoders that pool at the last token; encoders that pool at the first token or average.
ARCHITECTURES = ("gpt2", "llama", "bert", "roberta", "modernbert")
UNK, PAD, EOS, BOS = SPECIAL = ("<unk>", "<pad>", "<eos>", "<bos>")
WORDS = tuple(f"w{i}" for i in range(28))
VOCABULARY = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
POSITIONS = 40


def word_tokenizer(
    *, pad: str | None = PAD, padding_side: str = "right", adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """One token per word between spaces; special tokens may stand in a text as words."""
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, VOCABULARY[BOS])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNK, eos_token=EOS, bos_token=BOS, pad_token=pad,
        padding_side=padding_side,
    )  # fmt: skip


def random_classifier(
    architecture: str,
    *,
    outputs: int = 1,
    pad_token_id: int | None = VOCABULARY[PAD],
    dropout: float = 0.1,
    seed: int = 0,
) -> PreTrainedModel:
    """A model with weights wide enough that the scores of texts differ clearly."""
    ids = {"vocab_size": len(VOCABULARY), "pad_token_id": pad_token_id, "bos_token_id": VOCABULARY[BOS],
           "eos_token_id": VOCABULARY[EOS]}  # fmt: skip
    shared = {**ids, "num_labels": outputs, "initializer_range": 0.3}
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if architecture == "gpt2":
            drop = {"attn_pdrop": dropout, "embd_pdrop": dropout, "resid_pdrop": dropout}
            return GPT2ForSequenceClassification(
                GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=POSITIONS, **drop, **shared)
            )
        if architecture == "llama":
            return LlamaForSequenceClassification(
                LlamaConfig(max_position_embeddings=POSITIONS, attention_dropout=dropout, **shape, **shared)
            )
        if architecture == "modernbert":
            return ModernBertForSequenceClassification(
                ModernBertConfig(
                    max_position_embeddings=POSITIONS, classifier_pooling="mean", attention_dropout=dropout,
                    cls_token_id=None, sep_token_id=None, **shape, **shared,
                )
            )  # fmt: skip
        bert_drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        if architecture == "roberta":  # its positions begin after the padding id
            return RobertaForSequenceClassification(
                RobertaConfig(max_position_embeddings=POSITIONS + 2, **bert_drop, **shape, **shared)
            )
        return BertForSequenceClassification(
            BertConfig(max_position_embeddings=POSITIONS, **bert_drop, **shape, **shared)
        )


def write_classifier(directory: Path, architecture: str = "bert", *, pad: str | None = PAD, **settings: Any) -> Path:
    """Write a random classifier with a tokenizer whose padding token is `pad`; returns `directory`."""
    pad_token_id = None if pad is None else VOCABULARY[pad]
    random_classifier(architecture, pad_token_id=pad_token_id, **settings).save_pretrained(directory)
    word_tokenizer(pad=pad).save_pretrained(directory)
    return directory


def random_texts(count: int, *, seed: int = 0, words: tuple[str, ...] = WORDS, longest: int = POSITIONS) -> list[str]:
    """Texts of 1 to `longest` words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(1, longest))) for _ in range(count)]
