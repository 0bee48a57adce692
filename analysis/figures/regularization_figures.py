"""Section 4 of the GPO paper as figures with captions: from theory alone, from a sweep, from the oracle world."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.data.sweep import Sweep
from analysis.figures import frontier_plots, regularization_plots
from analysis.figures.report_figures import ReportFigure, shared_legend
from analysis.figures.style import COLUMN_WIDTH, TEXT_WIDTH, publication, variant_styles
from analysis.statistics.discordance import rank_correlations
from analysis.statistics.wording import number_text
from analysis.theory.losses import loss_facts
from analysis.theory.regularization import (
    Descent,
    Regularization,
    SoftmaxFamily,
    bandit,
    compare_gradients,
    gaussian_mixture,
    on_and_off_policy,
)
from analysis.theory.taylor import TOLERANCE, taylor_ranges, taylor_trajectories
from bench.records import EXACT_FILE

_PERCENT = f"{TOLERANCE:.0%}".replace("%", " %")


def theory_figures() -> list[ReportFigure]:
    """What needs no sweep: the losses, the range of the Taylor split, Theorem 1, the bandit and the mixture."""
    with publication():
        return [
            loss_shapes_figure(),
            taylor_ranges_figure(),
            gradient_identity_figure(),
            descent_figure(
                bandit(),
                "bandit",
                "Three-armed bandit",
                "Off-policy pairs mostly show an arm that the policy hardly takes: the squared loss falls at once, "
                "while KL first rises.",
            ),
            descent_figure(
                gaussian_mixture(),
                "gaussian_mixture",
                "Mixture of Gaussians",
                "Off-policy pairs come from around one mode and say little about the weights of the two: the squared "
                "loss all but vanishes, KL ends higher than it began.",
            ),
        ]


def sweep_figures(sweep: Sweep) -> list[ReportFigure]:
    """What a sweep's records show: figures whose numbers no cell has are left out, as is the oracle world's."""
    with publication():
        figures = []
        if sweep.checkpoints["taylor_constant"].notna().any():
            figures += [taylor_error_figure(sweep), taylor_terms_figure(sweep)]
        if not frontier_plots.measured_on_pairs(sweep.checkpoints).empty:
            figures.append(squared_loss_figure(sweep))
        if (sweep.path / EXACT_FILE).exists():
            figures.append(exact_frontiers_figure(sweep))
    return figures


def loss_shapes_figure() -> ReportFigure:
    """f, f' and f''."""
    figure = Figure(figsize=(TEXT_WIDTH, 2.7), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, 3), ("value", "slope", "curvature"), strict=True):
        regularization_plots.loss_shape(quantity, ax=ax)
    shared_legend(figure)
    caption = (
        "The six losses and their derivatives against the margin z = βρ. Near 0 all fall; what differs is the "
        "curvature there, which regularizes, and the tails: hinge and truncated quadratic are flat past 1, squared "
        "rises again, savage alone is bounded on the left and not convex (z < −ln 2)."
    )
    return ReportFigure("loss_shapes", "The six losses", caption, figure, loss_facts())


def taylor_ranges_figure() -> ReportFigure:
    """Where the split holds."""
    ranges = taylor_ranges()
    figure = Figure(figsize=(COLUMN_WIDTH * 1.4, 2.0), layout="constrained")
    regularization_plots.taylor_ranges(ranges, ax=figure.add_subplot())
    caption = (
        f"Margins for which constant + preference + regularization term give f(z) within {_PERCENT} of its change from "
        "f(0). Arrows: no end. Once typical margins leave a loss's bar, its local regularization strength no longer "
        "describes it."
    )
    return ReportFigure("taylor_ranges", "Range of the Taylor split", caption, figure, ranges)


def gradient_identity_figure() -> ReportFigure:
    """Theorem 1 on a random softmax policy; the setting is ours."""
    rng = np.random.default_rng(0)
    arms, pairs = 8, 1000
    policy, reference = rng.normal(size=(2, arms))
    problem = Regularization(SoftmaxFamily(arms), reference, rng.dirichlet(np.ones(arms)))
    gradients = compare_gradients(problem, policy, pairs=pairs, rng=rng)
    figure = Figure(figsize=(COLUMN_WIDTH * 1.2, 2.8), layout="constrained")
    regularization_plots.gradient_identity(gradients, ax=figure.add_subplot())
    shared_legend(figure)
    caption = (
        f"Gradient of the μ-weighted squared loss against twice the gradient of KL, for a random softmax policy over "
        f"{arms} arms (ours). Markers: exact; bars: 95 % intervals of {pairs:,} sampled pairs. On-policy all lie on "
        "the diagonal (Theorem 1); off-policy they need not, and some have the opposite sign."
    )
    return ReportFigure("gradient_identity", "Squared loss and KL: gradients", caption, figure, gradients)


def descent_figure(setting: Descent, name: str, title: str, what_to_see: str) -> ReportFigure:
    """Squared loss and KL side by side while the former is minimized."""
    runs = on_and_off_policy(setting)
    figure = Figure(figsize=(TEXT_WIDTH * 0.8, 2.5), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, 2), ("squared_loss", "kl"), strict=True):
        regularization_plots.descent(runs, quantity, ax=ax)
    shared_legend(figure)
    caption = (
        f"Gradient descent on the μ-weighted squared loss alone, in a setting of ours. {what_to_see} On-policy pairs "
        "take both to 0."
    )
    return ReportFigure(name, title, caption, figure, runs)


