"""Preference pairs as padded tensors: what one training step or one held-out evaluation consumes."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.checked import ConfigError
from bench.data.artifacts import PAIRS_FILE
from bench.policies.policy import Policy
from bench.policies.scoring import batch_logprobs, response_logprobs
from bench.policies.tokens import SequenceBatch, collate


@dataclass(frozen=True)
class PreferencePairs:
    """Preference pairs (x, y_w, y_l) with π_ref's log-probs.

    Attributes:
        chosen, rejected: right-padded sequences, one row per pair, both of one width.
        ref_logp_chosen, ref_logp_rejected: log π_ref(response | prompt) in nats.
    """

    chosen: SequenceBatch
    rejected: SequenceBatch
    ref_logp_chosen: Float[Tensor, " pairs"]
    ref_logp_rejected: Float[Tensor, " pairs"]

    def __len__(self) -> int:
        return len(self.ref_logp_chosen)

    @property
    def sequences(self) -> SequenceBatch:
        """Both sides as one batch, the chosen ones first: half the kernel launches of two."""
        return SequenceBatch(*(torch.cat(sides) for sides in zip(self.chosen, self.rejected, strict=True)))

    def take(self, rows: Int[Tensor, " taken"]) -> "PreferencePairs":
        """The pairs at `rows` (int64), in their order, without columns that are padding in all of them."""
        width = max(side.width(rows) for side in (self.chosen, self.rejected))
        chosen, rejected = (side.take(rows, width) for side in (self.chosen, self.rejected))
        return PreferencePairs(chosen, rejected, self.ref_logp_chosen[rows], self.ref_logp_rejected[rows])

    def to(self, device: torch.device | str) -> "PreferencePairs":
        """The same pairs on `device`."""
        chosen, rejected = self.chosen.to(device), self.rejected.to(device)
        return PreferencePairs(chosen, rejected, self.ref_logp_chosen.to(device), self.ref_logp_rejected.to(device))


class PairLogProbs(NamedTuple):
    """A policy's view of preference pairs, in nats; ρ = log-ratio of the chosen − that of the rejected response."""

    logp_chosen: Float[Tensor, " pairs"]
    logp_rejected: Float[Tensor, " pairs"]
    rho: Float[Tensor, " pairs"]


def pair_logprobs(policy: Policy, pairs: PreferencePairs, *, length_normalized: bool = False) -> PairLogProbs:
    """Log-probs of both responses and ρ in one forward pass, with a gradient where one is enabled.

    Args:
        pairs: on the policy's device.
        length_normalized: divide each log-ratio by its response's number of tokens, EOS included. GPO does
            not (Tang et al. 2024, eq. 5 sums); TRL's IPO does.
    """
    sequences, ref_logps = pairs.sequences, None
    logps = response_logprobs(policy, sequences)
    if not policy.is_float32:  # the data's were scored in other batches, which counts in bfloat16
        with torch.no_grad():
            ref_logps = response_logprobs(policy.reference(), sequences)
    return _against_reference(pairs, logps, ref_logps, length_normalized)


def measure_pairs(policy: Policy, pairs: PreferencePairs, *, length_normalized: bool, batch_size: int) -> PairLogProbs:
    """The same of any number of pairs, without gradient, on the CPU.

    Args:
        pairs: on the CPU.
        batch_size: sequences in one forward pass; moves results by rounding only.
    """
    sequences, ref_logps = pairs.sequences, None
    logps = batch_logprobs(policy, sequences, batch_size=batch_size)
    if not policy.is_float32:
        ref_logps = batch_logprobs(policy.reference(), sequences, batch_size=batch_size)
    return _against_reference(pairs, logps, ref_logps, length_normalized)


def _against_reference(
    pairs: PreferencePairs,
    logps: Float[Tensor, " sequences"],
    ref_logps: Float[Tensor, " sequences"] | None,
    length_normalized: bool,
) -> PairLogProbs:
    """ρ against π_ref's log-probs of the same batches, or, where there are none, against those of the data."""
    logp_chosen, logp_rejected = logps.chunk(2)
    of_data = (pairs.ref_logp_chosen, pairs.ref_logp_rejected)
    ref_logp_chosen, ref_logp_rejected = of_data if ref_logps is None else ref_logps.chunk(2)
    ratio_chosen = logp_chosen - ref_logp_chosen
    ratio_rejected = logp_rejected - ref_logp_rejected
    if length_normalized:
        ratio_chosen = ratio_chosen / _response_tokens(pairs.chosen)
        ratio_rejected = ratio_rejected / _response_tokens(pairs.rejected)
    return PairLogProbs(logp_chosen, logp_rejected, ratio_chosen - ratio_rejected)


def _response_tokens(batch: SequenceBatch) -> Int[Tensor, " sequences"]:
    # An empty response has log-ratio 0; dividing that by 1 keeps it 0 instead of NaN.
    return batch.response_mask.sum(-1).clamp(min=1)


def load_pairs(directory: Path, split: str, *, pad_id: int) -> PreferencePairs:
    """Read one split (``train`` or ``held_out``) of the preference data in `directory`.

    Raises:
        ConfigError: the split has no pairs.
        ValueError: a reference log-prob is missing.
    """
    frame = pd.read_parquet(directory / PAIRS_FILE, filters=[("split", "==", split)])
    if frame.empty:
        raise ConfigError(f"{directory / PAIRS_FILE}: no pairs of split {split!r} are left after dropping ties")
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
