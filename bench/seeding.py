"""Random generators derived from a seed and a purpose, so that no two purposes share a stream."""

import hashlib

import torch


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for `purpose`, such as ``("evaluation", step)``; the same arguments give the same draws.

    >>> a, b = generator_for(0, "order"), generator_for(0, "evaluation", 12)
    >>> a.initial_seed() == generator_for(0, "order").initial_seed(), a.initial_seed() == b.initial_seed()
    (True, False)
    """
    label = "/".join(map(str, (*purpose, seed)))
    digest = hashlib.sha256(label.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
