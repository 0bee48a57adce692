"""Replicates of a sweep's checkpoints: seeds left out one at a time, prompts drawn anew.

Two sources of chance stand behind a gold reward or KL: the run (seed) and the prompts it is evaluated on. Cells
are evaluated on the same prompts, so a set of easy prompts helps them all. Every statistic is computed on
R = ``1 + S + 2B`` versions of the checkpoint table, in this order:

    full            the table as it is
    without_seed    S versions, each lacking one seed (for every variant at once: cells of a seed share their data)
    joint           B draws of the prompts, one for all cells: what prompts do to all cells stays shared
    within          B draws of the prompts, an independent one per seed: what they do averages out over seeds

`analysis.statistics.intervals` turns the spread within the three sets into an interval.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from analysis.data.sweep import EXTERNAL, RefusedSweep, Sweep
from analysis.statistics.prompt_noise import PromptNoise, make_prompt_noise

DRAWS = 200  # relative error of a standard error from B draws: 1/√(2B) = 5 %


@dataclass(frozen=True)
class Design:
    """How the leading axis of replicate values is laid out.

    Attributes:
        seeds_used: [S] bool, seeds that the value depends on.
        draws: B.
        prompts: number of evaluation prompts.
    """

    seeds_used: np.ndarray
    draws: int
    prompts: int

    @property
    def seed_count(self) -> int:
        """Seeds that the value depends on."""
        return int(self.seeds_used.sum())

    def without_seed(self, values: np.ndarray) -> np.ndarray:
        """[used seeds, ...] values with one seed left out."""
        return values[1 : 1 + len(self.seeds_used)][self.seeds_used]

    def joint(self, values: np.ndarray) -> np.ndarray:
        """[B, ...] values with prompts drawn for all cells at once."""
        start = 1 + len(self.seeds_used)
        return values[start : start + self.draws]

    def within(self, values: np.ndarray) -> np.ndarray:
        """[B, ...] values with prompts drawn per seed."""
        return values[1 + len(self.seeds_used) + self.draws :]

    def union(self, other: "Design") -> "Design":
        """Design of a difference of two values."""
        return replace(self, seeds_used=self.seeds_used | other.seeds_used)


@dataclass(frozen=True)
class VariantReplicates:
    """Checkpoints of one variant in every version.

    Attributes:
        rows: [n] ``strength, seed, step, is_final, kl, gold, gold_se``.
        kl, gold: [R, n]; KL in nats, never negative (a policy at π_ref can measure a little below 0, which counts as
            0); gold in SD units.
        weight: [R, n], 1 where the row is part of the version, else 0.
    """

    rows: pd.DataFrame
    kl: np.ndarray
    gold: np.ndarray
    weight: np.ndarray
    design: Design

    def means_by(self, *keys: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
        """Average over the rows that share `keys`, such as the seeds of one β and step.

        Returns:
            keys of the groups with ``seeds`` (rows in the group), kl [R, groups], gold [R, groups], and the rows behind
            each mean [R, groups]; a mean over no rows is NaN.
        """
        groups = self.rows.groupby(list(keys), sort=True)
        member = sparse.csr_array(
            (np.ones(len(self.rows)), (np.arange(len(self.rows)), groups.ngroup())), shape=(len(self.rows), len(groups))
        )
        count = self.weight @ member
        with np.errstate(invalid="ignore"):
            kl, gold = (((self.weight * values) @ member) / count for values in (self.kl, self.gold))
        return groups.size().rename("seeds").reset_index(), kl, gold, count


@dataclass(frozen=True)
class Draws:
    """The versions of a sweep's checkpoints; `of` makes those of one variant at a time, which bounds the memory.

    Attributes:
        variants, seeds: as in the sweep.
        rows: ``variant, strength, seed, step, is_final, kl, kl_se, gold, gold_se`` of every checkpoint; kl ≥ 0.
        draws: B.
        noise: the draws of the prompts.
        warnings: sentences.
    """

    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: pd.DataFrame
    draws: int
    noise: PromptNoise
    warnings: tuple[str, ...]

    def at_ends(self) -> "Draws":
        """The same without the checkpoints on the way: each cell's start and its last one."""
        return replace(self, rows=self.rows[self.rows["is_final"] | (self.rows["step"] == 0)])

    def paired(self, variants: Iterable[str]) -> "Draws":
        """Those of `variants` at the seeds that all of them have; itself where all have the same, or none in common.

        Differences between variants are taken of these: a seed that one of two variants lacks would leave its own
        effect, which cancels in a paired difference, in the other's mean and in the jackknife's values without it.
        """
        kept = tuple(variants)
        rows = self.rows[self.rows["variant"].isin(kept)]
        seeds = [set(own) for _, own in rows.groupby("variant")["seed"]]
        common = set.intersection(*seeds) if seeds else set()
        if not common or all(own == common for own in seeds):
            return self
        return replace(self, variants=kept, rows=rows[rows["seed"].isin(common)])

    def swept(self, variants: Iterable[str]) -> "Draws":
        """Those of `variants` only, at strengths above 0: what can be a function of log strength."""
        kept = tuple(variants)
        rows = self.rows[self.rows["variant"].isin(kept) & (self.rows["strength"] > 0)]
        return replace(self, variants=tuple(name for name in kept if name in set(rows["variant"])), rows=rows)

    def of(self, variant: str, *, final_only: bool = False) -> VariantReplicates:
        """Versions of the checkpoints (or only the final ones) of `variant`."""
        chosen = self.rows["variant"] == variant
        rows = self.rows[chosen & self.rows["is_final"] if final_only else chosen]
        seed = np.searchsorted(self.seeds, rows["seed"])
        every_seed = np.arange(len(self.seeds))
        kl, gold = (
            np.concatenate([np.tile(rows[key], (1 + len(self.seeds), 1)), drawn])
            for key, drawn in zip(("kl", "gold"), self.noise.draw(rows, seed), strict=True)
        )
        design = Design(np.isin(every_seed, seed), self.draws, self.noise.prompts)
        weight = np.ones(kl.shape)
        if design.seed_count > 1:  # the only seed cannot be left out
            weight[1 : 1 + len(self.seeds)] = seed != every_seed[:, None]
        return VariantReplicates(rows.reset_index(drop=True), np.maximum(kl, 0), gold, weight, design)

    def prompt_means(self, table: np.ndarray, prompt_ids: np.ndarray) -> np.ndarray:
        """Means over prompts of what does not depend on a cell, such as π_ref's samples, in every version.

        Args:
            table: [prompts, ...].
            prompt_ids: [prompts] of its rows.
        Returns:
            [R, ...].
        """
        mean = table.mean(axis=0)
        fixed = np.broadcast_to(mean, (1 + len(self.seeds), *mean.shape))
        return np.concatenate([fixed, self.noise.prompt_means(table, prompt_ids)])


