"""Preference data: who is chosen, what is dropped, and reference log-probs that are π_ref's."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from tiny_models import next_token_logprobs

from bench.config import LabelsConfig, PairsConfig
from bench.data.preferences import (
    FACTS_FILE,
    HELD_OUT,
    PAIRS_FILE,
    PREFERENCE_COLUMNS,
    TRAIN,
    reference_logprobs,
    sample_pool,
    write_preferences,
)
from bench.policies.load import load_policy
from bench.policies.policy import Policy
from gold_rm.reward_model import Standardization, load_gold_model

SIZES = PairsConfig(pool=150, per_cell=50, held_out=20)
STANDARDIZATION = Standardization(mean=1.5, sd=2.0)


@pytest.fixture(scope="module")
def reference(tiny_world):
    return load_policy(tiny_world.policy)


@pytest.fixture(scope="module")
def gold(tiny_world):
    return load_gold_model(tiny_world.gold)


@pytest.fixture(scope="module")
def prompts(tiny_world):
    return pd.read_parquet(tiny_world.prompts).groupby("split")["prompt"].agg(list).to_dict()


@pytest.fixture(scope="module")
def write_pool(reference, gold, prompts, tmp_path_factory):
    """A function from a seed to the directory of a pool."""

    def write(seed=0):
        directory = tmp_path_factory.mktemp("pool")
        sizes = PairsConfig(**{**vars(SIZES), "seed": seed})
        sample_pool(reference, gold, STANDARDIZATION, prompts, sizes, 6, directory)
        return directory

    return write


@pytest.fixture(scope="module")
def pool_dir(write_pool):
    return write_pool()


@pytest.fixture(scope="module")
def pool(pool_dir):
    return pd.read_parquet(pool_dir / PAIRS_FILE)


def labeled(pool_dir, directory, seed=0, **labels):
    write_preferences(pool_dir, LabelsConfig(**labels), seed, directory)
    return pd.read_parquet(directory / PAIRS_FILE), json.loads((directory / FACTS_FILE).read_text())


def test_the_pool_takes_every_prompt_of_its_split_equally_often(pool, prompts):
    for split, source, count in ((TRAIN, "train", 150), (HELD_OUT, "eval", 20)):
        taken = pool.loc[pool["split"] == split, "prompt"].value_counts()
        assert taken.sum() == count
        assert set(taken.index) <= set(prompts[source])
        assert set(taken) <= {count // 64, count // 64 + 1}
    assert pool["pair_id"].tolist() == list(range(170))


def test_gold_scores_are_of_the_whole_text_and_standardized(pool, gold):
    for side in ("a", "b"):
        raw = gold.score(pool["prompt"].tolist(), pool[f"text_{side}"].tolist()).double().numpy()
        np.testing.assert_allclose(pool[f"gold_{side}"], (raw - 1.5) / 2.0, rtol=1e-6, atol=1e-6)


def test_reference_log_probs_are_sums_over_the_response(pool, reference):
    for row in pool.head(5).itertuples():
        prompt, response = row.prompt_ids.tolist(), row.ids_a.tolist()
        prefixes = [[*prompt, *response[:i]] for i in range(len(response))]
        logps = [
            next_token_logprobs(reference, prefix)[token] for prefix, token in zip(prefixes, response, strict=True)
        ]
        assert row.ref_logps_a == pytest.approx(sum(logps), rel=1e-4)


def test_reference_log_probs_keep_their_rows_and_are_never_non_finite(reference, monkeypatch):
    prompts, responses = [[1, 2, 3], [1], [4, 5]], [[2, 0], [3, 3, 3, 3, 0], [0]]
    together = reference_logprobs(reference, prompts, responses)
    alone = [reference_logprobs(reference, [p], [r]) for p, r in zip(prompts, responses, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))
    monkeypatch.setattr(Policy, "logprobs", lambda *_: torch.tensor([0.0, float("nan"), -1.0]))
    with pytest.raises(ValueError, match=r"π_ref gives response 1 of 3 the log-prob nan"):
        reference_logprobs(reference, prompts, responses)


def test_a_seed_fixes_the_pool_and_another_draws_others(write_pool, pool):
    again, other = (pd.read_parquet(write_pool(seed) / PAIRS_FILE) for seed in (0, 1))
    pd.testing.assert_frame_equal(again, pool)
    assert (other["text_a"] != pool["text_a"]).mean() > 0.5
    assert (pool["text_a"] != pool["text_b"]).mean() > 0.5


def test_deterministic_labels_choose_the_higher_gold_and_drop_ties(pool_dir, pool, tmp_path):
    data, facts = labeled(pool_dir, tmp_path)
    assert tuple(data.columns) == PREFERENCE_COLUMNS
    assert (data["gold_chosen"] > data["gold_rejected"]).all()
    assert (data["label_probability"] == 1).all()
    assert not data["flipped"].any()
    identical = pool["text_a"] == pool["text_b"]
    ties = (pool["gold_a"] == pool["gold_b"]) & ~identical
    assert 0 < identical.sum() < 50
    assert data["pair_id"].tolist() == pool.loc[~identical & ~ties, "pair_id"].tolist()
    assert facts == {
        "pairs": 170, "kept": len(data), "kept_train": int((data["split"] == TRAIN).sum()),
        "identical_responses": int(identical.sum()), "gold_ties": int(ties.sum()), "flipped": 0,
        "label_probability_mean": 1.0,
    }  # fmt: skip


def test_each_side_keeps_its_own_columns(pool_dir, pool, tmp_path):
    """Text, ids, gold, log-prob and length of a response travel together, on whichever side it lands."""
    data, _ = labeled(pool_dir, tmp_path)
    source = pool.set_index("pair_id")
    sides = {"a": 0, "b": 0}
    for row in data.itertuples():
        pair = source.loc[row.pair_id]
        higher, lower = ("a", "b") if pair["gold_a"] > pair["gold_b"] else ("b", "a")
        sides[higher] += 1
        assert (row.prompt, row.split) == (pair["prompt"], pair["split"])
        for name, side in (("chosen", higher), ("rejected", lower)):
            assert getattr(row, name) == pair[f"text_{side}"]
            assert getattr(row, f"{name}_ids").tolist() == pair[f"ids_{side}"].tolist()
            assert getattr(row, f"{name}_tokens") == len(pair[f"ids_{side}"])
            assert getattr(row, f"gold_{name}") == pair[f"gold_{side}"]
            assert getattr(row, f"ref_{name}_logps") == pair[f"ref_logps_{side}"]
    assert min(sides.values()) > 20


def test_ties_in_gold_are_dropped_or_decided_by_a_coin(pool_dir, pool, tmp_path):
    # No response is another's copy.
    others = pool["ids_b"].map(lambda ids: [*ids, 1])
    tied = pool.assign(gold_b=pool["gold_a"], text_b=pool["text_b"] + " x", ids_b=others)
    for name in ("tied", "deterministic", "bradley_terry"):
        (tmp_path / name).mkdir()
    tied.to_parquet(tmp_path / "tied" / PAIRS_FILE)
    dropped, facts = labeled(tmp_path / "tied", tmp_path / "deterministic")
    assert (len(dropped), facts["gold_ties"], facts["kept"]) == (0, 170, 0)
    decided, facts = labeled(tmp_path / "tied", tmp_path / "bradley_terry", rule="bradley_terry")
    assert (len(decided), facts["gold_ties"]) == (170, 170)
    assert (decided["label_probability"] == 0.5).all()
    chose_a = int((decided["chosen"] == pool["text_a"]).sum())
    assert binomtest(chose_a, 170, 0.5).pvalue > 1e-3


def test_two_token_sequences_of_one_text_are_two_responses_that_tie(pool_dir, pool, tmp_path):
    """As of bytes that are no characters: the policy tells them apart, gold does not, but for rounding."""
    same = pool.assign(
        text_b=pool["text_a"], gold_b=pool["gold_a"] + 1e-7, ids_b=pool["ids_a"].map(lambda ids: [*ids, 1])
    )
    for name in ("same", "deterministic", "bradley_terry"):
        (tmp_path / name).mkdir()
    same.to_parquet(tmp_path / "same" / PAIRS_FILE)
    dropped, facts = labeled(tmp_path / "same", tmp_path / "deterministic")
    assert (len(dropped), facts["gold_ties"], facts["identical_responses"]) == (0, 170, 0)
    kept, _ = labeled(tmp_path / "same", tmp_path / "bradley_terry", rule="bradley_terry")
    assert len(kept) == 170


def test_bradley_terry_and_flips_follow_their_probabilities(pool_dir, tmp_path):
    data, facts = labeled(pool_dir, tmp_path, rule="bradley_terry", temperature=0.5, flip_rate=0.2)
    higher_wins = 1 / (1 + np.exp(-(data["gold_chosen"] - data["gold_rejected"]).abs() / 0.5))
    expected = 0.8 * higher_wins + 0.2 * (1 - higher_wins)
    np.testing.assert_allclose(data["label_probability"], expected, rtol=1e-9)
    assert facts["label_probability_mean"] == pytest.approx(expected.mean())
    agree = int((data["gold_chosen"] > data["gold_rejected"]).sum())
    assert binomtest(agree, len(data), expected.mean()).pvalue > 1e-3
    assert binomtest(facts["flipped"], 170, 0.2).pvalue > 1e-3
    again, _ = labeled(pool_dir, tmp_path, rule="bradley_terry", temperature=0.5, flip_rate=0.2)
    other, _ = labeled(pool_dir, tmp_path, rule="bradley_terry", temperature=0.5, flip_rate=0.2, seed=1)
    pd.testing.assert_frame_equal(again, data)
    assert not other["chosen"].equals(data["chosen"])
