"""Preference pairs as padded tensors: what one training step or one held-out evaluation consumes."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.data.preferences import PAIRS_FILE
from bench.policies.logprobs import response_logprobs
from bench.policies.tokens import SequenceBatch, collate


@dataclass(frozen=True)
class PreferencePairs:
    """Preference pairs (x, y_w, y_l) with π_ref's log-probs.

    Shapes:
        chosen, rejected: right-padded sequences, one row per pair, both of one width.
        ref_logp_chosen, ref_logp_rejected: [pairs] float32, log π_ref(response | prompt) in nats.
    """

    chosen: SequenceBatch
    rejected: SequenceBatch
    ref_logp_chosen: Tensor
    ref_logp_rejected: Tensor

    def __len__(self) -> int:
        return len(self.ref_logp_chosen)

    @property
    def tokens(self) -> Tensor:
        """Tokens of each pair's longer sequence, prompt included, [pairs] int64."""
        return torch.maximum(self.chosen.attention_mask.sum(1), self.rejected.attention_mask.sum(1))

    def take(self, rows: Tensor) -> "PreferencePairs":
        """The pairs at `rows` (int64), in their order, without columns that are padding in all of them."""
        width = int(max(side.attention_mask[rows].sum(1).max() for side in (self.chosen, self.rejected)))
        chosen, rejected = (
            SequenceBatch(*(tensor[rows, :width] for tensor in side)) for side in (self.chosen, self.rejected)
        )
        return PreferencePairs(chosen, rejected, self.ref_logp_chosen[rows], self.ref_logp_rejected[rows])

    def to(self, device: torch.device | str) -> "PreferencePairs":
        """The same pairs on `device`."""
        chosen, rejected = (SequenceBatch(*(t.to(device) for t in side)) for side in (self.chosen, self.rejected))
        return PreferencePairs(chosen, rejected, self.ref_logp_chosen.to(device), self.ref_logp_rejected.to(device))


class PairLogProbs(NamedTuple):
    """A policy's view of preference pairs, each [pairs], in nats."""

    logp_chosen: Tensor
    logp_rejected: Tensor
    rho: Tensor


def pair_logprobs(model: PreTrainedModel, pairs: PreferencePairs, *, length_normalized: bool = False) -> PairLogProbs:
    """Log-probs of both responses and ρ = log-ratio of the chosen − log-ratio of the rejected response.

    Args:
        length_normalized: divide each log-ratio by its response's number of tokens, EOS included. GPO does
            not (Tang et al. 2024, eq. 5 sums); TRL's IPO does.
    """
    # One forward pass for both sides: half the kernel launches of two.
    both = SequenceBatch(*(torch.cat(sides) for sides in zip(pairs.chosen, pairs.rejected, strict=True)))
    logp_chosen, logp_rejected = response_logprobs(model, both).chunk(2)
    ratio_chosen = logp_chosen - pairs.ref_logp_chosen
    ratio_rejected = logp_rejected - pairs.ref_logp_rejected
    if length_normalized:
        ratio_chosen = ratio_chosen / _response_tokens(pairs.chosen)
        ratio_rejected = ratio_rejected / _response_tokens(pairs.rejected)
    return PairLogProbs(logp_chosen, logp_rejected, ratio_chosen - ratio_rejected)


def _response_tokens(batch: SequenceBatch) -> Tensor:
    # An empty response has log-ratio 0; dividing that by 1 keeps it 0 instead of NaN.
    return batch.response_mask.sum(-1).clamp(min=1)


def load_pairs(directory: Path, split: str, *, pad_id: int) -> PreferencePairs:
    """Read one split (``train`` or ``held_out``) of the preference data in `directory`.

    Raises:
        ValueError: the split has no pairs, or a reference log-prob is missing.
    """
    frame = pd.read_parquet(directory / PAIRS_FILE, filters=[("split", "==", split)])
    if frame.empty:
        raise ValueError(f"{directory / PAIRS_FILE}: no pairs of split {split!r} are left after dropping ties")
    if frame[["ref_chosen_logps", "ref_rejected_logps"]].isna().to_numpy().any():
        raise ValueError(f"{directory / PAIRS_FILE}: reference log-probs are missing")
    prompts, chosen, rejected = (
        [ids.tolist() for ids in frame[column]] for column in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    both = collate(prompts * 2, chosen + rejected, pad_id=pad_id)
    return PreferencePairs(
        SequenceBatch(*(tensor[: len(frame)] for tensor in both)),
        SequenceBatch(*(tensor[len(frame) :] for tensor in both)),
        torch.tensor(frame["ref_chosen_logps"].to_numpy(), dtype=torch.float32),
        torch.tensor(frame["ref_rejected_logps"].to_numpy(), dtype=torch.float32),
    )


@functools.lru_cache(maxsize=4)
def cached_pairs(directory: Path, split: str, pad_id: int) -> PreferencePairs:
    """`load_pairs`, kept in memory: a worker trains many cells on one pool. Never modify the result."""
    return load_pairs(directory, split, pad_id=pad_id)
