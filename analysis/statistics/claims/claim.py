"""A verdict on one of the paper's claims, and the file that verdicts are written to."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.claims.standing import Standing
from bench.records import write_json

STATEMENTS = {
    "C1": "All variants trace similar KL–performance frontiers.",
    "C2": "The β at which performance peaks differs by variant, in the direction the theory predicts.",
    "C3": "Performance against KL rises, peaks and falls, though every label comes from the gold model.",
    "C4": "A smaller μ-weighted squared loss does not imply a smaller KL.",
}
SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


@dataclass(frozen=True)
class Claim:
    """A verdict.

    Attributes:
        id: C1 to C4.
        statement: the claim.
        verdict: supported | not supported | inconclusive.
        sentence: what was found, in plain words with the numbers.
        rule: what the verdict would have had to show, with the numbers of the rules.
        quantity: what `estimate` is, with its unit.
        estimate, low, high: the number that the verdict rests on and its interval; None where there is none.
        kind: kind of the interval (`analysis.statistics.intervals.KINDS`), or None.
        numbers: further numbers, JSON values.
    """

    id: str
    statement: str
    verdict: str
    sentence: str
    rule: str
    quantity: str
    estimate: float | None
    low: float | None
    high: float | None
    kind: str | None
    numbers: dict[str, Any]


def make_claim(
    id_: str, verdict: str, sentence: str, *, rule: str, quantity: str, numbers: dict[str, Any], **interval: Any
) -> Claim:
    """A claim with its statement; `interval` may give estimate, low, high and kind."""
    none = dict.fromkeys(("estimate", "low", "high", "kind"))
    return Claim(
        id_, STATEMENTS[id_], verdict, sentence, rule, quantity, numbers=finite(numbers), **none | finite(interval)
    )


def write_claims(claims: Iterable[Claim], path: Path, standing: Standing | None = None) -> None:
    """Write ``{"status", "why", "rules", "claims": [...]}``; what is not a finite number becomes null."""
    head = {} if standing is None else asdict(standing)
    write_json(path, head | {"claims": [finite(asdict(claim)) for claim in claims]})


def finite(value: Any) -> Any:
    """`value` as JSON holds it: NaN and infinities as None, numpy's numbers as Python's, NumPy keys as texts."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval_of(row: pd.Series, name: str) -> dict[str, Any]:
    """The keywords of `make_claim` from the columns name, name_low, name_high and kind."""
    return {"estimate": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"], "kind": row["kind"]}


def with_interval(row: pd.Series, name: str) -> str:
    """``0.12 [0.08, 0.16]``."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = f"{row[name]:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low == low else "")
    return text.replace("-", "−")


def listed(values: Iterable[object]) -> str:
    """``a, b and c``; numbers in their shortest form."""
    texts = [f"{value:g}" if isinstance(value, (int, float)) else str(value) for value in values]
    return " and ".join(([", ".join(texts[:-1])] if len(texts) > 1 else []) + texts[-1:])
