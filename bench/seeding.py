"""Random numbers derived from a seed and a purpose, so that no two purposes share a stream."""

import hashlib

import torch
from jaxtyping import Float64
from torch import Tensor


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for `purpose`, such as ``("evaluation", step)``; the same arguments give the same draws.

    >>> a, b = generator_for(0, "order"), generator_for(0, "evaluation", 12)
    >>> a.initial_seed() == generator_for(0, "order").initial_seed(), a.initial_seed() == b.initial_seed()
    (True, False)
    """
    label = "/".join(map(str, (*purpose, seed)))
    digest = hashlib.sha256(label.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def uniforms_for(seed: int, *purpose: str | int, count: int, tokens: int) -> Float64[Tensor, "responses tokens"]:
    """One number in [0, 1) per response and position, on the CPU: what `Policy.sample` turns into tokens.

    Drawn before anything is sampled, so that a response depends on seed, purpose, place and prompt alone, not on the
    batch, the worker or the device; the first rows are the same whatever `count` is.

    >>> few, many = (uniforms_for(0, "evaluation", 12, count=count, tokens=4) for count in (2, 9))
    >>> torch.equal(few, many[:2])
    True
    """
    return draw_uniforms(count, tokens, generator_for(seed, *purpose))


def draw_uniforms(count: int, tokens: int, generator: torch.Generator) -> Float64[Tensor, "responses tokens"]:
    """The same from a generator that is at hand."""
    return torch.rand(count, tokens, dtype=torch.float64, generator=generator)
