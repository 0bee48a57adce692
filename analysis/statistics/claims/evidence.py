"""What stands against a verdict before any is given: missing cells, copies, constant gold, identical runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.data.sweep import EXTERNAL, Sweep
from analysis.statistics.claims.claim import listed
from analysis.statistics.claims.rules import Rules
from analysis.statistics.resampling import Draws
from bench.records import GPO

# What no two runs share by chance: means of hundreds of samples to the last bit.
_MEASURED = ["kl", "kl_se", "gold", "gold_se"]
_CELL = ["variant", "strength", "seed"]
_KEPT = [*_CELL, "step", *_MEASURED]


@dataclass(frozen=True)
class Evidence:
    """What verdicts can rest on.

    Attributes:
        variants: losses of offline GPO, in the order of the plan; the claims are about these. Where there is none, all
            that were trained here.
        final: last checkpoints of their cells: ``variant, strength, seed, step, kl, kl_se, gold,
            gold_se``.
        obstacles: sentences; with any of them every verdict is inconclusive.
        identical: ``variant_a, variant_b, strength, seed``: cells of two variants that measured the same to the last
            bit, as two losses do that have the same gradient wherever training went.
    """

    variants: tuple[str, ...]
    final: pd.DataFrame
    obstacles: tuple[str, ...]
    identical: pd.DataFrame

    def same_at(self, kl: float) -> dict[str, str]:
        """Every variant with the first one that its frontier cannot differ from around `kl`, itself included.

        Two variants are one there if the strengths whose mean KL lies next to `kl`, below and above, are the same and
        all their cells identical.
        """
        if self.identical.empty:
            return {variant: variant for variant in self.variants}
        around = {variant: self._around(variant, kl) for variant in self.variants}
        shared = self.identical.groupby(["variant_a", "variant_b"])
        pairs = {names: set(map(tuple, rows[["strength", "seed"]].to_numpy())) for names, rows in shared}
        first: dict[str, str] = {}
        for variant in self.variants:
            first[variant] = variant
            for other in dict.fromkeys(first.values()):
                cells = around[variant]
                if cells and cells == around[other] and cells <= pairs.get((other, variant), set()):
                    first[variant] = other
                    break
        return first

    def _around(self, variant: str, kl: float) -> set[tuple[float, float]]:
        """(strength, seed) of the cells of the two strengths that enclose `kl`."""
        rows = self.final[self.final["variant"] == variant]
        mean = rows.groupby("strength")["kl"].mean()
        below, above = mean[mean <= kl], mean[mean > kl]
        nearest = [part for part in (below.nlargest(1).index, above.nsmallest(1).index) if len(part)]
        strengths = {float(part[0]) for part in nearest}
        cells = rows.loc[rows["strength"].isin(strengths), ["strength", "seed"]]
        return set(map(tuple, cells.to_numpy(float)))

    @property
    def words_on_identical(self) -> str:
        """A sentence on identical runs; empty where there are none."""
        parts = []
        for (a, b), rows in self.identical.groupby(["variant_a", "variant_b"], sort=False):
            both = self.final[self.final["variant"] == a]
            parts.append(f"{a} and {b} are the same runs to the last bit in {len(rows)} of {len(both)} cells")
        return f"{'; '.join(parts)}: where they are, their equality says nothing and counts once." if parts else ""


def gather_evidence(draws: Draws, rules: Rules, sweep: Sweep | None = None) -> Evidence:
    """Look at a sweep's final checkpoints.

    Args:
        draws: its checkpoints.
        sweep: tells trained variants from imported ones and finished cells from planned ones; without it all are taken
            to be trained and finished.
    """
    trained = draws.variants
    if sweep is not None:
        trained = tuple(name for name in draws.variants if sweep.methods[name] != EXTERNAL)
        trained = tuple(name for name in trained if sweep.methods[name] == GPO) or trained
    rows = draws.rows[draws.rows["variant"].isin(trained)]
    final = rows.loc[rows["is_final"], _KEPT].reset_index(drop=True)
    obstacles = [*_unfinished(sweep), *_too_few(final, trained, rules), *_copies(final), *_constant(final)]
    return Evidence(trained, final, tuple(obstacles), _identical(final, trained))


def _unfinished(sweep: Sweep | None) -> Iterator[str]:
    if sweep is None:
        return
    lacking = sweep.unfinished[sweep.unfinished["method"] != EXTERNAL]
    if len(lacking):
        states = listed(f"{count} {state}" for state, count in lacking["state"].value_counts().items())
        yield f"{len(lacking)} of {len(sweep.cells)} planned cells are not finished ({states})"


def _too_few(final: pd.DataFrame, variants: Iterable[str], rules: Rules) -> Iterator[str]:
    groups = final.groupby("variant", sort=False)
    seeds = {variant: set(rows["seed"]) for variant, rows in groups}
    if not seeds:
        yield "no variant was trained here"
        return
    for what, key, least in (("seeds", "seed", rules.seeds), ("strengths", "strength", rules.strengths)):
        counts = groups[key].nunique()
        if (few := counts[counts < least]).size:
            counted = f"{listed(sorted(set(few)))} {what if few.max() > 1 else what.removesuffix('s')}"
            yield f"{listed(few.index)} {'has' if few.size == 1 else 'have'} {counted}, {least} are needed"
    everything = set().union(*seeds.values())
    if partly := [variant for variant, own in seeds.items() if own != everything]:
        lacks = sorted(everything - seeds[partly[0]])
        yield f"differences are paired by seed, and {partly[0]} has no seed {listed(lacks)}"
    cells = final.groupby(["variant", "strength"], sort=False)["seed"].agg(set)
    partial = [(key, own) for key, own in cells.items() if own != seeds[key[0]]]  # type: ignore[index]
    if partial:
        (variant, strength), own = partial[0]  # type: ignore[misc]
        count, absent = (
            f"{len(partial)} pairs of variant and strength lack a seed",
            listed(sorted(seeds[variant] - own)),
        )
        yield f"{count}, such as {variant} at {strength:g}: seed {absent}"


def _copies(final: pd.DataFrame) -> Iterator[str]:
    """Cells that are another seed's measurement: two runs with different data never agree to the last bit."""
    twice = final[final.duplicated(_CELL, keep=False)]
    if len(twice):
        variant, strength, seed = twice.iloc[0][_CELL]
        yield f"{len(twice)} cells repeat a variant, strength and seed, such as {variant} at {strength:g}, seed {seed}"
    moved = final[final["kl"] > 0]
    seeds = moved.groupby(_MEASURED)["seed"].transform("nunique")
    copied = moved[seeds > 1]
    if len(copied):
        first = copied.iloc[0]
        alike = copied[(copied[_MEASURED] == first[_MEASURED]).all(axis=1)]
        names = listed(f"{row.variant} at {row.strength:g}, seed {row.seed}" for row in alike.iloc[:2].itertuples())
        yield f"{len(copied)} cells of different seeds are copies of each other, such as {names}"


def _constant(final: pd.DataFrame) -> Iterator[str]:
    spread = final.groupby("variant", sort=False)["gold"].agg(np.ptp)
    still = spread[spread <= 1e-9 * (1 + final["gold"].abs().max())]
    if len(final) > len(spread) and len(still):
        yield f"gold is the same in all cells of {listed(still.index)}"


def _identical(final: pd.DataFrame, variants: Iterable[str]) -> pd.DataFrame:
    cells = {variant: rows.set_index(["strength", "seed"])[_MEASURED] for variant, rows in final.groupby("variant")}
    rows = []
    for a, b in combinations([variant for variant in variants if variant in cells], 2):
        one, other = (cells[name][~cells[name].index.duplicated()] for name in (a, b))
        both = one.index.intersection(other.index)
        same = (one.loc[both] == other.loc[both]).all(axis=1) & (one.loc[both, "kl"] > 0)
        rows += [(a, b, strength, seed) for strength, seed in both[same]]
    return pd.DataFrame(rows, columns=["variant_a", "variant_b", "strength", "seed"])
