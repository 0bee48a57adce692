"""Policies are ordinary Hugging Face directories, whatever the architecture; anything else is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, WORDS, random_model, tiny_policy, word_tokenizer, write_policy
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from bench.checked import ConfigError
from bench.policies.load import load_policy, resolve_device
from bench.policies.scoring import response_logprobs
from bench.policies.tokens import collate

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_and_texts_survive_the_round_trip(tmp_path, architecture):
    policy = tiny_policy(tmp_path, architecture, seed=3)
    original = random_model(architecture, vocabulary=len(WORDS), positions=16, seed=3).eval()
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(policy.model(input_ids=ids).logits, original(input_ids=ids).logits)
    assert policy.encode(["p a", "p b b"]) == [[1, 2], [1, 3, 3]]
    assert policy.decode([[2, 3, 0], [3], [0], []]) == [" a b", " b", "", ""]
    assert policy.context_length == 16


def test_a_limit_of_logits_is_kept_and_one_below_1_refused(tmp_path):
    write_policy(tmp_path)
    assert load_policy(tmp_path).logits_mib is None
    assert load_policy(tmp_path, logits_mib=3).trainable().logits_mib == 3
    with pytest.raises(ConfigError, match="logits_mib=0: must be 1 or more"):
        load_policy(tmp_path, logits_mib=0)


@pytest.mark.parametrize("architecture", ["gpt2", "openai-gpt", "llama"])
def test_dropout_is_off_for_the_reference_and_for_the_copy_that_is_trained(tmp_path, architecture):
    reference = tiny_policy(tmp_path, architecture, dropout=0.5)
    batch = collate([[1, 2]], [[3, 0]], pad_id=0)
    with torch.no_grad():
        scores = [response_logprobs(p, batch) for p in (reference, reference, reference.trainable())]
    assert scores[0].item() == scores[1].item() == scores[2].item()


def test_an_eos_that_the_tokenizer_appends_to_prompts_is_taken_off(tmp_path):
    write_policy(tmp_path)
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 0)]
    )
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.tokenizer("p a")["input_ids"] == [1, 2, 0]
    assert policy.encode(["p a"]) == [[1, 2]]


def test_padding_is_eos_unless_the_tokenizer_has_its_own(tmp_path):
    assert tiny_policy(tmp_path / "without").pad_id == 0
    with_pad = tiny_policy(tmp_path / "with", words=(*WORDS, "<pad>"), pad="<pad>")
    assert (with_pad.eos_id, with_pad.pad_id) == (0, 4)


def damage(directory: Path, kind: str) -> None:
    """Make `directory`, a good GPT-2 policy of 4 tokens, wrong in one way."""
    config = directory / "config.json"
    weights = directory / "model.safetensors"
    match kind:
        case "no_config":
            config.unlink()
        case "broken_config":
            config.write_text('{"a')
        case "no_weights":
            weights.unlink()
        case "truncated_weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "pickled_weights":
            torch.save(load_file(weights), directory / "pytorch_model.bin")
            weights.unlink()
        case "other_sizes":
            config.write_text(json.dumps(json.loads(config.read_text()) | {"n_positions": 20}))
        case "no_tokenizer":
            for file in directory.glob("tokenizer*"):
                file.unlink()
        case "no_eos":
            settings = directory / "tokenizer_config.json"
            settings.write_text(
                json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "eos_token"})
            )
        case "large_vocabulary":
            word_tokenizer((*WORDS, " c")).save_pretrained(directory)
        case "classifier_with_tied_head":
            GPT2ForSequenceClassification(
                GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
            ).save_pretrained(directory)
        case "classifier_without_head":
            LlamaForSequenceClassification(
                LlamaConfig(vocab_size=4, bos_token_id=0, eos_token_id=0, **SIZES)
            ).save_pretrained(directory)
        case "encoder":
            BertForMaskedLM(BertConfig(vocab_size=4, initializer_range=0.6, **SIZES)).save_pretrained(directory)
        case "encoder_decoder":
            T5ForConditionalGeneration(
                T5Config(vocab_size=4, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2)
            ).save_pretrained(directory)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("no_config", "no config.json there; a Hugging Face model directory is needed"),
        ("broken_config", "not a causal language model with tokenizer"),
        ("no_weights", "not a causal language model with tokenizer"),
        ("truncated_weights", "not a causal language model with tokenizer"),
        ("pickled_weights", "not a causal language model with tokenizer"),
        ("other_sizes", "not a causal language model with tokenizer"),
        ("no_tokenizer", "its tokenizer is missing or has no words"),
        ("no_eos", "its tokenizer has no EOS token"),
        ("large_vocabulary", "5 tokens in the tokenizer, 4 in the model"),
        ("classifier_with_tied_head", "holds GPT2ForSequenceClassification, a reward model"),
        ("classifier_without_head", "lm_head.weight are missing"),
        ("encoder", "predictions of BertLMHeadModel depend on later tokens"),
        ("encoder_decoder", "not a causal language model with tokenizer"),
    ],
)
def test_a_directory_of_the_wrong_kind_is_refused(tmp_path, kind, complaint):
    write_policy(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(ConfigError) as caught:
        load_policy(tmp_path)
    assert str(caught.value).startswith(f"policy {tmp_path}: ")
    assert complaint in str(caught.value)


def test_a_missing_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no such directory; a Hugging Face model directory"):
        load_policy(tmp_path / "nowhere")


def metaspace_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"<eos>": 0, "▁good": 1, "▁film": 2}, unk_token="<eos>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer


def plain_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"<eos>": 0, "good": 1, "film": 2}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"<eos>": 0, "Ġgood": 1, "Ġfilm": 2}, unk_token="<eos>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("make", [metaspace_tokenizer, plain_tokenizer, byte_level_tokenizer])
def test_prompt_and_decoded_response_join_with_the_space_between_them(tmp_path, make):
    write_policy(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=make(), eos_token="<eos>").save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.encode([" good film"]) == [[1, 2]]
    assert policy.decode([[2, 1, 0], [1], [0], []]) == [" film good", " good", "", ""]


def test_devices(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    with pytest.raises(ConfigError, match="device='gpu': must be auto, cpu, cuda, or cuda:N"):
        resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_this_machine_lacks_is_refused():
    with pytest.raises(ConfigError, match="device='cuda': "):
        resolve_device("cuda")


def test_special_tokens_inside_a_response_are_told_from_its_end(tmp_path):
    policy = tiny_policy(tmp_path / "p", next(iter(ARCHITECTURES)))
    end, word = policy.eos_id, next(i for i in range(policy.vocabulary) if i not in policy.tokenizer.all_special_ids)
    held = [policy.holds_special_token(ids) for ids in ([], [word], [word, end], [end], [word, end, word], [end, end])]
    assert held == [False, False, False, False, True, True]
