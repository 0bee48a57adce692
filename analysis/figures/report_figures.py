"""The report's static figures: what is on each, its caption, its data, and the files it is saved as."""

import base64
import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.data.csv_files import write_csv
from analysis.figures import beta_plots, frontier_plots, level_figures
from analysis.figures.style import COLUMN_WIDTH, TEXT_WIDTH, publication, shared_legend, variant_styles
from analysis.statistics.analyze import Analysis
from analysis.statistics.wording import interval_words

FORMATS = ("png", "svg", "pdf")
MAX_MARKERS = 5000  # more in one figure are a blot, and a file that no viewer opens quickly


@dataclass(frozen=True)
class ReportFigure:
    """A figure with the words and the numbers that belong to it; `data` becomes the CSV beside it."""

    name: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame

    @property
    def image(self) -> str:
        """The figure as a PNG in a data URI."""
        image = io.BytesIO()
        with publication():
            self.figure.savefig(image, format="png", dpi=160)
        return f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"

    def _repr_html_(self) -> str:
        """The figure with its caption, for notebooks."""
        title, caption = html.escape(self.title), html.escape(self.caption)
        style = f"width: {round(100 * self.figure.get_size_inches()[0])}px"
        picture = f'<img src="{self.image}" alt="{title}" style="{style}">'
        return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def report_figures(analysis: Analysis) -> list[ReportFigure]:
    """Every static figure of one analysis that its data allow, in the order of the report."""
    built = [build(analysis) for build in BUILDERS]
    return [figure for figure in built if figure is not None]


def save_figure(report_figure: ReportFigure, directory: Path) -> None:
    """Write ``<name>.{png,svg,pdf,csv}`` into `directory`; the same figure twice gives the same bytes."""
    with publication():
        # The layout is the same in every format; worked out once, it takes half of the time.
        report_figure.figure.draw_without_rendering()
        report_figure.figure.set_layout_engine("none")
        for extension in FORMATS:
            # Without a date in the metadata, a rerun on the same records changes no file.
            dateless = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[extension]
            report_figure.figure.savefig(directory / f"{report_figure.name}.{extension}", metadata=dateless)
    write_csv(report_figure.data, directory / f"{report_figure.name}.csv")


@publication()
def frontier_figure(analysis: Analysis) -> ReportFigure:
    """All variants in one plot."""
    figure = Figure(figsize=(TEXT_WIDTH, 3.7), layout="constrained")
    frontiers = analysis.frontiers
    frontier_plots.frontier(frontiers, analysis.ceiling, ax=figure.add_subplot())
    shared_legend(figure)
    ceiling = analysis.ceiling.rule if analysis.ceiling else ""
    caption = (
        f"Gold reward against KL to the reference. Lines: {_lower_first(frontiers.smoother).rstrip('.')}. "
        f"Bands: {interval_words(frontiers.curves['kind'])}; they may leave the plot. Markers: trained policies "
        f"(pale: checkpoints on the way), in the static figure averaged over seeds. "
        f"Gray: what π_ref's own samples allow; KL is not comparable across kinds of optimization. {ceiling}"
    ).rstrip()
    return ReportFigure("frontier", "Frontiers", caption, figure, frontiers.curves)


