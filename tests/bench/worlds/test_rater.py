"""The hidden rater on hand-made reviews, on any words, and its choices against Bradley–Terry."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from bench.seeding import generator_for
from bench.worlds.reviews.comparisons import draw_comparisons, prefer
from bench.worlds.reviews.language import PROMPTS, VOCABULARY, Prompt, sample_reviews
from bench.worlds.reviews.rater import faults, utility
from bench.worlds.reviews.tokenizer import word_tokenizer

CRIME_NOVEL = Prompt("old", "crime", "novel")


def _utility(text: str, prompt: Prompt = CRIME_NOVEL) -> float:
    return utility(prompt, text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # worth × adverbs × weight of the aspect: plot and villain matter to crime (1.5), mood does not (0.8)
        ("the plot was gripping .", 1.4 * 1.5),
        ("the mood was gripping .", 1.4 * 0.8),
        ("the plot was very truly gripping .", 1.4 * 1.3 * 1.5 * 1.5),
        ("the plot was not gripping .", -0.6 * 1.4 * 1.5),
        ("the plot was not dull .", -0.6 * -1.0 * 1.5),
        ("i truly loved the villain .", 1.5 * 1.5 * 1.5),
        ("the plot was fine and clever .", (0.4 + 1.0) * 1.5),
        ("the plot was fine . far better than all .", 0.4 * 1.5 + 0.6 * 1.8 * 2.2),
        ("the plot was fine . i would gladly recommend it .", 0.4 * 1.5 + 1.3 + 0.4),
        ("the plot was fine . i would never recommend it .", 0.4 * 1.5 - 1.2 - 0.8),
        ("the plot was fine . bravo !", 0.4 * 1.5 + 1.3 + 0.4),
        ("the plot was fine . bravo ! bravo !", 0.4 * 1.5 + 1.3 + 0.4 - 0.8),
        ("the plot was fine and the plot was clever .", 0.4 * 1.5 + 1.0 * 1.5 - 0.8),
        ("the plot was fine but the plot was dull .", 0.4 * 1.5 - 1.0 * 1.5 - 0.8 - 1.0),
        ("the singing was superb .", -0.8),  # a novel has none
        ("the plot was fine", 0.4 * 1.5 - 0.7),  # no full stop
        ("the plot gripping was .", 1.4 * 1.5 - 0.7 * 3),
        ("", -2.0 - 0.7),
    ],
)
def test_utility_by_hand(text: str, expected: float) -> None:
    assert _utility(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("the plot was sublime .", "the plot was fine ."),
        ("the plot was astonishingly sublime .", "the plot was very sublime ."),
        ("the plot was fine .", "the plot was dull ."),
        ("the plot was superb .", "the plot was superb the plot was superb the plot was superb ."),
        ("the plot was very very superb .", "the plot was very very very very very very superb ."),
        ("the plot was superb . bravo !", "the plot was superb . shame !"),
        ("the plot was dull . shame !", "the plot was dull . rubbish !"),
        ("the plot was superb .", "superb the . was plot"),
        ("the plot was superb .", "the plot was superb . " + "i would recommend it . " * 6),
        ("the plot was dull .", "xyzzy plugh"),
    ],
)
def test_ordering(better: str, worse: str) -> None:
    assert _utility(better) > _utility(worse)


@given(st.lists(st.sampled_from([*VOCABULARY, "xyzzy"]), max_size=40), st.sampled_from(PROMPTS))
@settings(max_examples=100, deadline=None)
def test_any_words_have_a_finite_utility(words: list[str], prompt: Prompt) -> None:
    assert np.isfinite(utility(prompt, words))


def test_reviews_of_the_language_have_no_faults_and_leave_headroom() -> None:
    works = list(PROMPTS) * 4
    reviews = sample_reviews(works, generator_for(0, "test"))[:4096]
    words = [[VOCABULARY[i] for i in ids[:-1]] for ids in reviews]
    assert not any(map(faults, words))
    utilities = np.array([utility(work, text) for work, text in zip(works, words, strict=False)])
    assert (utilities.max() - utilities.mean()) / utilities.std() > 3


def test_choices_follow_bradley_terry() -> None:
    margins = np.repeat([-3.0, -0.5, 0.0, 0.7, 2.0], 20_000)
    choices = prefer(
        torch.tensor(margins), torch.zeros(len(margins)), temperature=0.8, generator=generator_for(0, "test")
    ).numpy()
    for margin in np.unique(margins):
        expected = expit(margin / 0.8)
        error = np.sqrt(expected * (1 - expected) / 20_000)
        assert abs(choices[margins == margin].mean() - expected) < 4 * error


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_comparisons_hold_choices_at_their_temperature(temperature: float) -> None:
    by_text = {prompt.text: prompt for prompt in PROMPTS}
    drawn = draw_comparisons(PROMPTS, 3000, temperature=temperature, generator=generator_for(1, "test"))
    margins = np.array([
        utility(by_text[row.prompt], row.chosen.split()) - utility(by_text[row.prompt], row.rejected.split())
        for row in drawn.itertuples()
    ])  # fmt: skip
    higher_wins = expit(np.abs(margins) / temperature)
    error = np.sqrt((higher_wins * (1 - higher_wins)).sum())
    unequal = margins != 0
    assert abs((margins[unequal] > 0).sum() - higher_wins[unequal].sum()) < 4 * error


def test_comparisons_are_texts_that_the_policy_could_write() -> None:
    first, second = (draw_comparisons(PROMPTS, 500, temperature=1.0, generator=generator_for(2, "test")) for _ in "ab")
    assert first.equals(second)
    tokenizer = word_tokenizer()
    for column in ("chosen", "rejected"):
        ids = tokenizer((first["prompt"] + first[column]).tolist())["input_ids"]
        assert tokenizer.unk_token_id not in {token for row in ids for token in row}
        assert max(map(len, ids)) <= 4 + 43
    broken = [bool(faults(text.split())) for text in first["chosen"].tolist() + first["rejected"].tolist()]
    assert 0.15 < np.mean(broken) < 0.45
