"""Proxies and other judges: what they are fitted to, what they order, and their scale."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from running import prepared_for, run
from scipy import optimize
from tiny_world import write_gold
from transformers import PretrainedConfig, PreTrainedModel

from bench.checked import ConfigError
from bench.data.judges import load_judge
from bench.data.proxies import read_facts
from bench.losses import LOSSES
from bench.records import METRICS, read_records
from bench.sweep.driver import prepare_cells
from bench.worlds.reviews import utilities
from bench.worlds.reviews.language import PROMPTS
from bench.worlds.reviews.rater import utility
from gold_rm.train import GoldTrainConfig, _fit

PROXY = {"proxy.pool": 128, "proxy.pairs": 48, "proxy.held_out": 16, "proxy.steps": 30, "proxy.size": "xs"}


@pytest.mark.parametrize("name", ["logistic", "squared", "exponential", "truncated_quadratic", "savage"])
def test_a_fit_with_any_f_is_that_of_scipy_on_a_linear_model(name):
    """Reward = sum of its words' values. Labels are noisy, so that the best values are finite."""
    words, rng = 4, np.random.default_rng(0)
    texts = [rng.integers(words, size=5).tolist() for _ in range(2 * 200)]
    counts = np.array([np.bincount(text, minlength=words) for text in texts], dtype=float)
    value = rng.normal(size=words)
    margin = (counts[:200] - counts[200:]) @ value
    first = rng.random(200) < 1 / (1 + np.exp(-margin))
    chosen = [texts[i] if first[i] else texts[200 + i] for i in range(200)]
    rejected = [texts[200 + i] if first[i] else texts[i] for i in range(200)]
    features = np.where(first[:, None], 1, -1) * (counts[:200] - counts[200:])
    f = LOSSES[name].fn

    def mean_loss(values):
        return float(f(torch.from_numpy(features @ values)).mean())

    class Linear(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self):
            super().__init__(PretrainedConfig())
            self.words = torch.nn.Parameter(torch.zeros(words))

        def forward(self, input_ids, attention_mask):
            padded = torch.cat([self.words, torch.zeros(1)])
            return SimpleNamespace(logits=padded[input_ids].sum(1, keepdim=True))

    model = Linear()
    config = GoldTrainConfig(steps=600, batch_pairs=200, lr=0.05, weight_decay=0.0, warmup_steps=1, clip_norm=1e9)
    _fit(model, (chosen, rejected), (chosen, rejected), config, f, lambda message: None)
    # Every text has five words: a value added to all of them changes nothing, so losses are compared, and differences.
    best = optimize.minimize(mean_loss, np.zeros(words), method="Nelder-Mead", options={"maxiter": 5000, "xatol": 1e-7})
    fitted = model.words.detach().double().numpy()
    assert mean_loss(fitted) == pytest.approx(best.fun, abs=2e-4)
    assert fitted - fitted.mean() == pytest.approx(best.x - best.x.mean(), abs=0.05)


@pytest.fixture
def by_proxy(tiny_world, tmp_path):
    """A cell whose pairs a proxy labels, and what it stands on."""
    cell = tiny_world.cell(tmp_path, {"labels.by": "proxy", **PROXY})
    return cell, prepared_for(cell)


def test_a_proxy_orders_the_pairs_and_gold_stays_beside_it(by_proxy, tiny_world, tmp_path):
    _, prepared = by_proxy
    data = pd.read_parquet(prepared.preferences.path / "pairs.parquet")
    assert (data["proxy_chosen"] > data["proxy_rejected"]).all()
    agree = data["gold_chosen"] > data["gold_rejected"]
    assert 0 < agree.mean() < 1
    assert (data["label_probability"] == agree).all()  # of the response with the higher gold score
    ordinary = prepared_for(tiny_world.cell(tmp_path, {}))
    gold = pd.read_parquet(ordinary.preferences.path / "pairs.parquet")
    assert (gold["gold_chosen"] > gold["gold_rejected"]).all()
    assert "proxy_chosen" not in gold
    assert set(gold["pair_id"]) & set(data["pair_id"])


def test_a_proxy_is_fitted_to_other_pairs_than_it_labels(by_proxy, tiny_world):
    _, prepared = by_proxy
    labelled = pd.read_parquet(prepared.preferences.path / "pairs.parquet")
    for path in (tiny_world.artifacts / "comparisons").glob("*/pairs.parquet"):
        frame = pd.read_parquet(path)
        labels = json.loads((path.parent / "manifest.json").read_text())["inputs"]["labels"]
        assert (frame["gold_chosen"] > frame["gold_rejected"]).all() == (labels["flip_rate"] == 0)
        ours = set(zip(labelled["prompt"], labelled["chosen"], labelled["rejected"], strict=True))
        shared = ours & set(zip(frame["prompt"], frame["chosen"], frame["rejected"], strict=True))
        assert len(shared) < len(ours) / 4


def test_judges_have_mean_0_and_sd_1_under_the_reference_policy(by_proxy):
    _, prepared = by_proxy
    samples = pd.read_parquet(prepared.reference.path / "samples.parquet")
    ((name, artifact),) = prepared.judges
    scores = load_judge(name, artifact.path).score(samples["prompt"].tolist(), samples["response"].tolist())
    assert (scores.mean(), scores.std(ddof=1)) == pytest.approx((0, 1), abs=1e-5)


