"""One simulated sweep, in the form that the statistics take: last checkpoints, with the noise of their prompts."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.power.truth import PREDICTED, STRENGTHS, Truth
from analysis.statistics.prompt_noise import SampledPrompts
from analysis.statistics.resampling import Draws

STEPS = 160
PAIRS = 256  # held out
DRAWS = 60  # of the prompts; a study of thousands of sweeps needs fewer than one report


class Simulated(NamedTuple):
    """Checkpoints with their draws, and ρ of every held-out pair [checkpoints, pairs]."""

    draws: Draws
    rho: np.ndarray


class Size(NamedTuple):
    """What a sweep is given."""

    seeds: int = 10
    samples: int = 4
    prompts: int = 256


def simulate(truth: Truth, size: Size, rng: np.random.Generator) -> Simulated:
    """Draw a sweep: every variant of `PREDICTED`, β of `STRENGTHS`, and seed."""
    seeds = size.seeds if truth.seeds is None else truth.seeds
    noise, variants = truth.noise, tuple(PREDICTED)
    cells = [(variant, beta, seed) for variant in variants for beta in STRENGTHS for seed in range(seeds)]
    by_seed, kl_by_seed = rng.normal(0, noise.seed**0.5, seeds), rng.normal(0, noise.log_kl**0.5, seeds)
    by_prompt = rng.normal(0, noise.prompt**0.5, size.prompts)
    prompt_kl = rng.gamma(6, 1 / 6, size.prompts)  # what a prompt does to the KL of all cells
    shared_rho = rng.normal(0, 1, (seeds, PAIRS))
    gold, kl, rho, rows = [], [], [], []
    for variant, beta, seed in cells:
        true_kl = truth.kl(variant, beta) * np.exp(kl_by_seed[seed] + rng.normal(0, (noise.log_kl / 2) ** 0.5))
        level = (
            truth.gold_of(variant, true_kl)
            + by_seed[seed]
            + rng.normal(0, noise.run**0.5 * (1 + truth.scatter * true_kl / 10))
        )
        own = rng.normal(0, (noise.sample / size.samples) ** 0.5, size.prompts)
        gold.append(level + by_prompt + own)
        kl.append(true_kl * prompt_kl * rng.gamma(12 * size.samples, 1 / (12 * size.samples), size.prompts))
        spread = 0.9 * shared_rho[seed] + np.sqrt(1 - 0.81) * rng.normal(0, 1, PAIRS)
        rho_sq = truth.rho_sq(variant, true_kl) * np.exp(rng.normal(0, truth.rho_scatter))
        rho.append(np.sqrt(rho_sq) * spread)
        rows.append((variant, beta, seed, STEPS, True))
    table = _spoiled(truth, pd.DataFrame(rows, columns=["variant", "strength", "seed", "step", "is_final"]))
    kl_table, gold_table, rho_table = (np.array(values)[table["source"]] for values in (kl, gold, rho))
    return Simulated(_draws(table.drop(columns="source"), kl_table, gold_table, rng), rho_table)


def _spoiled(truth: Truth, table: pd.DataFrame) -> pd.DataFrame:
    """The checkpoints that are there; `source` is the row that each was measured as."""
    table = table.assign(source=np.arange(len(table)))
    last = table["seed"].max()
    if truth.spoil == "three cells":
        table = table.iloc[[0, len(table) // 2, len(table) - 1]]
    elif truth.spoil == "lacks a seed":
        table = table[(table["variant"] != "squared") | (table["seed"] != last)]
    elif truth.spoil == "copy":
        same = (table["variant"] == "squared") & (table["strength"] == STRENGTHS[2])
        table.loc[same & (table["seed"] == last), "source"] = table.loc[same & (table["seed"] == 0), "source"].iloc[0]
    return table.reset_index(drop=True)


def _draws(table: pd.DataFrame, kl: np.ndarray, gold: np.ndarray, rng: np.random.Generator) -> Draws:
    prompts = kl.shape[1]
    for name, values in (("kl", kl), ("gold", gold)):
        table[name] = values.mean(axis=1)
        table[f"{name}_se"] = values.std(axis=1, ddof=1) / np.sqrt(prompts)
    seeds = tuple(sorted(table["seed"].unique()))
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=(1 + len(seeds), DRAWS)) / prompts
    within = weights[1:] if len(seeds) > 1 else weights[:1]
    noise = SampledPrompts(np.arange(prompts), kl, gold, weights[0], within)
    return Draws(tuple(table["variant"].unique()), seeds, table, DRAWS, noise, ())
