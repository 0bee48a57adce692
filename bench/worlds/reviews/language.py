"""The review language as a probabilistic automaton: exact sampling and exact log-probabilities.

The rules of ``grammar`` are unfolded once into tables [states, symbols]. A symbol is a word, or stands for all
aspects, which alone depend on the prompt's genre and medium. Given the tone the words determine the path, so
log p(review | prompt) is a sum over as many paths as there are tones.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.worlds.reviews import lexicon
from bench.worlds.reviews.grammar import TONES, branches, start_state
from bench.worlds.reviews.lexicon import EOS, GENRES, MEDIA, MODIFIERS, PAD, PROMPT_END, UNK, Word

# Tokens of the language in id order. Modifiers begin a text; every other word brings the space before it.
VOCABULARY = (PAD, EOS, UNK, *MODIFIERS, *GENRES, *MEDIA, PROMPT_END, *lexicon.response_words())
WORD_IDS = {word: index for index, word in enumerate(VOCABULARY)}
PAD_ID, EOS_ID, UNK_ID = WORD_IDS[PAD], WORD_IDS[EOS], WORD_IDS[UNK]
_IS_ASPECT = np.array([word in lexicon.ASPECTS for word in VOCABULARY])
_ASPECT = len(VOCABULARY)  # the symbol that stands for every aspect
_TONE_ODDS = np.log([0.30, 0.40, 0.30])  # before the modifier: praise, mixed, panning
_GENRE_FOCUS = 3.0  # how much oftener reviewers name the aspects that matter to the genre


class Prompt(NamedTuple):
    """What a prompt says, such as "old crime novel :"."""

    modifier: str
    genre: str
    medium: str

    @property
    def text(self) -> str:
        return f"{self.modifier} {self.genre} {self.medium} {PROMPT_END}"


PROMPTS = tuple(Prompt(modifier, genre, medium) for modifier in MODIFIERS for genre in GENRES for medium in MEDIA)
_CONTEXTS = {pair: index for index, pair in enumerate((genre, medium) for genre in GENRES for medium in MEDIA)}


def aspect_weights(genre: str, medium: str) -> dict[str, float]:
    """Relative frequency of the aspects that a review of such a work names."""
    aspects = MEDIA[medium].split()
    falling = np.linspace(2.0, 1.0, len(aspects))
    focus = GENRES[genre].split()
    return {a: w * (_GENRE_FOCUS if a in focus else 1.0) for a, w in zip(aspects, falling.tolist(), strict=True)}


@functools.lru_cache(maxsize=1)
def _aspect_probabilities() -> NDArray[np.float64]:
    """Of every aspect where an aspect stands, and 1 for other words, [contexts, words]."""
    result = np.ones((len(_CONTEXTS), len(VOCABULARY)))
    result[:, _IS_ASPECT] = 0.0
    for (genre, medium), context in _CONTEXTS.items():
        weights = aspect_weights(genre, medium)
        for aspect, weight in weights.items():
            result[context, WORD_IDS[aspect]] = weight / sum(weights.values())
    return result


def _slot(name: str) -> dict[int, float]:
    """Distribution over the symbols of a kind of words; other names are words themselves."""
    if name == "aspect":
        return {_ASPECT: 1.0}
    words = lexicon.SLOTS.get(name, {name: Word(1.0, 0.0)})
    total = sum(word.weight for word in words.values())
    return {WORD_IDS[text]: word.weight / total for text, word in words.items()}


class Automaton(NamedTuple):
    """The unfolded grammar; its first states are those of the tones.

    Shapes:
        probabilities: [states, symbols] of the next symbol.
        following: [states, symbols], the state after it; −1 where the symbol is not possible.
    """

    probabilities: NDArray[np.float64]
    following: NDArray[np.int64]


@functools.lru_cache(maxsize=1)
def automaton() -> Automaton:
    """Unfold the grammar.

    Raises:
        ValueError: a rule's probabilities do not add to one, or two of its branches share a word.
    """
    states = [start_state(tone) for tone in TONES]
    numbers = {state: number for number, state in enumerate(states)}
    rows, targets = [], []
    for state in states:  # grows while it is walked
        row, target = np.zeros(_ASPECT + 1), np.full(_ASPECT + 1, -1)
        for probability, slot, following in branches(state):
            if following not in numbers:
                numbers[following] = len(states)
                states.append(following)
            for symbol, share in _slot(slot).items():
                if target[symbol] >= 0:
                    raise ValueError(f"in {state} the branch {slot!r} shares a word with another branch")
                row[symbol], target[symbol] = probability * share, numbers[following]
        if state.node != "end" and not np.isclose(row.sum(), 1.0):
            raise ValueError(f"in {state} the probabilities add to {row.sum()}, not 1")
        rows.append(row)
        targets.append(target)
    return Automaton(np.stack(rows), np.stack(targets))


def tone_log_probabilities(modifier: str) -> NDArray[np.float64]:
    """log p(tone | prompt), [tones]: praise, mixed, panning."""
    odds = _TONE_ODDS + MODIFIERS[modifier] * np.array([1.0, 0.0, -1.0])
    return odds - np.logaddexp.reduce(odds)


def _describe(prompts: list[Prompt]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Context of every prompt, [prompts], and its log p(tone), [prompts, tones]."""
    contexts = np.array([_CONTEXTS[prompt.genre, prompt.medium] for prompt in prompts], dtype=np.int64)
    by_modifier = {modifier: tone_log_probabilities(modifier) for modifier in MODIFIERS}
    return contexts, np.array([by_modifier[prompt.modifier] for prompt in prompts])


