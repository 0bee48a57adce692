"""Best-of-n as a cell: the best of n of π_ref's samples by the labeller, for every n from one pool of samples.

A checkpoint is one n, which is its `step`. Whatever is measured of a response is averaged with the weight of best-of-n
over the pool (`bench.records.best_of_n_weights`), unbiased for n samples; `kl` is the bound ln n − (n − 1)/n, exact
without ties, and `kl_k1` an estimate that knows of ties, from π_ref's own probabilities.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import digamma

from bench.cells.evaluation import distinct_n, judged, win_shares
from bench.cells.folder import CellFolder, Stopped
from bench.cells.inputs import InputCache, SharedInputs
from bench.cells.measure import Checkpoint, Measurement
from bench.data.artifacts import SAMPLES_FILE
from bench.data.prepared import Prepared
from bench.policies.load import resolve_device
from bench.policies.memory import peak_memory_mib
from bench.records import (
    HELD_OUT_COLUMNS,
    SAMPLE_COLUMNS,
    CheckpointRecord,
    best_of_n_kl,
    best_of_n_sizes,
    best_of_n_weights,
)
from gold_rm.reward_model import Standardization


def measure_best_of_n(
    folder: CellFolder, prepared: Prepared, cache: InputCache, stop: Callable[[], bool],
    on_record: Callable[[CheckpointRecord], None],
) -> None:  # fmt: skip
    """Record best-of-n for every n of `best_of_n_sizes`.

    Raises:
        Stopped: `stop` said so; what has been measured is measured again by the next attempt.
    """
    config = folder.cell.config
    shared = cache.shared(prepared, config)
    measurement = Measurement(folder.cell, prepared, cache)
    assert prepared.best_of_n is not None
    pool = Pool.of(pd.read_parquet(prepared.best_of_n.path / SAMPLES_FILE), shared)
    for n in best_of_n_sizes(config.best_of_n.samples):
        if stop():
            raise Stopped
        record = measurement.record(n, pool.best_of(n) | shared.reference.facts, folder.elapsed_s, strength=float(n))
        none = pd.DataFrame(columns=list(HELD_OUT_COLUMNS)).astype({"step": "int64", "pair": "int64", "rho": "float32"})
        folder.add_checkpoint(Checkpoint(record, pool.chosen(n), none, []))
        on_record(record)
    folder.finish(peak_memory_mib=peak_memory_mib(resolve_device(config.device)))


class Ranks(NamedTuple):
    """Where each sample's score stands among its prompt's, [prompts, samples].

    Attributes:
        below, same: draws that score lower, and the same.
        mass: π_ref's probability of that score: of the responses in the pool that have it, each once.
    """

    below: np.ndarray
    same: np.ndarray
    mass: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, ref_logp: np.ndarray) -> "Ranks":
        """
        Args:
            score: the labeller's, ascending in each row.
            ref_logp: log π_ref, nats.
        """
        ranks = cls(*(np.empty_like(score) for _ in cls._fields))
        for row, (values, logps) in enumerate(zip(score, ref_logp, strict=True)):
            _, start, inverse, counts = np.unique(values, return_index=True, return_inverse=True, return_counts=True)
            mass = np.exp(logps[start])
            for place in np.flatnonzero(counts > 1):  # one response drawn again, or several that score alike
                mass[place] = np.exp(np.unique(logps[start[place] : start[place] + counts[place]])).sum()
            for table, values_of in zip(ranks, (start, counts, mass), strict=True):
                table[row] = values_of[inverse]
        return ranks

    def log_ratio(self, n: int) -> np.ndarray:
        """log of best-of-n's probability over π_ref's, of every sample, in nats, [prompts, samples].

        A response of probability p, of which the share F of π_ref's mass scores lower, is the best of n with
        probability (F + p)^n − F^n. Of responses that are drawn again and again, both are shares of the draws; others,
        as π_ref's probabilities tell, are as good as continuous. Responses that differ and score alike count as one.
        """
        size = self.below.shape[1]
        low, high = self.below / size, (self.below + self.same) / size
        tied = np.log(np.maximum(high**n - low**n, 1e-300)) - np.log(self.same / size)
        # A ratio of n F^(n−1), with the geometric mean of the order statistic for F, so that without ties the mean of
        # the best of n is ln n − (n − 1)/n for every n up to the number of draws.
        alone = np.log(n) + (n - 1) * (digamma(self.below + (self.same + 1) / 2) - digamma(size + 1))
        return np.where(size * self.mass > 1, tied, alone)


class Pool(NamedTuple):
    """π_ref's samples, worst first by the labeller's score in each prompt.

    Attributes:
        table: a row per sample, prompt by prompt; the columns of SAMPLE_COLUMNS that are known, and of the judges.
        ranks: of the labeller's scores.
        judged: names of the judges' columns.
        scale: of gold.
    """

    table: pd.DataFrame
    ranks: Ranks
    judged: tuple[str, ...]
    scale: Standardization

    @classmethod
    def of(cls, samples: pd.DataFrame, shared: SharedInputs) -> "Pool":
        """Score the samples by every judge."""
        prompts, responses = samples["prompt"].tolist(), samples["response"].tolist()
        for judge in shared.judges:
            samples[judge.name] = judge.score(prompts, responses)
        labeller = shared.labeller.name
        samples["length"] = samples["response_ids"].map(len)
        reference = shared.evaluation.reference_gold
        samples["win_share"] = win_shares(samples["gold"].to_numpy(), reference[samples["prompt_id"]])
        samples["gold_reference"] = reference[samples["prompt_id"], 0]
        samples["reference_response"] = [shared.evaluation.reference_responses[i] for i in samples["prompt_id"]]
        # Stable, so that among equal scores the sample that came first is taken last.
        ordered = samples.sort_values(["prompt_id", labeller], kind="stable").reset_index(drop=True)
        shape = (ordered["prompt_id"].nunique(), -1)
        judged = tuple(judge.name for judge in shared.judges)
        score, ref_logp = (ordered[column].to_numpy().reshape(shape) for column in (labeller, "ref_logp"))
        return cls(ordered, Ranks.of(score, ref_logp), judged, shared.standardization)

    def best_of(self, n: int) -> dict[str, Any]:
        """Record keys of the best of n."""
        weights = np.array(best_of_n_weights(self.ranks.below.shape[1], n))

        def spread(key: str, values: np.ndarray) -> dict[str, float]:
            by_prompt = values @ weights
            se = by_prompt.std(ddof=1) / np.sqrt(len(by_prompt))
            return {key: float(by_prompt.mean()), f"{key}_se": float(se)}

        measured: dict[str, Any] = {
            "kl": best_of_n_kl(n),
            "kl_se": 0.0,
            **spread("kl_k1", self.ranks.log_ratio(n)),
            **spread("gold", self._by_prompt("gold")),
            **spread("win_rate", self._by_prompt("win_share")),
            **judged({name: spread(name, self._by_prompt(name)) for name in self.judged}),
        }
        chosen = self.chosen(n)
        return measured | {
            "gold_raw": self.scale.mean + self.scale.sd * measured["gold"],
            "response_tokens": float((self._by_prompt("length") @ weights).mean()),
            "eos_rate": float((self._by_prompt("ended") @ weights).mean()),
            "samples_per_prompt": self.ranks.below.shape[1],
            "distinct_2": distinct_n(self.table.loc[chosen.index, "response_ids"].tolist(), 2),
        }

    def chosen(self, n: int) -> pd.DataFrame:
        """The best of the first n samples of every prompt, SAMPLE_COLUMNS and the judges'."""
        first = self.table[self.table["sample_id"] < n]
        best = first.groupby("prompt_id", sort=True).tail(1)
        ratio = pd.Series(self.ranks.log_ratio(n).ravel(), self.table.index)[best.index]
        filled = best.assign(step=n, kl=best_of_n_kl(n), kl_k1=ratio)
        return filled[[*SAMPLE_COLUMNS, *self.judged]]

    def _by_prompt(self, column: str) -> np.ndarray:
        return self.table[column].to_numpy(dtype=float).reshape(self.ranks.below.shape)
