"""The paper's claims C1 to C4 and what a sweep says about them."""

from dataclasses import dataclass
from typing import Any

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
        sentence: what was found, with the numbers.
        estimate, low, high: the number that the verdict rests on and its interval; None where there is none.
        quantity: what that number is, with its unit.
        kind: kind of the interval (`analysis.intervals.KINDS`), or None.
        numbers: further numbers, JSON values.
    """

    id: str
    statement: str
    verdict: str
    sentence: str
    estimate: float | None
    low: float | None
    high: float | None
    quantity: str
    kind: str | None
    numbers: dict[str, Any]
