"""Splines against scipy's, penalized fits against dense least squares, cross-validation against a loop."""

import numpy as np
import pytest
from scipy.interpolate import BSpline

from analysis.statistics import smoothing
from analysis.statistics.smoothing import PENALTIES, Basis, held_out_errors, normal_equations


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 3, (2, 40))
    return x, np.sin(2 * x) + rng.normal(0, 0.1, x.shape), rng.uniform(0.2, 2, x.shape)


def dense_fit(basis, x, y, weight, penalty, order):
    """Least squares on the observations with the penalty as further rows."""
    root = np.sqrt(weight)
    difference = np.diff(np.eye(basis.size), n=order, axis=0)
    rows = np.vstack([basis.matrix(x) * root[:, None], np.sqrt(penalty * weight.sum()) * difference])
    return np.linalg.lstsq(rows, np.concatenate([y * root, np.zeros(len(difference))]))[0]


def test_the_basis_is_scipys():
    basis = Basis(-1.0, 2.0, segments=6)
    x = np.linspace(-1, 2, 31)
    knots = -1 + 0.5 * np.arange(-3, 10)
    np.testing.assert_allclose(basis.matrix(x), BSpline.design_matrix(x, knots, 3).toarray(), atol=1e-14)
    np.testing.assert_allclose(basis.matrix(x).sum(1), 1)


@pytest.mark.parametrize("order", [2, 3])
def test_fits_are_penalized_least_squares(data, order):
    x, y, weight = data
    basis = Basis(0.0, 3.0)
    fitted = normal_equations(basis, x, y, weight).solve(1e-3, order)
    for number in range(2):
        expected = dense_fit(basis, x[number], y[number], weight[number], 1e-3, order)
        np.testing.assert_allclose(
            basis.matrix(x[number]) @ fitted[number], basis.matrix(x[number]) @ expected, atol=1e-5
        )


def test_pieces_make_no_difference(data, monkeypatch):
    x, y, weight = data
    whole = normal_equations(Basis(0.0, 3.0), x, y, weight)
    monkeypatch.setattr(smoothing, "_CHUNK", 40)
    pieces = normal_equations(Basis(0.0, 3.0), x, y, weight)
    np.testing.assert_allclose(whole.gram, pieces.gram)
    np.testing.assert_allclose(whole.moment, pieces.moment)


@pytest.mark.parametrize(("order", "degree"), [(2, 1), (3, 2)])
def test_a_large_penalty_leaves_a_polynomial(data, order, degree):
    x, y, weight = data
    basis = Basis(0.0, 3.0)
    fitted = normal_equations(basis, x, y, weight).solve(1e6, order)
    line = np.polynomial.Polynomial.fit(x[0], y[0], degree, w=np.sqrt(weight[0]))
    np.testing.assert_allclose(basis.matrix(x[0]) @ fitted[0], line(x[0]), atol=1e-3)


def test_held_out_errors_leave_whole_folds_out_and_do_not_extrapolate(data):
    x, y = data[0][0], data[1][0]
    basis = Basis(0.0, 3.0)
    fold = np.digitize(x, [0.7, 1.4, 2.1])  # four stretches of x: the outer ones lie outside the rest
    expected = np.zeros(len(PENALTIES))
    for label in range(4):
        train, test = fold != label, fold == label
        inside = test & (x > x[train].min()) & (x < x[train].max())
        for number, penalty in enumerate(PENALTIES):
            coefficients = dense_fit(basis, x[train], y[train], np.ones(train.sum()), penalty, 2)
            expected[number] += ((basis.matrix(x[inside]) @ coefficients - y[inside]) ** 2).sum()
        assert inside.any() == (label in (1, 2))
    np.testing.assert_allclose(held_out_errors(basis, x, y, fold, 2), expected, rtol=1e-2)
