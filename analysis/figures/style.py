"""One color and marker per variant in every figure, and the settings of publication figures.

The colors were chosen so that any two stay apart under the three common color-vision deficiencies (at least
0.12 in OKLab) and in grayscale (at least 0.06 in lightness); `tests/analysis/test_style.py` measures both.
Markers repeat the distinction, so that no reader depends on color.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gold_rm.errors import UserError

COLUMN_WIDTH = 3.35  # inches, one column of a two-column page
TEXT_WIDTH = 6.9  # inches, both columns


class TooManyVariants(UserError):
    """More variants than can be told apart in one figure."""


@dataclass(frozen=True)
class VariantStyle:
    """How one variant looks: hex colors for a light and a dark page, marker names for matplotlib and plotly."""

    label: str
    color: str
    color_dark: str
    marker: str
    symbol: str


LOSS_STYLES: dict[str, VariantStyle] = {
    "logistic": VariantStyle("logistic (DPO)", "#408cc2", "#5fb6ee", "o", "circle"),
    "squared": VariantStyle("squared (IPO)", "#b94421", "#e0785a", "s", "square"),
    "hinge": VariantStyle("hinge (SLiC)", "#6cc5ac", "#8eebd0", "^", "triangle-up"),
    "exponential": VariantStyle("exponential", "#c78e3d", "#f5b452", "D", "diamond"),
    "truncated_quadratic": VariantStyle("truncated quadratic", "#7e1847", "#a94868", "v", "triangle-down"),
    "savage": VariantStyle("savage", "#7137ab", "#8a6de0", "X", "x"),
}

# Any other variant's, in the order of their names; a sweep with more than these has too many for one figure.
_SPARE_STYLES = (
    ("#3d4450", "#aab2c0", "P", "cross"),
    ("#8a8f2a", "#c9cf5c", "*", "star"),
    ("#1f6f78", "#58b7c2", "p", "pentagon"),
    ("#a08d86", "#d3c3bc", "h", "hexagon"),
    ("#d16ba5", "#f0a3cb", "<", "triangle-left"),
    ("#2f5d2a", "#6fae66", ">", "triangle-right"),
    ("#e0b9d8", "#7d5f78", "d", "diamond-tall"),
    ("#5b2c12", "#b07a55", "H", "hexagon2"),
)


def variant_styles(variants: Iterable[str]) -> dict[str, VariantStyle]:
    """The style of every variant: built-in losses first and in their fixed order, then all others by name.

    Raises:
        TooManyVariants: more of the others than there are distinguishable styles.
    """
    names = set(variants)
    own = sorted(names - set(LOSS_STYLES))
    if len(own) > len(_SPARE_STYLES):
        raise TooManyVariants(
            f"{len(own)} variants beside the built-in losses in one figure ({', '.join(own)}); "
            f"at most {len(_SPARE_STYLES)} can be told apart: report on fewer at a time"
        )
    known = {name: style for name, style in LOSS_STYLES.items() if name in names}
    return known | {name: VariantStyle(name, *look) for name, look in zip(own, _SPARE_STYLES, strict=False)}


@contextmanager
def publication() -> Iterator[None]:
    """Figures drawn and saved inside this context are fit for print: small sans-serif type, embedded fonts."""
    settings: Any = {
        "font.family": "DejaVu Sans",  # ships with matplotlib, so that figures look alike everywhere
        "font.size": 8,
        "axes.titlesize": 8.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.edgecolor": "#444a54",
        "axes.labelcolor": "#22262c",
        "xtick.color": "#444a54",
        "ytick.color": "#444a54",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e7ec",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.markersize": 3.5,
        "figure.dpi": 110,
        "savefig.dpi": 300,
        "figure.constrained_layout.use": True,
        "pdf.fonttype": 42,  # TrueType, which journals' checks accept; the default (Type 3) they do not
        "svg.fonttype": "path",  # glyphs as outlines: the same on every reader's machine
        "svg.hashsalt": "gpo-bench",  # the same figure twice is the same file twice
    }
    with mpl.rc_context(settings):
        yield


def shared_legend(figure: Figure) -> None:
    """One legend above all axes of the figure, as wide as the figure allows."""
    handles = {
        label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    per_row = max(1, int(figure.get_size_inches()[0] / 1.15))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=min(per_row, len(handles)),
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
