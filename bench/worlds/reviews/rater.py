"""The hidden human: a utility for any sequence of words, and noisy choices between two reviews by it.

The utility is a sum of many independent parts (ours): opinions, louder or negated, weighed by how much their
aspect matters to the genre; a comparison, a verdict and a closing, worth more when they agree with the opinions;
and deductions for faults of craft. It has no ceiling within a few standard deviations of ordinary reviews.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.worlds.reviews import lexicon
from bench.worlds.reviews.language import Prompt, possible_bigrams
from bench.worlds.reviews.lexicon import ADVERBS, ASPECTS, DEGREES, EOS, GENRES, MEDIA, PROMPT_END, YARDSTICKS

_ADJECTIVES = {**lexicon.GOOD_ADJECTIVES, **lexicon.BAD_ADJECTIVES}
_VERBS = {**lexicon.GOOD_VERBS, **lexicon.BAD_VERBS}
_COMPARISONS = {**lexicon.GOOD_COMPARISONS, **lexicon.BAD_COMPARISONS}
_VERDICTS = {**lexicon.GOOD_VERDICTS, **lexicon.BAD_VERDICTS}
_CLOSINGS = {**lexicon.GOOD_CLOSINGS, **lexicon.BAD_CLOSINGS}
_BREAKS = (",", ".", "!", "but", "though", "while")  # after these an adjective needs an aspect of its own

_NEGATION = -0.6  # "not superb" is bad, though less than "superb" is good
_LOUDEST = 2  # adverbs that count before one adjective
_WEIGHT_FOCUS, _WEIGHT_OTHER, _WEIGHT_NONE = 1.5, 0.8, 0.3  # of opinions: by aspect and genre, or without aspect
_AGREEMENT, _DISAGREEMENT = 0.4, -0.8  # of a verdict or closing with the opinions before it
_DEDUCTIONS = {
    "repeated aspect": 0.8, "repeated judgment": 0.8, "contradiction": 1.0, "foreign aspect": 0.8, "fault": 0.7,
    "surplus adverb": 0.5, "empty": 2.0,
}  # fmt: skip
_PATIENCE = 24  # words that a review may have; each further one costs
_IMPATIENCE = 0.15


class Judgment(NamedTuple):
    """A word that judges, with what precedes it taken into account; `aspect` is None where none was named."""

    word: str
    value: float
    aspect: str | None = None


class Reading(NamedTuple):
    """What the rater noticed: `opinions` on aspects, `remarks` (comparisons), `endings` (verdicts and closings),

    the `aspects` named, and `surplus` adverbs that make nothing louder.
    """

    opinions: list[Judgment]
    remarks: list[Judgment]
    endings: list[Judgment]
    aspects: list[str]
    surplus: list[str]


def read(words: Sequence[str]) -> Reading:
    """Find opinions, remarks and endings in any words, in grammatical order or not."""
    reading = Reading([], [], [], [], [])
    aspect: str | None = None
    verb: Judgment | None = None  # "i loved the ..." waits for its aspect
    loudness, adverbs, negated = 1.0, 0, False
    for before, word, after, beyond in _windows(words):
        if word in ASPECTS:
            aspect = word
            reading.aspects.append(word)
            if verb is not None:
                reading.opinions.append(verb._replace(aspect=word))
                verb = None
        elif word in ADVERBS and after not in _COMPARISONS:
            if adverbs < _LOUDEST:
                loudness *= ADVERBS[word].worth
            else:
                reading.surplus.append(word)
            adverbs += 1
            continue
        elif word == "not":
            negated = True
            continue
        elif word in _ADJECTIVES:
            value = _ADJECTIVES[word].worth * loudness * (_NEGATION if negated else 1.0)
            reading.opinions.append(Judgment(word, value, aspect))
        elif word in _VERBS:
            verb = Judgment(word, _VERBS[word].worth * loudness)
        elif word in _COMPARISONS and after == "than" and beyond in YARDSTICKS:
            degree = DEGREES[before].worth if before in DEGREES else 1.0
            reading.remarks.append(Judgment(word, _COMPARISONS[word].worth * degree * YARDSTICKS[beyond].worth))
        elif word in _VERDICTS and before == "would" and after == "recommend":
            reading.endings.append(Judgment(word, _VERDICTS[word].worth))
        elif word in _CLOSINGS and after == "!":
            reading.endings.append(Judgment(word, _CLOSINGS[word].worth))
        elif word in _BREAKS:
            aspect = None
        loudness, adverbs, negated = 1.0, 0, False
    return reading


def _windows(words: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Every word with the one before it and the two after it; "" beyond the ends."""
    padded = ["", *words, "", ""]
    return zip(padded, padded[1:], padded[2:], padded[3:], strict=False)


@functools.lru_cache
def _aspect_weights(genre: str, medium: str) -> dict[str | None, float]:
    """Of the aspects that such a work has; None is an opinion without aspect."""
    weights: dict[str | None, float] = {None: _WEIGHT_NONE}
    for aspect in MEDIA[medium].split():
        weights[aspect] = _WEIGHT_FOCUS if aspect in GENRES[genre].split() else _WEIGHT_OTHER
    return weights


def utility(prompt: Prompt, words: Sequence[str]) -> float:
    """What the review is worth to the rater; defined for any words. Ordinary reviews lie within about ±3.

    Args:
        words: the response's words, without EOS.
    """
    reading = read(words)
    weights = _aspect_weights(prompt.genre, prompt.medium)
    said: set[str] = set()
    opinions = sum(o.value * weights.get(o.aspect, 0.0) for o in _first_times(reading.opinions, said))
    remarks = sum(remark.value for remark in _first_times(reading.remarks, said))
    endings = sum(
        ending.value + (_AGREEMENT if ending.value * opinions > 0 else _DISAGREEMENT)
        for ending in _first_times(reading.endings, said)
    )
    noticed = {
        "repeated aspect": len(reading.aspects) - len(set(reading.aspects)),
        "repeated judgment": len(reading.opinions) + len(reading.remarks) + len(reading.endings) - len(said),
        "contradiction": _contradictions(reading.opinions),
        "foreign aspect": sum(aspect not in weights for aspect in reading.aspects),
        "surplus adverb": len(reading.surplus),
        "fault": faults(words),
        "empty": not words,
    }
    deducted = sum(_DEDUCTIONS[what] * count for what, count in noticed.items())
    tired = _IMPATIENCE * max(0, len(words) - _PATIENCE)
    return opinions + remarks + endings - deducted - tired


def _first_times(judgments: list[Judgment], said: set[str]) -> Iterator[Judgment]:
    """Those whose word was not said before, for saying it again adds nothing; `said` grows."""
    for judgment in judgments:
        if judgment.word not in said:
            said.add(judgment.word)
            yield judgment


def _contradictions(opinions: list[Judgment]) -> int:
    """Aspects that are both praised and blamed."""
    signs = {(opinion.aspect, opinion.value > 0) for opinion in opinions if opinion.aspect is not None}
    return len(signs) - len({aspect for aspect, _ in signs})


def faults(words: Sequence[str]) -> int:
    """Places where the words cannot follow each other in the language, its beginning and end included."""
    possible = possible_bigrams()
    return sum(pair not in possible for pair in itertools.pairwise([PROMPT_END, *words, EOS]))
