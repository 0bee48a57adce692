"""A reward model is asked, when it is loaded, whether its scores are of single texts, and how long these may be."""

import pytest
import torch
from tiny_gold_models import POSITIONS, VOCABULARY, word_tokenizer, write_classifier
from transformers import FNetConfig, FNetForSequenceClassification

from gold_rm.reward_model import GoldModelError, load_gold_model


def test_scores_that_mix_padding_in_are_refused(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = FNetConfig(
            vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_labels=1,
            max_position_embeddings=64, initializer_range=0.3, pad_token_id=1,
        )  # fmt: skip
        FNetForSequenceClassification(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(GoldModelError, match="scores a text otherwise beside longer ones than alone"):
        load_gold_model(tmp_path)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_the_longest_text_is_scored_and_one_token_more_refused(tmp_path, architecture):
    gold = load_gold_model(write_classifier(tmp_path, architecture))
    assert gold.max_tokens == POSITIONS
    assert gold.score([""], [" ".join(["w1"] * POSITIONS)]).isfinite().all()
    with pytest.raises(GoldModelError, match=f"{POSITIONS + 1} tokens and the gold model reads {POSITIONS}"):
        gold.score([""], [" ".join(["w1"] * (POSITIONS + 1))])


def test_an_adapter_and_quantized_weights_are_refused(tmp_path):
    directory = write_classifier(tmp_path)
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(GoldModelError, match="an adapter lies beside"):
        load_gold_model(directory)
