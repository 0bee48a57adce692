"""Log-probabilities of responses: the one place where token log-probs become a number per response."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.policies.tokens import SequenceBatch


class NextTokenLogits(NamedTuple):
    """Predictions of the tokens after the first, aligned with what they predict.

    Shapes:
        logits: [sequences, tokens − 1, vocabulary] float32.
        targets: [sequences, tokens − 1] int64, the tokens predicted.
        mask: [sequences, tokens − 1] bool, True where the target is a response token, EOS included.
    """

    logits: Tensor
    targets: Tensor
    mask: Tensor


def next_token_logits(model: PreTrainedModel, batch: SequenceBatch) -> NextTokenLogits:
    """Full forward pass over a right-padded batch."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return NextTokenLogits(output.logits[:, :-1].float(), batch.input_ids[:, 1:], batch.response_mask[:, 1:])


def token_logprobs(predictions: NextTokenLogits) -> Tensor:
    """Log-probability of every target token, [sequences, tokens − 1], in nats; prompt and padding are not masked."""
    chosen = predictions.logits.gather(-1, predictions.targets.unsqueeze(-1)).squeeze(-1)
    return chosen - predictions.logits.logsumexp(-1)


def sum_over_response(per_token: Tensor, mask: Tensor) -> Tensor:
    """Sum over response tokens (GPO sums; it does not average), [sequences].

    `torch.where` rather than a product: 0 · ∞ at a padded position must not become NaN.
    """
    return torch.where(mask, per_token, 0.0).sum(-1)


def response_logprobs(model: PreTrainedModel, batch: SequenceBatch) -> Tensor:
    """log π(response | prompt) in nats, summed over response tokens and EOS, [sequences]."""
    predictions = next_token_logits(model, batch)
    return sum_over_response(token_logprobs(predictions), predictions.mask)
