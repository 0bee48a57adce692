"""A policy: everything that the rest of bench does with a language model."""

import copy
from collections.abc import Iterator, Mapping, Sequence
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
from bench.policies.language_model import LanguageModel
from bench.policies.sampling import sample_responses
from bench.policies.spread import cut_like, exchanging, full, is_cut, put_together, spread
from bench.policies.tokens import TokenIds


@dataclass(frozen=True, eq=False)
class Policy(LanguageModel):
    """A language model with its tokenizer; made by `bench.policies.load.load_policy`, and frozen until `trainable`.

    Gradients of log-probs come from `bench.policies.scoring.response_logprobs`, KL from its `sequence_kl`.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    trained_from: "Policy | None" = field(default=None, repr=False)

    def encode(self, prompts: Sequence[str]) -> list[TokenIds]:
        """Token ids of prompts, with the tokenizer's own beginning tokens and without an ending EOS."""
        encoded = self.tokenizer(list(prompts))["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is not None:
            # A chat template writes the beginning token into the text, and the tokenizer adds it once more.
            encoded = [ids[1:] if ids[:2] == [bos, bos] else ids for ids in encoded]
        return [ids[:-1] if ids and ids[-1] == self.eos_id else ids for ids in encoded]

    def decode(self, responses: Sequence[TokenIds]) -> list[str]:
        """Texts of responses as they follow a prompt, without the EOS that ended them.

        Many tokenizers drop the space before the first word of a text; decoding behind an EOS keeps it.
        """
        bare = [ids[:-1] if ids and self.ends(ids[-1]) else ids for ids in responses]
        before, *texts = self.tokenizer.batch_decode(
            [[self.eos_id, *ids] for ids in ([], *bare)], clean_up_tokenization_spaces=False
        )
        return [text.removeprefix(before) for text in texts]

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

    def trainable(self) -> "Policy":
        """The same weights as a separate model whose parameters require gradients; this policy's reference is its."""
        model = copy.deepcopy(self.model)
        model.requires_grad_(True)
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
        """Write weights (safetensors), configuration and tokenizer, which `load_policy` reads again."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

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
