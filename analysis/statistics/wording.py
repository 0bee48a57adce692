"""Numbers and intervals as readers see them, in captions, tables and pages alike."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from analysis.statistics.intervals import KINDS, LEVEL


def number_text(value: float, digits: int = 3) -> str:
    """A number to `digits` significant digits; – for NaN, ∞ for infinity."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
    return text.replace("-", "−")


def interval_text(row: Any, name: str, decimals: int | None = None) -> str:
    """``estimate [low, high]`` of the columns name, name_low, name_high of a row; – where there is no estimate.

    Args:
        decimals: digits after the point; three significant digits by default.
    """

    def text(value: float) -> str:
        if decimals is None or not np.isfinite(value):
            return number_text(value)
        return f"{value:.{decimals}f}".replace("-", "−")

    value, low, high = (getattr(row, name + suffix) for suffix in ("", "_low", "_high"))
    if not np.isfinite(value):
        return "–"
    if np.isnan(low) or np.isnan(high):
        return f"{text(value)} [no interval]"
    return f"{text(value)} [{text(low)}, {text(high)}]"


def interval_words(kinds: Iterable[str]) -> str:
    """What the intervals of these kinds (keys of `analysis.statistics.intervals.KINDS`) are, for a caption."""
    # Single estimates without an interval say so themselves.
    given = [kind for kind in dict.fromkeys(kinds) if kind != "none"] or ["none"]
    return f"{100 * LEVEL:g} % " + "; ".join(KINDS[kind] for kind in given)
