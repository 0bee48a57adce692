"""Prompts that are conversations: how one is kept as a text, and what a reward model reads of it.

A conversation is a list of messages, ``[{"role": "user", "content": "…"}]``, as in TRL's conversational datasets. In
columns of prompts it stands as JSON in one spelling, so that a prompt is a text everywhere: to compare, to count, to
write into tables. Whoever encodes a prompt renders its messages by a chat template (`bench.policies.policy`, and
`whole_text` for reward models), and nobody else looks into it.
"""

import json
from collections.abc import Sequence
from typing import Any

from gold_rm.errors import UserError

ROLES = ("system", "user", "assistant")
_BEGINNING = '[{"role": "'

Messages = list[dict[str, str]]


class ConversationError(UserError):
    """Messages that are no prompt, or that a chat template does not take."""


def spell(messages: Sequence[Any]) -> str:
    """The text that stands for a conversation.

    Raises:
        ConversationError: a message has other keys than role and content, another role, or no text; or the last one is
            not the user's, so that there is nothing to answer.

    >>> spell([{"content": "Hello?", "role": "user"}])
    '[{"role": "user", "content": "Hello?"}]'
    """
    checked = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ConversationError(f"message {number} is {message!r:.80}; role and content are needed, and no more")
        if message["role"] not in ROLES:
            raise ConversationError(f"message {number} has the role {message['role']!r:.40}; allowed are {ROLES}")
        if not isinstance(message["content"], str):
            raise ConversationError(f"message {number} has the content {message['content']!r:.80}, which is no text")
        checked.append({"role": message["role"], "content": message["content"]})
    if not checked or checked[-1]["role"] != "user":
        raise ConversationError("a conversation must end with a message of the user, which a response then answers")
    return json.dumps(checked, ensure_ascii=False)


def messages_of(prompt: str) -> Messages | None:
    """The messages that `spell` has written; None for a prompt that is a text of its own."""
    if not prompt.startswith(_BEGINNING):
        return None
    try:
        messages = json.loads(prompt)
        return messages if spell(messages) == prompt else None
    except (ValueError, RecursionError):  # ConversationError is a ValueError, too
        return None


def render(tokenizer: Any, messages: Messages, *, to_answer: bool) -> str:
    """Messages in the chat template of a tokenizer, special tokens included.

    Args:
        tokenizer: a PreTrainedTokenizerBase, whose module reading a file of prompts need not wait for.
        to_answer: with the beginning of the assistant's message that is to come.
    Raises:
        ConversationError: it has no template, or its template does not take these messages.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise ConversationError("its tokenizer has no chat template, which prompts that are lists of messages need")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=to_answer)
    except (TemplateError, TypeError, ValueError) as error:  # raise_exception(…) of a template is the first
        roles = ", ".join(message["role"] for message in messages)
        raise ConversationError(f"its chat template does not take the roles {roles} ({error})") from error
    assert isinstance(text, str)
    return text


def whole_text(tokenizer: Any, prompt: str, response: str) -> str:
    """What a reward model reads: ``prompt + response``, or the conversation with the response as its last message.

    A message has no space around it, which many policies begin a response with. A tokenizer without a chat template, as
    most classifiers have, gets the contents of the messages line by line.

    Raises:
        ConversationError: the template does not take these messages.
    """
    if (messages := messages_of(prompt)) is None:
        return prompt + response
    conversation = [*messages, {"role": "assistant", "content": response.strip()}]
    if tokenizer.chat_template is None:
        return "\n".join(message["content"] for message in conversation)
    return render(tokenizer, conversation, to_answer=False)
