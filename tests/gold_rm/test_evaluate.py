import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tiny_gold_models import random_texts, write_classifier

from gold_rm.evaluate import calibration, evaluate, main, print_tables, score_distribution, wilson
from gold_rm.reward_model import GoldModelError, load_gold_model


@pytest.mark.parametrize(("count", "total"), [(7, 10), (0, 5), (5, 5), (480, 800)])
def test_wilson_interval_is_the_closed_form(count, total):
    z, p = 1.959963984540054, count / total
    centre = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    share = wilson(count, total)
    assert (share.count, share.total, share.share) == (count, total, p)
    assert (share.low, share.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_calibration_of_margins_by_hand():
    # Stated probabilities 0.6 (wrong), 0.65 (right), 0.8 (right), and certainty (right), two bins.
    stated = np.array([0.6, 0.65, 0.8, 1.0])
    margins = np.array([-math.log(0.6 / 0.4), math.log(0.65 / 0.35), math.log(4.0), 50.0])
    result = calibration(margins, bins=2)
    low, high = result.bins
    assert (low.lower, low.upper, high.lower, high.upper) == (0.5, 0.75, 0.75, 1.0)
    assert (low.stated, high.stated) == pytest.approx((stated[:2].mean(), stated[2:].mean()))
    assert (low.observed.count, low.observed.total, high.observed.count, high.observed.total) == (1, 2, 2, 2)
    assert result.expected_error == pytest.approx(0.5 * (0.625 - 0.5) + 0.5 * (1 - 0.9))
    # Of what the human chose: 0.4, 0.65, 0.8, 1.
    assert result.log_loss == pytest.approx(-np.log([0.4, 0.65, 0.8, 1.0]).mean())
    assert result.log_loss_coin == pytest.approx(0.6931471805599453)


def test_margins_that_mean_what_they_say_are_calibrated_and_exaggerated_ones_are_not():
    draw = np.random.default_rng(0)
    first_minus_second = draw.normal(0, 1.5, 40_000)
    first_chosen = draw.random(40_000) < 1 / (1 + np.exp(-first_minus_second))
    margins = np.where(first_chosen, first_minus_second, -first_minus_second)
    honest, exaggerated = calibration(margins), calibration(3 * margins)
    assert honest.expected_error < 0.01
    assert exaggerated.expected_error > 0.1
    assert honest.log_loss < exaggerated.log_loss
    for row in honest.bins:
        assert row.lower <= row.stated <= row.upper
        standard_error = math.sqrt(row.stated * (1 - row.stated) / row.observed.total)
        assert abs(row.observed.share - row.stated) < 3.5 * standard_error


def test_score_distribution_by_hand():
    result = score_distribution(np.array([1.0, 2.0, 4.0, 3.0]), ["a", "a b", "a b c", "a b c d"])
    assert (result.texts, result.mean) == (4, 2.5)
    assert result.sd == pytest.approx(math.sqrt(5 / 3))
    assert (result.quantiles["0"], result.quantiles["0.5"], result.quantiles["1"]) == (1.0, 2.5, 4.0)
    # Ranks differ by 0, 0, 1, 1: 1 − 6·2 / (4·15).
    assert result.length_correlation == pytest.approx(0.8)
    assert score_distribution(np.array([1.0, 2.0]), ["a", "b"]).length_correlation is None
    with pytest.raises(GoldModelError, match="1 texts have no score distribution"):
        score_distribution(np.array([1.0]), ["a"])


@pytest.fixture
def gold(tmp_path):
    return load_gold_model(write_classifier(tmp_path / "gold"))


@pytest.fixture
def comparisons(gold):
    """80 held-out pairs; the rater sides with the gold model in 60, and 5 pairs are twice the same text."""
    prompts, a, b = (random_texts(80, seed=seed, longest=8) for seed in (0, 1, 2))
    a, b = ([f" {text}" for text in texts] for texts in (a, b))
    a_wins = gold.score(prompts, a) > gold.score(prompts, b)
    agrees = np.arange(80) < 60
    chosen = [x if wins == agree else y for x, y, wins, agree in zip(a, b, a_wins.tolist(), agrees, strict=True)]
    rejected = [y if x == first else x for x, y, first in zip(a, b, chosen, strict=True)]
    pairs = pd.DataFrame({"prompt": prompts, "chosen": chosen, "rejected": rejected, "split": "held_out"})
    pairs.loc[75:, "rejected"] = pairs.loc[75:, "chosen"]
    return pd.concat([pairs, pairs.head(3).assign(split="train")], ignore_index=True)


def test_agreement_counts_pairs_of_the_split(gold, comparisons):
    result = evaluate(gold, comparisons, "held_out")
    assert (result.agreement.count, result.agreement.total, result.ties) == (60, 80, 5)
    assert result.scores.texts == 160
    assert evaluate(gold, comparisons, "train").agreement.share == 1.0
    with pytest.raises(GoldModelError, match="no comparisons of split 'test'; there are 'held_out', 'train'"):
        evaluate(gold, comparisons, "test")


def test_tables_show_the_numbers(gold, comparisons):
    console = Console(file=io.StringIO(), width=120)
    print_tables(evaluate(gold, comparisons, "held_out"), console)
    text = console.file.getvalue()
    assert gold.fingerprint in text
    assert "75.0% [64.5%, 83.2%] of 80" in text
    assert "of them 5 with equal scores" in text


def test_command_line(gold, comparisons, tmp_path, capsys):
    comparisons.to_parquet(tmp_path / "comparisons.parquet")
    texts = pd.DataFrame({"prompt": ["w1"] * 3, "response": [" w2", "", " w3 w4"], "other": 1})
    texts.to_parquet(tmp_path / "samples.parquet")
    arguments = ["--model", str(tmp_path / "gold"), "--comparisons", str(tmp_path / "comparisons.parquet")]
    assert main([*arguments, "--texts", str(tmp_path / "samples.parquet"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["gold_model"] == gold.fingerprint
    assert printed["agreement"]["share"] == 0.75
    assert printed["scores"]["texts"] == 3
    raw = gold.score(texts["prompt"].tolist(), texts["response"].tolist())
    assert printed["scores"]["mean"] == pytest.approx(raw.mean().item(), abs=1e-6)
    assert {"stated", "observed", "lower", "upper"} == set(printed["calibration"]["bins"][0])
    assert main(arguments) == 0
    assert "calibration" in capsys.readouterr().out


def test_command_line_with_bad_input(gold, comparisons, tmp_path, capsys):
    comparisons.drop(columns="chosen").to_parquet(tmp_path / "no_chosen.parquet")
    comparisons.assign(rejected=[None, *comparisons["rejected"][1:]]).to_parquet(tmp_path / "gaps.parquet")
    comparisons.to_parquet(tmp_path / "good.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    for model, file, message in (
        ("gold", "absent.parquet", "no such file"),
        ("gold", "text.parquet", "not a readable parquet file"),
        ("gold", "no_chosen.parquet", "column 'chosen' is missing; its columns are prompt, rejected, split"),
        ("gold", "gaps.parquet", "1 values of 'rejected' are no texts, such as"),
        ("absent", "good.parquet", "no config.json there"),
    ):
        assert main(["--model", str(tmp_path / model), "--comparisons", str(tmp_path / file)]) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
