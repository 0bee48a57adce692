"""Several sequences in one row, told apart by their positions: little is spent on padding.

Where position ids start again, transformers sees that another sequence begins, as long as it gets no attention mask.
Whether an architecture keeps them apart is found out when a model is loaded (`bench.policies.architecture`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from bench.policies.tokens import SequenceBatch

# Wider rows fill up better and spend more on attention between sequences: on `reviews`, rows as wide as the longest
# sequence are full to 80 %, half as wide again to 93 %, and twice as wide no better.
_WIDTH_PER_LONGEST = 1.5

# Above this share of real tokens, packing costs more than padding: batches that are sorted by length stay as they are.
_FULL_ENOUGH = 0.8


class PackedBatch(NamedTuple):
    """The sequences of a batch in fewer rows.

    Attributes:
        input_ids: rows that are not full end in padding tokens.
        position_ids: from 0 on in every sequence; 0 for padding, each token of which is a sequence of its own.
        place: of every token of the batch in the flattened rows; of padding, anywhere.
    """

    input_ids: Int[Tensor, "rows width"]
    position_ids: Int[Tensor, "rows width"]
    place: Int[Tensor, "sequences tokens"]


def is_worth_packing(batch: SequenceBatch) -> bool:
    """Whether a batch holds so much padding that packing it saves time."""
    return int(batch.attention_mask.sum()) < _FULL_ENOUGH * batch.attention_mask.numel()


def pack(batch: SequenceBatch, *, pad_id: int, positions: int | None) -> PackedBatch:
    """Put right-padded sequences one behind the other.

    Args:
        positions: tokens that the model can take in one row; no sequence has more. None: any number.
    """
    lengths, device = batch.lengths.tolist(), batch.input_ids.device
    longest = max(lengths)
    width = int(_WIDTH_PER_LONGEST * longest)
    row, start, used = first_fit(lengths, width if positions is None else max(longest, min(width, positions)))
    rows, width = len(used), max(used)
    column = torch.arange(batch.input_ids.shape[1], device=device)
    place = (torch.tensor(row, device=device) * width + torch.tensor(start, device=device))[:, None] + column
    real = batch.attention_mask.bool()
    input_ids = torch.full((rows * width,), pad_id, device=device)
    input_ids[place[real]] = batch.input_ids[real]
    position_ids = torch.zeros_like(input_ids)
    position_ids[place[real]] = column.expand_as(place)[real]
    return PackedBatch(input_ids.view(rows, width), position_ids.view(rows, width), place)


def first_fit(lengths: Sequence[int], width: int) -> tuple[list[int], list[int], list[int]]:
    """The row of each sequence and where it starts there, and how much of each row is used.

    The longest first, each into the first row that has room (first-fit decreasing, Johnson 1973).

    >>> first_fit([2, 4, 1, 3], 5)
    ([1, 0, 0, 1], [3, 0, 4, 0], [5, 5])
    """
    rows, starts = [0] * len(lengths), [0] * len(lengths)
    used: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, taken in enumerate(used) if taken + lengths[index] <= width), len(used))
        if row == len(used):
            used.append(0)
        rows[index], starts[index] = row, used[row]
        used[row] += lengths[index]
    return rows, starts, used
