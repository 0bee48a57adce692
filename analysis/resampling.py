"""Replicates of a sweep's checkpoints: seeds left out one at a time, prompts resampled within them.

Two sources of chance stand behind a gold reward or KL: the run (seed) and the prompts it is evaluated on. Cells
are evaluated on the same prompts, so a set of easy prompts helps them all. Every statistic is computed on
``1 + S + 2B`` versions of the checkpoint table, in this order:

    full            the table as it is
    without_seed    S versions, each lacking one seed (for every loss at once: cells of a seed share their data)
    joint           B resamples of the prompts, one for all cells: shared prompt effects stay shared
    within          B resamples of the prompts, an independent one per seed: shared effects average out over seeds

`analysis.intervals` turns the spread within the three sets into an interval.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from analysis.load import RefusedSweep, Sweep

DRAWS = 200  # relative error of a standard error from B draws: 1/√(2B) = 5 %
# Above this many samples (cells × checkpoints × prompts) only the records' own standard errors are used.
MAX_SAMPLES = 12_000_000


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
        """[B, ...] values with prompts resampled for all cells at once."""
        start = 1 + len(self.seeds_used)
        return values[start : start + self.draws]

    def within(self, values: np.ndarray) -> np.ndarray:
        """[B, ...] values with prompts resampled per seed."""
        return values[1 + len(self.seeds_used) + self.draws :]

    def union(self, other: "Design") -> "Design":
        """Design of a difference of two values."""
        return replace(self, seeds_used=self.seeds_used | other.seeds_used)


@dataclass(frozen=True)
class LossReplicates:
    """Checkpoints of one loss in every version.

    Attributes:
        rows: [n] ``beta, seed, step, is_final, kl, gold, gold_se``.
        kl, gold: [R, n], R = 1 + S + 2B; KL in nats, never negative; gold in SD units.
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
    """Resampling weights for one sweep; `of` applies them to one loss at a time, which bounds the memory.

    Attributes:
        losses, seeds: as in the sweep.
        source: ``samples`` (prompt by prompt) or ``records`` (only standard errors are known).
        prompts: number of evaluation prompts; of π_ref's pool where only records are used.
        draws: B.
        prompt_ids: [prompts] ascending, in the order of the weights; None where only records are used.
        warnings: sentences.
    """

    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    source: str
    prompts: int
    draws: int
    warnings: tuple[str, ...]
    prompt_ids: np.ndarray | None
    _rows: pd.DataFrame
    _samples: tuple[np.ndarray, np.ndarray] | None  # kl, gold, each [rows, prompts]
    _joint: np.ndarray  # samples: prompt weights [B, prompts]; records: normal deviates [B, 2]
    _within: np.ndarray  # the same per seed, [S, B, ...]
    _entropy: int

    def of(self, loss: str, *, final_only: bool = False) -> LossReplicates:
        """Replicates of the checkpoints (or only the final ones) of `loss`."""
        chosen = self._rows["loss"] == loss
        if final_only:
            chosen &= self._rows["is_final"]
        index = np.flatnonzero(chosen)
        rows = self._rows.iloc[index].reset_index(drop=True)
        seed = np.searchsorted(self.seeds, rows["seed"])
        used = np.isin(np.arange(len(self.seeds)), seed)
        kl, gold = (
            np.concatenate([np.tile(rows[key], (1 + len(self.seeds), 1)), drawn])
            for key, drawn in zip(("kl", "gold"), self._drawn(index, rows, seed), strict=True)
        )
        weight = np.ones(kl.shape)
        weight[1 : 1 + len(self.seeds)] = seed[None, :] != np.arange(len(self.seeds))[:, None]
        return LossReplicates(rows, kl, gold, weight, Design(used, self.draws, self.prompts))

    def prompt_means(self, table: np.ndarray, prompt_ids: np.ndarray) -> np.ndarray:
        """Means over prompts of what does not depend on a cell, such as π_ref's samples, in every version.

        Args:
            table: [prompts, ...].
            prompt_ids: [prompts] of its rows.
        Returns:
            [R, ...]. Where only records are used, or the prompts are others, every version is the plain mean.
        """
        mean = table.mean(axis=0)
        fixed = np.broadcast_to(mean, (1 + len(self.seeds), *mean.shape))
        if self.prompt_ids is None or not np.array_equal(prompt_ids, self.prompt_ids):
            return np.concatenate([fixed, np.broadcast_to(mean, (2 * self.draws, *mean.shape))])
        drawn = (np.tensordot(weights, table, axes=1) for weights in (self._joint, self._within.mean(axis=0)))
        return np.concatenate([fixed, *drawn])

    def _drawn(self, index: np.ndarray, rows: pd.DataFrame, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """KL and gold in the joint and the within draws, each [2B, n]."""
        if self._samples is None:
            return self._drawn_from_errors(index, rows, seed)
        tables = []
        for samples in self._samples:
            table = samples[index].T  # [prompts, n]
            within = np.empty((self.draws, len(index)))
            for number, weights in enumerate(self._within):
                within[:, seed == number] = weights @ table[:, seed == number]
            tables.append(np.concatenate([self._joint @ table, within]))
        return tables[0], tables[1]

    def _drawn_from_errors(self, index: np.ndarray, rows: pd.DataFrame, seed: np.ndarray) -> tuple:
        """Normal draws from the records' standard errors.

        How much of an error is shared between cells is not recorded, so the draws take it as wholly shared: an
        upper bound for averages over cells. With one seed the within draws take it as wholly separate, and the
        interval uses the larger variance of the two.
        """
        if len(self.seeds) > 1:
            within = self._within[seed].transpose(1, 0, 2)  # [B, n, 2]
        else:
            rng = np.random.default_rng([self._entropy, int(index[0])])
            within = rng.standard_normal((self.draws, len(index), 2))
        deviates = np.concatenate([np.broadcast_to(self._joint[:, None, :], within.shape), within])
        kl = rows["kl"].to_numpy() + rows["kl_se"].to_numpy() * deviates[..., 0]
        gold = rows["gold"].to_numpy() + rows["gold_se"].to_numpy() * deviates[..., 1]
        return np.maximum(kl, 0), gold


def make_draws(sweep: Sweep, rng: np.random.Generator, *, draws: int = DRAWS) -> Draws:
    """Prepare the replicates of a sweep at one setting.

    Args:
        rng: draws the prompts (two-level resampling; seeds are left out one at a time and need no draws).
        draws: B, resamples of the prompts in each of the two sets.
    Raises:
        RefusedSweep: several settings (learning rates or other swept keys) in one sweep; fewer than two prompts;
            samples that disagree with their records or are not on the same prompts.
    """
    if sweep.setting_keys:
        values = {key: sorted(sweep.checkpoints[key].unique().tolist(), key=str) for key in sweep.setting_keys}
        key, (first, *_) = next(iter(values.items()))
        raise RefusedSweep(
            f"{sweep.path}: cells differ in more than loss, β and seed: {values}; pooling them would compare the "
            f"settings, not the losses. Take one with only({key}={first!r}) or each in turn with by_setting()"
        )
    rows = sweep.checkpoints[["cell", "loss", "beta", "seed", "step", "is_final", "kl", "kl_se", "gold", "gold_se"]]
    warnings = []
    samples = prompt_ids = None
    if not sweep.has_samples:
        warnings.append("Samples are missing for some cells: prompt variation comes from the records' standard errors.")
    else:
        prompt_ids, samples = _sample_tables(sweep, rows)
        if samples is None:
            warnings.append("Too many samples to read: prompt variation comes from the records' standard errors.")
    entropy = int(rng.integers(2**32))
    seeds = len(sweep.seeds)
    if samples is None:
        prompts = 100 if sweep.reference is None else sweep.reference["prompt_id"].nunique()
        joint, within = rng.standard_normal((draws, 2)), rng.standard_normal((seeds, draws, 2))
    else:
        prompts = len(prompt_ids)
        weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=(1 + seeds, draws)) / prompts
        # With one seed both sets resample the same thing.
        joint, within = weights[0], weights[1:] if seeds > 1 else weights[:1]
    return Draws(
        sweep.losses,
        sweep.seeds,
        "records" if samples is None else "samples",
        prompts,
        draws,
        tuple(warnings),
        None if samples is None else prompt_ids,
        rows,
        samples,
        joint,
        within,
        entropy,
    )


