"""How far gold falls from a frontier's peak to a given KL, the peak located without the seed that measures it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.frontier import SmoothedFrontier
from analysis.statistics.resampling import Design


@dataclass(frozen=True)
class Fall:
    """A fall of one variant; gold in SD units, KL in nats.

    Attributes:
        falls: [R] gold at the peak minus gold at `kl_end`, in every version.
        peak: [R] gold at the full data's peak.
        by_seed: [S] each seed's own fall (its pseudo-value), of which `falls[0]` is the mean; with one seed, that fall.
        kl_end: where the fall ends.
    """

    falls: np.ndarray
    peak: np.ndarray
    by_seed: np.ndarray
    design: Design
    kl_end: float


def places_of(rows: pd.DataFrame) -> np.ndarray:
    """Where a variant's trained policies lie along KL: mean KL of every strength and step after 0, over seeds.

    Not at the start: there gold is known, while all trained policies share the luck of the prompts.
    """
    return rows[rows["step"] > 0].groupby(["strength", "step"])["kl"].mean().to_numpy()


def measure_fall(curve: SmoothedFrontier, kl_end: float, places: np.ndarray) -> Fall:
    """The fall up to `kl_end`, inside the data, from the highest of `places`.

    Between the places where data lie a curve is determined by several configurations at once, and one seed's part in it
    poorly; a peak there is missed by little.

    With the peak located on the same seeds, noise alone would make the fall positive. Seed s's own fall, by its
    pseudo-value S·full − (S − 1)·without_s, is therefore taken at the peak of the other seeds; the average over seeds
    replaces the full value, and the values without a seed are set so that the jackknife sees these falls.
    """
    kl = np.append(np.unique(places[places < kl_end]), kl_end)
    gold = curve.gold(kl)
    falls = gold - gold[:, -1:]
    seeds, used = curve.design.seed_count, np.flatnonzero(curve.design.seeds_used)
    at = int(gold[0].argmax())
    values = falls[:, at].copy()
    if seeds < 2:
        return Fall(values, gold[:, at], values[:1], curve.design, kl_end)
    own = np.empty(seeds)
    for number, seed in enumerate(used):
        left_out = 1 + seed
        place = gold[left_out].argmax()
        own[number] = seeds * falls[0, place] - (seeds - 1) * falls[left_out, place]
    values[0] = own.mean()
    values[1 + used] = (own.sum() - own) / (seeds - 1)
    return Fall(values, gold[:, at], own, curve.design, kl_end)
