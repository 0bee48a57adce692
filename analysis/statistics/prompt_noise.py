"""How checkpoints' KL and gold would move on other evaluation prompts, in two sets of B draws.

*joint* draws take the same prompts for all cells, *within* draws take them anew for each seed; what the two sets are
for is said in `analysis.statistics.intervals`. Where samples were kept, prompts are resampled; where only the records'
standard errors are known, normal errors are drawn.

Gold has its zero at π_ref's mean, which other prompts would move as well. Where π_ref's samples are kept, gold is drawn
together with it (`over_reference`); differences between cells on the same prompts are what they are either way.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.data.sweep import RefusedSweep, Sweep
from bench.records import RECORDS_FILE, SAMPLES_FILE

# More samples (checkpoints × prompts) than this are not read: reading takes about 1 s per million.
MAX_SAMPLES = 6_000_000
# Prompts behind a record's standard error where neither samples nor a reference pool say how many there were.
_ASSUMED_PROMPTS = 100


@dataclass(frozen=True)
class SampledPrompts:
    """Prompts resampled with replacement.

    Attributes:
        prompt_ids: [prompts] ascending.
        kl, gold: [rows, prompts] of every checkpoint, means of the prompt's samples; gold by `over_reference`.
        joint: [B, prompts] weights that sum to 1.
        within: [seeds, B, prompts], independent weights for each seed.
    """

    prompt_ids: np.ndarray
    kl: np.ndarray
    gold: np.ndarray
    joint: np.ndarray
    within: np.ndarray

    @property
    def prompts(self) -> int:
        """Number of evaluation prompts."""
        return len(self.prompt_ids)

    def draw(self, rows: pd.DataFrame, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """KL and gold of `rows` (index: row of the tables; `seed` [n]: index of each row's seed), each [2B, n]."""
        tables = []
        for samples in (self.kl, self.gold):
            by_prompt = samples[rows.index].T
            within = np.empty((len(self.joint), len(rows)))
            for number, weights in enumerate(self.within):
                within[:, seed == number] = weights @ by_prompt[:, seed == number]
            tables.append(np.concatenate([self.joint @ by_prompt, within]))
        return tables[0], tables[1]

    def prompt_means(self, table: np.ndarray, prompt_ids: np.ndarray) -> np.ndarray:
        """Means of `table` [prompts, ...], which no cell stands behind, in all draws: [2B, ...].

        In a within draw it is averaged over the seeds' prompts, as a quantity of the cells is. Constant where the
        table is about other prompts.
        """
        if not np.array_equal(prompt_ids, self.prompt_ids):
            return np.broadcast_to(table.mean(axis=0), (2 * len(self.joint), *table.shape[1:]))
        return np.tensordot(np.concatenate([self.joint, self.within.mean(axis=0)]), table, axes=1)


@dataclass(frozen=True)
class RecordedErrors:
    """Normal errors of the recorded standard errors.

    How much of an error is shared between cells is not recorded. It is taken as wholly shared, which bounds the
    variance of averages over cells from above. With one seed the within draws take it as wholly separate between
    checkpoints, and `analysis.statistics.intervals` uses the larger variance of the two sets, which bounds differences
    too.

    Attributes:
        prompts: number of evaluation prompts.
        joint: [B, 2] standard normal deviates of KL and gold.
        within: [seeds, B, 2], independent deviates for each seed.
        entropy: seeds the deviates of single checkpoints.
    """

    prompts: int
    joint: np.ndarray
    within: np.ndarray
    entropy: int

    def draw(self, rows: pd.DataFrame, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """KL and gold of `rows`, each [2B, n]; KL is cut off at 0."""
        shape = (len(self.joint), len(rows))
        if len(self.within) > 1:
            within = [self.within[:, :, column].T[:, seed] for column in (0, 1)]
        else:
            rng = np.random.default_rng([self.entropy, int(rows.index[0])])
            within = list(rng.standard_normal((2, *shape)))
        tables = []
        for column, key in enumerate(("kl", "gold")):
            deviates = np.concatenate([np.broadcast_to(self.joint[:, column, None], shape), within[column]])
            tables.append(rows[key].to_numpy() + rows[f"{key}_se"].to_numpy() * deviates)
        return np.maximum(tables[0], 0), tables[1]

    def prompt_means(self, table: np.ndarray, prompt_ids: np.ndarray) -> np.ndarray:
        """The plain mean over prompts in every draw, [2B, ...]: which errors belong to which prompt is not known."""
        return np.broadcast_to(table.mean(axis=0), (2 * len(self.joint), *table.shape[1:]))


PromptNoise = SampledPrompts | RecordedErrors


def make_prompt_noise(
    sweep: Sweep, draws: int, rng: np.random.Generator, level: str = "gold"
) -> tuple[PromptNoise, tuple[str, ...]]:
    """Draw the prompts for a sweep; also sentences that say what could not be used.

    Args:
        level: whose scores stand for gold: those of ``gold``, or of another judge, such as ``proxy``.
    Raises:
        RefusedSweep: fewer than two prompts; samples of some cells only, of checkpoints that were not recorded, that
            disagree with their records or are not on the same prompts.
    """
    seeds = len(sweep.seeds)
    if not sweep.has_samples:
        _require_no_samples(sweep)
        reason = f"No cell has its {SAMPLES_FILE} any more"
    else:
        prompt_ids = np.unique(sweep.samples(["prompt_id"], cells=[sweep.checkpoints["cell"].iloc[0]])["prompt_id"])
        prompts = len(prompt_ids)
        if prompts < 2:
            raise RefusedSweep(f"{sweep.path}: {prompts} evaluation prompt; intervals need at least 2")
        per_prompt = sweep.checkpoints["samples_per_prompt"].fillna(1).sum()
        if per_prompt * prompts <= MAX_SAMPLES:
            kl, gold = _sample_tables(sweep, prompt_ids, level)
            # What others hold of π_ref's samples is not kept.
            gold = over_reference(gold, prompt_ids, sweep.reference if level == "gold" else None)
            uniform = np.full(prompts, 1 / prompts)
            weights = rng.multinomial(prompts, uniform, size=(1 + seeds, draws)) / prompts
            # With one seed both sets resample the same thing.
            return SampledPrompts(prompt_ids, kl, gold, weights[0], weights[1:] if seeds > 1 else weights[:1]), ()
        reason = f"More than {MAX_SAMPLES:,} samples"
    prompts = _ASSUMED_PROMPTS if sweep.reference is None else sweep.reference["prompt_id"].nunique()
    entropy = int(rng.integers(2**32))
    noise = RecordedErrors(prompts, rng.standard_normal((draws, 2)), rng.standard_normal((seeds, draws, 2)), entropy)
    return noise, (f"{reason}: prompt variation is taken from the records' standard errors.",)


def over_reference(gold: np.ndarray, prompt_ids: np.ndarray, reference: pd.DataFrame | None) -> np.ndarray:
    """Gold of prompts less that of π_ref's samples of the same prompt, with the same mean over prompts as before.

    A control variate with coefficient 1: gold's zero is π_ref's mean on these prompts, so that a gain over π_ref is
    what gold means. The fitted coefficient would have less spread still, but its error is that of gold against a zero
    known from elsewhere.

    Args:
        gold: [..., prompts], SD units.
        reference: π_ref's samples, REFERENCE_COLUMNS; with none, or of other prompts, `gold` is returned as it is.
    """
    if reference is None:
        return gold
    means = reference.groupby("prompt_id")["gold"].mean().reindex(prompt_ids).to_numpy()
    return gold if np.isnan(means).any() else gold - (means - means.mean())


def _require_no_samples(sweep: Sweep) -> None:
    """Refuse a sweep of which some cells have lost their samples: claims would rest on other errors."""
    there = {cell: (sweep.path / cell / SAMPLES_FILE).exists() for cell in sweep.final["cell"]}
    if any(there.values()):
        lost = sweep.path / next(cell for cell, exists in there.items() if not exists)
        raise RefusedSweep(
            f"{lost / SAMPLES_FILE}: missing, while other cells have theirs; delete {lost} and run the sweep again"
        )


def _sample_tables(sweep: Sweep, prompt_ids: np.ndarray, level: str) -> tuple[np.ndarray, np.ndarray]:
    """kl and `level` of every checkpoint, each [rows of sweep.checkpoints, prompts]: means of each prompt's samples."""
    frame = sweep.samples(["prompt_id", "kl", level], final_only=False)
    rows = pd.MultiIndex.from_frame(sweep.checkpoints[["cell", "step"]])
    position = rows.get_indexer(pd.MultiIndex.from_frame(frame[["cell", "step"]]))
    if (unrecorded := position < 0).any():
        cell, step = frame.loc[unrecorded, ["cell", "step"]].iloc[0]
        raise RefusedSweep(
            f"{sweep.path / cell / RECORDS_FILE}: no record of step {step}, of which there are samples; delete "
            f"{sweep.path / cell} and run the sweep again"
        )
    column = np.searchsorted(prompt_ids, frame["prompt_id"]).clip(max=len(prompt_ids) - 1)
    known = prompt_ids[column] == frame["prompt_id"].to_numpy()
    tables = []
    for key in ("kl", level):
        places = (position * len(prompt_ids) + column)[known]
        size = len(rows) * len(prompt_ids)
        count = np.bincount(places, minlength=size).astype(float)
        total = np.bincount(places, frame[key].to_numpy()[known], minlength=size)
        table = (total / np.where(count == 0, np.nan, count)).reshape(len(rows), -1)
        recorded = sweep.checkpoints[key].to_numpy()
        # A prompt without sample leaves NaN, which agrees with nothing.
        agrees = np.abs(table.mean(axis=1) - recorded) <= 1e-3 * (1 + np.abs(recorded))
        if not agrees.all():
            cell, step = rows[int(np.argmin(agrees))]
            raise RefusedSweep(
                f"{sweep.path / cell}: samples of step {step} do not average to the recorded {key}, or lack one of the "
                f"{len(prompt_ids)} prompts of the first cell; delete the cell and run the sweep again"
            )
        tables.append(table)
    return tables[0].clip(min=0), tables[1]  # KLs are below 0 by rounding only, as in the records
