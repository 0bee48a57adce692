"""Declared facts of the six losses against numerical derivatives, torch, brute-force minimization and exact optima."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit

from analysis.theory.losses import LOSS_THEORY, loss_facts, predicted_beta_ratios, settled_margin
from bench.losses import LOSSES

EVERY_LOSS = pytest.mark.parametrize("theory", LOSS_THEORY.values(), ids=LOSS_THEORY)
# Away from the kink at 1, where hinge and truncated quadratic have no derivative or second derivative.
GRID = np.array([-20.0, -6.3, -2.0, -np.log(2), -0.5, 0.0, 0.4, 0.9, 1.2, 3.0, 7.7, 20.0])


def test_the_same_losses_in_the_same_order_as_those_that_train():
    assert list(LOSS_THEORY) == list(LOSSES)


@EVERY_LOSS
def test_derivatives_are_those_of_the_loss_that_trains(theory):
    z = torch.tensor(GRID, requires_grad=True)
    value = LOSSES[theory.name].fn(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True, materialize_grads=True)
    curvature = torch.autograd.grad(slope.sum(), z)[0] if slope.requires_grad else torch.zeros_like(z)
    for ours, expected in ((theory.value, value), (theory.slope, slope), (theory.curvature, curvature)):
        np.testing.assert_allclose(ours(GRID), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    assert theory.local_strength == pytest.approx(LOSSES[theory.name].local_strength)


def test_facts_table_holds_the_published_values():
    facts = loss_facts().set_index("loss")
    # f(0), f'(0), f''(0)/|f'(0)| of each f, by hand.
    assert facts["f(0)"].tolist() == pytest.approx([np.log(2), 1, 1, 1, 1, 0.25])
    assert facts["f'(0)"].tolist() == pytest.approx([-0.5, -2, -1, -1, -2, -0.25])
    assert facts["local_strength"].tolist() == pytest.approx([0.5, 1, 0, 1, 1, 0.5])


@EVERY_LOSS
def test_convexity_holds_where_declared_and_nowhere_else(theory):
    z = np.linspace(-15, 15, 6001)
    second_difference = np.diff(theory.value(z), 2)
    inside = z[1:-1] > theory.convex_from
    assert (second_difference[inside] >= -1e-12).all()
    assert (second_difference[~inside] < 0).all()
    assert np.isinf(theory.convex_from) == LOSSES[theory.name].is_convex


def test_savage_turns_concave_at_minus_log_two():
    savage = LOSS_THEORY["savage"]
    below, above = savage.curvature(np.array([-np.log(2) - 1e-6, -np.log(2) + 1e-6]))
    assert below < 0 < above


@pytest.mark.parametrize(
    ("losses", "z", "limit"),
    [
        (("logistic", "exponential", "savage"), 30.0, 0.0),
        (("hinge", "truncated_quadratic"), 1.0 + 1e-9, 0.0),
        (("squared",), 30.0, 58.0),
        (("logistic", "hinge"), -30.0, -1.0),
        (("savage",), -30.0, 0.0),
        (("squared", "truncated_quadratic"), -30.0, -62.0),
        (("exponential",), -30.0, -np.exp(30)),
    ],
)
def test_slopes_in_the_tails(losses, z, limit):
    for loss in losses:
        assert LOSS_THEORY[loss].slope(np.array([z]))[0] == pytest.approx(limit, abs=1e-6)


def test_tails_of_the_right_kind_are_strictly_falling_or_flat():
    for theory in LOSS_THEORY.values():
        slope = theory.slope(np.array([30.0]))[0]
        expected = "rises" if slope > 0 else "flat" if slope == 0 else "never 0"
        assert expected in theory.right_tail


@EVERY_LOSS
@pytest.mark.parametrize("p", [0.02, 0.3, 0.51, 0.8, 0.97])
def test_link_minimizes_the_population_risk(theory, p):
    def risk(z):
        z = np.array([z])
        return float((p * theory.value(z) + (1 - p) * theory.value(-z))[0])

    found = minimize_scalar(risk, bounds=(-8, 8), method="bounded", options={"xatol": 1e-9})
    assert theory.link(np.array([p]))[0] == pytest.approx(found.x, abs=1e-4)
    assert settled_margin(theory, p) == pytest.approx(theory.link(np.array([p]))[0], abs=1e-9)


@EVERY_LOSS
def test_certain_labels_push_without_end_or_to_one(theory):
    expected = np.inf if theory.name in ("logistic", "exponential", "savage") else 1.0
    assert settled_margin(theory, [0.0, 0.5, 1.0]).tolist() == pytest.approx([-expected, 0.0, expected])
    assert theory.link(np.array([1.0]))[0] == pytest.approx(expected)


@EVERY_LOSS
@pytest.mark.parametrize("p", [0.6, 0.9, 1.0])
def test_share_of_the_gradient_is_what_is_left_at_the_margin(theory, p):
    def slope(z):
        return float((p * theory.slope(z) - (1 - p) * theory.slope(-z))[0])

    margin = settled_margin(theory, [p], gradient_share=0.25)
    if theory.name == "hinge":  # a step: nothing between all of the gradient and what is left past 1
        assert margin[0] == pytest.approx(1)
    else:
        assert slope(margin) == pytest.approx(0.25 * slope(np.zeros(1)))


def test_local_prediction_is_the_ratio_of_curvatures():
    ratios = predicted_beta_ratios([0.7]).set_index("loss")["local"]
    expected = {"logistic": 1, "squared": 0.5, "exponential": 0.5, "truncated_quadratic": 0.5, "savage": 1}
    assert ratios.dropna().to_dict() == pytest.approx(expected)
    assert np.isnan(ratios["hinge"])


def test_global_prediction_from_links_and_from_gradients():
    p = np.array([0.6, 0.9, 0.9])
    from_links = predicted_beta_ratios(p).set_index("loss")
    logit = np.log(p / (1 - p))
    squared = np.sqrt(np.mean((2 * p - 1) ** 2) / np.mean(logit**2))
    expected = {
        "logistic": 1, "squared": squared, "hinge": 1 / np.sqrt(np.mean(logit**2)), "exponential": 0.5,
        "truncated_quadratic": squared, "savage": 1,
    }  # fmt: skip
    assert from_links["global_"].to_dict() == pytest.approx(expected)
    assert set(from_links["global_rule"]) == {"link"}

    certain = predicted_beta_ratios(np.ones(5)).set_index("loss")
    # By hand: |f'(z)| = |f'(0)|/10 at z = ln 19 (logistic), 1 (hinge), 0.9 (the quadratics), ln 10 (exponential).
    by_hand = {"hinge": 1, "squared": 0.9, "truncated_quadratic": 0.9, "exponential": np.log(10)}
    for loss, margin in by_hand.items():
        assert certain["global_"][loss] == pytest.approx(margin / np.log(19))
    savage = certain["global_"]["savage"] * np.log(19)
    assert 2 * expit(-savage) ** 2 * expit(savage) == pytest.approx(0.1 / 4)
    assert set(certain["global_rule"]) == {"gradient share 0.1"}


def test_predictions_are_relative_to_the_baseline():
    p = [0.55, 0.8, 0.97]
    to_logistic = predicted_beta_ratios(p).set_index("loss")
    to_squared = predicted_beta_ratios(p, baseline="squared").set_index("loss")
    for column in ("local", "global_"):
        assert to_squared[column]["logistic"] == pytest.approx(1 / to_logistic[column]["squared"])


@pytest.mark.parametrize("bad", [[0.5, 0.5], [], [0.2, np.nan], [1.2], [-0.1]])
def test_label_probabilities_that_predict_nothing_are_refused(bad):
    with pytest.raises(ValueError, match="label probabilit"):
        predicted_beta_ratios(bad)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_gradient_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="gradient_share"):
        settled_margin(LOSS_THEORY["logistic"], 0.7, gradient_share=share)