@publication()
def frontier_by_variant_figure(analysis: Analysis) -> ReportFigure:
    """One panel per variant, the others in gray."""
    frontiers = analysis.frontiers
    styles = variant_styles(frontiers.points["variant"])
    columns = min(3, len(styles))
    rows = -(-len(styles) // columns)
    figure = Figure(figsize=(TEXT_WIDTH, 2.0 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    checkpoints, which = _drawn(analysis)
    for ax, (variant, style) in zip(axes.flat, styles.items(), strict=False):
        frontier_plots.frontier(frontiers, analysis.ceiling, highlight=variant, checkpoints=checkpoints, ax=ax)
        ax.set_title(style.label, color=style.color)
        ax.label_outer()
    for ax in axes.flat[len(styles) :]:
        ax.set_visible(False)
    caption = (
        f"The same frontiers one variant at a time; gray solid lines: the other variants. "
        f"Markers: {which}, seeds filled, open and tinted in turn; pale: checkpoints on the way. "
        f"Bands: {interval_words(frontiers.curves['kind'])}."
    )
    return ReportFigure("frontier_by_variant", "Frontier of each variant", caption, figure, frontiers.points)


@publication()
def differences_figure(analysis: Analysis) -> ReportFigure | None:
    """Pairwise differences at the largest KL budget that the most pairs cover."""
    pairwise = analysis.frontiers.pairwise.dropna(subset="difference")
    if pairwise.empty:
        return None
    covered = pairwise.groupby("kl").size()
    kl = float(covered[covered == covered.max()].index.max())
    figure = Figure(figsize=(TEXT_WIDTH * 0.8, 1.1 + 0.19 * covered[kl]), layout="constrained")
    frontier_plots.frontier_differences(pairwise, analysis.frontiers.margin, kl, ax=figure.add_subplot())
    shared_legend(figure)
    caption = (
        f"Differences in gold reward between every two variants at KL = {kl:g} nats. "
        f"Bars: {interval_words(pairwise['kind'])}. Equivalent: the 90 % interval of "
        "that difference alone lies within the margin; different: the whole bar lies beyond it."
    )
    return ReportFigure("frontier_differences", "Differences between variants", caption, figure, pairwise)


@publication()
def beta_figure(analysis: Analysis) -> ReportFigure | None:
    """Gold and KL against β with optimal β."""
    optimal, name = analysis.optimal_betas, analysis.sweep.strength_name
    if optimal.cells.empty:
        return None
    figure = Figure(figsize=(TEXT_WIDTH, 2.9), layout="constrained")
    gold, kl = figure.subplots(1, 2)
    beta_plots.against_beta(optimal.cells, "gold", strength_name=name, ax=gold)
    beta_plots.mark_optima(optimal.table, ax=gold)
    beta_plots.against_beta(optimal.cells, "kl", strength_name=name, ax=kl)
    shared_legend(figure)
    caption = (
        f"Final gold reward and KL against {name}, averaged over seeds. Bars: {interval_words(optimal.cells['kind'])}. "
        f"Large outlined markers: optimal {name} by a smooth fit in its logarithm, with its interval; where it leaves "
        f"the grid, the bar ends at the axis."
    )
    return ReportFigure("gold_and_kl_against_beta", f"Gold and KL against {name}", caption, figure, optimal.cells)


@publication()
def ratios_figure(analysis: Analysis) -> ReportFigure | None:
    """Measured and predicted ratios of β."""
    optimal = analysis.optimal_betas
    if optimal.ratios["ratio"].notna().sum() == 0:
        return None
    figure = Figure(figsize=(TEXT_WIDTH * 0.8, 1.2 + 0.32 * optimal.ratios["variant"].nunique()), layout="constrained")
    beta_plots.beta_ratios(optimal.ratios, optimal.baseline, ax=figure.add_subplot())
    shared_legend(figure)
    caption = (
        f"By what factor β must move from {optimal.baseline} to each variant, measured and predicted. "
        f"Bars: {interval_words(optimal.ratios['kind'])}. A variant without curvature at 0 has no local prediction."
    )
    return ReportFigure("beta_ratios", "Ratios of β", caption, figure, optimal.ratios)


@publication()
def overoptimization_figure(analysis: Analysis) -> ReportFigure:
    """Chosen form and peak of every variant."""
    fits = analysis.overoptimization
    figure = Figure(figsize=(TEXT_WIDTH, 3.2), layout="constrained")
    frontier_plots.overoptimization(fits, analysis.frontiers, ax=figure.add_subplot())
    shared_legend(figure)
    caption = (
        f"Gold reward against KL with the form that predicts held-out checkpoints best among those that the spread "
        f"between seeds does not reject; the smoothed frontier where it rejects all. Outlined markers: the frontier's "
        f"peaks inside the data. Bars: {interval_words(fits.peaks['kind'])}."
    )
    return ReportFigure("overoptimization", "Over-optimization", caption, figure, fits.curves)


@publication()
def regularization_figure(analysis: Analysis) -> ReportFigure | None:
    """E[ρ²] against KL."""
    checkpoints, which = _drawn(analysis)
    checkpoints = frontier_plots.measured_on_pairs(checkpoints)
    if checkpoints.empty:
        return None
    figure = Figure(figsize=(COLUMN_WIDTH * 1.3, 3.2), layout="constrained")
    frontier_plots.regularization(checkpoints, ax=figure.add_subplot())
    shared_legend(figure)
    caption = (
        f"KL against the μ-weighted squared loss, the offline regularizer; {which} after step 0, single measurements "
        f"without intervals. {analysis.discordance.at_equal_rho.sentence}"
    )
    keys = ["variant", "strength", "seed", "step", "rho_sq_mean", "kl", "kl_se"]
    return ReportFigure("regularization", "Regularization", caption, figure, analysis.sweep.checkpoints[keys])


@publication()
def health_figure(analysis: Analysis) -> ReportFigure:
    """Length, EOS rate and distinct-2."""
    checkpoints, which = _drawn(analysis)
    figure = Figure(figsize=(TEXT_WIDTH, 2.5), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, 3), frontier_plots.HEALTH_LABELS, strict=True):
        frontier_plots.health(checkpoints, quantity, ax=ax)
    shared_legend(figure)
    caption = (
        f"Response length, share of responses that end by themselves and distinct bigrams, against KL; {which}. "
        "A gold gain that goes with a jump in any of them is suspect."
    )
    keys = ["variant", "strength", "seed", "step", "kl", *frontier_plots.HEALTH_LABELS]
    return ReportFigure("health", "Health of the responses", caption, figure, analysis.sweep.checkpoints[keys])


@publication()
def levels_figure(analysis: Analysis) -> ReportFigure | None:
    """Proxy, gold and truth."""
    levels = analysis.levels
    if levels is None:
        return None
    figure = level_figures.levels_figure(levels, TEXT_WIDTH)
    shared_legend(figure)
    caption = (
        "Scores of the same policies by each level, in its own SD of π_ref. Trained policies: means over seeds with t "
        "intervals, a marker per strength; intervals of far runs may leave the plot. Best of n: unbiased for every n "
        "from one pool; KL is the bound ln n − (n − 1)/n, and bands are t intervals over proxies that were fitted to "
        "other pairs. KL is not comparable across kinds of optimization."
    )
    data = pd.concat([levels.policies.assign(kind="policy"), levels.best_of_n.assign(kind="best_of_n")])
    return ReportFigure("levels", "Proxy, gold and truth", caption, figure, data)


@publication()
def coefficients_figure(analysis: Analysis) -> ReportFigure | None:
    """Gao's coefficients of best-of-n."""
    levels = analysis.levels
    if levels is None or levels.coefficients["by"].nunique() == 0 or not (levels.coefficients["by"] == "proxy").any():
        return None
    figure = level_figures.coefficients_figure(levels, TEXT_WIDTH)
    shared_legend(figure)
    caption = (
        "Coefficients of R(d) = d (α − β d), d = √KL, fitted to best-of-n by each proxy: means over proxies with t "
        "intervals. Right: those of Gao et al. 2023 for gold reward, read off their figures by others, for language "
        "models of many more parameters; their scale of reward is theirs."
    )
    return ReportFigure("best_of_n_coefficients", "Coefficients of best-of-n", caption, figure, levels.coefficients)


BUILDERS: tuple[Callable[[Analysis], ReportFigure | None], ...] = (
    frontier_figure, frontier_by_variant_figure, differences_figure, beta_figure, ratios_figure,
    overoptimization_figure, levels_figure, coefficients_figure, regularization_figure, health_figure,
)  # fmt: skip


def _drawn(analysis: Analysis) -> tuple[pd.DataFrame, str]:
    """The checkpoints that a figure shows one by one, and words that say which."""
    checkpoints = analysis.sweep.checkpoints
    if len(checkpoints) <= MAX_MARKERS:
        return checkpoints, "every checkpoint of every seed"
    rows = np.linspace(0, len(checkpoints) - 1, MAX_MARKERS).round().astype(int)
    return checkpoints.iloc[rows], f"{MAX_MARKERS:,} of {len(checkpoints):,} checkpoints, evenly spaced over the sweep"


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
