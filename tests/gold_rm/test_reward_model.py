import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gold_models import (
    ARCHITECTURES,
    BOS,
    EOS,
    PAD,
    POSITIONS,
    VOCABULARY,
    WORDS,
    random_classifier,
    random_texts,
    word_tokenizer,
    write_classifier,
)
from tiny_models import write_policy

from gold_rm.reward_model import GoldModelError, Standardization, load_gold_model


@torch.no_grad()
def scores_one_by_one(architecture: str, texts: list[str], **settings) -> torch.Tensor:
    """Truth: each text alone, without padding, so without anything to mask or to pool wrongly."""
    model = random_classifier(architecture, **settings).eval()
    model.config.pad_token_id = None  # decoders then pool at the last token
    rows = [[VOCABULARY[word] for word in text.split()] for text in texts]
    return torch.stack([
        model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0, 0] for ids in rows
    ])  # fmt: skip


# RoBERTa cannot be built without a padding id: its positions begin after it.
CASES = [(a, pad) for a in ARCHITECTURES for pad in (PAD, EOS, None) if (a, pad) != ("roberta", None)]


@pytest.mark.parametrize(("architecture", "pad"), CASES)
def test_scores_are_those_of_each_text_alone(tmp_path, architecture, pad):
    # Decoders meet their own padding token inside and at the end of texts; RoBERTa takes it for padding by itself.
    words = WORDS if architecture == "roberta" else (*WORDS, PAD, EOS, EOS, EOS)
    texts = random_texts(60, words=words) + [f"w1 w2 {EOS}"] * (architecture != "roberta")
    settings = {"pad_token_id": None if pad is None else VOCABULARY[pad]}
    truth = scores_one_by_one(architecture, texts, **settings)
    gold = load_gold_model(write_classifier(tmp_path, architecture, pad=pad))
    assert truth.std() > 0.05
    for batch_size in (1, 7, 256):
        scored = gold.score([""] * len(texts), texts, batch_size=batch_size)
        assert scored.dtype == torch.float32
        torch.testing.assert_close(scored, truth, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_do_not_depend_on_order_or_the_tokenizers_padding_side(tmp_path, architecture):
    texts = random_texts(30)
    write_classifier(tmp_path, architecture)
    right = load_gold_model(tmp_path).score([""] * 30, texts)
    tokenizer = word_tokenizer(padding_side="left")
    # Some tokenizer files carry settings that pad and cut every batch.
    tokenizer.backend_tokenizer.enable_padding(direction="left", length=POSITIONS)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.save_pretrained(tmp_path)
    left = load_gold_model(tmp_path).score([""] * 30, texts[::-1]).flip(0)
    torch.testing.assert_close(left, right, atol=2e-6, rtol=1e-5)


def test_prompt_and_response_are_one_text(tmp_path):
    gold = load_gold_model(write_classifier(tmp_path))
    torch.testing.assert_close(gold.score(["w1 w2", ""], [" w3", "w1 w2 w3"]), gold.score(["w1 w2 w3"] * 2, ["", ""]))
    assert gold.score([], []).shape == (0,)


def test_a_beginning_token_from_a_chat_template_is_not_doubled(tmp_path):
    write_classifier(tmp_path, "gpt2")
    word_tokenizer(adds_bos=True).save_pretrained(tmp_path)
    gold = load_gold_model(tmp_path)
    templated, bare = gold.score(["", ""], [f"{BOS} w1 w2", "w1 w2"])
    assert templated == pytest.approx(bare.item(), abs=1e-6)
    assert bare == pytest.approx(scores_one_by_one("gpt2", [f"{BOS} w1 w2"]).item(), abs=1e-6)


def test_model_is_frozen_float32_and_without_dropout(tmp_path):
    write_classifier(tmp_path, dropout=0.5)
    random_classifier("bert", dropout=0.5).to(torch.bfloat16).save_pretrained(tmp_path)
    gold = load_gold_model(tmp_path)
    assert {p.dtype for p in gold.model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in gold.model.parameters())
    torch.testing.assert_close(*(gold.score(["w1"], [" w2"]) for _ in range(2)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        (["w1"], [], "1 prompts but 0 responses"),
        (["w1", ""], [" w2", ""], "text '' has no tokens"),
        (["w1"], [" w2" * POSITIONS], f"{POSITIONS + 1} tokens and the gold model reads {POSITIONS}"),
    ],
)
def test_texts_that_cannot_be_scored(tmp_path, prompts, responses, message):
    gold = load_gold_model(write_classifier(tmp_path))
    with pytest.raises(GoldModelError, match=message):
        gold.score(prompts, responses)


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path):
    write_classifier(tmp_path)
    extended = word_tokenizer()
    extended.add_tokens(["w28"])
    extended.save_pretrained(tmp_path)
    gold = load_gold_model(tmp_path)
    gold.score(["w1"], [" w2"])
    with pytest.raises(GoldModelError, match="gives token 32, and its weights know 32 tokens"):
        gold.score(["w1"], [" w28"])