def make_draws(sweep: Sweep, rng: np.random.Generator, *, draws: int = DRAWS, level: str = "gold") -> Draws:
    """Prepare the versions of a sweep at one setting.

    Args:
        rng: draws the prompts; seeds are left out one at a time and need no draws.
        draws: B, draws of the prompts in each of the two sets.
        level: whose scores stand for gold: those of ``gold``, or of another judge, such as ``proxy``.
    Raises:
        RefusedSweep: several settings (learning rates or other swept keys) in one sweep; a variant whose policies never
            moved; fewer than two prompts; samples that disagree with their records or are not on the same prompts.
    """
    if sweep.setting_keys:
        values = {key: sorted(sweep.checkpoints[key].unique().tolist(), key=str) for key in sweep.setting_keys}
        key, (first, *_) = next(iter(values.items()))
        raise RefusedSweep(
            f"{sweep.path}: cells of a method differ in more than variant, strength and seed: {values}; pooling them "
            f"would compare the settings, not the variants. Take one with only(**{{{key!r}: {first!r}}}) or each "
            "in turn with by_setting()"
        )
    trained = sweep.checkpoints[sweep.checkpoints["method"] != EXTERNAL]  # an imported policy may be π_ref itself
    largest_kl = trained.groupby("variant", sort=False)["kl"].max()
    if (largest_kl <= 0).any():
        raise RefusedSweep(
            f"{sweep.path}: KL is 0 at every checkpoint of {largest_kl.idxmin()}: its policy never moved. Check the "
            "learning rate and the number of steps, or leave the variant out"
        )
    noise, warnings = make_prompt_noise(sweep, draws, rng, level)
    columns = ["variant", "strength", "seed", "step", "is_final", "kl", "kl_se", level, f"{level}_se"]
    rows = sweep.checkpoints[columns].reset_index(drop=True)
    rows = rows.rename(columns={level: "gold", f"{level}_se": "gold_se"})
    rows["kl"] = rows["kl"].clip(lower=0)
    return Draws(sweep.variants, sweep.seeds, rows, draws, noise, warnings)
