"""Section 4 of the GPO paper drawn by matplotlib; conventions as in `analysis.figures.frontier_plots`."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.frontier_plots import GOLD_LABEL, REFERENCE_COLOR, plain_log_axis, sqrt_kl_axis
from analysis.figures.style import variant_styles
from analysis.theory.losses import LOSS_THEORY
from analysis.theory.taylor import TOLERANCE

MARGIN_LABEL = "margin z = βρ"
_SHAPES = {"value": "loss f(z)", "slope": "slope f'(z)", "curvature": "curvature f''(z)"}
# On-policy is what theory is about, off-policy what training does: one dark and solid, one light and dashed.
_PAIRS_LOOK = {"on-policy": ("#22262c", "o", "-"), "off-policy": ("#c78e3d", "s", "--")}
_DESCENT_LABELS = {"squared_loss": "E_μ[½ρ²] (nats²)", "kl": "KL(π‖π_ref) (nats)"}


def loss_shape(quantity: str, *, ax: Axes | None = None) -> Axes:
    """One of ``value``, ``slope``, ``curvature`` of every loss, for z in [−3, 3]; kinks are drawn as jumps."""
    ax = ax or Figure(layout="constrained").add_subplot()
    z = np.linspace(-3, 3, 601)
    for loss, style in variant_styles(LOSS_THEORY).items():
        y = getattr(LOSS_THEORY[loss], quantity)(z)
        ax.plot(z, y, marker=style.marker, markevery=(25, 100), color=style.color, label=style.label)
    ax.set_ylim({"value": (-0.1, 4.2), "slope": (-4.2, 1.2), "curvature": (-0.3, 2.4)}[quantity])
    ax.set_xlabel(MARGIN_LABEL)
    ax.set_ylabel(_SHAPES[quantity])
    return ax


def taylor_ranges(ranges: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The margins for which the Taylor split holds, one bar per loss; arrows where a range has no end.

    Args:
        ranges: `analysis.theory.taylor.taylor_ranges`.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    styles = variant_styles(ranges["loss"])
    end = 4.0
    for row in ranges.itertuples():
        color = styles[str(row.loss)].color
        low, high = max(row.low, -end), min(row.high, end)
        ax.plot([low, high], [row.Index] * 2, color=color, linewidth=5, solid_capstyle="butt")
        for edge, marker in ((row.low, "<"), (row.high, ">")):
            if np.isinf(edge):
                ax.plot(np.sign(edge) * end, row.Index, marker, color=color, markersize=7, clip_on=False)
    ax.axvline(0, color=REFERENCE_COLOR, linewidth=0.8)
    ax.set_yticks(range(len(ranges)), [styles[loss].label for loss in ranges["loss"]])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlim(-end, end)
    ax.set_xlabel(MARGIN_LABEL)
    return ax


def taylor_error(trajectories: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Error of the Taylor split against how far margins have grown, one point per checkpoint.

    Args:
        trajectories: `analysis.theory.taylor.taylor_trajectories`.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    floor = 1e-4  # what is exact but for rounding is drawn there
    for variant, style in variant_styles(trajectories["variant"]).items():
        rows = trajectories[trajectories["variant"] == variant]
        ax.plot(
            rows["beta_rho_rms"], rows["error"].clip(lower=floor), style.marker, color=style.color, alpha=0.6,
            label=style.label, markeredgecolor="white", markeredgewidth=0.3,
        )  # fmt: skip
    ax.axhline(TOLERANCE, color=REFERENCE_COLOR, linewidth=0.8, linestyle=":")
    sizes, errors = trajectories["beta_rho_rms"], trajectories["error"].replace(np.inf, np.nan).clip(lower=floor)
    plain_log_axis(ax, "x", sizes.min() / 1.3, sizes.max() * 1.3)
    plain_log_axis(ax, "y", errors.min() / 1.3, errors.max() * 1.3)
    ax.set_xlabel("root mean square of βρ, held-out pairs")
    ax.set_ylabel("error of the Taylor split (share of the change)")
    return ax


def taylor_terms(cell: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The exact loss of one cell along training, and the split's terms added up one by one.

    Args:
        cell: rows of one cell of `analysis.theory.taylor.taylor_trajectories`, any number of seeds averaged.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    by_step = cell.groupby("step")[["constant", "preference", "regularization", "exact"]].mean()
    two, three = by_step["constant"] + by_step["preference"], by_step.iloc[:, :3].sum(axis=1)
    ax.plot(by_step.index, by_step["constant"], ":", color=REFERENCE_COLOR, label="constant")
    ax.plot(by_step.index, two, "--", color="#408cc2", label="+ preference")
    ax.plot(by_step.index, three, "-.", color="#7e1847", label="+ regularization")
    ax.plot(by_step.index, by_step["exact"], "o-", color="#22262c", label="exact E f(βρ)")
    ax.set_xlabel("training step")
    ax.set_ylabel("loss on held-out pairs")
    return ax


def gradient_identity(gradients: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """∇E[½ρ²] against 2∇KL, one point per parameter, with sampled estimates and their 95 % intervals.

    Args:
        gradients: `analysis.theory.regularization.compare_gradients`.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    for pairs, rows in gradients.groupby("pairs", sort=False):
        color, marker, _ = _PAIRS_LOOK[str(pairs)]
        ax.errorbar(
            rows["twice_kl_gradient"], rows["sampled"], yerr=1.96 * rows["sampled_se"], fmt="none", ecolor=color,
            elinewidth=1, capsize=2,
        )  # fmt: skip
        ax.plot(rows["twice_kl_gradient"], rows["exact"], marker, color=color, label=pairs)
    ax.axline((0, 0), slope=1, color=REFERENCE_COLOR, linewidth=0.8, zorder=0)
    ax.set_xlabel("2 ∂KL(π‖π_ref)/∂θ (nats)")
    ax.set_ylabel("∂E_μ[½ρ²]/∂θ (nats²)")
    return ax