def test_scores_that_are_not_finite_are_an_error(tmp_path):
    write_classifier(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.bias"].fill_(torch.nan)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GoldModelError, match="text 0 is nan"):
        load_gold_model(tmp_path).score(["w1"], [" w2"])


def damage(directory, what):
    if what == "config":
        (directory / "config.json").unlink()
    elif what == "weights cut off":
        file = directory / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    elif what == "no weights":
        (directory / "model.safetensors").unlink()
    elif what == "head":
        weights = load_file(directory / "model.safetensors")
        save_file({k: v for k, v in weights.items() if "classifier" not in k}, directory / "model.safetensors")
    elif what == "tokenizer":
        for file in directory.glob("tokenizer*"):
            file.unlink()
    elif what == "two outputs":
        random_classifier("bert", outputs=2).save_pretrained(directory)
    elif what == "config is no JSON":
        (directory / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("config", "no config.json there"),
        ("config is no JSON", "cannot be loaded"),
        ("weights cut off", "cannot be loaded"),
        ("no weights", "cannot be loaded"),
        ("head", "weights classifier.bias, classifier.weight are missing"),
        ("tokenizer", "has no vocabulary; its files"),
        ("two outputs", "has 2 outputs; a reward model has exactly one"),
    ],
)
def test_directories_that_are_no_gold_model(tmp_path, what, message):
    damage(write_classifier(tmp_path), what)
    with pytest.raises(GoldModelError, match=message):
        load_gold_model(tmp_path)


def test_a_causal_language_model_is_no_gold_model(tmp_path):
    write_policy(tmp_path)
    with pytest.raises(GoldModelError, match="holds a GPT2LMHeadModel, not a sequence classifier"):
        load_gold_model(tmp_path)
    # Without a named architecture transformers would add a random score head in silence.
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0"}}))
    with pytest.raises(GoldModelError, match=r"weights score\.weight are missing"):
        load_gold_model(tmp_path)


def test_fingerprint_follows_weights_configuration_and_tokenizer_only(tmp_path):
    original = write_classifier(tmp_path / "gold")
    fingerprint = load_gold_model(original).fingerprint
    assert len(fingerprint) == 12
    assert set(fingerprint) <= set("0123456789abcdef")

    copy = shutil.copytree(original, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert load_gold_model(copy).fingerprint == fingerprint

    weights = load_file(copy / "model.safetensors")
    weights["classifier.bias"] += 1e-6
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_gold_model(copy).fingerprint != fingerprint

    for name in ("config.json", "tokenizer.json"):
        copy = shutil.copytree(original, tmp_path / name)
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert load_gold_model(copy).fingerprint != fingerprint


def test_standardization_gives_mean_0_and_sd_1():
    raw = 5 + 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    standardized = Standardization.fit(raw).apply(raw)
    assert standardized.dtype == raw.dtype
    assert standardized.mean().item() == pytest.approx(0, abs=1e-6)
    assert standardized.std().item() == pytest.approx(1, abs=1e-6)
    assert Standardization(mean=2.0, sd=4.0).apply(torch.tensor([10.0])).item() == 2.0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (torch.tensor([1.0]), "needs two finite scores"),
        (torch.tensor([1.0, torch.inf]), "needs two finite scores"),
        (torch.full((9,), 3.1), "tells no texts apart"),
    ],
)
def test_scores_that_cannot_be_standardized(raw, message):
    with pytest.raises(GoldModelError, match=message):
        Standardization.fit(raw)
