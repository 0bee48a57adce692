"""The texts that the report shows: a few at every checkpoint, and rows of prompt and responses per cell."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.data.sweep import Sweep

HOVER_PROMPTS = 2
_CELLS_PER_READ = 50  # bounds memory: a thousand cells' samples do not fit at once
_COLUMNS = ("prompt_id", "sample_id", "prompt", "response", "gold", "gold_reference", "reference_response")


@dataclass
class TextPool:
    """Distinct texts, so that a prompt shown for a hundred cells is stored once; long ones are cut, visibly."""

    longest: int = 600
    texts: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, text: str) -> int:
        """Index of `text` in `texts`, which it joins if it is new."""
        shown = text if len(text) <= self.longest else text[: self.longest] + " […]"
        if shown not in self._places:
            self._places[shown] = len(self.texts)
            self.texts.append(shown)
        return self._places[shown]


@dataclass(frozen=True)
class ShownTexts:
    """Texts of one sweep as indices into a `TextPool`.

    Attributes:
        prompts: the HOVER_PROMPTS prompts whose responses are shown at every checkpoint.
        by_checkpoint: (cell, step) -> one response per hover prompt.
        by_cell: cell -> rows ``(prompt, response, gold, reference response, reference gold)`` of its last
            checkpoint, in falling order of gain.
        evaluation_prompts: number of prompts that the rows are a choice of.
    """

    prompts: tuple[int, ...]
    by_checkpoint: dict[tuple[str, int], tuple[int, ...]]
    by_cell: dict[str, list[tuple[int, int, float, int, float]]]
    evaluation_prompts: int


def collect_texts(sweep: Sweep, cells: list[str], pool: TextPool, *, browsable: int, rows: int) -> ShownTexts:
    """Read the samples of `cells` and keep what the report shows.

    Args:
        browsable: number of cells, evenly spaced over `cells`, of which whole rows are kept.
        rows: most rows per such cell; evenly spaced in the order of gain, so that both ends are among them.
    """
    if not sweep.has_samples:
        return ShownTexts((), {}, {}, 0)
    chosen = set(evenly_spaced(cells, browsable))
    prompts: tuple[int, ...] = ()
    by_checkpoint: dict[tuple[str, int], tuple[int, ...]] = {}
    by_cell = {}
    evaluation_prompts = 0
    for every in _read_in_parts(sweep, cells):
        frame = every[every["sample_id"] == 0]
        shown = frame[frame["prompt_id"] < HOVER_PROMPTS].sort_values("prompt_id", kind="stable")
        prompts = prompts or tuple(map(pool.place, shown["prompt"].drop_duplicates()))
        for (cell, step), group in shown.groupby(["cell", "step"], sort=False):
            by_checkpoint[cell, int(step)] = tuple(map(pool.place, group["response"]))
        for cell, group in frame[frame["cell"].isin(chosen)].groupby("cell", sort=False):
            final = group[group["step"] == group["step"].max()]
            evaluation_prompts = max(evaluation_prompts, len(final))
            by_cell[cell] = _rows_by_gain(final, pool, rows)
    return ShownTexts(prompts, by_checkpoint, by_cell, evaluation_prompts)


def evenly_spaced(items: list[str], most: int) -> list[str]:
    """At most `most` of `items`, in order, evenly spaced and with both ends."""
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _read_in_parts(sweep: Sweep, cells: list[str]) -> Iterator[pd.DataFrame]:
    for start in range(0, len(cells), _CELLS_PER_READ):
        yield sweep.samples(_COLUMNS, final_only=False, cells=cells[start : start + _CELLS_PER_READ])


def _rows_by_gain(final: pd.DataFrame, pool: TextPool, rows: int) -> list[tuple[int, int, float, int, float]]:
    order = (final["gold_reference"] - final["gold"]).to_numpy().argsort(kind="stable")
    kept = np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)
    return [
        (pool.place(row.prompt), pool.place(row.response), round(row.gold, 3),
         pool.place(row.reference_response), round(row.gold_reference, 3))
        for row in final.iloc[order[kept]].itertuples()
    ]  # fmt: skip
