import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from tiny_gold_models import EOS, WORDS, random_texts, word_tokenizer
from tiny_models import write_policy

from gold_rm import train
from gold_rm.reward_model import GoldModelError, load_gold_model
from gold_rm.train import GoldTrainConfig, main

# Several threads for such small matrices only wait for each other.
train_gold_model = train.train_gold_model

TINY = GoldTrainConfig(layers=1, width=16, heads=2, max_tokens=32, steps=4, batch_pairs=32, lr=1e-2, warmup_steps=2)
WORTH = dict(zip(WORDS, np.linspace(-1.5, 1.5, len(WORDS)).tolist(), strict=True))


def utility(text: str) -> float:
    return sum(WORTH[word] for word in text.split())


def noisy_comparisons(count: int, held_out: int = 200) -> pd.DataFrame:
    """Bradley–Terry choices by a utility that is linear in the words of the response."""
    draw = np.random.default_rng(0)
    prompts = ["w0", "w1 w2"] * (count // 2)
    a, b = ([f" {text}" for text in random_texts(count, seed=seed, longest=6)] for seed in (1, 2))
    margins = np.array([utility(x) - utility(y) for x, y in zip(a, b, strict=True)])
    a_wins = draw.random(count) < 1 / (1 + np.exp(-margins))
    chosen, rejected = np.where(a_wins, a, b), np.where(a_wins, b, a)
    split = np.where(np.arange(count) < count - held_out, "train", "held_out")
    return pd.DataFrame({"prompt": prompts, "chosen": chosen, "rejected": rejected, "split": split})


@pytest.fixture
def tokenizer_dir(tmp_path):
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_fit_recovers_the_raters_utility(tokenizer_dir, tmp_path):
    comparisons = noisy_comparisons(4000)
    messages = []
    train_gold_model(comparisons, tokenizer_dir, replace(TINY, steps=200), tmp_path / "gold", messages.append)
    texts = [f" {text}" for text in random_texts(500, seed=9, longest=6)]
    scores = load_gold_model(tmp_path / "gold").score(["w0"] * len(texts), texts).numpy()
    assert stats.spearmanr(scores, [utility(text) for text in texts]).statistic > 0.9
    # One unit of score is one unit of the rater's log-odds.
    assert stats.linregress([utility(text) for text in texts], scores).slope == pytest.approx(1, abs=0.25)
    held_out = comparisons[comparisons["split"] == "held_out"]
    agreed = sum(utility(c) > utility(r) for c, r in zip(held_out["chosen"], held_out["rejected"], strict=True))
    assert len(messages) == 5
    assert "step 200 of 200" in messages[-1]
    stated = float(messages[-1].split("agrees with ")[1].split("%")[0]) / 100
    assert stated == pytest.approx(agreed / len(held_out), abs=0.06)


def test_score_difference_converges_to_the_log_odds_of_the_choice(tokenizer_dir, tmp_path):
    # 75 of 100 prefer " w1": the minimizer of the Bradley–Terry likelihood is ln(75/25).
    chosen = [" w1"] * 75 + [" w2"] * 25
    pairs = pd.DataFrame({"prompt": "w0", "chosen": chosen, "rejected": [" w2"] * 75 + [" w1"] * 25, "split": "train"})
    comparisons = pd.concat([pairs, pairs.assign(split="held_out")])
    config = replace(TINY, steps=120, batch_pairs=100, weight_decay=0.0)
    train_gold_model(comparisons, tokenizer_dir, config, tmp_path / "gold")
    first, second = load_gold_model(tmp_path / "gold").score(["w0", "w0"], [" w1", " w2"])
    assert (first - second).item() == pytest.approx(math.log(3), abs=0.02)


def test_a_seed_gives_one_model_and_leaves_torch_as_it_was(tokenizer_dir, tmp_path):
    comparisons = noisy_comparisons(400)
    before = torch.get_rng_state(), torch.get_num_threads()
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train.train_gold_model(comparisons, tokenizer_dir, replace(TINY, seed=seed, threads=2), tmp_path / name)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "again", "other"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_policys_tokenizer_whose_only_special_token_is_eos_serves(tmp_path):
    policy = write_policy(tmp_path / "policy", words=(EOS, *WORDS))
    pairs = pd.DataFrame({"prompt": "w0", "chosen": [" w1"], "rejected": [""], "split": "train"})
    comparisons = pd.concat([pairs, pairs.assign(split="held_out")])
    train_gold_model(comparisons, policy, TINY, tmp_path / "gold")
    assert load_gold_model(tmp_path / "gold").score(["w0", "w0 w1 w1"], [" w1", ""]).isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, "no comparisons of split 'held_out'"),
        ({"chosen": " w1" * 40}, "41 tokens and the gold model reads 32"),
    ],
)
def test_comparisons_that_cannot_be_fitted(tokenizer_dir, tmp_path, change, message):
    with pytest.raises(GoldModelError, match=message):
        train_gold_model(noisy_comparisons(400).assign(**change), tokenizer_dir, TINY, tmp_path / "gold")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0: must be 1 or more"),
        ({"lr": float("nan")}, "lr=nan: must be a finite number above 0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: must be 0 or more"),
        ({"width": 30, "heads": 4}, "width=30: must be a multiple of heads=4"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(GoldModelError, match=message):
        GoldTrainConfig(**settings)


def test_command_line_writes_a_gold_model_once(tokenizer_dir, tmp_path, capsys):
    noisy_comparisons(400).to_parquet(tmp_path / "comparisons.parquet")
    arguments = ["--comparisons", str(tmp_path / "comparisons.parquet"), "--tokenizer", str(tokenizer_dir)]
    arguments += ["--output", str(tmp_path / "new" / "gold"), "--layers", "1", "--width", "16", "--heads", "2"]
    arguments += ["--steps", "3", "--batch-pairs", "16", "--max-tokens", "32"]
    assert main(arguments) == 0
    assert "step 3 of 3" in capsys.readouterr().out
    assert load_gold_model(tmp_path / "new" / "gold").model.config.hidden_size == 16
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["gold"]

    assert main(arguments) == 2
    assert "exists already; name a new directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--comparisons", "absent.parquet", "no such file"),
        ("--tokenizer", "absent", "no such directory"),
        ("--steps", "0", "steps=0: must be 1 or more"),
        ("--max-tokens", "3", "and the gold model reads 3"),
    ],
)
def test_command_line_with_bad_input_leaves_nothing(tokenizer_dir, tmp_path, capsys, option, value, message):
    noisy_comparisons(400).to_parquet(tmp_path / "comparisons.parquet")
    before = sorted(tmp_path.iterdir())
    options = {
        "--comparisons": str(tmp_path / "comparisons.parquet"),
        "--tokenizer": str(tokenizer_dir),
        "--output": str(tmp_path / "gold"),
    }
    options[option] = str(tmp_path / value) if "absent" in value else value
    assert main([part for pair in options.items() for part in pair]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
