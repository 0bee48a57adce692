"""A policy: everything that the rest of bench does with a language model."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bench.checked import ConfigError
from bench.policies import scoring
from bench.policies.adapters import attach_adapters, has_adapters, save_adapters, with_adapters
from bench.policies.checkpointing import checkpoint_layers
from bench.policies.language_model import LanguageModel
from bench.policies.sampling import sample_responses
from bench.policies.spread import cut_like, exchanging, full, is_cut, put_together, spread
from bench.policies.tokens import TokenIds
from bench.policy_section import PolicyConfig
from gold_rm.prompts import ConversationError, Messages, messages_of, render

_MARGIN = 4  # tokens whose decoding depends on what was before them, such as parts of a character


@dataclass(frozen=True, eq=False)
class Policy(LanguageModel):
    """A language model with its tokenizer; made by `bench.policies.load.load_policy`, and frozen until `trainable`.

    A response ends with an end token, or where one of `stop_strings` is complete.

    Gradients of log-probs come from `bench.policies.scoring.response_logprobs`, KL from its `sequence_kl`.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    trained_from: "Policy | None" = field(default=None, repr=False)
    stop_strings: tuple[str, ...] = field(default=(), kw_only=True)

    def encode(self, prompts: Sequence[str]) -> list[TokenIds]:
        """Token ids of prompts, with the tokenizer's own beginning tokens and without an ending EOS.

        A prompt that is a conversation (`gold_rm.prompts`) is rendered by the tokenizer's chat template, up to where
        the assistant's message begins; the template writes the special tokens.

        Raises:
            ConfigError: there is no chat template, or it does not take these messages.
        """
        conversations = {place: messages for place, each in enumerate(prompts) if (messages := messages_of(each))}
        texts = [each for place, each in enumerate(prompts) if place not in conversations]
        of_texts = iter(self._encode_texts(texts) if texts else ())
        of_messages = iter(self._encode_messages(conversations.values()) if conversations else ())
        return [next(of_messages if place in conversations else of_texts) for place in range(len(prompts))]

    def _encode_texts(self, texts: list[str]) -> list[TokenIds]:
        encoded = self.tokenizer(texts)["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is not None:
            # A text that a chat template has made begins with the token that the tokenizer adds once more.
            encoded = [ids[1:] if ids[:2] == [bos, bos] else ids for ids in encoded]
        return [ids[:-1] if ids and ids[-1] == self.eos_id else ids for ids in encoded]

    def _encode_messages(self, conversations: Iterable[Messages]) -> list[TokenIds]:
        try:
            texts = [render(self.tokenizer, messages, to_answer=True) for messages in conversations]
        except ConversationError as error:
            raise ConfigError(f"the policy cannot read a prompt of messages: {error}") from error
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def decode(self, responses: Sequence[TokenIds]) -> list[str]:
        """Texts of responses as they follow a prompt, without the EOS or the stop string that ended them.

        Many tokenizers drop the space before the first word of a text; decoding behind an EOS keeps it.
        """
        bare = [ids[:-1] if ids and self.ends(ids[-1]) else ids for ids in responses]
        before, *texts = self.tokenizer.batch_decode(
            [[self.eos_id, *ids] for ids in ([], *bare)], clean_up_tokenization_spaces=False
        )
        texts = [text.removeprefix(before) for text in texts]
        return [text[: min(self._stops_in(text), default=None)] for text in texts]

    def has_ended(self, response: TokenIds) -> bool:
        """Whether a response has come to an end token or a stop string, and was not cut."""
        if super().has_ended(response) or not self.stop_strings or not response:
            return super().has_ended(response)
        # A stop string that is new ends in the last token: as many tokens as it has characters hold it.
        tail = response[-max(map(len, self.stop_strings)) - 1 - _MARGIN :]
        (text,) = self.tokenizer.batch_decode([[self.eos_id, *tail]], clean_up_tokenization_spaces=False)
        return bool(self._stops_in(text))

    def _stops_in(self, text: str) -> list[int]:
        """Where stop strings begin in a text."""
        return [place for stop in self.stop_strings if (place := text.find(stop)) >= 0]

    def holds_special_token(self, response: TokenIds) -> bool:
        """Whether a special token, other than the end that it has come to, is in a response."""
        inside = response[:-1] if response and self.ends(response[-1]) else response
        return not self._special.isdisjoint(inside)

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def sample(
        self, prompt_ids: Sequence[TokenIds], *, uniforms: Float64[Tensor, "responses tokens"], batch_size: int
    ) -> list[TokenIds]:
        """Draw one response per prompt at temperature 1; see `bench.policies.sampling.sample_responses`.

        `bench.seeding.uniforms_for` gives the uniforms.
        """
        return sample_responses(self, prompt_ids, uniforms=uniforms, batch_size=batch_size)

    def logprobs(
        self,
        prompt_ids: Sequence[TokenIds],
        response_ids: Sequence[TokenIds],
        *,
        batch_size: int = scoring.DEFAULT_BATCH_SIZE,
    ) -> Float[Tensor, " sequences"]:
        """log π(response | prompt) in nats, on the CPU, without gradient; see `bench.policies.scoring.logprobs`."""
        return scoring.logprobs(self, prompt_ids, response_ids, batch_size=batch_size)

    def trainable(self, settings: PolicyConfig | None = None, *, seed: int = 0) -> "Policy":
        """The same policy with parameters that require gradients; this policy's reference is its.

        All weights are copied and trained; or, where `settings` ask for adapters, these on the weights of this one.

        Args:
            seed: draws what adapters begin with.
        Raises:
            ConfigError: adapters or checkpoints that this model cannot have, or all weights of one below float32.
        """
        settings = settings or PolicyConfig()
        if settings.use_peft:
            model = with_adapters(self.model, settings, seed=seed)
        elif self.is_float32:
            model = copy.deepcopy(self.model).requires_grad_(True)
        else:
            raise ConfigError(
                f"policy.dtype: all weights are trained in float32, and these are {self.dtype}: AdamW's steps would be "
                "rounded away; policy.use_peft=true trains adapters on them"
            )
        if settings.gradient_checkpointing:
            checkpoint_layers(model)
        return replace(self, model=model, trained_from=self.reference())

    def spread_out(self, strategy: str) -> "Policy":
        """This policy with its training spread over its ranks (`bench.policies.spread`); alone, it stays as it is."""
        if self.ranks.world_size == 1:
            return self
        return replace(self, trained_through=spread(self.model, self.ranks, strategy))

    def whole(self) -> "Policy":
        """This policy with all weights in one place, for sampling, scoring and saving: a copy where they are cut over
        ranks, every one of which has to call this; else the policy itself."""
        if not is_cut(self.model):
            return self
        return replace(self, model=put_together(self.model, self.reference().model), trained_through=None)

    def with_adapters_in(self, directory: Path) -> "Policy":
        """This policy with the adapters that `save` has written, on its own weights; this policy is its reference.

        Raises:
            ConfigError: they are no adapters for this policy.
        """
        return replace(self, model=attach_adapters(self.model, directory), trained_from=self.reference())

    def reference(self) -> "Policy":
        """The frozen policy that this one was made trainable from; a frozen policy is its own."""
        return self if self.trained_from is None else self.trained_from

    def against(self, reference: "Policy") -> "Policy":
        """This policy with `reference` as its reference, for one that was trained elsewhere.

        Raises:
            ConfigError: the two have other tokens, so that no KL between them exists.
        """
        ours, theirs = (policy.tokenizer.get_vocab() for policy in (self, reference))
        ends, their_ends = ({each.eos_id, *each.further_ends} for each in (self, reference))
        if ours != theirs or (ends, self.vocabulary) != (their_ends, reference.vocabulary):
            different = [token for token in {**ours, **theirs} if ours.get(token) != theirs.get(token)]
            told = f"different tokens, such as {min(different)!r}" if different else "another EOS or size"
            raise ConfigError(
                f"the policy ({len(ours)} tokens, {self.vocabulary} in the model) and π_ref ({len(theirs)}, "
                f"{reference.vocabulary}) have {told}; KL needs one vocabulary"
            )
        return replace(self, trained_from=reference)

    def save(self, directory: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer, which `load_policy` reads again.

        Of a policy with adapters these alone are written, with the directory of the policy that they belong on.
        """
        if has_adapters(self.model):
            save_adapters(self.model, self.reference().model.config._name_or_path, directory)
        else:
            self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    @property
    def facts(self) -> dict[str, int | str]:
        """What records say of the model: its size, how much of it is trained, dtype and attention."""
        size, trained = (sum(each.numel() for each in some) for some in (self.model.parameters(), self.parameters()))
        facts: dict[str, int | str] = {"parameters": size, "trained_parameters": trained, "dtype": self.dtype}
        return facts | ({} if self.attention is None else {"attention": self.attention})

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The parameters that are trained; none of a frozen policy."""
        return (parameter for _, parameter in self._trained())

    def exchanging(self, *, now: bool) -> AbstractContextManager[None]:
        """Within, gradients are exchanged between ranks only if `now`; see `bench.policies.spread.exchanging`."""
        return exchanging(self.trained_through, now=now)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        self.model.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies, on the CPU, of the parameters that are trained; later training does not change them.

        Where weights are cut over ranks, every rank has to call it.
        """
        return {name: full(parameter.detach()).to("cpu", copy=True) for name, parameter in self._trained()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Set the parameters that are trained to those of `state_dict`; all or, after an error, none.

        Raises:
            ValueError: parameters are missing, unexpected, or of another shape or type; they are named.
        """
        own = dict(self._trained())
        wrong = [f"{name} is missing" for name in own.keys() - state.keys()]
        wrong += [f"{name} is not a trained parameter of this policy" for name in state.keys() - own.keys()]
        wrong += [
            f"{name} is {_kind(state[name])} where {_kind(parameter)} is needed"
            for name, parameter in own.items()
            if name in state and _kind(state[name]) != _kind(parameter)
        ]
        if wrong:
            raise ValueError(f"this state is of another policy: {'; '.join(sorted(wrong))}")
        for name, parameter in own.items():
            parameter.copy_(cut_like(state[name], parameter))

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, each) for name, each in self.model.named_parameters() if each.requires_grad)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
