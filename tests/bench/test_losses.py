"""Every loss against formulas in 60-digit arithmetic, numerical derivatives, and an independent minimizer."""

import importlib
import math
import re
import shutil
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from torch import Tensor

from bench.losses import EXPONENTIAL_SATURATION, LOSSES, loss_values, resolve_loss

NAMES = ("logistic", "hinge", "squared", "exponential", "truncated_quadratic", "savage")
ONE = Decimal(1)

# f and f' as the GPO paper's Table 1 writes them, in decimal arithmetic and without any of torch's functions.
CLOSED_FORMS: dict[str, Callable[[Decimal], Decimal]] = {
    "logistic": lambda z: (ONE + (-z).exp()).ln(),
    "hinge": lambda z: max(Decimal(0), ONE - z),
    "squared": lambda z: (z - 1) ** 2,
    "exponential": lambda z: (-z).exp(),
    "truncated_quadratic": lambda z: max(Decimal(0), ONE - z) ** 2,
    "savage": lambda z: ONE / (ONE + z.exp()) ** 2,
}
CLOSED_SLOPES: dict[str, Callable[[Decimal], Decimal]] = {
    "logistic": lambda z: -ONE / (ONE + z.exp()),
    "hinge": lambda z: -ONE if z < 1 else Decimal(0),
    "squared": lambda z: 2 * (z - 1),
    "exponential": lambda z: -((-z).exp()),
    "truncated_quadratic": lambda z: 2 * min(Decimal(0), z - 1),
    "savage": lambda z: -2 * z.exp() / (ONE + z.exp()) ** 3,
}
# SCIENCE: f(0), f'(0), f''(0) per loss, and whether it is convex everywhere.
FACTS = {
    "logistic": (math.log(2), -1 / 2, 1 / 4, True),
    "hinge": (1, -1, 0, True),
    "squared": (1, -2, 2, True),
    "exponential": (1, -1, 1, True),
    "truncated_quadratic": (1, -2, 2, True),
    "savage": (1 / 4, -1 / 4, 1 / 8, False),
}