class _Sampler:
    """Inverse-CDF draws from the rows of a matrix, many rows at once: row r occupies the interval (r, r + 1]."""

    def __init__(self, probabilities: NDArray[np.float64]) -> None:
        rows, self._columns = probabilities.nonzero()
        cumulative = probabilities.cumsum(-1) / probabilities.sum(-1, keepdims=True).clip(min=1e-300)
        self._edges = cumulative[rows, self._columns] + rows

    def draw(self, rows: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
        uniform = torch.rand(len(rows), dtype=torch.float64, generator=generator).numpy()
        # The last edge of a row may lie a rounding error below r + 1: stay inside.
        position = np.searchsorted(self._edges, rows + uniform.clip(1e-9, 1 - 1e-9))
        return self._columns[position]


@functools.lru_cache(maxsize=1)
def _samplers() -> tuple[_Sampler, _Sampler]:
    aspects = np.where(_IS_ASPECT, _aspect_probabilities(), 0.0)
    return _Sampler(automaton().probabilities), _Sampler(aspects)


def sample_reviews(prompts: list[Prompt], generator: torch.Generator) -> list[list[int]]:
    """One review per prompt as token ids, EOS included; random numbers from `generator` alone."""
    symbols, aspects = _samplers()
    contexts, log_tones = _describe(prompts)
    rows = np.arange(len(prompts))
    state = _Sampler(np.exp(log_tones)).draw(rows, generator)
    reviews: list[list[int]] = [[] for _ in prompts]
    while rows.size:
        symbol = symbols.draw(state[rows], generator)
        state[rows] = automaton().following[state[rows], symbol]
        is_aspect = symbol == _ASPECT
        word = symbol.copy()
        word[is_aspect] = aspects.draw(contexts[rows[is_aspect]], generator)
        for row, word_id in zip(rows.tolist(), word.tolist(), strict=True):
            reviews[row].append(word_id)
        rows = rows[word != EOS_ID]
    return reviews


def log_probabilities(prompts: list[Prompt], reviews: list[list[int]]) -> NDArray[np.float64]:
    """log p(review | prompt) in nats, [reviews]; −∞ where the grammar does not allow the words.

    Args:
        reviews: token ids, EOS included; without it a review is unfinished and has probability 0.
    """
    contexts, total = _describe(prompts)
    states = np.tile(np.arange(len(TONES)), (len(prompts), 1))
    with np.errstate(divide="ignore"):
        log_symbol = np.log(automaton().probabilities)
        log_aspect = np.log(_aspect_probabilities())
    for word in pad_reviews(reviews).T:
        symbol = np.where(_IS_ASPECT[word], _ASPECT, word)[:, None]
        inside = (word != PAD_ID)[:, None]
        # A path that has died (state −1) has a total of −∞ already, whatever is added.
        total = total + np.where(inside, log_symbol[states, symbol] + log_aspect[contexts, word][:, None], 0.0)
        states = np.where(inside, automaton().following[states, symbol], states)
    ended = np.array([bool(review) and review[-1] == EOS_ID for review in reviews])
    return np.where(ended, np.logaddexp.reduce(total, axis=-1), -np.inf)


def pad_reviews(reviews: list[list[int]]) -> NDArray[np.int64]:
    """Right-padded token ids, [reviews, tokens]."""
    result = np.full((len(reviews), max(map(len, reviews), default=0)), PAD_ID, dtype=np.int64)
    for row, review in zip(result, reviews, strict=True):
        row[: len(review)] = review
    return result


@functools.lru_cache(maxsize=1)
def possible_bigrams() -> frozenset[tuple[str, str]]:
    """Words that may follow each other in some text, from the prompt's end to EOS."""
    words_of = {_ASPECT: lexicon.ASPECTS} | {index: (word,) for index, word in enumerate(VOCABULARY)}
    possible = [row.nonzero()[0].tolist() for row in automaton().probabilities]
    pairs = {(WORD_IDS[PROMPT_END], symbol) for tone in range(len(TONES)) for symbol in possible[tone]}
    for symbols, following in zip(possible, automaton().following.tolist(), strict=True):
        pairs.update((first, second) for first in symbols for second in possible[following[first]])
    return frozenset((a, b) for first, second in pairs for a in words_of[first] for b in words_of[second])
