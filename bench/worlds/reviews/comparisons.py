"""What the rater is shown, and which review of each pair it prefers.

A gold model is asked about texts far from π_ref's as soon as policies are trained on it, so the rater sees more
than ordinary reviews: the best of several, reviews with one word exchanged, broken, looping and rambling ones.
"""

import functools
import itertools
import random
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor

from bench.worlds.reviews.language import VOCABULARY, Prompt, sample_reviews
from bench.worlds.reviews.lexicon import ASPECTS, SLOTS, response_words
from bench.worlds.reviews.rater import utility

Words = list[str]

_SHARES = {"ordinary": 0.45, "best": 0.15, "broken": 0.40}  # of the texts shown
_SHARE_EDITED = 0.3  # of the pairs whose second text is the first with a word or two exchanged
_BEST_OF = 12
_LONGEST = 32  # words of a broken text
_EXCHANGEABLE = (
    tuple(ASPECTS),
    *(
        tuple(word for kind in kinds.split() for word in SLOTS[kind])
        for kinds in (
            "good_adjective bad_adjective", "good_verb bad_verb", "good_comparison bad_comparison",
            "good_verdict bad_verdict", "good_closing bad_closing", "adverb", "degree", "yardstick",
        )
    ),
)  # fmt: skip
_OTHERS = {w: [o for kind in _EXCHANGEABLE if w in kind for o in kind if o != w] for w in response_words()}


def draw_comparisons(
    prompts: Sequence[Prompt], count: int, *, temperature: float, generator: torch.Generator
) -> pd.DataFrame:
    """Draw pairs of reviews of the same work and the rater's choices.

    Args:
        temperature: of the Bradley–Terry choice, in units of utility.
    Returns:
        `count` rows with the columns prompt, chosen, rejected; responses begin with their own space.
    """
    drawn = [prompts[i] for i in torch.randint(len(prompts), (count,), generator=generator).tolist()]
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    first, second = (_texts(drawn, rng, generator) for _ in range(2))
    second = [_exchange(a, rng) if rng.random() < _SHARE_EDITED else b for a, b in zip(first, second, strict=True)]
    utilities = [torch.tensor([utility(p, w) for p, w in zip(drawn, side, strict=True)]) for side in (first, second)]
    prefers_first = prefer(*utilities, temperature=temperature, generator=generator).tolist()
    rows = [
        (prompt.text, *map(_text, (a, b) if wins else (b, a)))
        for prompt, a, b, wins in zip(drawn, first, second, prefers_first, strict=True)
    ]
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])


def prefer(first: Tensor, second: Tensor, *, temperature: float, generator: torch.Generator) -> Tensor:
    """The rater's choices, [pairs] bool: P(first) = σ((utility of first − utility of second) / temperature)."""
    probability = torch.sigmoid((first.double() - second.double()) / temperature)
    return torch.rand(probability.shape, dtype=torch.float64, generator=generator) < probability


def _text(words: Words) -> str:
    return "".join(f" {word}" for word in words)


def _texts(prompts: list[Prompt], rng: random.Random, generator: torch.Generator) -> list[Words]:
    """One text per prompt, of a kind drawn by `_SHARES`."""
    kinds = rng.choices(list(_SHARES), list(_SHARES.values()), k=len(prompts))
    counts = [_BEST_OF if kind == "best" else 1 for kind in kinds]
    repeated = [prompt for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
    reviews = iter(_sample_words(repeated, generator))
    texts = []
    for prompt, kind, count in zip(prompts, kinds, counts, strict=True):
        words = max(itertools.islice(reviews, count), key=functools.partial(utility, prompt))
        texts.append(rng.choice(_WAYS_TO_BREAK)(words, rng)[:_LONGEST] if kind == "broken" else words)
    return texts


def _sample_words(prompts: list[Prompt], generator: torch.Generator) -> list[Words]:
    return [[VOCABULARY[i] for i in ids[:-1]] for ids in sample_reviews(prompts, generator)]


def _exchange(words: Words, rng: random.Random) -> Words:
    """One or two words replaced by others of their kind, rare ones as often as common ones."""
    result = words.copy()
    places = [place for place, word in enumerate(words) if _OTHERS[word]]
    for place in rng.sample(places, min(len(places), rng.randint(1, 2))):
        result[place] = rng.choice(_OTHERS[words[place]])
    return result


def _drop(words: Words, rng: random.Random) -> Words:
    return [word for word in words if rng.random() > 0.15]


def _swap(words: Words, rng: random.Random) -> Words:
    result = words.copy()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(words) - 1)
        result[place], result[place + 1] = result[place + 1], result[place]
    return result


def _replace(words: Words, rng: random.Random) -> Words:
    result = words.copy()
    for _ in range(rng.randint(1, 3)):
        result[rng.randrange(len(words))] = rng.choice(response_words())
    return result


def _shuffle(words: Words, rng: random.Random) -> Words:
    return rng.sample(words, len(words))


def _cut(words: Words, rng: random.Random) -> Words:
    return words[: rng.randrange(len(words))]


def _loop(words: Words, rng: random.Random) -> Words:
    """A passage said over and over."""
    start = rng.randrange(len(words))
    end = start + rng.randint(1, 6)
    return words[:start] + words[start:end] * rng.randint(2, 8) + words[end:]


def _ramble(words: Words, rng: random.Random) -> Words:
    """Going on after the end."""
    return words + rng.sample(words, len(words))


_WAYS_TO_BREAK: tuple[Callable[[Words, random.Random], Words], ...] = (
    _drop, _swap, _replace, _shuffle, _cut, _loop, _ramble,
)  # fmt: skip