def _sample_tables(sweep: Sweep, rows: pd.DataFrame) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Prompt ids, and kl and gold of every checkpoint, each [rows, prompts]; None when there are too many to read."""
    first = sweep.samples(["prompt_id"], cells=[rows["cell"].iloc[0]])
    prompts = np.sort(first["prompt_id"].to_numpy())
    if len(prompts) < 2:
        raise RefusedSweep(f"{sweep.path}: {len(prompts)} evaluation prompt; intervals need at least 2")
    if len(rows) * len(prompts) > MAX_SAMPLES:
        return prompts, None
    frame = sweep.samples(["prompt_id", "kl", "gold"], final_only=False)
    position = pd.MultiIndex.from_frame(rows[["cell", "step"]]).get_indexer(
        pd.MultiIndex.from_frame(frame[["cell", "step"]])
    )
    column = np.searchsorted(prompts, frame["prompt_id"]).clip(max=len(prompts) - 1)
    tables = []
    for key in ("kl", "gold"):
        table = np.full((len(rows), len(prompts)), np.nan)
        known = (position >= 0) & (prompts[column] == frame["prompt_id"].to_numpy())
        table[position[known], column[known]] = frame[key].to_numpy()[known]
        gap = np.abs(table.mean(1) - rows[key].to_numpy())
        tolerance = 1e-3 * (1 + np.abs(rows[key].to_numpy()))
        if not (gap <= tolerance).all():  # NaN (a prompt without sample) counts as a gap
            cell, step = rows.loc[int(np.argmax(~(gap <= tolerance))), ["cell", "step"]]
            raise RefusedSweep(
                f"{sweep.path / cell}: samples of step {step} do not average to the recorded {key}, or lack one of the "
                f"{len(prompts)} prompts of the first cell; delete the cell and run the sweep again"
            )
        tables.append(table)
    return prompts, (tables[0], tables[1])
