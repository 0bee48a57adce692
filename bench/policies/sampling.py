"""Sampling from a policy at temperature 1, without top-k or top-p (anything else would bias the KL)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bench.policies.language_model import LanguageModel
from bench.policies.tokens import TokenIds, pad_left, require_tokens

Choose = Callable[[Tensor, Sequence[int], int], Tensor]


@torch.no_grad()
def sample_responses(
    policy: LanguageModel,
    prompts: Sequence[TokenIds],
    *,
    uniforms: Float64[Tensor, "responses tokens"],
    batch_size: int,
) -> list[TokenIds]:
    """Draw one response per prompt by the inverse CDF of each next-token distribution.

    A response depends on its prompt and its row of `uniforms` only: batch size, order and device move it by rounding.

    Args:
        prompts: token ids, one list per response wanted.
        uniforms: in [0, 1), on the CPU, a row per prompt; a response longer than a row is cut and has no EOS.
        batch_size: prompts at once.
    Returns:
        Token ids per prompt, EOS included where the response ended by itself.
    Raises:
        ValueError: a prompt has no tokens, or does not fit with its longest response into the model's positions;
            or `uniforms` has not one row per prompt.
    """
    require_tokens(prompts)
    if len(uniforms) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts but {len(uniforms)} rows of uniforms")
    max_new_tokens = uniforms.shape[1]
    positions = policy.context_length
    longest = max(map(len, prompts), default=0) + max_new_tokens
    if positions is not None and longest > positions:
        raise ValueError(f"prompt and response take up to {longest} tokens; the policy has {positions} positions")
    batch_size = policy.ranks.batch_size(batch_size, len(prompts))
    drawn: dict[int, list[TokenIds]] = {}
    for start in policy.ranks.mine(range(0, len(prompts), batch_size)):
        batch = list(prompts[start : start + batch_size])
        drawn_with = uniforms[start : start + batch_size].to(policy.device)
        drawn[start] = generate(policy, batch, partial(_draw, drawn_with), max_new_tokens)
    batches = {start: batch for each in policy.ranks.gather(drawn) for start, batch in each.items()}
    return [response for start in sorted(batches) for response in batches[start]]


def _draw(uniforms: Float64[Tensor, "responses tokens"], logits: Tensor, rows: Sequence[int], position: int) -> Tensor:
    going_on = uniforms if len(rows) == len(uniforms) else uniforms[torch.tensor(rows, device=uniforms.device)]
    return draw_tokens(logits, going_on[:, position])


def generate(policy: LanguageModel, prompts: list[TokenIds], choose: Choose, max_new_tokens: int) -> list[TokenIds]:
    """Responses to one batch of prompts, token by token, until each has ended or has `max_new_tokens`.

    Args:
        choose: the next token of each row, from the logits [rows, vocabulary], which prompts these rows belong to,
            and the position in the response; that of a response that has ended is not taken.
    """
    input_ids, mask = pad_left(prompts, pad_id=policy.pad_id, device=policy.device)
    cache: Any = None
    responses: list[TokenIds] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the response that each row of the batch belongs to
    ended = [False] * len(prompts)
    for position in range(max_new_tokens):
        output = policy.model(**_inputs(policy, input_ids, mask, cache))
        cache = getattr(output, "cache", None)  # None where an architecture keeps none
        token = choose(output.logits[:, -1, : policy.vocabulary], rows, position)
        for row, each in zip(rows, token.tolist(), strict=True):  # the step's one transfer from the device
            if not ended[row]:
                responses[row].append(each)
                ended[row] = policy.has_ended(responses[row])
        going_on = [place for place, row in enumerate(rows) if not ended[row]]
        if not going_on:
            break
        # Rows that have ended leave the batch: half of the work where most responses are much shorter than the longest.
        if len(going_on) < len(rows) and _can_select(cache):
            rows = [rows[place] for place in going_on]
            kept = torch.tensor(going_on, device=policy.device)
            token, mask, input_ids = (each[kept] for each in (token, mask, input_ids))
            if cache is not None:
                cache.batch_select_indices(kept)
        token = token[:, None]
        input_ids = token if cache is not None else torch.cat([input_ids, token], dim=1)
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
    return responses


def _can_select(cache: Any) -> bool:
    """Whether rows can be taken out of a cache; states of recurrent layers stay, and their rows with them."""
    layers = getattr(cache, "layers", [])
    if any(hasattr(layer, "update_recurrent_state") for layer in layers):  # of hybrid ones, attention alone would go
        return False
    return cache is None or all(hasattr(part, "batch_select_indices") for part in (cache, *layers))


def draw_tokens(
    logits: Float[Tensor, "responses vocabulary"], uniforms: Float64[Tensor, " responses"]
) -> Int64[Tensor, " responses"]:
    """The token at which each row's cumulative probability passes its uniform; never one of probability 0.

    In float64: in float32 the sum over 50,000 tokens is off by more than a rare token's probability.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    reached = uniforms[:, None] * cumulative[:, -1:]  # the sum is 1 only up to rounding
    return torch.searchsorted(cumulative, reached, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _inputs(policy: LanguageModel, input_ids: Tensor, mask: Tensor, cache: Any) -> dict[str, Any]:
    # Left padding must not shift positions: each row counts from its own first real token.
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
    optional = {"position_ids": positions, "use_cache": True, "cache": cache, "logits_to_keep": 1}
    chosen = {name: value for name, value in optional.items() if name in policy.architecture.options}
    return {"input_ids": input_ids, "attention_mask": mask, **chosen}
