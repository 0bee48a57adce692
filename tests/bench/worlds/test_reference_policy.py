"""π_ref: what its training minimizes, against the log-probabilities that the rest of the bench uses."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import plain_logprobs

from bench.checked import ConfigError
from bench.policies.load import load_policy
from bench.seeding import generator_for
from bench.worlds.reviews.facts import measure
from bench.worlds.reviews.language import PAD_ID, PROMPTS, log_probabilities, pad_reviews, sample_reviews
from bench.worlds.reviews.reference_policy import (
    PROMPT_TOKENS,
    PolicyParams,
    _batches,
    _new_model,
    response_nats,
    train_reference_policy,
)  # fmt: skip
from bench.worlds.reviews.tokenizer import word_tokenizer

SMALL = PolicyParams(layers=1, width=16, heads=2, steps=3, batch_reviews=8, threads=1)


def test_loss_is_the_log_probability_of_responses_without_prompts() -> None:
    works = list(PROMPTS[::30])
    prompts = word_tokenizer()([work.text for work in works])["input_ids"]
    reviews = sample_reviews(works, generator_for(0, "test"))
    model = _new_model(SMALL, seed=0).eval()
    texts = torch.from_numpy(pad_reviews([p + r for p, r in zip(prompts, reviews, strict=True)]))
    with torch.no_grad():
        expected = -sum(
            plain_logprobs(model, prompt + review)[torch.arange(len(review)) + len(prompt) - 1, review].sum()
            for prompt, review in zip(prompts, reviews, strict=True)
        )
    assert response_nats(model, texts).item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_review_is_in_one_batch_and_uncut() -> None:
    works = [PROMPTS[i % len(PROMPTS)] for i in range(1000)]
    reviews = sample_reviews(works, generator_for(0, "test"))
    batches = _batches(torch.from_numpy(pad_reviews(reviews)), 32, generator_for(1, "test"))
    seen = Counter(tuple(i for i in row.tolist() if i != PAD_ID) for batch in batches for row in batch)
    assert seen == Counter(map(tuple, reviews))
    padding = sum(int((batch == PAD_ID).sum()) for batch in batches)
    assert padding < 0.1 * sum(map(len, reviews))


def test_training_is_deterministic_and_leaves_global_state_alone(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_reference_policy(PROMPTS[:20], SMALL, seed, tmp_path / name, lambda message: None)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_facts_hold_the_languages_entropy(tmp_path: Path) -> None:
    train_reference_policy(PROMPTS[:20], SMALL, 0, tmp_path, lambda message: None)
    facts = measure(load_policy(tmp_path), PROMPTS[:20], reviews=400, positions=SMALL.positions, seed=0)
    works = [PROMPTS[i % 20] for i in range(4000)]
    surprise = -log_probabilities(works, sample_reviews(works, generator_for(3, "test")))
    error = np.hypot(facts["language_nats_se"], surprise.std() / np.sqrt(len(surprise)))
    assert abs(facts["language_nats"] - surprise.mean()) < 4 * error
    assert facts["excess_nats"] == pytest.approx(facts["policy_nats"] - facts["language_nats"])
    assert facts["excess_nats"] > 10 * facts["excess_nats_se"]  # three steps of training: nearly uniform
    assert facts["sample_parsed"] < 0.05
    assert facts["sample_tokens"] <= SMALL.positions - PROMPT_TOKENS


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, r"policy\.steps=0: must be 1 or more"),
        ({"width": 30, "heads": 4}, r"policy\.width=30: must be a multiple of heads=4"),
        ({"positions": 4}, r"policy\.positions=4: a prompt alone has 4"),
        ({"lr": float("nan")}, r"policy\.lr=nan: must be a finite number above 0"),
    ],
)
def test_bad_settings(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PolicyParams(**setting)
