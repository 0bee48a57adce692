"""The grammar's automaton against brute-force enumeration of its rules, and samples against probabilities."""

import functools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from bench.seeding import generator_for
from bench.worlds.reviews import language, lexicon
from bench.worlds.reviews.grammar import TONES, Branch, State, branches, start_state
from bench.worlds.reviews.language import (
    EOS_ID,
    PROMPTS,
    VOCABULARY,
    WORD_IDS,
    Prompt,
    log_probabilities,
    sample_reviews,
)

PROMPT = Prompt("classic", "western", "album")
SHORT = 7  # tokens of the reviews that are enumerated


def _ids(text: str) -> list[int]:
    return [WORD_IDS[word] for word in text.split()]


@functools.cache
def _words(slot: str) -> dict[str, float]:
    """Distribution of a slot, straight from the lexicon."""
    if slot == "aspect":
        weights = language.aspect_weights(PROMPT.genre, PROMPT.medium)
    else:
        weights = {w: word.weight for w, word in lexicon.SLOTS.get(slot, {slot: lexicon.Word(1, 0)}).items()}
    return {word: weight / sum(weights.values()) for word, weight in weights.items()}


_branches = functools.cache(branches)


def _enumerate(state: State, probability: float, words: tuple[str, ...], found: dict[tuple[str, ...], float]) -> None:
    if words and words[-1] == lexicon.EOS:
        found[words] = found.get(words, 0.0) + probability
    elif len(words) < SHORT:
        for share, slot, following in _branches(state):
            for word, weight in _words(slot).items():
                _enumerate(following, probability * share * weight, (*words, word), found)


@pytest.fixture(scope="module")
def short_reviews() -> dict[tuple[str, ...], float]:
    """Probability of every review of at most SHORT tokens, by following the rules one by one."""
    weights = np.exp([0.5, 0.0, -0.5]) * [0.30, 0.40, 0.30]  # "classic" praises: lexicon.MODIFIERS
    found: dict[tuple[str, ...], float] = {}
    for tone, weight in zip(TONES, weights / weights.sum(), strict=True):
        _enumerate(start_state(tone), weight, (), found)
    return found


@pytest.fixture(scope="module")
def samples() -> list[list[int]]:
    return sample_reviews([PROMPT] * 40_000, generator_for(0, "test"))


def test_log_probabilities_are_those_of_the_rules(short_reviews: dict[tuple[str, ...], float]) -> None:
    ids = [[WORD_IDS[word] for word in words] for words in short_reviews]
    assert len(ids) > 3000
    np.testing.assert_allclose(
        log_probabilities([PROMPT] * len(ids), ids), np.log(list(short_reviews.values())), rtol=1e-9
    )


def test_probabilities_add_to_one_and_mean_length_is_exact(samples: list[list[int]]) -> None:
    table = language.automaton()
    tones = np.exp(language.tone_log_probabilities(PROMPT.modifier))
    mass = np.zeros(len(table.probabilities))
    mass[: len(TONES)] = tones
    ended, mean_length = 0.0, 0.0
    for step in range(1, 80):
        flow = mass[:, None] * table.probabilities
        mean_length += step * flow[:, EOS_ID].sum()
        ended += flow[:, EOS_ID].sum()
        mass = np.bincount(table.following[flow > 0], flow[flow > 0], minlength=len(mass))
    assert ended == pytest.approx(1.0, abs=1e-9)
    lengths = np.array(list(map(len, samples)))
    assert abs(lengths.mean() - mean_length) < 4 * lengths.std() / np.sqrt(len(lengths))


def test_samples_have_their_probabilities(
    samples: list[list[int]], short_reviews: dict[tuple[str, ...], float]
) -> None:
    counts = Counter(tuple(VOCABULARY[i] for i in ids) for ids in samples)
    assert {words for words in counts if len(words) <= SHORT} <= set(short_reviews)
    frequent = {words: p * len(samples) for words, p in short_reviews.items() if p * len(samples) >= 5}
    assert len(frequent) > 50
    observed = [*(counts[words] for words in frequent), len(samples) - sum(counts[words] for words in frequent)]
    expected = [*frequent.values(), len(samples) - sum(frequent.values())]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_sampling_is_deterministic_and_depends_on_the_seed() -> None:
    works = list(PROMPTS[:50])
    first, again, other = (sample_reviews(works, generator_for(seed, "test")) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    "text",
    [
        "the rhythm was superb .",  # no EOS
        "the rhythm superb was . <eos>",
        "the acting was superb . <eos>",  # an album has none
        "<eos>",
        "the rhythm was superb . <eos> <eos>",
        "the rhythm was <unk> . <eos>",
    ],
)
def test_other_texts_are_impossible(text: str) -> None:
    good = _ids("the rhythm was superb . <eos>")
    bad = _ids(text)
    both = log_probabilities([PROMPT, PROMPT], [good, bad])
    assert np.isfinite(both[0])
    assert both[1] == -np.inf


def test_prompt_matters() -> None:
    text = _ids("the mood was awful . <eos>")
    horror, space, cheap = log_probabilities(
        [Prompt("new", "horror", "film"), Prompt("new", "space", "film"), Prompt("cheap", "horror", "film")], [text] * 3
    )
    assert horror > space + 0.5  # horror is about mood
    assert cheap > horror + 0.1  # cheap works are panned


def test_ambiguous_rules_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def clash(state: State) -> list[Branch]:
        return [Branch(0.5, "the", state), Branch(0.5, "the", State("end", state.tone))]

    monkeypatch.setattr(language, "branches", clash)
    with pytest.raises(ValueError, match="'the' shares a word"):
        language.automaton.__wrapped__()


def test_rules_that_do_not_add_to_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "branches", lambda state: [Branch(0.9, "the", state)])
    with pytest.raises(ValueError, match=r"add to 0\.9, not 1"):
        language.automaton.__wrapped__()


def test_prompts_are_distinct_and_many() -> None:
    assert len({prompt.text for prompt in PROMPTS}) == len(PROMPTS) > 1000