def taylor_error_figure(sweep: Sweep) -> ReportFigure:
    """Error of the split over all checkpoints."""
    trajectories = taylor_trajectories(sweep.checkpoints)
    figure = Figure(figsize=(COLUMN_WIDTH * 1.4, 3.2), layout="constrained")
    regularization_plots.taylor_error(trajectories, ax=figure.add_subplot())
    shared_legend(figure)
    held = (trajectories["error"] <= TOLERANCE).groupby(trajectories["variant"], sort=False).mean()
    shares = ", ".join(f"{variant} {share:.0%}".replace("%", " %") for variant, share in held.items())
    caption = (
        "Error of the Taylor split, as a share of the loss's change from f(0), against the size of margins; every "
        f"checkpoint of every seed after step 0. Checkpoints within {_PERCENT} (dotted line): {shares}."
    )
    return ReportFigure("taylor_error", "The Taylor split along training", caption, figure, trajectories)


def taylor_terms_figure(sweep: Sweep) -> ReportFigure:
    """Exact loss and the split's sums along training, for the sweep's middle β."""
    trajectories = taylor_trajectories(sweep.checkpoints)
    betas = sorted(trajectories["strength"].unique())
    beta = betas[len(betas) // 2]
    chosen = trajectories[trajectories["strength"] == beta]
    styles = variant_styles(chosen["variant"])
    columns = min(3, len(styles))
    rows = -(-len(styles) // columns)
    figure = Figure(figsize=(TEXT_WIDTH, 1.9 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, (variant, style) in zip(axes.flat, styles.items(), strict=False):
        regularization_plots.taylor_terms(chosen[chosen["variant"] == variant], ax=ax)
        ax.set_title(style.label, color=style.color)
    for ax in axes.flat[len(styles) :]:
        ax.set_visible(False)
    shared_legend(figure)
    caption = (
        f"Loss on held-out pairs along training at β = {beta:g}, averaged over seeds, beside the sums of the Taylor "
        "split's terms. Where the two dashed lines part, curvature regularizes; where the exact loss leaves them, the "
        "split has ceased to hold."
    )
    return ReportFigure("taylor_terms", "Terms of the Taylor split", caption, figure, chosen)


def squared_loss_figure(sweep: Sweep) -> ReportFigure:
    """Claim C4 on records."""
    figure = Figure(figsize=(COLUMN_WIDTH * 1.4, 3.2), layout="constrained")
    frontier_plots.regularization(sweep.checkpoints, ax=figure.add_subplot())
    shared_legend(figure)
    measured = sweep.final[sweep.final["rho_sq_mean"].notna()]
    correlations = rank_correlations(measured)
    ranks = ", ".join(f"{row.variant} {number_text(row.spearman, 2)}" for row in correlations.itertuples())
    caption = (
        "KL against the μ-weighted squared loss of held-out pairs, every checkpoint of every seed after step 0. Rank "
        f"correlation over final checkpoints: {ranks}. Pairs of policies in opposite order are counted under claim C4."
    )
    return ReportFigure("squared_loss_and_kl", "Squared loss and KL on records", caption, figure, correlations)


def exact_frontiers_figure(sweep: Sweep) -> ReportFigure:
    """All losses under the exact optimum of the oracle world."""
    exact = pd.read_parquet(sweep.path / EXACT_FILE)
    figure = Figure(figsize=(TEXT_WIDTH * 0.8, 3.4), layout="constrained")
    regularization_plots.exact_frontiers(sweep.checkpoints, exact, ax=figure.add_subplot())
    shared_legend(figure)
    beyond, known = beyond_optimum(sweep.checkpoints, exact)
    caption = (
        "Every checkpoint of the oracle sweep with 95 % intervals (sampling of responses), and the exact "
        "KL-constrained optimum, the most gold that any policy can have at its KL: of "
        f"{known} checkpoints in its range, {beyond} have both intervals above it (some do by chance). "
        "Dashed: each loss's exact optimum over β where the solver finds one; finite data, finite training and "
        "sampling lie between it and a marker."
    )
    return ReportFigure("exact_frontiers", "Against the exact optimum", caption, figure, exact)


def beyond_optimum(checkpoints: pd.DataFrame, exact: pd.DataFrame) -> tuple[int, int]:
    """How many checkpoints have more gold than the exact optimum at their KL, both errors allowed for; of how many.

    Args:
        checkpoints: ``step, kl, kl_se, gold, gold_se``; those after step 0 within the optimum's KLs count.
        exact: columns `bench.records.EXACT_COLUMNS`.
    """
    optimum = exact[exact["kind"] == "optimum"].sort_values("kl")
    inside = (checkpoints["step"] > 0) & checkpoints["kl"].between(optimum["kl"].min(), optimum["kl"].max())
    rows = checkpoints[inside]
    most = np.interp(rows["kl"] + 1.96 * rows["kl_se"], optimum["kl"], optimum["gold"])
    return int((rows["gold"] - 1.96 * rows["gold_se"] > most).sum()), len(rows)