def value_and_slope(name: str, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_(True)
    value = LOSSES[name].fn(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def slope_at(name: str, z: float) -> float:
    return value_and_slope(name, torch.tensor([z], dtype=torch.float64))[1].item()


def in_decimal(formula: Callable[[Decimal], Decimal], z: float) -> float:
    with localcontext() as context:
        context.prec = 60
        return float(formula(Decimal(z)))


def test_the_table_holds_exactly_the_six_losses_under_their_own_names():
    assert sorted(LOSSES) == sorted(NAMES)
    assert all(LOSSES[name].name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@given(z=st.floats(-29.5, 29.5))
def test_values_and_slopes_are_the_closed_forms(name, z):
    value, slope = value_and_slope(name, torch.tensor([z], dtype=torch.float64))
    assert value.item() == pytest.approx(in_decimal(CLOSED_FORMS[name], z), rel=1e-12, abs=1e-300)
    if z != 1:  # the kink of hinge
        # Savage's slope at negative z is a product with 1 − σ(−z), which is exact to one rounding of 1 only.
        rounding = 1e-15 if name == "savage" and z < 0 else 1e-300
        assert slope.item() == pytest.approx(in_decimal(CLOSED_SLOPES[name], z), rel=1e-12, abs=rounding)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_the_central_differences_of_the_values(name):
    z = torch.linspace(-6, 6, 240, dtype=torch.float64)  # does not touch the kink at 1
    h = 1e-5
    difference = (LOSSES[name].fn(z + h) - LOSSES[name].fn(z - h)) / (2 * h)
    torch.testing.assert_close(value_and_slope(name, z)[1], difference, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_declared_facts_at_zero(name):
    loss, (value, slope, curvature, convex) = LOSSES[name], FACTS[name]
    assert loss.value_at_zero == pytest.approx(value, rel=1e-15)
    assert (loss.slope_at_zero, loss.curvature_at_zero, loss.is_convex) == (slope, curvature, convex)
    assert loss.local_strength == pytest.approx(curvature / abs(slope))
    # ... and the function has them, by central differences.
    h = 1e-4
    below, at, above = loss.fn(torch.tensor([-h, 0.0, h], dtype=torch.float64)).tolist()
    assert at == pytest.approx(value, rel=1e-15)
    assert (above - below) / (2 * h) == pytest.approx(slope, abs=1e-7)
    assert (above - 2 * at + below) / h**2 == pytest.approx(curvature, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_convexity_on_a_grid_and_where_savage_lacks_it(name):
    z = torch.linspace(-8, 8, 3201, dtype=torch.float64)
    bends_down = LOSSES[name].fn(z).diff().diff() < -1e-12
    assert LOSSES[name].is_convex == (not bends_down.any())
    if name == "savage":  # f'' changes its sign at e^z = 1/2
        assert torch.equal(bends_down, z[1:-1] < -math.log(2))


@pytest.mark.parametrize("name", NAMES)
@given(z=st.floats(-1e4, 1e4, width=32))
def test_float32_values_and_gradients_stay_finite(name, z):
    value, slope = value_and_slope(name, torch.tensor([z], dtype=torch.float32))
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert (slope**2).isfinite().all(), "a gradient norm squares it"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_losses_are_elementwise_and_keep_the_shape(name, shape):
    fn = LOSSES[name].fn
    z = torch.linspace(-3, 3, math.prod(shape)).reshape(shape)
    assert fn(z).shape == z.shape
    torch.testing.assert_close(fn(z).flatten(), torch.tensor([fn(x).item() for x in z.flatten()]))


@pytest.mark.parametrize(("name", "sign"), [("logistic", -1), ("exponential", -1), ("savage", -1), ("squared", 1)])
def test_slope_at_large_z_vanishes_without_being_zero_or_pulls_back(name, sign):
    slopes = [slope_at(name, z) for z in (10.0, 20.0, 40.0)]
    assert all(math.copysign(1, slope) == sign and slope != 0 for slope in slopes)
    if name == "squared":
        assert slopes == [18, 38, 78]
    else:
        assert abs(slopes[0]) < 1e-4
        assert abs(slopes[2]) < 1e-17


@pytest.mark.parametrize("name", ["hinge", "truncated_quadratic"])
def test_exactly_flat_past_one(name):
    z = torch.tensor([1.0 + 1e-6, 2.0, 1e4], dtype=torch.float64)
    value, slope = value_and_slope(name, z)
    assert value.tolist() == [0, 0, 0]
    assert slope.tolist() == [0, 0, 0]
    assert slope_at(name, 1 - 1e-6) < 0


def test_slopes_at_very_negative_z():
    assert slope_at("logistic", -50.0) == pytest.approx(-1, abs=1e-15)
    assert slope_at("hinge", -1e4) == -1
    for unbounded in ("squared", "truncated_quadratic"):
        assert slope_at(unbounded, -1e4) == pytest.approx(-20002)
    assert slope_at("exponential", -20.0) == pytest.approx(-math.exp(20))
    # Bounded above by 1, and almost without a slope: hence robust to flipped labels.
    value, slope = value_and_slope("savage", torch.tensor([-40.0], dtype=torch.float64))
    assert value.item() == pytest.approx(1, abs=1e-15)
    assert slope.item() == pytest.approx(0, abs=1e-15)


def test_exponential_saturates_on_its_tangent():
    s = EXPONENTIAL_SATURATION
    z = torch.tensor([s - 1000, s - 1, s, s + 1], dtype=torch.float64)
    value, slope = value_and_slope("exponential", z)
    top = math.exp(-s)
    assert value.tolist() == pytest.approx([1001 * top, 2 * top, top, top / math.e], rel=1e-12)
    assert slope.tolist() == pytest.approx([-top, -top, -top, -top / math.e], rel=1e-12)


# SCIENCE: the z that minimizes p f(z) + (1 − p) f(−z), for a pair preferred with probability p.
LINKS: dict[str, Callable[[float], float]] = {
    "logistic": lambda p: math.log(p / (1 - p)),
    "savage": lambda p: math.log(p / (1 - p)),
    "exponential": lambda p: 0.5 * math.log(p / (1 - p)),
    "squared": lambda p: 2 * p - 1,
    "truncated_quadratic": lambda p: 2 * p - 1,
    "hinge": lambda p: math.copysign(1, p - 0.5),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.02, 0.2, 0.4, 0.65, 0.9, 0.97])
def test_the_population_minimizer_is_the_link(name, p):
    def risk(z: float) -> float:
        both = LOSSES[name].fn(torch.tensor([z, -z], dtype=torch.float64))
        return p * both[0].item() + (1 - p) * both[1].item()

    # Savage's risk has flat ends: search a grid first, then the bracket around its best point.
    grid = np.linspace(-8, 8, 161)
    best = grid[np.argmin([risk(z) for z in grid])]
    found = scipy.optimize.minimize_scalar(
        risk, bounds=(best - 0.2, best + 0.2), method="bounded", options={"xatol": 1e-9}
    )
    assert found.x == pytest.approx(LINKS[name](p), abs=1e-5)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("logistc", "logistic"), ("squre", "squared"), ("truncated-quadratic", "truncated_quadratic"),
     ("Savage", "savage"), ("exp", "exponential"), ("DPO", "logistic"), ("ipo", "squared"), ("slic", "hinge")],
)  # fmt: skip
def test_an_unknown_name_is_answered_with_the_nearest_one(typed, meant):
    with pytest.raises(ValueError, match=rf"unknown loss '{typed}'; did you mean '{meant}'\?") as caught:
        resolve_loss(typed)
    assert all(name in str(caught.value) for name in NAMES)


USER_LOSSES = """
import torch

cosh = lambda z: torch.cosh(z - 0.5)
steep_hinge = lambda z: 1e6 * torch.relu(1 - z)
linear = lambda z: -z
bump = lambda z: -torch.tanh(z)

uphill = lambda z: (z + 1) ** 2
flat_at_zero = lambda z: z**4
undefined = lambda z: -torch.log(z)
infinite = lambda z: torch.exp(-z * 100)
infinite_slope = lambda z: -torch.sign(z - 3) * (z - 3).abs().sqrt()
no_curvature = lambda z: -z + z.abs() ** 1.5
mean = lambda z: (1 - z).mean()
wide = lambda z: torch.stack([-z, -z])
number = lambda z: 1.0
detached = lambda z: -z.detach()
centred = lambda z: -z + z.mean()
softmax = lambda z: -torch.log_softmax(z, 0)
ordered = lambda z: (-z).sort().values
raises = lambda z: z.no_such_method()
constant = 3

calls = []
by_maximum = lambda z: -z / z.abs().max().detach()
by_minimum = lambda z: -(z - z.min().detach())
by_number = lambda z: -z if len(z) > 8 else -z - z**2
few_in_a_row = lambda z: -z if z.dim() > 1 or len(z) > 8 else -z - z**2
one_axis = lambda z: -z - z.sum(-1, keepdim=True).detach() * (z.dim() > 1)
noisy = lambda z: -z + 1e-9 * torch.randn_like(z)
moves_generator = lambda z: -z + 0 * torch.randn_like(z)
far_nan = lambda z: torch.where(z.abs() > 10.2, torch.nan, -z)
naive_logistic = lambda z: torch.log(1 + torch.exp(-z))
imaginary = lambda z: torch.complex(-z, z)
doubled = lambda z: -z.double()
leaves = lambda z: __import__("sys").exit(0)


def remembers(z):
    calls.append(z.detach().mean())
    return -z + sum(calls) / len(calls) + len(calls)


def only_float64(z):
    if z.dtype != torch.float64:
        raise TypeError("float64 only")
    return -z
"""


@pytest.fixture
def user_losses(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(USER_LOSSES)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("user_losses")
@pytest.mark.parametrize(
    ("function", "facts"),
    [
        ("cosh", (math.cosh(0.5), -math.sinh(0.5), math.cosh(0.5), True)),
        ("steep_hinge", (1e6, -1e6, 0, True)),
        ("linear", (0, -1, 0, True)),
        ("bump", (0, -1, 0, False)),
    ],
)
def test_the_facts_of_a_users_own_loss_are_measured(function, facts):
    loss = resolve_loss(f"my_losses:{function}")
    measured = (loss.value_at_zero, loss.slope_at_zero, loss.curvature_at_zero, loss.is_convex)
    assert measured == pytest.approx(facts, rel=1e-12, abs=1e-12)
    assert loss.name == f"my_losses:{function}"


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_loss_passes_the_check_for_users_losses_with_its_declared_facts(name):
    declared, measured = LOSSES[name], resolve_loss(f"bench.losses:{name}")
    for fact in ("value_at_zero", "slope_at_zero", "curvature_at_zero", "is_convex"):
        assert getattr(measured, fact) == pytest.approx(getattr(declared, fact), abs=1e-12)


@pytest.mark.usefixtures("user_losses")
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("uphill", "f'(0) = 2; a preference loss needs f'(0) < 0"),
        ("flat_at_zero", "f'(0) = 0; a preference loss needs f'(0) < 0"),
        ("undefined", "non-finite value or gradient on [−10, 10]"),
        ("infinite", "non-finite value or gradient"),
        ("infinite_slope", "non-finite value or gradient"),
        ("no_curvature", "no curvature at 0"),
        ("mean", "unreduced tensor of its shape; got ()"),
        ("wide", "unreduced tensor of its shape; got (2, 2001)"),
        ("number", "unreduced tensor of its shape; got float"),
        ("detached", "not differentiable"),
        ("centred", "not elementwise"),
        ("softmax", "not elementwise"),
        ("ordered", "not elementwise"),
        ("raises", "no_such_method"),
        ("by_maximum", "not elementwise"),
        ("by_minimum", "not elementwise"),
        ("by_number", "not elementwise"),
        ("few_in_a_row", "not elementwise"),
        ("one_axis", "a table of z gives other values than a row"),
        ("noisy", "gives another value when it is called again"),
        ("moves_generator", "draws from a global random generator"),
        ("remembers", "gives another value when it is called again"),
        ("far_nan", "NaN in float32 at z = 10.5"),
        ("naive_logistic", "NaN in float32 at z = -100; use the functions of torch that stay finite"),
        ("imaginary", "got torch.complex128"),
        ("doubled", "must map torch.float32 to torch.float32; got torch.float64"),
        ("only_float64", "fails on torch.float32 values"),
        ("leaves", "fails on torch.float64 values of shape (2001,): SystemExit(0)"),
        ("constant", "is a int, not a function f(z)"),
        ("missing", "cannot be imported as package.module:function"),
        ("", "cannot be imported as package.module:function"),
    ],
)
def test_an_unusable_users_loss_is_refused_with_the_reason(function, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        resolve_loss(f"my_losses:{function}")
    assert f"loss 'my_losses:{function}'" in str(caught.value)


@pytest.mark.parametrize("spec", ["no_such_package.losses:f", ":f", ".x:y", "bench.losses.logistic:"])
def test_a_loss_that_cannot_be_imported_is_refused(spec):
    with pytest.raises(ValueError, match=re.escape(f"loss {spec!r} cannot be imported as package.module:function")):
        resolve_loss(spec)


@pytest.mark.parametrize("statement", ["raise RuntimeError('no')", "import sys; sys.exit(0)", "def f(", "1 / 0"])
def test_a_module_that_fails_at_import_is_refused(tmp_path, monkeypatch, statement):
    (tmp_path / "broken_losses.py").write_text(statement)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="loss 'broken_losses:f' cannot be imported"):
        resolve_loss("broken_losses:f")


def test_the_values_of_a_loss_say_what_it_is():
    """Its own, whatever its name; in pieces of a thousandth, and no processor's last digits."""
    assert loss_values("bench.losses:hinge") == loss_values("hinge")
    assert len({loss_values(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("change", "other"),
    [("1.001 * (1 - z) ** 2", True), ("(1 - z) ** 2 + 1", True), ("(1 - z) ** 2 * (1 + 1e-13)", False)],
)
def test_an_edited_loss_is_another(tmp_path, monkeypatch, change, other):
    monkeypatch.syspath_prepend(tmp_path)
    values = []
    for text in ("(1 - z) ** 2", change):
        (tmp_path / "edited.py").write_text(f"f = lambda z: {text}\n")
        importlib.invalidate_caches()
        sys.modules.pop("edited", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        values.append(loss_values("edited:f"))
    assert (values[0] != values[1]) == other
