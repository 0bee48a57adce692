"""Whether a policy is sampled from the distribution that it is scored by, found out when it is loaded.

A wrong cache, a mask that is not read, or a state that goes to another row gives samples of another distribution, in
silence: the KL at step 0 is 0 all the same, as it is scored by one computation for both policies.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.checked import ConfigError
from bench.policies.language_model import LanguageModel
from bench.policies.sampling import generate
from bench.policies.scoring import logprobs
from bench.policies.tokens import TokenIds

# In float32, rounding is a hundred times smaller.
TOLERANCE_NATS = 1e-3
# In bfloat16, the limit is 2 × 2⁻⁷ of the largest logit. A log-prob is the difference of two numbers as large as that,
# each of which a computation rounds by up to 2⁻⁹ of it: two computations part by up to 4 × 2⁻⁹ = 2⁻⁷ by what the
# head rounds alone, and as much again is left to the layers before it.
_ROUNDINGS = 2
_PROMPT_TOKENS = 6
_NEW_TOKENS = 4


@torch.no_grad()
def check_sampler(name: str, policy: LanguageModel) -> None:
    """Sample in a batch of prompts of unequal lengths, one of which ends early, and score each alone without padding.

    Args:
        name: of the policy, for messages.
    Raises:
        ConfigError: sampler or scorer are further from the plain forward pass than `TOLERANCE_NATS` (or, in bfloat16,
            than its rounding), or fail.
    """
    kind = type(policy.model).__name__
    try:
        sampled, scored, limit = _deviations(policy)
    except Exception as error:  # whatever an architecture says that does not take such batches
        told = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"policy {name}: {kind} cannot be sampled in batches ({type(error).__name__}: {told})"
        ) from error
    for what, nats in (("sampled", sampled), ("scored", scored)):
        if not nats <= limit:
            raise ConfigError(
                f"policy {name}: {kind}, {what} beside other prompts, gives other predictions than alone, by "
                f"{nats:.2g} nats (limit {limit:.2g}): its samples would not be of the policy that is scored"
            )


def _deviations(policy: LanguageModel) -> tuple[float, float, float]:
    """Largest deviation in nats of the sampler's log-probs of drawn tokens, of the scorer's sums, and their limit."""
    prompts, responses = _texts(policy)
    seen: list[list[float]] = [[] for _ in prompts]

    def force(logits: Tensor, rows: Sequence[int], position: int) -> Tensor:
        words = [(responses[row] + [policy.eos_id] * position)[position] for row in rows]
        tokens = torch.tensor(words, device=logits.device)
        logps = logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0].tolist()
        for row, logp in zip(rows, logps, strict=True):
            if position < len(responses[row]):  # what follows an end is not taken
                seen[row].append(logp)
        return tokens

    generate(policy, prompts, force, max(map(len, responses)))
    alone, largest = zip(*(_alone(policy, *pair) for pair in zip(prompts, responses, strict=True)), strict=True)
    limit = max(TOLERANCE_NATS, _ROUNDINGS * torch.finfo(policy.model.dtype).eps * max(largest))
    sampled = max(_gap(torch.tensor(ours), theirs) for ours, theirs in zip(seen, alone, strict=True))
    sums = torch.stack([each.sum() for each in alone])
    return sampled, _gap(logprobs(policy, prompts, responses), sums), limit


def _texts(policy: LanguageModel) -> tuple[list[TokenIds], list[TokenIds]]:
    """Prompts of unequal lengths and a response to each; the second ends at once, the third a little later."""
    positions = policy.context_length or _PROMPT_TOKENS + _NEW_TOKENS
    new = min(_NEW_TOKENS, positions - 1)
    if new < 1:
        raise ValueError(f"it has {positions} positions, too few for a prompt and a response")
    longest = min(_PROMPT_TOKENS, positions - new)
    # Low ids are often special tokens: ids from the middle on, the same on every machine.
    every = [(policy.vocabulary // 2 + place) % policy.vocabulary for place in range(min(64, policy.vocabulary))]
    words = [token for token in every if not policy.ends(token) and token != policy.pad_id] or every
    draw = iter(words[place % len(words)] for place in range(10_000))
    lengths = (1, longest, (longest + 1) // 2, longest)
    prompts = [[next(draw) for _ in range(length)] for length in lengths]
    responses = [[next(draw) for _ in range(new)] for _ in lengths]
    responses[1] = [policy.eos_id]
    responses[2] = [*responses[2][: new // 2], policy.eos_id]
    return prompts, responses


def _alone(policy: LanguageModel, prompt: TokenIds, response: TokenIds) -> tuple[Tensor, float]:
    """log-probs of the response's tokens from one pass without padding, float32 on the CPU; the largest logit."""
    ids = torch.tensor([[*prompt, *response]], device=policy.device)
    logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1, : policy.vocabulary].float()
    logps = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0].cpu()
    return logps, float(logits.abs().nan_to_num(posinf=0).max())  # −∞ bans a token


def _gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())
