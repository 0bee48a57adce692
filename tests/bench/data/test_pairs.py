"""ρ against log-probs computed token by token; preference pairs keep their rows through loading and taking."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import next_token_logprobs, tiny_policy
from tiny_world import moved_copy, pairs_of, sample_pairs

from bench.data.artifacts import PAIRS_FILE
from bench.data.pairs import load_pairs, pair_logprobs
from bench.data.preferences import HELD_OUT, TRAIN
from bench.policies.load import load_policy

PROMPTS = [[1], [1, 2], [2, 3, 1]]
CHOSEN = [[2, 3, 0], [3], [2, 2, 2, 0]]
REJECTED = [[0], [3, 3, 3, 3, 0], []]
REF_CHOSEN, REF_REJECTED = torch.tensor([-3.0, -1.0, -4.0]), torch.tensor([-0.5, -6.0, 0.0])


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def pairs():
    return pairs_of(PROMPTS, CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED)


def logprob(policy, prompt, response):
    """log π(response | prompt) in nats, one unpadded forward pass per token."""
    prefixes = [[*prompt, *response[:i]] for i in range(len(response))]
    return sum(next_token_logprobs(policy, prefix)[token] for prefix, token in zip(prefixes, response, strict=True))


@pytest.mark.parametrize("length_normalized", [False, True])
@torch.no_grad()
def test_rho_is_the_difference_of_log_ratios(policy, pairs, length_normalized):
    seen = pair_logprobs(policy, pairs, length_normalized=length_normalized)
    chosen = [logprob(policy, *each) for each in zip(PROMPTS, CHOSEN, strict=True)]
    rejected = [logprob(policy, *each) for each in zip(PROMPTS, REJECTED, strict=True)]
    assert seen.logp_chosen.tolist() == pytest.approx(chosen, abs=1e-5)
    assert seen.logp_rejected.tolist() == pytest.approx(rejected, abs=1e-5)
    # An empty response (the last one rejected) has log-ratio 0 on either scale.
    over = [[3, 1, 4], [1, 5, 1]] if length_normalized else [[1, 1, 1], [1, 1, 1]]
    rho = (np.array(chosen) - REF_CHOSEN.numpy()) / over[0] - (np.array(rejected) - REF_REJECTED.numpy()) / over[1]
    assert seen.rho.tolist() == pytest.approx(rho.tolist(), abs=1e-5)


def test_an_empty_response_has_a_finite_gradient(policy, pairs):
    trained = policy.trainable()
    pair_logprobs(trained, pairs, length_normalized=True).rho.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters())


@torch.no_grad()
def test_other_pairs_in_the_batch_do_not_move_a_pair(tiny_world):
    reference = load_policy(tiny_world.policy)
    policy, pairs = moved_copy(reference), sample_pairs(reference, 16)
    together = pair_logprobs(policy, pairs)
    alone = [pair_logprobs(policy, pairs.take(torch.tensor([row]))) for row in range(16)]
    for name in together._fields:
        torch.testing.assert_close(getattr(together, name), torch.cat([getattr(each, name) for each in alone]))
    assert together.rho.abs().median() > 0.1


def test_taking_keeps_the_order_and_drops_columns_of_padding(pairs):
    taken = pairs.take(torch.tensor([2, 0]))
    assert len(taken) == 2
    assert taken.chosen.input_ids.tolist() == [[2, 3, 1, 2, 2, 2, 0], [1, 2, 3, 0, 0, 0, 0]]
    assert taken.chosen.attention_mask.sum(1).tolist() == [7, 4]
    assert taken.rejected.response_mask.sum(1).tolist() == [0, 1]
    assert taken.rejected.input_ids.shape == taken.chosen.input_ids.shape
    assert (taken.ref_logp_chosen.tolist(), taken.ref_logp_rejected.tolist()) == ([-4.0, -3.0], [0.0, -0.5])
    assert pairs.take(torch.tensor([0])).chosen.input_ids.shape == (1, 4), "as wide as its longest sequence"


@pytest.fixture
def frame():
    return pd.DataFrame({
        "split": [TRAIN, HELD_OUT, TRAIN], "prompt_ids": PROMPTS, "chosen_ids": CHOSEN, "rejected_ids": REJECTED,
        "ref_chosen_logps": REF_CHOSEN.numpy(), "ref_rejected_logps": REF_REJECTED.numpy(),
    })  # fmt: skip


def test_loading_reads_one_split(tmp_path, frame, pairs):
    frame.to_parquet(tmp_path / PAIRS_FILE)
    for split, rows in ((TRAIN, [0, 2]), (HELD_OUT, [1])):
        loaded, expected = load_pairs(tmp_path, split, pad_id=0), pairs.take(torch.tensor(rows))
        for field in dataclasses.fields(expected):
            torch.testing.assert_close(getattr(loaded, field.name), getattr(expected, field.name), rtol=0, atol=0)


def test_missing_reference_log_probs_are_refused_not_taken_as_zero(tmp_path, frame):
    frame.loc[2, "ref_rejected_logps"] = np.nan
    frame.to_parquet(tmp_path / PAIRS_FILE)
    with pytest.raises(ValueError, match=r"pairs\.parquet: reference log-probs are missing"):
        load_pairs(tmp_path, TRAIN, pad_id=0)
    assert len(load_pairs(tmp_path, HELD_OUT, pad_id=0)) == 1


def test_a_split_without_pairs_is_refused(tmp_path, frame):
    frame[frame["split"] == TRAIN].to_parquet(tmp_path / PAIRS_FILE)
    with pytest.raises(ValueError, match=r"no pairs of split 'held_out' are left after dropping ties"):
        load_pairs(tmp_path, HELD_OUT, pad_id=0)
