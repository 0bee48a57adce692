"""Metrics against values worked out by hand; KL is zero at the reference; batches do not move results."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import next_token_logprobs
from tiny_world import moved_copy, sample_pairs

from bench.cells.evaluation import (
    EvaluationSet,
    checkpoint_steps,
    distinct_n,
    evaluate_held_out,
    evaluate_samples,
    held_out_metrics,
    held_out_table,
    win_shares,
)
from bench.data.pairs import PairLogProbs, pair_logprobs
from bench.losses import LOSSES
from bench.policies.load import load_policy
from bench.policies.policy import Policy
from bench.policies.scoring import sequence_kl
from bench.records import HELD_OUT_COLUMNS, SAMPLE_COLUMNS
from bench.seeding import uniforms_for
from gold_rm.reward_model import Standardization

PROMPTS = [" a b", " c", " d e f", " a"]
RAW = Standardization(0.0, 1.0)


class FixedGold:
    """Scores texts by their place."""

    def __init__(self, scores):
        self.scores = torch.tensor(scores)
        self.texts = None

    def score(self, prompts, responses):
        self.texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        return self.scores


@pytest.fixture(scope="module")
def reference(tiny_world):
    return load_policy(tiny_world.policy)


@pytest.fixture(scope="module")
def moved(reference):
    return moved_copy(reference)


def evaluation_set(reference, prompts, reference_gold):
    held_out = sample_pairs(reference, 8, seed=3)
    texts = [f" r{i}" for i in range(len(prompts))]
    return EvaluationSet(
        prompts, reference.encode(prompts), texts, np.array(reference_gold).reshape(len(prompts), -1), held_out
    )


def run(policy, reference, on=None, *, gold=None, standardization=RAW, seed=0, samples=1, batch_size=32):
    on = on or evaluation_set(reference, PROMPTS * 8, [0.0] * 32)
    return evaluate_samples(
        policy, gold or FixedGold([0.0] * len(on.prompts)), standardization, on,
        step=3, batch_size=batch_size, uniforms=uniforms_for(seed, "test", count=samples * len(on.prompts), tokens=6),
    )  # fmt: skip


def test_gold_and_win_rate_by_hand(moved, reference):
    on = evaluation_set(reference, PROMPTS, [0.0, 0.0, 0.0, 3.0])
    gold = FixedGold([1.0, 0.0, 2.0, 5.0])
    seen = run(moved, reference, on, gold=gold, standardization=Standardization(mean=1.0, sd=2.0))
    # (raw − 1) / 2; a tie, a loss, a win, a loss.
    assert seen.samples["gold"].tolist() == [0.0, -0.5, 0.5, 2.0]
    metrics = seen.metrics
    assert (metrics["gold_raw"], metrics["gold"], metrics["win_rate"]) == (2.0, 0.5, 0.375)
    assert metrics["gold_se"] == pytest.approx(math.sqrt((0.25 + 1 + 0 + 2.25) / 3 / 4))
    assert metrics["win_rate_se"] == pytest.approx(math.sqrt((0.125**2 + 2 * 0.375**2 + 0.625**2) / 3 / 4))
    assert gold.texts == [p + r for p, r in zip(PROMPTS, seen.samples["response"], strict=True)]


def test_several_samples_of_a_prompt_are_averaged_before_prompts_are_compared(moved, reference):
    """Gold of two prompts with three samples each, and π_ref's samples, by hand."""
    on = evaluation_set(reference, PROMPTS[:2], [[0.0, 2.0], [1.0, 1.0]])
    gold = FixedGold([1.0, 1.0, 2.0, 3.0, 3.0, 5.0])  # first samples of both prompts, then second ones, then third ones
    seen = run(moved, reference, on, gold=gold, samples=3)
    assert seen.samples["prompt_id"].tolist() == [0, 1, 0, 1, 0, 1]
    assert seen.samples["sample_id"].tolist() == [0, 0, 1, 1, 2, 2]
    assert seen.samples["win_share"].tolist() == [0.5, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert seen.samples["gold_reference"].tolist() == [0.0, 1.0] * 3, "π_ref's first sample"
    # Prompt means 2 and 3: a mean of 2.5, and a standard error from two values, not from six.
    assert (seen.metrics["gold"], seen.metrics["gold_se"]) == (2.5, pytest.approx(0.5))
    assert seen.metrics["win_rate"] == pytest.approx((0.5 + 0.75 + 1 + 0.5 + 1 + 1) / 6)
    assert seen.metrics["win_rate_se"] == pytest.approx(abs(2.25 - 2.5) / 3 / 2)
    assert seen.metrics["samples_per_prompt"] == 3
    one = run(moved, reference, on, gold=FixedGold([0.0, 0.0]), samples=1).samples["response"]
    assert one.tolist() == seen.samples["response"][:2].tolist(), "more samples leave the first ones as they are"


def test_diversity_does_not_depend_on_the_number_of_samples(moved, reference):
    """Pooled over three samples, bigrams would be repeated more often than in one."""
    on = evaluation_set(reference, PROMPTS * 4, [0.0] * 16)
    responses = run(moved, reference, on, gold=FixedGold([0.0] * 48), samples=3)
    texts = responses.samples[["response", "ended"]].itertuples(index=False)
    words = [[*text.split(), *["eos"] * ended] for text, ended in texts]
    rounds = [[pair for each in words[i : i + 16] for pair in pairwise(each)] for i in (0, 16, 32)]
    assert responses.metrics["distinct_2"] == pytest.approx(np.mean([len(set(each)) / len(each) for each in rounds]))
    assert (
        len({pair for each in rounds for pair in each}) / sum(map(len, rounds)) < 0.8 * responses.metrics["distinct_2"]
    )


def test_standard_errors_against_brute_force_over_prompts(moved, reference):
    """Gold that differs between prompts but not between samples: four samples of a prompt tell no more than one."""
    on = evaluation_set(reference, PROMPTS * 4, [[0.0, 0.5]] * 16)
    rng = np.random.default_rng(1)
    of_prompts = rng.normal(size=16).astype(np.float32)
    one = run(moved, reference, on, gold=FixedGold(of_prompts.tolist())).metrics
    four = run(moved, reference, on, gold=FixedGold(np.tile(of_prompts, 4).tolist()), samples=4)
    assert four.metrics["gold_se"] == pytest.approx(one["gold_se"]) == pytest.approx(of_prompts.std(ddof=1) / 4)
    for name, column in (("kl", "kl"), ("kl_k1", "kl_k1"), ("gold", "gold"), ("win_rate", "win_share")):
        values = four.samples[column].to_numpy()
        means = [
            np.mean([v for v, p in zip(values, four.samples["prompt_id"], strict=True) if p == i]) for i in range(16)
        ]
        spread = sum((mean - np.mean(values)) ** 2 for mean in means)
        assert four.metrics[name] == pytest.approx(np.mean(values))
        assert four.metrics[f"{name}_se"] == pytest.approx(math.sqrt(spread / 15 / 16))


def test_win_shares_against_brute_force():
    rng = np.random.default_rng(0)
    gold, reference_gold = rng.integers(0, 4, 50) / 2, rng.integers(0, 4, (50, 7)) / 2
    noisy = gold + rng.uniform(-4e-6, 4e-6, 50)  # what another batch does to a score
    expected = [np.mean([1.0 if g > r else 0.5 if g == r else 0.0 for r in row])
                for g, row in zip(gold, reference_gold, strict=True)]  # fmt: skip
    np.testing.assert_allclose(win_shares(noisy, reference_gold), expected)


def test_rho_of_held_out_pairs_is_kept_pair_by_pair(moved, reference):
    pairs = sample_pairs(reference, 20)
    measured = evaluate_held_out(moved, pairs, length_normalized=False, batch_size=8)
    table = held_out_table(5, measured)
    assert tuple(table.columns) == HELD_OUT_COLUMNS
    assert table["pair"].tolist() == list(range(20))
    assert (table["step"] == 5).all()
    np.testing.assert_allclose(table["rho"], pair_logprobs(moved, pairs).rho.detach().numpy(), atol=1e-4)
    assert held_out_table(0, measured).empty


def test_every_metric_is_of_the_same_samples(moved, reference):
    on = evaluation_set(reference, PROMPTS * 8, [0.5] * 32)
    metrics, frame, warnings = run(moved, reference, on)
    assert tuple(frame.columns) == SAMPLE_COLUMNS
    assert frame["prompt_id"].tolist() == list(range(32))
    assert (frame["step"] == 3).all()
    assert frame["prompt"].tolist() == PROMPTS * 8
    assert frame["reference_response"].tolist() == on.reference_responses
    assert (frame["gold_reference"] == 0.5).all()
    assert metrics["win_rate"] == 0
    for name, ours in (("kl", "kl"), ("kl_k1", "kl_k1")):
        assert metrics[name] == pytest.approx(frame[ours].mean())
        assert metrics[f"{name}_se"] == pytest.approx(frame[ours].sem())
    words = [text.split() for text in frame["response"]]
    assert frame["length"].tolist() == [len(w) + end for w, end in zip(words, frame["ended"], strict=True)]
    assert metrics["response_tokens"] == frame["length"].mean()
    assert 0 < metrics["eos_rate"] == frame["ended"].mean() < 1
    assert frame.loc[~frame["ended"], "length"].eq(6).all(), "cut at max_new_tokens"
    bigrams = [b for w, end in zip(words, frame["ended"], strict=True) for b in pairwise([*w, *["eos"] * end])]
    assert metrics["distinct_2"] == pytest.approx(len(set(bigrams)) / len(bigrams))
    assert warnings == []


def test_kl_of_a_sample_is_the_sum_over_its_prefixes(moved, reference):
    prompts, responses = [[1, 2], [3]], [[4, 5, 0], [2]]
    exact, k1 = sequence_kl(moved, reference, prompts, responses, batch_size=2)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        kl, ratio = 0.0, 0.0
        for i, token in enumerate(response):
            ours, theirs = (next_token_logprobs(p, [*prompt, *response[:i]]) for p in (moved, reference))
            kl += float(np.exp(ours) @ (ours - theirs))
            ratio += ours[token] - theirs[token]
        assert (exact[row].item(), k1[row].item()) == (pytest.approx(kl, rel=1e-4), pytest.approx(ratio, rel=1e-4))


def test_a_copy_of_the_reference_has_no_kl(reference):
    seen = run(reference.trainable(), reference)
    assert seen.samples[["kl", "kl_k1"]].abs().to_numpy().max() < 1e-5
    assert seen.warnings == []


def test_a_sampler_that_is_not_the_policy_is_noticed(moved, reference, monkeypatch):
    """Responses of π_ref scored as the policy's: k1 then estimates −KL(π_ref‖π)."""

    def of_the_reference(policy, *args, **kwargs):
        return sample(reference, *args, **kwargs)

    sample = Policy.sample
    monkeypatch.setattr(Policy, "sample", of_the_reference)
    (warning,) = run(moved, reference).warnings
    assert warning.startswith("step 3: KL ")
    assert warning.endswith("standard errors apart")


def test_a_seed_fixes_the_samples(moved, reference):
    first, again, other = (run(moved, reference, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.samples, again.samples)
    assert first.metrics == again.metrics
    assert (first.samples["response"] != other.samples["response"]).mean() > 0.3


def test_batch_size_moves_an_evaluation_by_rounding_only(moved, reference):
    gold = np.random.default_rng(0).normal(size=96).tolist()
    whole, pieces = (run(moved, reference, gold=FixedGold(gold), samples=3, batch_size=size) for size in (96, 7))
    exact = ["prompt_id", "sample_id", "response", "length", "ended", "gold", "win_share"]
    pd.testing.assert_frame_equal(whole.samples[exact], pieces.samples[exact])
    assert whole.metrics == pytest.approx(pieces.metrics, rel=1e-5, abs=1e-6)


def test_batch_size_does_not_move_kl_or_held_out_metrics(moved, reference):
    frame = run(moved, reference).samples
    prompts = reference.encode(frame["prompt"].tolist())
    responses = reference.encode(frame["response"].tolist())
    whole, pieces = (sequence_kl(moved, reference, prompts, responses, batch_size=size) for size in (32, 5))
    torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)

    pairs = sample_pairs(reference, 20)
    by_size = [
        held_out_metrics(
            evaluate_held_out(moved, pairs, length_normalized=normalized, batch_size=size), LOSSES["squared"], 0.5
        )
        for normalized in (False, True)
        for size in (20, 3)
    ]
    assert by_size[0] == pytest.approx(by_size[1], rel=1e-5)
    assert by_size[2] == pytest.approx(by_size[3], rel=1e-5)
    assert by_size[0]["rho_mean"] != pytest.approx(by_size[2]["rho_mean"], rel=0.1), "length-normalized is another ρ"


RHO = torch.tensor([1.0, -2.0, 0.0, 3.0], dtype=torch.float64)


def on_pairs(rho=RHO):
    return PairLogProbs(torch.tensor([-4.0, -6.0]), torch.tensor([-5.0, -8.0]), rho)


def test_held_out_metrics_by_hand():
    seen = held_out_metrics(on_pairs(), LOSSES["squared"], beta=0.5)
    assert seen == pytest.approx({
        "held_out_loss": (0.5**2 + 2**2 + 1**2 + 0.5**2) / 4,  # (0.5 ρ − 1)²
        "pair_accuracy": 2.5 / 4,
        "rho_mean": 0.5,
        "rho_mean_se": math.sqrt((0.5**2 + 2.5**2 + 0.5**2 + 2.5**2) / 3 / 4),
        "rho_sq_mean": 3.5,
        "rho_sq_se": math.sqrt((2.5**2 + 0.5**2 + 3.5**2 + 5.5**2) / 3 / 4),
        "logp_chosen": -5.0,
        "logp_rejected": -6.5,
        "taylor_constant": 1.0,
        "taylor_preference": -2 * 0.5 * 0.5,
        "taylor_regularization": 0.5 * 2 * 0.5**2 * 3.5,
    })  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_the_taylor_split_sums_to_the_loss_up_to_the_third_order(name):
    gaps = []
    for beta in (0.02, 0.01):
        seen = held_out_metrics(on_pairs(), LOSSES[name], beta)
        gaps.append(abs(seen["held_out_loss"] - sum(value for key, value in seen.items() if key.startswith("taylor"))))
    assert gaps[0] < 0.02**3 * float(RHO.abs().pow(3).mean())
    assert gaps[1] <= gaps[0] / 6 + 1e-12, "an error of order β³ falls eightfold"


@pytest.mark.parametrize(
    ("responses", "n", "expected"),
    [([[1, 1, 1]], 1, 1 / 3), ([[1, 2], [2, 1]], 2, 1.0), ([[1, 2, 3], [1, 2]], 2, 2 / 3), ([[1], []], 2, 0.0)],
)
def test_distinct_n_pools_over_responses(responses, n, expected):
    assert distinct_n(responses, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("steps", "checkpoints", "expected"),
    [(1, 1, (0, 1)), (1, 5, (0, 1)), (24, 3, (0, 6, 12, 24)), (5, 3, (0, 1, 2, 5)), (1000, 1, (0, 1000))],
)
def test_checkpoints_halve_back_from_the_last_step(steps, checkpoints, expected):
    assert checkpoint_steps(steps, checkpoints) == expected