def test_a_cell_records_the_proxy_and_watched_models_beside_gold(tiny_world, tmp_path):
    other = write_gold(tmp_path / "other", seed=11)
    same = write_gold(tmp_path / "same")  # the gold model itself
    cell = tiny_world.cell(tmp_path, {"watch": ("proxy", str(other), str(same)), **PROXY})
    assert run(cell).state == "done"
    row = read_records(cell.directory / "records.jsonl")[-1]
    assert row["watched"]["same"] == pytest.approx(row["gold"], abs=1e-5)
    assert row["watched"]["same_se"] == pytest.approx(row["gold_se"], abs=1e-5)
    assert abs(row["watched"]["other"] - row["gold"]) > 1e-3
    assert row["proxy_se"] > 0
    samples = pd.read_parquet(cell.directory / "samples.parquet")
    last = samples[samples["step"] == 8]
    assert last["proxy"].mean() == pytest.approx(row["proxy"])
    assert METRICS["proxy"].unit == METRICS["utility"].unit == "SD"
    plain = tiny_world.cell(tmp_path / "plain", {})
    assert run(plain).state == "done"
    assert read_records(plain.directory / "records.jsonl")[-1]["gold"] == row["gold"], "watching changes nothing"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"watch": ("nowhere",)}, "watch=nowhere: neither proxy nor the directory of a reward model"),
        ({"watch": ("proxy",), **PROXY, "proxy.pairs": 128}, r"proxy.pairs=128: \d+ of proxy.pool=128 comparisons are"),
        ({"watch": ("proxy",), "proxy.pairs": 20000}, "proxy.pairs=20000 is more than proxy.pool=16384 holds"),
        ({"proxy.size": "xxl"}, "proxy.size='xxl': allowed are xs, s, m, l, xl"),
        ({"method": "online", "online.every": 0}, "online.every=0: must be 1 or more"),
        ({"method": "rloo", "rloo.samples": 5}, "rloo.samples=5: a step's 2 × optim.batch_pairs = 16 responses"),
        ({"method": "best_of_n", "best_of_n.prompts": 99}, "best_of_n.prompts=99 is more than evaluation.prompts=24"),
        ({"method": "rlo"}, "method='rlo': allowed are gpo, online, rloo, best_of_n"),
        ({"labels.by": "prox"}, "labels.by='prox': allowed are gold, proxy"),
        ({"proxy.loss": "sqared"}, "proxy.loss: unknown loss 'sqared'; did you mean 'squared'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(tiny_world, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        prepared_for(tiny_world.cell(tmp_path, changes))


def test_a_watched_model_that_tells_nothing_apart_is_refused(tiny_world, tmp_path):
    from transformers import GPT2ForSequenceClassification

    directory = write_gold(tmp_path / "flat")
    model = GPT2ForSequenceClassification.from_pretrained(directory)
    with torch.no_grad():
        model.score.weight.zero_()
    model.save_pretrained(directory)
    with pytest.raises(ConfigError, match=r"watch=.*flat cannot score π_ref's samples: all \d+ gold scores are 0"):
        prepared_for(tiny_world.cell(tmp_path, {"watch": (str(directory),)}))


def test_utilities_are_the_hidden_raters():
    prompt, words = PROMPTS[7], ["the", "plot", "is", "superb"]
    assert utilities([prompt.text], [" " + " ".join(words)])[0] == utility(prompt, words)
    with pytest.raises(ConfigError, match="prompt 'nonsense': the rater of world reviews knows prompts such as"):
        utilities(["nonsense"], [""])


def test_every_cell_of_a_sweep_gets_its_own_proxy(tiny_world, tmp_path):
    settings = [{"labels.by": "proxy", **PROXY, "proxy.seed": seed} for seed in (0, 1)]
    settings.append({"method": "best_of_n", "best_of_n.samples": 4, "best_of_n.prompts": 4, **settings[0]})
    cells = [tiny_world.cell(tmp_path, changes) for changes in settings]
    prepared = [each for _, each in sorted(prepare_cells(cells, lambda message: None).items())]
    assert len({dict(each.judges)["proxy"].fingerprint for each in prepared}) == 2
    assert [each.best_of_n is not None for each in prepared].count(True) == 1


def test_two_seeds_of_proxies_on_the_same_comparisons_are_refused(tiny_world, tmp_path):
    settings = [{"labels.by": "proxy", **PROXY, "proxy.seed": seed, "seed": seed} for seed in (0, 1, 2)]
    cells = [tiny_world.cell(tmp_path, changes) for changes in settings]
    with pytest.raises(ConfigError, match=r"proxy.seed=0,2: both .* part 0 .* 2 disjoint parts of proxy.pairs=48"):
        prepare_cells(cells, lambda message: None)


def test_a_proxy_is_held_against_gold_and_not_against_labels_that_noise_has_turned(tiny_world, tmp_path):
    cell = tiny_world.cell(tmp_path, {"watch": ("proxy",), **PROXY, "proxy.held_out": 200, "proxy.flip_rate": 0.4})
    directory = dict(prepared_for(cell).judges)["proxy"].path
    (held_out,) = (
        frame[frame["split"] == "held_out"]
        for path in (tiny_world.artifacts / "comparisons").glob("*/pairs.parquet")
        if (frame := pd.read_parquet(path))["flipped"].any() and (frame["split"] == "held_out").sum() > 100
    )
    assert 0.2 < held_out["flipped"].mean() < 0.6
    score = load_judge("proxy", directory).score
    better, worse = (
        [
            row.chosen if (row.gold_chosen > row.gold_rejected) == right else row.rejected
            for row in held_out.itertuples()
        ]
        for right in (True, False)
    )
    prompts = held_out["prompt"].tolist()
    by_hand = (score(prompts, better) > score(prompts, worse)).mean()
    assert read_facts(directory)["agreement"] == pytest.approx(by_hand)
    against_labels = score(prompts, held_out["chosen"].tolist()) > score(prompts, held_out["rejected"].tolist())
    assert abs(against_labels.mean() - by_hand) > 0.02
