"""Best-of-n against brute force over subsets, enumeration on the oracle world, and as a cell."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from oracle_worlds import build_small_world
from running import run
from tiny_world import write_gold

from bench.cells.best_of_n import Ranks
from bench.records import best_of_n_kl, best_of_n_sizes, best_of_n_weights, read_records

PROXY = {"proxy.pool": 128, "proxy.pairs": 48, "proxy.held_out": 16, "proxy.steps": 4, "proxy.size": "xs"}


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_weights_are_those_of_all_subsets(n):
    values = np.random.default_rng(0).normal(size=7)
    score = np.arange(7)  # by which the best is chosen: the last
    brute = np.mean([values[max(subset)] for subset in itertools.combinations(score, n)])
    assert best_of_n_weights(7, n) @ values == pytest.approx(brute, rel=1e-12)
    assert sum(best_of_n_weights(1024, n)) == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 16, 200])
def test_without_ties_the_estimated_kl_is_the_bound(n):
    score = np.sort(np.random.default_rng(0).normal(size=(3, 200)))
    ratio = Ranks.of(score, np.full((3, 200), -60.0)).log_ratio(n)  # of vanishing probability each
    assert ratio @ best_of_n_weights(200, n) == pytest.approx(np.full(3, best_of_n_kl(n)), abs=1e-9)


@pytest.mark.parametrize("n", [2, 8])
def test_with_ties_the_estimated_kl_is_that_of_enumeration(tmp_path, n):
    """13 responses, so that draws tie all the time: the bound is above, the estimate is not."""
    world = build_small_world(tmp_path).world
    probability, gold = world.log_reference[0].exp().numpy(), world.gold[0].numpy()
    order = np.argsort(gold)
    assert len(np.unique(gold)) == len(gold)
    below = np.concatenate([[0], np.cumsum(probability[order])])
    best = np.diff(below**n)  # exact probability of each response, worst first
    exact = float((best * np.log(best / probability[order])).sum())
    draws = torch.multinomial(
        torch.from_numpy(probability).repeat(40, 1), 4000, replacement=True, generator=torch.Generator().manual_seed(0)
    ).numpy()
    score = np.sort(gold[draws], axis=1)
    rank = {value: i for i, value in enumerate(gold)}
    ref_logp = np.log(probability)[np.vectorize(rank.get)(score)]
    estimated = Ranks.of(score, ref_logp).log_ratio(n) @ best_of_n_weights(4000, n)
    assert estimated.mean() == pytest.approx(exact, rel=0.005)
    assert best_of_n_kl(n) > exact + 0.004


def test_a_cell_records_every_n_and_what_was_chosen(tiny_world, tmp_path):
    cell = tiny_world.cell(
        tmp_path, {"method": "best_of_n", "best_of_n.samples": 12, "best_of_n.prompts": 10, "watch": ("proxy",)} | PROXY
    )
    assert cell.name.startswith("method=best_of_n,seed=0,")
    assert run(cell).state == "done"
    rows = read_records(cell.directory / "records.jsonl")
    assert [row["step"] for row in rows] == [row["strength"] for row in rows] == best_of_n_sizes(12) == [1, 2, 4, 8, 12]
    assert [row["kl"] for row in rows] == [best_of_n_kl(n) for n in (1, 2, 4, 8, 12)]
    assert {row["variant"] for row in rows} == {"best_of_n"}
    samples = pd.read_parquet(cell.directory / "samples.parquet")
    pool = pd.read_parquet(next((tiny_world.artifacts / "best_of_n").glob("*/samples.parquet")))
    for n, chosen in samples.groupby("step"):
        best = pool[pool["sample_id"] < n].groupby("prompt_id")["gold"].max()
        assert chosen.sort_values("prompt_id")["gold"].tolist() == pytest.approx(best.tolist())
    # n = 12 has one subset: the mean over prompts of the best gold.
    assert rows[-1]["gold"] == pytest.approx(pool.groupby("prompt_id")["gold"].max().mean())
    assert rows[0]["gold"] == pytest.approx(pool["gold"].mean())
    brute = pool.groupby("prompt_id")["gold"].apply(
        lambda gold: np.mean([max(pair) for pair in itertools.combinations(gold, 2)])
    )
    assert rows[1]["gold"] == pytest.approx(brute.mean())
    assert rows[1]["gold_se"] == pytest.approx(brute.std(ddof=1) / math.sqrt(10))
    assert rows[-1]["proxy"] != rows[-1]["gold"]


def test_a_watched_model_is_measured_on_the_best_as_well(tiny_world, tmp_path):
    other = write_gold(tmp_path / "other", seed=11)
    sizes = {"best_of_n.samples": 8, "best_of_n.prompts": 10}
    cell = tiny_world.cell(tmp_path, {"method": "best_of_n", "watch": (str(other),), **sizes})
    status = run(cell)
    assert status.state == "done", status.error
    last = read_records(cell.directory / "records.jsonl")[-1]
    chosen = pd.read_parquet(cell.directory / "samples.parquet").query("step == 8")
    assert last["watched"]["other"] == pytest.approx(chosen["other"].mean())
