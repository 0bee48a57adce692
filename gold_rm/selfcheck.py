"""Whether a reward model's score of a text is of that text alone, and how long a text may be."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Texts that it is tried on, in tokens.
_LENGTHS = (1, 3, 5, 12)
# By how much a score may move, relative to the largest; float32 rounding is a hundred times smaller.
_TOLERANCE = 1e-3


def why_dependent(
    score: Callable[[list[list[int]], int], Tensor], tokenizer: PreTrainedTokenizerBase, max_tokens: int | None
) -> str | None:
    """Why texts cannot be scored in batches, or None.

    Args:
        score: of token ids and a batch size.
    """
    words = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))[: _LENGTHS[-1]]
    texts = [text for length in _LENGTHS if (text := tokenizer.decode(words[-length:]))]
    encoded = [ids[:max_tokens] for ids in tokenizer(texts, verbose=False)["input_ids"]]
    try:
        together, alone = score(encoded, len(encoded)), score(encoded, 1)
    except Exception as error:  # whatever an architecture says that does not take such batches
        return f"scores no batch of texts ({(str(error).splitlines() or [''])[0]})"
    gap = float((together - alone).abs().max())
    if gap > _TOLERANCE * max(1.0, float(alone.abs().max())):
        return f"scores a text otherwise beside longer ones than alone, by {gap:.2g}: its scores would be of batches"
    return None


def longest_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Tokens that it can read; None without a limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # RoBERTa and its kin count positions from behind the padding token's.
    used = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings")
        and isinstance(module, torch.nn.Embedding)
        and module.padding_idx is not None
    ]
    # A tokenizer without a limit says so with a huge number.
    limits = [positions and positions - max(used, default=0), tokenizer.model_max_length]
    return min((limit for limit in limits if limit is not None and limit < 1_000_000_000), default=None)
