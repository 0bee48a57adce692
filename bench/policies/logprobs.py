"""Log-probabilities of tokens, and the one place where token values become a number per response."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, where


def token_logprobs(
    logits: Float[Tensor, "positions vocabulary"], targets: Int[Tensor, " positions"]
) -> Float[Tensor, " positions"]:
    """Log-probability of every target token, in nats."""
    return logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def sum_over_response(
    per_token: Float[Tensor, "sequences tokens"], mask: Bool[Tensor, "sequences tokens"]
) -> Float[Tensor, " sequences"]:
    """Sum over response tokens, EOS included (GPO sums; it does not average).

    `torch.where` rather than a product: 0 · ∞ at a padded position must not become NaN.

    Args:
        mask: True where a token belongs to the response.
    """
    return where(mask, per_token, 0.0).sum(-1)
