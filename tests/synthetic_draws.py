"""Draws with known truth, made in memory: thousands of simulated sweeps in the time of writing one to disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.prompt_noise import SampledPrompts
from analysis.statistics.resampling import Draws


@dataclass(frozen=True)
class Noise:
    """Standard deviations of gold (SD units) and of log KL.

    `seed` is a seed's effect on all its cells, `cell` each cell's own, `prompt` a prompt's effect on all cells,
    `sample` each sample's own, `log_kl` each cell's own effect on log KL.
    """

    seed: float = 0.05
    cell: float = 0.05
    prompt: float = 0.4
    sample: float = 0.5
    log_kl: float = 0.05


QUIET = Noise(0.0, 0.0, 0.0, 0.0, 0.0)


def simulate(
    rng: np.random.Generator,
    kl: Callable[[str, float, int], float],
    gold: Callable[[str, float], float],
    *,
    variants: Sequence[str] = ("logistic",),
    betas: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0),
    seeds: int = 3,
    steps: Sequence[int] = (0, 1),
    prompts: int = 40,
    draws: int = 60,
    noise: Noise = Noise(),
) -> Draws:
    """Checkpoints of every variant, β, seed and step; ``kl(variant, beta, step)`` and ``gold(variant, kl)`` are means.

    Gold is that of the expected KL: a seed that moves farther is not rewarded for it, so that KL noise only blurs.
    """
    design = [(variant, beta, seed) for variant in variants for beta in betas for seed in range(seeds)]
    by_seed, by_prompt = rng.normal(0, noise.seed, seeds), rng.normal(0, noise.prompt, prompts)
    rows, golds, kls = [], [], []
    for variant, beta, seed in design:
        own, log_kl = rng.normal(0, noise.cell), rng.normal(0, noise.log_kl)
        for step in steps:
            true_kl = kl(variant, beta, step) * np.exp(log_kl)
            moved = (by_seed[seed] + own) if step else 0.0
            golds.append(gold(variant, true_kl) + moved + by_prompt + rng.normal(0, noise.sample, prompts))
            kls.append(np.full(prompts, true_kl))
            rows.append((variant, beta, seed, step, step == steps[-1]))
    frame = pd.DataFrame(rows, columns=["variant", "strength", "seed", "step", "is_final"])
    for name, samples in (("kl", np.array(kls)), ("gold", np.array(golds))):
        frame[name] = samples.mean(1)
        frame[f"{name}_se"] = samples.std(1, ddof=1) / np.sqrt(prompts)
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=(1 + seeds, draws)) / prompts
    sampled = SampledPrompts(
        np.arange(prompts), np.array(kls), np.array(golds), weights[0], weights[1:] if seeds > 1 else weights[:1]
    )
    return Draws(tuple(variants), tuple(range(seeds)), frame, draws, sampled, ())
