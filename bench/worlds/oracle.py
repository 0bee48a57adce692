"""World ``oracle``: so small that every response can be enumerated, and everything computed exactly (ours).

A prompt is a serial number and a context, such as ``#17 b d``. The tokenizers drop the number, so that policies and
gold model see the context only: there are as many distinct prompts as an evaluation wants samples, while a tabular
policy, which learns nothing about contexts that it is not trained on, meets the same contexts in both splits.
"""

import itertools
import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from bench.checked import ConfigError
from bench.policies.tabular import TabularConfig, TabularForCausalLM
from bench.worlds import write_world

VERSION = 1
POLICY_DIR, GOLD_DIR = "policy", "gold"
EOS = "<eos>"
CONTEXT_TOKENS = 2
POLICIES = ("tabular", "transformer")
MAX_RESPONSES = 2000  # pairs are 4 million per context then, and a float64 matrix of them 32 MB


def response_count(tokens: int, length: int) -> int:
    """Number of responses: those that end in EOS within `length` tokens, and those cut there.

    >>> response_count(6, 3)  # 1 + 5 + 25 that end, 125 that are cut
    156
    """
    words = tokens - 1
    return sum(words**before for before in range(length)) + words**length


def check_enumerable(tokens: int, length: int) -> None:
    """Refuse a world that is too large.

    Raises:
        ConfigError: with its number of responses and the limit.
    """
    count = response_count(tokens, length)
    if count > MAX_RESPONSES:
        spelt = f"{count:,}" if count < 10**12 else f"about 10^{math.floor(math.log10(count))}"
        raise ConfigError(
            f"{tokens} tokens and responses of up to {length} tokens give {spelt} responses per prompt; exact values "
            f"need {MAX_RESPONSES:,} or fewer: take fewer tokens or shorter responses"
        )


@dataclass(frozen=True)
class Params:
    """Settings of the world.

    Attributes:
        policy: ``tabular`` (bench.policies.tabular, every distribution over responses) or ``transformer`` (a tiny
            GPT-2).
        tokens: size of the vocabulary, EOS included.
        length: longest response in tokens; the world's `max_new_tokens` has to be the same.
        contexts: prompts that differ to the models.
        prompts: distinct prompts in each of the two splits, every context equally often up to one.
        seed: of the random weights of π_ref and of the gold model.
    """

    policy: str = "tabular"
    tokens: int = 6
    length: int = 3
    contexts: int = 4
    prompts: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"world.params.policy={self.policy!r}: allowed are {', '.join(POLICIES)}")
        if not 2 <= self.tokens <= len(string.ascii_lowercase) + 1:
            raise ConfigError(f"world.params.tokens={self.tokens}: must lie in [2, {len(string.ascii_lowercase) + 1}]")
        if self.length < 1:
            raise ConfigError(f"world.params.length={self.length}: must be 1 or more")
        most = (self.tokens - 1) ** CONTEXT_TOKENS
        if not 1 <= self.contexts <= most:
            raise ConfigError(
                f"world.params.contexts={self.contexts}: must lie in [1, {most}], the pairs of tokens without EOS"
            )
        if self.prompts < self.contexts:
            raise ConfigError(f"world.params.prompts={self.prompts}: must be contexts={self.contexts} or more")
        if self.seed < 0:
            raise ConfigError(f"world.params.seed={self.seed}: must be 0 or more")
        check_enumerable(self.tokens, self.length)


def build(params: Params, directory: Path, progress: Callable[[str], None]) -> None:
    """Write reference policy, gold model and prompts; the same settings give the same files."""
    words = [EOS, *(f" {letter}" for letter in string.ascii_lowercase[: params.tokens - 1])]
    tokenizer = _tokenizer(words)
    for name, model in ((POLICY_DIR, _reference_policy(params)), (GOLD_DIR, _gold_model(params))):
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    contexts = ["".join(pair) for pair in itertools.product(words[1:], repeat=CONTEXT_TOKENS)]
    # A stride through all pairs of tokens, so that few contexts do not all begin alike.
    stride = len(contexts) // params.contexts
    chosen = contexts[::stride][: params.contexts]
    numbered = [f"#{i}{chosen[i % len(chosen)]}" for i in range(2 * params.prompts)]
    write_world(
        directory,
        policy=POLICY_DIR,
        gold=GOLD_DIR,
        train_prompts=numbered[: params.prompts],
        eval_prompts=numbered[params.prompts :],
    )


def _tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """One token per letter with the space before it; a prompt's serial number is dropped."""
    # No unknown token: a text with another letter in it is an error, not a guess.
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Replace(Regex("^#[0-9]+"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), behavior="merged_with_next")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)


def _reference_policy(params: Params) -> PreTrainedModel:
    """π_ref with next-token logits of SD about 1: far from uniform, and no response hopelessly rare."""
    text_tokens = CONTEXT_TOKENS + params.length
    with torch.random.fork_rng():
        torch.manual_seed(params.seed)
        if params.policy == "transformer":
            return GPT2LMHeadModel(_gpt2_config(params, layers=2, width=16, spread=0.25))
        # The table's row of a whole text is never read: nothing follows it.
        model = TabularForCausalLM(TabularConfig(params.tokens, text_tokens - 1, eos_token_id=0))
        torch.nn.init.normal_(model.table.weight, std=1.0)
        return model


def _gold_model(params: Params) -> PreTrainedModel:
    """A random sequence classifier, larger than the transformer policy: a reward without a rule to guess."""
    with torch.random.fork_rng():
        torch.manual_seed(params.seed + 1_000_003)  # not the policy's stream
        config = _gpt2_config(params, layers=2, width=32, spread=0.3)
        config.num_labels = 1
        return GPT2ForSequenceClassification(config)


def _gpt2_config(params: Params, *, layers: int, width: int, spread: float) -> GPT2Config:
    return GPT2Config(
        vocab_size=params.tokens, n_positions=CONTEXT_TOKENS + params.length, n_embd=width, n_layer=layers, n_head=2,
        initializer_range=spread, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, summary_first_dropout=0.0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
