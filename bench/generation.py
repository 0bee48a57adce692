"""Sampling from a policy at temperature 1, without top-k or top-p (anything else would bias the KL)."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.policy import Policy
from bench.sequences import TokenIds, pad_left, require_tokens


@torch.no_grad()
def sample_responses(
    policy: Policy,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    generator: torch.Generator,
    batch_size: int,
) -> list[TokenIds]:
    """Draw one response per prompt.

    Args:
        prompts: token ids, one list per response wanted.
        max_new_tokens: responses longer than this are cut and have no EOS.
        generator: on the CPU, whatever the model's device, so that draws do not depend on the hardware's
            own generator.
    Returns:
        Token ids per prompt, EOS included where the response ended by itself.
    Raises:
        ValueError: a prompt has no tokens, or does not fit with its longest response into the model's positions.
    """
    require_tokens(prompts)
    positions = policy.context_length
    longest = max(map(len, prompts), default=0) + max_new_tokens
    if positions is not None and longest > positions:
        raise ValueError(f"prompt and response take up to {longest} tokens; the policy has {positions} positions")
    responses: list[TokenIds] = []
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        responses += _sample_batch(policy, batch, max_new_tokens, generator)
    return responses


def _sample_batch(
    policy: Policy, prompts: list[TokenIds], max_new_tokens: int, generator: torch.Generator
) -> list[TokenIds]:
    input_ids, mask = pad_left(prompts, pad_id=policy.pad_id, device=policy.device)
    cache: Any = None
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    columns: list[Tensor] = []
    lengths = torch.zeros(len(prompts), dtype=torch.int64)
    for _ in range(max_new_tokens):
        output = policy.model(**_inputs(policy, input_ids, mask, cache))
        cache = getattr(output, "cache", None)  # None where an architecture keeps none
        probabilities = output.logits[:, -1].float().softmax(-1).cpu()
        token = torch.multinomial(probabilities, 1, generator=generator)
        columns.append(token)
        lengths += ~ended
        ended |= token[:, 0] == policy.eos_id
        if ended.all():
            break
        token = token.to(policy.device)
        input_ids = token if cache is not None else torch.cat([input_ids, token], dim=1)
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
    tokens = torch.cat(columns, dim=1).tolist()
    return [row[:length] for row, length in zip(tokens, lengths.tolist(), strict=True)]


def _inputs(policy: Policy, input_ids: Tensor, mask: Tensor, cache: Any) -> dict[str, Any]:
    # Left padding must not shift positions: each row counts from its own first real token.
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
    optional = {"position_ids": positions, "use_cache": True, "cache": cache, "logits_to_keep": 1}
    accepted = inspect.signature(policy.model.forward).parameters
    chosen = {name: value for name, value in optional.items() if name in accepted}
    return {"input_ids": input_ids, "attention_mask": mask, **chosen}
