"""Several comparisons of which one alone may decide: intervals at any level, and which lie beyond given limits."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.statistics.intervals import interval
from analysis.statistics.resampling import Design


@dataclass
class Contrasts:
    """Estimates with their values in every version of the table; differences are thereby paired by seed and prompt."""

    labels: list[dict[str, object]] = field(default_factory=list)
    replicates: list[np.ndarray] = field(default_factory=list)
    designs: list[Design] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, values: np.ndarray, design: Design, **labels: object) -> None:
        """One comparison: values [R]."""
        self.labels.append(labels)
        self.replicates.append(values)
        self.designs.append(design)

    def table(self, name: str, level: float) -> pd.DataFrame:
        """The labels, then ``name, name_low, name_high, name_se, kind`` with intervals at `level`, each on its own."""
        results = [
            interval(values, design, level=level) for values, design in zip(self.replicates, self.designs, strict=True)
        ]
        numbers = [{key: float(value) for key, value in result.columns(name).items()} for result in results]
        rows = [
            labels | row | {"kind": str(result.kind)}
            for labels, row, result in zip(self.labels, numbers, results, strict=True)
        ]
        columns = [name, f"{name}_low", f"{name}_high", f"{name}_se", "kind"]
        return pd.DataFrame(rows, columns=[*(self.labels[0] if self.labels else []), *columns])

    def each_level(self, level: float) -> float:
        """Level of one interval of as many that hold together at `level` (Bonferroni)."""
        return 1 - (1 - level) / max(len(self), 1)

    def beyond(self, low: float, high: float, *, level: float, multiplicity: str) -> np.ndarray:
        """Which estimates lie below `low` (−1) or above `high` (1) beyond noise, all statements together at `level`.

        Holm (1979, Scandinavian Journal of Statistics 6:65) rejects at 1 − level over the number of hypotheses that are
        still open, which is the same as intervals that narrow as others are decided; Bonferroni stops after the first
        round.
        """
        side = np.zeros(len(self), dtype=int)
        while (open_ := int((side == 0).sum())) > 0:
            table = self.table("x", 1 - (1 - level) / open_)
            found = np.select([table["x_low"] > high, table["x_high"] < low], [1, -1], 0)
            newly = (side == 0) & (found != 0)
            side = np.where(newly, found, side)
            if multiplicity == "bonferroni" or not newly.any():
                break
        return side

    def inside(self, low: float, high: float, *, level: float) -> np.ndarray:
        """Which estimates pass two one-sided tests at 1 − level, each on its own: whose interval lies inside."""
        table = self.table("x", 2 * level - 1)
        return ((table["x_low"] > low) & (table["x_high"] < high)).to_numpy()
