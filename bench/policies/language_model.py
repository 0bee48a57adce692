"""A model with what is known about its architecture: what sampling and scoring work on."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.policies.architecture import Architecture
from bench.policies.packing import is_worth_packing, pack
from bench.policies.ranks import ALONE, Ranks
from bench.policies.tokens import SequenceBatch, TokenIds

# Not a share of the free memory: how positions are cut into chunks moves results by rounding, and must not depend on
# the machine. With a vocabulary of 50,000 this is 335 positions.
DEFAULT_LOGITS_MIB = 64


# eq=False: two policies are the same only if they are one object; weights change under training.
@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model in evaluation mode (dropout is always off).

    Attributes:
        model: seen by bench.policies only.
        eos_id: ends a response.
        further_ends: other tokens that end one, such as those of generation_config.json.
        pad_id: fills batches and is never read.
        logits_mib: how many MiB of float32 logits scoring makes at once; None takes `DEFAULT_LOGITS_MIB`. At its
            peak scoring holds about three such pieces: logits, those of the reference, and one in between.
        ranks: the processes that sampling, scoring and training are shared among.
        trained_through: the module whose forward pass computes what gradients are taken of, where ranks share them.
    """

    model: PreTrainedModel = field(repr=False)
    architecture: Architecture
    eos_id: int
    pad_id: int
    logits_mib: int | None
    further_ends: frozenset[int] = field(default=frozenset(), kw_only=True)
    ranks: Ranks = field(default=ALONE, kw_only=True, repr=False)
    trained_through: nn.Module | None = field(default=None, kw_only=True, repr=False)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context_length(self) -> int | None:
        """Tokens that prompt and response together may take; None where the model does not say."""
        return self.architecture.positions

    def ends(self, token: int) -> bool:
        """Whether `token` ends a response."""
        return token == self.eos_id or token in self.further_ends

    def has_ended(self, response: TokenIds) -> bool:
        """Whether a response has come to its end, and was not cut."""
        return bool(response) and self.ends(response[-1])

    @property
    def vocabulary(self) -> int:
        """Number of tokens that can be drawn; an embedding may have more rows, which no text has."""
        return self.architecture.vocabulary

    @property
    def chunk_positions(self) -> int:
        """How many positions' float32 logits fit into `logits_mib`, at least one."""
        mib = DEFAULT_LOGITS_MIB if self.logits_mib is None else self.logits_mib
        return max(1, mib * 2**20 // (4 * self.vocabulary))

    @cached_property
    def is_float32(self) -> bool:
        """Whether log-probs are the same, up to float32 rounding, whatever else is in a batch.

        In bfloat16 a sequence's log-prob moves with its batch by more than what training changes at first, so that
        π_ref has to be scored in the same batches as the policy.
        """
        return all(each.dtype == torch.float32 for each in self.model.parameters() if each.is_floating_point())

    @property
    def dtype(self) -> str:
        """Name of the type of the model's weights; adapters are float32 whatever it is."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def attention(self) -> str | None:
        """What computes attention, such as ``sdpa``; None where the architecture has no choice."""
        return getattr(self.model.config, "_attn_implementation", None)

    @property
    def is_trainable(self) -> bool:
        """Whether any parameter takes a gradient."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    def hidden_states(
        self, batch: SequenceBatch, row: Int[Tensor, " positions"], column: Int[Tensor, " positions"]
    ) -> Float[Tensor, "positions width"]:
        """What the head reads at some positions of a batch; only where the architecture has a separate head."""
        uncached = {"use_cache": False} if "use_cache" in self.architecture.base_options else {}
        base = self.model.base_model
        if not self.architecture.keeps_packed_apart or not is_worth_packing(batch):
            output = base(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **uncached)
            return output.last_hidden_state[row, column]
        packed = pack(batch, pad_id=self.pad_id, positions=self.context_length)
        output = base(input_ids=packed.input_ids, position_ids=packed.position_ids, **uncached)
        return output.last_hidden_state.flatten(0, 1)[packed.place[row, column]]

    def head(self, hidden: Float[Tensor, "positions width"]) -> Float[Tensor, "positions vocabulary"]:
        """Float32 logits of hidden states; only where the architecture has a separate head."""
        return self.model.get_output_embeddings()(hidden)[:, : self.vocabulary].float()

    def logits(self, batch: SequenceBatch) -> Float[Tensor, "sequences tokens vocabulary"]:
        """Float32 logits of the token after every token, from a pass through the whole model."""
        uncached = {"use_cache": False} if "use_cache" in self.architecture.options else {}
        logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **uncached).logits
        return logits[..., : self.vocabulary].float()
