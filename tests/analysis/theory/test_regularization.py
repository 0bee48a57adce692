"""Gradients against finite differences and torch, Theorem 1, settings where squared loss and KL part, figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.stats import norm
from synthetic_runs import Truth, write_sweep

from analysis.data.load import load_sweep
from analysis.figures import regularization_plots
from analysis.figures.regularization_figures import (
    beyond_optimum,
    gradient_identity_figure,
    sweep_figures,
    theory_figures,
)
from analysis.report.notebook_runs import NOTEBOOKS, execute_notebooks
from analysis.theory.losses import LOSS_THEORY
from analysis.theory.regularization import (
    GaussianMixtureFamily,
    Regularization,
    SoftmaxFamily,
    bandit,
    compare_gradients,
    descend,
    gaussian_mixture,
    on_and_off_policy,
)
from analysis.theory.taylor import taylor_range, taylor_ranges, taylor_split, taylor_trajectories
from bench.records import EXACT_COLUMNS, EXACT_FILE

RNG = np.random.default_rng(7)
ARMS = 5
SOFTMAX = Regularization(SoftmaxFamily(ARMS), RNG.normal(size=ARMS), RNG.dirichlet(np.ones(ARMS)))
FAMILY = GaussianMixtureFamily()
MIXTURE = Regularization(FAMILY, np.array([0.3, -1.5, 2.0]), norm.pdf(FAMILY.grid, 0.5, 1.3))
CASES = pytest.mark.parametrize(
    ("problem", "parameters"),
    [(SOFTMAX, RNG.normal(size=ARMS)), (MIXTURE, np.array([-0.7, -1.0, 1.2]))],
    ids=["softmax", "mixture"],
)


def on_policy(problem: Regularization) -> Regularization:
    return Regularization(problem.family, problem.reference)


def numerical_gradient(function, parameters, step=1e-5):
    shifts = np.eye(len(parameters)) * step
    return np.array([(function(parameters + d) - function(parameters - d)) / (2 * step) for d in shifts])


@CASES
def test_gradients_are_those_of_finite_differences(problem, parameters):
    np.testing.assert_allclose(problem.kl_gradient(parameters), numerical_gradient(problem.kl, parameters), atol=1e-7)
    np.testing.assert_allclose(
        problem.squared_loss_gradient(parameters), numerical_gradient(problem.squared_loss, parameters), atol=1e-7
    )


def test_softmax_values_and_gradients_are_those_of_torch_over_all_pairs():
    theta = torch.tensor(RNG.normal(size=ARMS), requires_grad=True)
    log_ratio = theta.log_softmax(0) - torch.tensor(SOFTMAX.reference).log_softmax(0)
    mu = torch.tensor(SOFTMAX.behavior)
    rho = log_ratio[:, None] - log_ratio[None, :]
    squared_loss = (mu[:, None] * mu[None, :] * rho**2 / 2).sum()
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=theta),
        torch.distributions.Categorical(logits=torch.tensor(SOFTMAX.reference)),
    )
    at = theta.detach().numpy()
    assert SOFTMAX.squared_loss(at) == pytest.approx(squared_loss.item())
    assert SOFTMAX.kl(at) == pytest.approx(kl.item())
    (expected,) = torch.autograd.grad(squared_loss, theta)
    np.testing.assert_allclose(SOFTMAX.squared_loss_gradient(at), expected.numpy(), atol=1e-12)


def test_mixture_kl_is_that_of_adaptive_quadrature():
    def log_density(x, parameters):
        weight = 1 / (1 + np.exp(-parameters[0]))
        return np.log(weight * norm.pdf(x, parameters[1]) + (1 - weight) * norm.pdf(x, parameters[2]))

    parameters = np.array([-0.7, -1.0, 1.2])
    expected, _ = quad(
        lambda x: np.exp(log_density(x, parameters))
        * (log_density(x, parameters) - log_density(x, MIXTURE.reference)),
        -12, 12,
    )  # fmt: skip
    assert MIXTURE.kl(parameters) == pytest.approx(expected, rel=1e-6)
    # Two equal components are one Gaussian: KL = (difference of means)²/2.
    one = Regularization(FAMILY, np.array([0.0, 1.0, 1.0]))
    assert one.kl(np.array([0.9, -0.5, -0.5])) == pytest.approx(1.5**2 / 2)


@CASES
def test_theorem_one_holds_on_policy_exactly_and_by_sampling(problem, parameters):
    problem = on_policy(problem)
    twice_kl = 2 * problem.kl_gradient(parameters)
    np.testing.assert_allclose(problem.squared_loss_gradient(parameters), twice_kl, atol=1e-9)
    sampled = problem.sampled_gradient(parameters, 20_000, np.random.default_rng(0))
    assert (np.abs(sampled.mean - twice_kl) < 4 * sampled.se).all()


def test_sampling_is_unbiased_off_policy_with_honest_standard_errors():
    problem = Regularization(SOFTMAX.family, SOFTMAX.reference, np.array([0.1, 0.15, 0.2, 0.25, 0.3]))
    parameters = RNG.normal(size=ARMS)
    exact = problem.squared_loss_gradient(parameters)
    draws = [problem.sampled_gradient(parameters, 400, np.random.default_rng(seed)) for seed in range(400)]
    z = np.array([(draw.mean - exact) / draw.se for draw in draws])
    assert (np.abs(z.mean(axis=0)) < 0.25).all()
    covered = (np.abs(z) < 1.96).mean()
    assert 0.92 < covered < 0.97


def test_theorem_one_fails_off_policy():
    gradients = compare_gradients(SOFTMAX, RNG.normal(size=ARMS), pairs=100, rng=np.random.default_rng(0))
    off = gradients["exact"] - gradients["twice_kl_gradient"]
    by_pairs = off.abs().groupby(gradients["pairs"]).max()
    assert by_pairs["on-policy"] < 1e-9
    assert by_pairs["off-policy"] > 0.1


@pytest.mark.parametrize("setting", [bandit(), gaussian_mixture()], ids=["bandit", "mixture"])
def test_squared_loss_falls_while_kl_rises_off_policy_only(setting):
    runs = on_and_off_policy(setting).set_index("pairs")
    off, on = runs.loc["off-policy"], runs.loc["on-policy"]
    assert (off["squared_loss"].diff().dropna() < 0).all()
    assert off["squared_loss"].iloc[-1] < 0.01 * off["squared_loss"].iloc[0]
    assert off["kl"].max() > 1.3 * off["kl"].iloc[0]
    assert off["cosine"].min() < 0
    assert (on["kl"].diff().dropna() <= 1e-12).all()
    assert on["kl"].iloc[-1] < 1e-3
    assert on["cosine"].iloc[0] == pytest.approx(1)
    if setting.start[0] == gaussian_mixture().start[0]:  # there KL does not come down again either
        assert off["kl"].iloc[-1] > 1.2 * off["kl"].iloc[0]


def test_settings_are_distributions():
    for setting in (bandit(), gaussian_mixture()):
        problem = setting.off_policy
        for parameters in (problem.reference, setting.start):
            assert np.exp(problem.family.log_density(parameters)) @ problem.family.measure == pytest.approx(1)
        assert problem.behavior @ problem.family.measure == pytest.approx(1)


def test_a_descent_that_explodes_names_the_term():
    setting = bandit()
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"E_μ\[½ρ²\] is nan"):
        descend(setting.off_policy, setting.start, learning_rate=1e308, steps=50)


@pytest.mark.parametrize("theory", LOSS_THEORY.values(), ids=LOSS_THEORY)
def test_taylor_split_is_second_order(theory):
    """Halving βρ divides what the split leaves over by eight (by sixteen where f''' is 0)."""
    margins = np.array([-0.3, 0.1, 0.2, 0.35])
    left = []
    for scale in (0.2, 0.1):
        split = taylor_split(theory, scale * margins)
        left.append(abs(split.constant + split.preference + split.regularization - split.exact))
    if theory.name in ("squared", "hinge", "truncated_quadratic"):
        assert max(left) < 1e-12  # exact up to the kink at 1
    else:
        assert left[0] / left[1] > 7


def test_taylor_split_by_hand():
    split = taylor_split(LOSS_THEORY["exponential"], [0.5, -0.2])
    assert split[:3] == pytest.approx((1, -0.15, (0.25 + 0.04) / 4))
    assert split.exact == pytest.approx((np.exp(-0.5) + np.exp(0.2)) / 2)
    assert split.error == pytest.approx(abs(0.85 + 0.0725 - split.exact) / (1 - split.exact))


def test_taylor_ranges_where_they_can_be_found_by_hand():
    ranges = {row.loss: (row.low, row.high) for row in taylor_ranges().itertuples()}
    assert ranges["squared"] == (-np.inf, np.inf)
    # Past 1, hinge is 0 where its split says 1 − z; truncated quadratic is 0 where its split says (1 − z)².
    assert ranges["hinge"] == pytest.approx((-np.inf, 1.1), abs=2e-3)
    assert ranges["truncated_quadratic"] == pytest.approx((-np.inf, 1 + np.sqrt(0.1)), abs=2e-3)
    for loss in ("logistic", "exponential", "savage"):
        for edge in ranges[loss]:
            split = taylor_split(LOSS_THEORY[loss], [edge])
            assert split.error == pytest.approx(0.1, abs=2e-3)


def test_a_stricter_tolerance_gives_a_narrower_range():
    wide, narrow = (taylor_range(LOSS_THEORY["logistic"], tolerance) for tolerance in (0.1, 0.01))
    assert wide[0] < narrow[0] < 0 < narrow[1] < wide[1]


def test_a_term_that_is_not_finite_is_named():
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="exponential: the exact term is inf"):
        taylor_split(LOSS_THEORY["exponential"], [-1e4])


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory) -> Path:
    truth = Truth(betas=(0.1, 1.0), seeds=(0, 1), steps=(0, 10, 20), prompts=8)
    directory = write_sweep(tmp_path_factory.mktemp("runs") / "oracle", truth)
    exact = pd.DataFrame(
        [("optimum", 1.0, 0.4, 0.9), ("optimum", 0.1, 5.0, 2.5), ("logistic", 0.1, 5.0, 2.5)],
        columns=list(EXACT_COLUMNS),
    )
    exact.to_parquet(directory / EXACT_FILE, index=False)
    return directory


def test_trajectories_hold_the_recorded_terms(sweep_dir):
    checkpoints = load_sweep(sweep_dir).checkpoints
    trajectories = taylor_trajectories(checkpoints)
    assert len(trajectories) == (checkpoints["step"] > 0).sum()
    row, record = trajectories.iloc[0], checkpoints[checkpoints["step"] > 0].iloc[0]
    total = record["taylor_constant"] + record["taylor_preference"] + record["taylor_regularization"]
    change = record["held_out_loss"] - record["taylor_constant"]
    assert row["error"] == pytest.approx(abs((total - record["held_out_loss"]) / change))
    assert row["beta_rho_rms"] == pytest.approx(record["beta"] * record["rho_sq_mean"] ** 0.5)


def test_every_figure_has_axis_labels_a_caption_and_data(sweep_dir):
    figures = theory_figures() + sweep_figures(load_sweep(sweep_dir))
    names = [figure.name for figure in figures]
    assert names == [
        "loss_shapes", "taylor_ranges", "gradient_identity", "bandit", "gaussian_mixture",
        "taylor_error", "taylor_terms", "squared_loss_and_kl", "exact_frontiers",
    ]  # fmt: skip
    for item in figures:
        assert len(item.caption) > 80
        assert len(item.data)
        for ax in filter(lambda ax: ax.get_visible(), item.figure.axes):
            assert ax.get_xlabel()
            assert ax.get_ylabel() or item.name == "taylor_ranges"  # there the losses are named along the axis
        item.figure.canvas.draw()


def test_policies_beyond_the_exact_optimum_are_counted():
    exact = pd.DataFrame([("optimum", 1.0, 1.0, 1.0), ("optimum", 0.1, 3.0, 2.0)], columns=list(EXACT_COLUMNS))
    rows = [
        (1, 2.0, 0.0, 1.6, 0.02),  # the optimum has 1.5 there: beyond
        (1, 2.0, 0.0, 1.6, 0.06),  # within the error of gold
        (1, 2.0, 0.2, 1.6, 0.02),  # within the error of KL
        (1, 5.0, 0.0, 9.0, 0.02),  # out of the optimum's range
        (0, 2.0, 0.0, 9.0, 0.02),  # the start
    ]
    checkpoints = pd.DataFrame(rows, columns=["step", "kl", "kl_se", "gold", "gold_se"])
    assert beyond_optimum(checkpoints, exact) == (1, 3)


def test_the_caption_of_the_gradients_says_what_is_drawn():
    item = gradient_identity_figure()
    assert "some have the opposite sign" in item.caption
    off = item.data[item.data["pairs"] == "off-policy"]
    assert (off["exact"] * off["twice_kl_gradient"] < 0).any()
    on = item.data[item.data["pairs"] == "on-policy"]
    np.testing.assert_allclose(on["exact"], on["twice_kl_gradient"], atol=1e-12)


def test_a_sweep_without_exact_values_has_no_exact_figure(tmp_path):
    sweep = write_sweep(tmp_path / "plain", Truth(losses=("logistic", "hinge"), betas=(0.1,), prompts=4))
    assert [figure.name for figure in sweep_figures(load_sweep(sweep))][-1] == "squared_loss_and_kl"


def test_plots_draw_on_the_axes_they_are_given():
    ax = Figure().add_subplot()
    assert regularization_plots.loss_shape("slope", ax=ax) is ax
    drawn = {line.get_label(): line for line in ax.lines}
    hinge = drawn["hinge (SLiC)"]
    assert np.interp(0.0, *hinge.get_data()) == pytest.approx(-1)


def test_notebook_runs_on_small_data(sweep_dir, tmp_path):
    (notebook,) = (path for path in NOTEBOOKS if path.stem == "regularization")
    (page,) = execute_notebooks(sweep_dir, tmp_path, [notebook])
    html = page.read_text(encoding="utf-8")
    assert "Against the exact optimum" in html
    assert html.count("data:image/") >= 9
