"""The one batched forward pass that scores responses: log-probs, their gradients, and KL between two policies.

Logits are made only at the positions that predict a response token, EOS included, and only some positions at a
time: at a vocabulary of 50,000 the logits of one sequence of 100 tokens take 20 MB, those of a batch gigabytes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.policies.kl import SequenceKL, position_kl_
from bench.policies.language_model import LanguageModel
from bench.policies.logprobs import sum_over_response, token_logprobs
from bench.policies.ranks import Ranks
from bench.policies.tokens import SequenceBatch, TokenIds, batches_by_length, collate

# Larger batches are slower on a CPU: a tiny model's activations no longer fit into its cache.
DEFAULT_BATCH_SIZE = 64

MakeLogits = Callable[[], Float[Tensor, "chunk vocabulary"]]


class _Positions(NamedTuple):
    """Positions of a batch that predict response tokens, in the order of its rows.

    Attributes:
        row, column: where the position is.
        target: the token that it predicts.
    """

    row: Int[Tensor, " positions"]
    column: Int[Tensor, " positions"]
    target: Int[Tensor, " positions"]


def response_logprobs(policy: LanguageModel, batch: SequenceBatch) -> Float[Tensor, " sequences"]:
    """log π(response | prompt) in nats of one batch, on the policy's device, with a gradient where one is enabled.

    In training, logits that do not fit into `logits_mib` are made again for the backward pass, chunk by chunk,
    so that they need no more memory than without a gradient.
    """
    if policy.trained_through is not None and torch.is_grad_enabled():  # its hooks exchange gradients between ranks
        return policy.trained_through(_response_logprobs, policy, batch)
    return _response_logprobs(policy, batch)


def _response_logprobs(policy: LanguageModel, batch: SequenceBatch) -> Float[Tensor, " sequences"]:
    batch = batch.to(policy.device)
    positions = _predicting_positions(batch)
    sizes = _chunk_sizes([policy], batch)
    chunks = zip(_make_logits(policy, batch, positions, sizes), positions.target.split(sizes), strict=True)
    if len(sizes) > 1 and torch.is_grad_enabled() and policy.is_trainable:
        # Dropout is off: there is no random state to restore.
        again = partial(checkpoint, _chunk_logprobs, use_reentrant=False, preserve_rng_state=False)
        parts = [again(make, target) for make, target in chunks]
    else:
        parts = [_chunk_logprobs(make, target) for make, target in chunks]
    return _sum_by_sequence(torch.cat(parts), positions, batch)


def _chunk_logprobs(make: MakeLogits, target: Int[Tensor, " chunk"]) -> Float[Tensor, " chunk"]:
    return token_logprobs(make(), target)


@torch.no_grad()
def logprobs(
    policy: LanguageModel,
    prompts: Sequence[TokenIds],
    responses: Sequence[TokenIds],
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> Float[Tensor, " sequences"]:
    """log π(response | prompt) in nats, on the CPU and without gradient, batched by length.

    Args:
        batch_size: sequences in one forward pass; moves results by rounding only.
    Raises:
        ValueError: different numbers of prompts and responses, or a prompt without tokens.
    """

    def score(rows: Tensor) -> Tensor:
        return response_logprobs(policy, _collate_rows(policy, prompts, responses, rows))[None]

    return _in_batches(policy.ranks, _lengths(prompts, responses), batch_size, score, values=1)[0]


@torch.no_grad()
def batch_logprobs(
    policy: LanguageModel, sequences: SequenceBatch, *, batch_size: int = DEFAULT_BATCH_SIZE
) -> Float[Tensor, " sequences"]:
    """`logprobs` of sequences that are padded tensors already, such as those of preference pairs."""

    def score(rows: Tensor) -> Tensor:
        return response_logprobs(policy, sequences.take(rows))[None]

    return _in_batches(policy.ranks, sequences.lengths, batch_size, score, values=1)[0]


@torch.no_grad()
def sequence_kl(
    policy: LanguageModel,
    reference: LanguageModel,
    prompts: Sequence[TokenIds],
    responses: Sequence[TokenIds],
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> SequenceKL:
    """KL(π‖π_ref) of each response, on the CPU; both policies score through the same code.

    Args:
        responses: drawn from `policy` at temperature 1.
        batch_size: sequences in one forward pass; moves results by rounding only.
    Raises:
        ValueError: different numbers of prompts and responses, or a prompt without tokens.
    """

    def score(rows: Tensor) -> Tensor:
        return torch.stack(_batch_kl(policy, reference, _collate_rows(policy, prompts, responses, rows)))

    return SequenceKL(*_in_batches(policy.ranks, _lengths(prompts, responses), batch_size, score, values=2))


def _batch_kl(policy: LanguageModel, reference: LanguageModel, batch: SequenceBatch) -> list[Tensor]:
    positions = _predicting_positions(batch)
    sizes = _chunk_sizes([policy, reference], batch)
    ours, theirs = (_make_logits(model, batch, positions, sizes) for model in (policy, reference))
    parts = [
        position_kl_(make(), make_reference(), target)
        for make, make_reference, target in zip(ours, theirs, positions.target.split(sizes), strict=True)
    ]
    return [_sum_by_sequence(torch.cat(values), positions, batch) for values in zip(*parts, strict=True)]


def _predicting_positions(batch: SequenceBatch) -> _Positions:
    row, column = batch.response_mask[:, 1:].nonzero(as_tuple=True)
    return _Positions(row, column, batch.input_ids[row, column + 1])


def _chunk_sizes(policies: Sequence[LanguageModel], batch: SequenceBatch) -> list[int]:
    """How many positions to take at once, for all of `policies` alike; they sum to the number of positions."""
    per_row = batch.response_mask[:, 1:].sum(1)
    at_most = min(policy.chunk_positions for policy in policies)
    if all(policy.architecture.has_separate_head for policy in policies):
        count = int(per_row.sum())
        return [min(at_most, count - start) for start in range(0, max(1, count), at_most)]
    return [int(rows.sum()) for rows in per_row.split(_rows_per_pass(at_most, batch))]


def _rows_per_pass(at_most: int, batch: SequenceBatch) -> int:
    # The whole model gives logits at every token of a sequence, so that one sequence is the least.
    return max(1, at_most // batch.input_ids.shape[1])


def _make_logits(
    policy: LanguageModel, batch: SequenceBatch, positions: _Positions, sizes: list[int]
) -> list[MakeLogits]:
    """One function per chunk of positions that makes its logits, of `_chunk_sizes`."""
    if policy.architecture.has_separate_head:
        hidden = policy.hidden_states(batch, positions.row, positions.column)
        return [partial(policy.head, chunk) for chunk in hidden.split(sizes)]
    return [
        partial(_whole_model_logits, policy, batch, row, column)
        for row, column in zip(positions.row.split(sizes), positions.column.split(sizes), strict=True)
    ]


def _whole_model_logits(
    policy: LanguageModel, batch: SequenceBatch, row: Int[Tensor, " chunk"], column: Int[Tensor, " chunk"]
) -> Float[Tensor, "chunk vocabulary"]:
    first, last = (int(row[0]), int(row[-1])) if len(row) else (0, 0)
    sequences = SequenceBatch(*(tensor[first : last + 1] for tensor in batch))
    return policy.logits(sequences)[row - first, column]


def _sum_by_sequence(
    per_position: Float[Tensor, " positions"], positions: _Positions, batch: SequenceBatch
) -> Float[Tensor, " sequences"]:
    # Written into a grid and summed along its rows: adding up by index would be in no fixed order on CUDA.
    mask = batch.response_mask[:, 1:]
    grid = per_position.new_zeros(mask.shape).index_put((positions.row, positions.column), per_position)
    return sum_over_response(grid, mask)


def _in_batches(
    ranks: Ranks,
    lengths: Sequence[int] | Tensor,
    batch_size: int,
    score: Callable[[Tensor], Tensor],
    *,
    values: int,
) -> Float[Tensor, "values sequences"]:
    """`score` of all sequences on the CPU; it gets the indices of some and returns [values, indices].

    Ranks share the batches.
    """
    result = torch.zeros(values, len(lengths))
    for rows in ranks.mine(list(batches_by_length(lengths, ranks.batch_size(batch_size, len(lengths))))):
        result[:, rows] = score(rows).cpu()
    return ranks.total(result)


def _lengths(prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> list[int]:
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts but {len(responses)} responses")
    return [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]


def _collate_rows(
    policy: LanguageModel, prompts: Sequence[TokenIds], responses: Sequence[TokenIds], rows: Tensor
) -> SequenceBatch:
    chosen = rows.tolist()
    return collate(
        [prompts[i] for i in chosen], [responses[i] for i in chosen], pad_id=policy.pad_id, device=policy.device
    )
