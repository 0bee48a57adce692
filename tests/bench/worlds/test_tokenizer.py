"""Texts and token ids of the review language go back and forth without loss, also after saving and loading."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench.seeding import generator_for
from bench.worlds.reviews.language import EOS_ID, PAD_ID, PROMPTS, UNK_ID, VOCABULARY, sample_reviews
from bench.worlds.reviews.tokenizer import word_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def test_prompt_and_response_concatenate(tokenizer: PreTrainedTokenizerBase) -> None:
    reviews = [ids[:-1] for ids in sample_reviews(list(PROMPTS), generator_for(0, "test"))]
    prompts = [prompt.text for prompt in PROMPTS]
    prompt_ids = tokenizer(prompts)["input_ids"]
    responses = tokenizer.batch_decode(reviews, clean_up_tokenization_spaces=False)
    assert all(response.startswith(" ") for response in responses)
    texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    assert tokenizer(texts)["input_ids"] == [a + b for a, b in zip(prompt_ids, reviews, strict=True)]
    assert tokenizer.batch_decode([a + b for a, b in zip(prompt_ids, reviews, strict=True)]) == texts


def test_one_token_per_word(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "old crime novel : the villain was not gripping ."
    ids = tokenizer(text)["input_ids"]
    assert [VOCABULARY[i] for i in ids] == text.split()
    assert tokenizer.unk_token_id == UNK_ID
    assert tokenizer("old crime haddock :")["input_ids"][2] == UNK_ID


def test_special_tokens_are_distinct(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (PAD_ID, EOS_ID, None)
    assert len(tokenizer) == len(VOCABULARY)
