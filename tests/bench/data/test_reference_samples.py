"""π_ref's own samples: one row per prompt and sample, standardized to mean 0 and SD 1."""

import pandas as pd
import pytest

from bench.data.reference_samples import load_reference, load_standardization, sample_reference
from bench.policies.load import load_policy
from bench.records import REFERENCE_COLUMNS
from gold_rm.reward_model import load_gold_model

PROMPTS = [" a b", " c d e", " f"]


@pytest.fixture(scope="module")
def gold(tiny_world):
    return load_gold_model(tiny_world.gold)


@pytest.fixture(scope="module")
def write(tiny_world, gold, tmp_path_factory):
    def write():
        directory = tmp_path_factory.mktemp("reference")
        policy = load_policy(tiny_world.policy)
        sample_reference(policy, gold, PROMPTS, per_prompt=20, max_new_tokens=6, directory=directory)
        return directory

    return write


def test_rows_and_standardization(write, gold):
    directory = write()
    frame, standardization = load_reference(directory), load_standardization(directory)
    assert tuple(frame.columns) == REFERENCE_COLUMNS
    assert frame["prompt"].tolist() == [prompt for prompt in PROMPTS for _ in range(20)]
    assert frame[["prompt_id", "sample_id"]].apply(tuple, axis=1).tolist() == [
        (prompt, sample) for prompt in range(3) for sample in range(20)
    ]
    raw = gold.score(frame["prompt"].tolist(), frame["response"].tolist()).double().numpy()
    assert (standardization.mean, standardization.sd) == pytest.approx((raw.mean(), raw.std(ddof=1)))
    assert (frame["gold"].mean(), frame["gold"].std()) == pytest.approx((0, 1), abs=1e-6)
    words = frame["response"].str.split().str.len()
    assert (frame["length"] - words).isin([0, 1]).all(), "tokens, EOS included where there is one"
    assert frame.loc[frame["length"] == words, "length"].eq(6).all()
    assert frame.groupby("prompt")["response"].nunique().min() > 5, "samples of one prompt differ"


def test_the_samples_are_always_the_same(write):
    pd.testing.assert_frame_equal(load_reference(write()), load_reference(write()))
