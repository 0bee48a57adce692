import numpy as np
import pytest
import torch
from scipy import stats

from gold_rm.labeling import label_pairs

PAIRS = 20_000
SETTINGS = {"rule": "bradley_terry", "temperature": 1.0, "flip_rate": 0.0}


def label(gold_a, gold_b, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return label_pairs(
        torch.as_tensor(gold_a), torch.as_tensor(gold_b), generator=generator, **{**SETTINGS, **settings}
    )


def constant_pairs(a: float, b: float, **settings):
    return label([a] * PAIRS, [b] * PAIRS, **settings)


def assert_share(events: torch.Tensor, probability: float):
    """Exact binomial test; a wrong probability by 0.03 fails it practically always at this size."""
    assert stats.binomtest(int(events.sum()), len(events), probability).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("flip_rate", [0.0, 0.2])
@pytest.mark.parametrize("margin", [-1.5, 0.4, 0.0])
def test_bradley_terry_labels_follow_their_probability(margin, flip_rate, temperature):
    labels = constant_pairs(margin, 0.0, temperature=temperature, flip_rate=flip_rate)
    p = 1 / (1 + np.exp(-margin / temperature))
    prefers_a = p * (1 - flip_rate) + (1 - p) * flip_rate
    assert_share(labels.prefer_a, prefers_a)
    assert_share(labels.flipped, flip_rate)
    np.testing.assert_allclose(labels.label_probability, max(prefers_a, 1 - prefers_a))


@pytest.mark.parametrize("flip_rate", [0.0, 0.3])
def test_deterministic_labels_are_wrong_only_where_flipped(flip_rate):
    gold = torch.randn(2, PAIRS, generator=torch.Generator().manual_seed(1))
    labels = label(*gold, rule="deterministic", flip_rate=flip_rate)
    assert torch.equal(labels.prefer_a ^ labels.flipped, gold[0] > gold[1])
    assert_share(labels.flipped, flip_rate)
    np.testing.assert_allclose(labels.label_probability, 1 - flip_rate)
    assert not labels.tie.any()


def test_flips_are_independent_of_labels():
    labels = constant_pairs(0.5, 0.0, flip_rate=0.3)
    unflipped = labels.prefer_a ^ labels.flipped
    table = [[int((unflipped & labels.flipped).sum()), int((unflipped & ~labels.flipped).sum())],
             [int((~unflipped & labels.flipped).sum()), int((~unflipped & ~labels.flipped).sum())]]  # fmt: skip
    assert stats.fisher_exact(table).pvalue > 1e-3


@pytest.mark.parametrize("rule", ["deterministic", "bradley_terry"])
@pytest.mark.parametrize("flip_rate", [0.0, 0.4])
def test_ties_are_fair_coins(rule, flip_rate):
    labels = constant_pairs(1.25, 1.25, rule=rule, flip_rate=flip_rate)
    assert labels.tie.all()
    assert_share(labels.prefer_a, 0.5)
    np.testing.assert_allclose(labels.label_probability, 0.5)


@pytest.mark.parametrize("rule", ["deterministic", "bradley_terry"])
def test_naming_the_responses_the_other_way_round_changes_nothing(rule):
    gold = torch.randn(2, PAIRS, generator=torch.Generator().manual_seed(2))
    one = label(gold[0], gold[1], seed=3, rule=rule, flip_rate=0.1)
    other = label(gold[1], gold[0], seed=4, rule=rule, flip_rate=0.1)
    torch.testing.assert_close(one.label_probability, other.label_probability)
    higher_chosen = [one.prefer_a == (gold[0] > gold[1]), other.prefer_a == (gold[1] > gold[0])]
    counts = [[int(events.sum()), int((~events).sum())] for events in higher_chosen]
    assert stats.fisher_exact(counts).pvalue > 1e-3


def test_a_generator_gives_the_same_labels_again_and_another_seed_others():
    gold = torch.zeros(2, 100)
    assert torch.equal(label(*gold, seed=5).prefer_a, label(*gold, seed=5).prefer_a)
    assert not torch.equal(label(*gold, seed=5).prefer_a, label(*gold, seed=6).prefer_a)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "bradley-terry"}, "rule 'bradley-terry': allowed are deterministic, bradley_terry"),
        ({"temperature": 0.0}, "temperature 0.0: must be a finite number above 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"flip_rate": 0.5}, r"flip rate 0.5: must lie in \[0, 0.5\)"),
        ({"flip_rate": -0.1}, "flip rate -0.1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        label([0.0], [1.0], **settings)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0.0, float("nan")], [1.0, 1.0], r"gold_a\[1\] is nan"),
        ([0.0], [float("inf")], r"gold_b\[0\] is inf"),
        ([0.0, 1.0], [1.0], r"shapes \(2,\) and \(1,\)"),
        ([[0.0]], [[1.0]], "must be \\[pairs\\]"),
    ],
)
def test_scores_that_cannot_be_labeled(a, b, message):
    with pytest.raises(ValueError, match=message):
        label(a, b)


def test_no_pairs():
    assert label([], []).prefer_a.shape == (0,)
