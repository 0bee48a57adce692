"""Sampling from a policy at temperature 1, without top-k or top-p (anything else would bias the KL)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.policies.language_model import LanguageModel
from bench.policies.tokens import TokenIds, pad_left, require_tokens


@torch.no_grad()
def sample_responses(
    policy: LanguageModel,
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
    policy: LanguageModel, prompts: list[TokenIds], max_new_tokens: int, generator: torch.Generator
) -> list[TokenIds]:
    input_ids, mask = pad_left(prompts, pad_id=policy.pad_id, device=policy.device)
    cache: Any = None
    responses: list[TokenIds] = [[] for _ in prompts]
    unfinished = torch.arange(len(prompts))  # the response that each row of the batch belongs to
    for _ in range(max_new_tokens):
        output = policy.model(**_inputs(policy, input_ids, mask, cache))
        cache = getattr(output, "cache", None)  # None where an architecture keeps none
        probabilities = output.logits[:, -1].float().softmax(-1).cpu()
        token = torch.multinomial(probabilities, 1, generator=generator)
        for row, drawn in zip(unfinished.tolist(), token[:, 0].tolist(), strict=True):
            responses[row].append(drawn)
        going_on = (token[:, 0] != policy.eos_id).nonzero()[:, 0]
        if len(going_on) == 0:
            break
        # Rows that have ended leave the batch: half of the work where most responses are much shorter than the longest.
        unfinished, kept = unfinished[going_on], going_on.to(policy.device)
        if cache is not None and len(kept) < len(token):
            cache.batch_select_indices(kept)
        token = token[going_on].to(policy.device)
        input_ids = token if cache is not None else torch.cat([input_ids[kept], token], dim=1)
        mask = torch.cat([mask[kept], torch.ones_like(token)], dim=1)
    return responses


def _inputs(policy: LanguageModel, input_ids: Tensor, mask: Tensor, cache: Any) -> dict[str, Any]:
    # Left padding must not shift positions: each row counts from its own first real token.
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
    optional = {"position_ids": positions, "use_cache": True, "cache": cache, "logits_to_keep": 1}
    chosen = {name: value for name, value in optional.items() if name in policy.architecture.options}
    return {"input_ids": input_ids, "attention_mask": mask, **chosen}
