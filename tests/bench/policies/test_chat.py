"""Prompts of messages: what the chat template says, once and nothing else, for the policy and for the reward model."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_chat import chat_tokenizer, write_chat_policy
from tiny_world import write_gold
from transformers import AutoTokenizer

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.worlds import read_world
from bench.worlds.directories import Params, build, inputs
from gold_rm.prompts import ConversationError, messages_of, spell, whole_text
from gold_rm.reward_model import load_gold_model
from gold_rm.texts import TextFileError, read_texts

ASKED = [{"role": "user", "content": "a b"}]
TALK = [
    {"role": "system", "content": "c"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c a"},
]  # fmt: skip


def test_a_conversation_has_one_spelling():
    text = spell(TALK)
    assert messages_of(text) == TALK
    assert spell([dict(reversed(message.items())) for message in TALK]) == text
    assert json.loads(text) == TALK
    for plain in (
        "",
        "hello",
        json.dumps(TALK, indent=1),
        '[{"role": "user"}]',
        '[{"role": "user", "content": 1}]',
        "[",
    ):
        assert messages_of(plain) is None


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "must end with a message of the user"),
        ([{"role": "assistant", "content": "b"}], "must end with a message of the user"),
        ([{"role": "User", "content": "b"}], "message 1 has the role 'User'; allowed are"),
        ([*ASKED, {"role": "user", "content": None}], "message 2 has the content None, which is no text"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "which is no text"),
        ([{"role": "user"}], "role and content are needed"),
        (["hello"], "message 1 is 'hello'"),
    ],
)
def test_what_is_no_conversation_is_said(messages, complaint):
    with pytest.raises(ConversationError, match=complaint):
        spell(messages)


def test_the_policy_reads_what_transformers_makes_of_the_messages(tmp_path):
    policy = load_policy(write_chat_policy(tmp_path))
    theirs = [
        AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
            each, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for each in (ASKED, TALK)
    ]
    assert policy.encode([spell(ASKED), " a b", spell(TALK)]) == [theirs[0], [2, 6, 7], theirs[1]]
    # <bos><user> a b<bot>: one BOS, no EOS taken off, and the answer is next.
    assert theirs[0] == [2, 3, 6, 7, 4]
    assert theirs[1] == [2, 5, 8, 3, 6, 4, 7, 0, 3, 8, 6, 4]


def test_no_template_and_unsuitable_roles_are_one_sentence(tmp_path):
    policy = load_policy(write_chat_policy(tmp_path / "plain", template=None))
    with pytest.raises(ConfigError, match="cannot read a prompt of messages: its tokenizer has no chat template"):
        policy.encode([spell(ASKED)])
    policy = load_policy(write_chat_policy(tmp_path / "strict"))
    with pytest.raises(ConfigError, match=r"does not take the roles user, system, user \(system comes first\)"):
        policy.encode([spell([*ASKED, {"role": "system", "content": "a"}, *ASKED])])


def test_a_reward_model_reads_its_own_template_or_the_contents_line_by_line():
    assert whole_text(chat_tokenizer(), spell(ASKED), "c") == "<bos><user> a b<bot> c<eos>"
    assert whole_text(chat_tokenizer(None), spell(TALK), "c") == "c\na\nb\nc a\nc"
    assert whole_text(chat_tokenizer(), " a b", " c") == " a b c"


def test_a_score_is_that_of_the_rendered_tokens_with_one_bos(tmp_path):
    write_gold(tmp_path)
    chat_tokenizer().save_pretrained(tmp_path)
    gold = load_gold_model(tmp_path)
    with torch.no_grad():
        expected = gold.model(input_ids=torch.tensor([[2, 3, 6, 7, 4, 8, 0]])).logits[0, 0]
    assert gold.score([spell(ASKED)], [" c"]).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_files_hold_texts_and_messages(tmp_path, suffix):
    path = tmp_path / f"prompts{suffix}"
    prompts = [ASKED, TALK] if suffix == ".parquet" else [ASKED, "plain", TALK]
    if suffix == ".parquet":
        pd.DataFrame({"prompt": prompts}).to_parquet(path)
        assert isinstance(pd.read_parquet(path)["prompt"][0], np.ndarray)
    else:
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    read = read_texts(path, ("prompt",), conversations=("prompt",))["prompt"].tolist()
    assert read == [each if isinstance(each, str) else spell(each) for each in prompts]
    with pytest.raises(TextFileError, match="are no texts"):
        read_texts(path, ("prompt",))


def test_a_bad_conversation_is_named_by_its_row(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": [{"role": "bot", "content": "a"}]}\n')
    with pytest.raises(TextFileError, match=r"p\.jsonl: 'prompt' in row 2: message 1 has the role 'bot'"):
        read_texts(tmp_path / "p.jsonl", ("prompt",), conversations=("prompt",))


def test_a_world_of_conversations_is_known_by_its_templates(tmp_path):
    policy, gold = write_chat_policy(tmp_path / "policy"), write_gold(tmp_path / "gold")
    rows = [{"prompt": [{"role": "user", "content": "a"}], "split": "train"}, {"prompt": "b", "split": "eval"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    params = Params(policy=str(policy), gold=str(gold), prompts=str(tmp_path / "p.jsonl"))
    (tmp_path / "world").mkdir()
    build(params, tmp_path / "world", lambda message: None)
    world = read_world(tmp_path / "world")
    assert (world.train_prompts, world.eval_prompts) == ([spell(rows[0]["prompt"])], ["b"])
    before = inputs(params)
    assert (policy / "chat_template.jinja").exists()
    (policy / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    after = inputs(params)
    assert {key for key in before if before[key] != after[key]} == {"chat_template"}
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "split": "train"}\n{"prompt": "b", "split": "eval"}')
    assert inputs(params).keys() == {"policy", "gold", "prompts"}, "as it was before there were templates"
