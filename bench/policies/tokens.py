"""Prompts and responses as padded token tensors, with explicit masks (never inferred from token values)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

TokenIds = list[int]


class SequenceBatch(NamedTuple):
    """Right-padded sequences ``prompt + response + padding``.

    Attributes:
        attention_mask: 1 on prompt and response, 0 on padding.
        response_mask: True on response tokens, EOS included.
    """

    input_ids: Int[Tensor, "sequences tokens"]
    attention_mask: Int[Tensor, "sequences tokens"]
    response_mask: Bool[Tensor, "sequences tokens"]

    @property
    def lengths(self) -> Int[Tensor, " sequences"]:
        """Tokens of each sequence, without padding."""
        return self.attention_mask.sum(1)

    def take(self, rows: Int[Tensor, " taken"], width: int | None = None) -> "SequenceBatch":
        """The sequences at `rows`, in their order, cut to `width`: by default the longest of them."""
        width = self.width(rows) if width is None else width
        return SequenceBatch(*(tensor[rows, :width] for tensor in self))

    def width(self, rows: Int[Tensor, " taken"]) -> int:
        """Tokens of the longest sequence at `rows`."""
        return int(self.attention_mask[rows].sum(1).max())

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """The same sequences on `device`."""
        return SequenceBatch(*(tensor.to(device) for tensor in self))


def collate(
    prompts: Sequence[TokenIds],
    responses: Sequence[TokenIds],
    *,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> SequenceBatch:
    """Pad prompt–response pairs on the right to the longest of them.

    Raises:
        ValueError: different numbers of prompts and responses, or an empty prompt.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts but {len(responses)} responses")
    require_tokens(prompts)
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    shape = (len(prompts), max(lengths, default=0))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    response_mask = torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        input_ids[row, : lengths[row]] = torch.tensor([*prompt, *response])
        attention_mask[row, : lengths[row]] = 1
        response_mask[row, len(prompt) : lengths[row]] = True
    return SequenceBatch(input_ids, attention_mask, response_mask).to(device)


def require_tokens(prompts: Sequence[TokenIds]) -> None:
    """Refuse prompts without tokens: nothing would predict the first token of their responses.

    Raises:
        ValueError: naming the first such prompt.
    """
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} has no tokens; give it at least a beginning-of-sequence token")


def pad_left(
    prompts: Sequence[TokenIds], *, pad_id: int, device: torch.device | str
) -> tuple[Int[Tensor, "sequences tokens"], Int[Tensor, "sequences tokens"]]:
    """Pad prompts on the left for generation; returns input_ids and attention_mask."""
    width = max(map(len, prompts))
    rows = [[pad_id] * (width - len(p)) + p for p in prompts]
    masks = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(rows, device=device), torch.tensor(masks, device=device)


def batches_by_length(
    lengths: Sequence[int] | Int[Tensor, " sequences"], batch_size: int
) -> Iterator[Int[Tensor, " batch"]]:
    """Indices of all sequences, batch by batch, short ones first: little is spent on padding.

    >>> [batch.tolist() for batch in batches_by_length([5, 2, 9], 2)]
    [[1, 0], [2]]
    """
    order = torch.as_tensor(lengths).argsort(stable=True)
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))