def descent(runs: pd.DataFrame, quantity: str, *, ax: Axes | None = None) -> Axes:
    """The squared loss or KL while the squared loss alone is minimized, on-policy and off-policy.

    Args:
        runs: `analysis.theory.regularization.on_and_off_policy`.
        quantity: ``squared_loss`` or ``kl``.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    for pairs, rows in runs.groupby("pairs", sort=False):
        color, _, line = _PAIRS_LOOK[str(pairs)]
        ax.plot(rows["step"], rows[quantity], line, color=color, label=pairs)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("gradient step")
    ax.set_ylabel(_DESCENT_LABELS[quantity])
    return ax


def exact_frontiers(checkpoints: pd.DataFrame, exact: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Every checkpoint of the oracle sweep under the exact KL-constrained optimum.

    Args:
        checkpoints: `analysis.data.sweep.Sweep.checkpoints`.
        exact: what ``python -m bench.oracle_check`` wrote, columns `bench.records.EXACT_COLUMNS`.
    """
    ax = ax or Figure(layout="constrained").add_subplot()
    ceiling = exact[exact["kind"] == "optimum"].sort_values("kl")
    ax.plot(ceiling["kl"], ceiling["gold"], color="#22262c", label="exact optimum π*")
    for variant, style in variant_styles(checkpoints["variant"]).items():
        rows, optimum = (frame[frame[key] == variant] for frame, key in ((checkpoints, "variant"), (exact, "kind")))
        ax.errorbar(
            rows["kl"], rows["gold"], xerr=1.96 * rows["kl_se"], yerr=1.96 * rows["gold_se"], fmt=style.marker,
            color=style.color, alpha=0.6, elinewidth=0.5, label=style.label,
        )  # fmt: skip
        ax.plot(optimum["kl"], optimum["gold"], "--", color=style.color, linewidth=0.9)
    sqrt_kl_axis(ax)
    ax.set_ylabel(GOLD_LABEL)
    return ax
