"""Losses by name: the built-in ones, and users' own, which are probed before anything is built on them."""

import difflib
import functools
import hashlib
import importlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.losses.gpo import LOSSES, Loss

_FAR = (10.5, 20.0, 50.0, 100.0, 300.0, 1000.0)  # |βρ| of a policy that has left; float32 overflows in exp at 88
_SUBSETS = tuple((size, draw) for size in (1, 2, 3, 16, 64) for draw in range(4))
_HASHED = 10  # every so many points of the grid
_HASHED_DIGITS = 6  # more would tell processors apart


def resolve_loss(spec: str) -> Loss:
    """Look up a built-in loss by name, or import and check a user's own ``package.module:function``.

    Args:
        spec: a key of ``LOSSES``, or ``package.module:function`` naming an elementwise f(z).
    Raises:
        ValueError: unknown name (the nearest valid one is named), import failure, or a function that is not
            a usable loss: fails, other shape or dtype, a value that depends on other entries, on earlier calls or on
            chance, not finite on [−10, 10], NaN farther out, not differentiable, no f''(0), or f'(0) ≥ 0.
    """
    if spec in LOSSES:
        return LOSSES[spec]
    if ":" in spec:
        return _check(spec, _import(spec))
    # DPO, IPO and SLiC are what many will type first, and no spelling of the names used here.
    by_algorithm = {loss.algorithm.lower(): name for name, loss in LOSSES.items() if loss.algorithm != "GPO"}
    nearest = by_algorithm.get(spec.lower()) or difflib.get_close_matches(spec, LOSSES, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown loss {spec!r}; did you mean {nearest!r}? "
        f"Allowed: {', '.join(LOSSES)}, or package.module:function for your own f(z)"
    )


def loss_values(spec: str) -> str:
    """12 hex digits of values and slopes on [−10, 10]: what a user's loss is, which its name does not say.

    Raises:
        ValueError: as `resolve_loss`.
    """
    return _values(spec, resolve_loss(spec).fn)


@functools.cache
def _values(spec: str, fn: Callable[[Tensor], Tensor]) -> str:
    z = _grid()[::_HASHED].clone().requires_grad_()
    value = _call(spec, fn, z)
    numbers = torch.cat([value.detach(), _elementwise_grad(value, z).detach()])
    floor = 1e-9 * numbers.abs().max()
    digits = [f"{0.0 if abs(x) < floor else x + 0.0:.{_HASHED_DIGITS - 1}e}" for x in numbers.tolist()]
    return hashlib.sha256(" ".join(digits).encode()).hexdigest()[:12]


def _import(spec: str) -> Callable[[Tensor], Tensor]:
    module_name, _, function_name = spec.partition(":")
    try:
        fn = getattr(importlib.import_module(module_name), function_name)
    # A user's module may raise whatever it likes, and leave.
    except (Exception, SystemExit) as error:
        told = str(error) or repr(error)
        raise ValueError(f"loss {spec!r} cannot be imported as package.module:function: {told}") from error
    if not callable(fn) or fn.__hash__ is None:
        raise ValueError(f"loss {spec!r} is a {type(fn).__name__}, not a function f(z)")
    return fn


def _grid() -> Tensor:
    """[−10, 10] in hundredths, [2001] float64. It holds 0 exactly, which linspace misses."""
    return torch.arange(-1000, 1001, dtype=torch.float64) / 100


@functools.cache
def _check(spec: str, fn: Callable[[Tensor], Tensor]) -> Loss:
    """Probe f as training will use it; measure the facts that a built-in loss declares."""
    z = _grid().requires_grad_()
    zero = len(z) // 2
    before = _states()
    value = _call(spec, fn, z)
    if not torch.equal(_call(spec, fn, z), value) and value.isfinite().all():
        raise ValueError(f"loss {spec!r} gives another value when it is called again: it draws numbers, or remembers")
    if _states() != before:
        raise ValueError(f"loss {spec!r} draws from a global random generator")
    _check_elementwise(spec, fn, z, value.detach())
    slope = _elementwise_grad(value, z)
    curvature = _elementwise_grad(slope, z) if slope.requires_grad else torch.zeros_like(z)
    if not (value.isfinite().all() and slope.isfinite().all() and curvature[zero].isfinite()):
        raise ValueError(f"loss {spec!r} has a non-finite value or gradient on [−10, 10], or no curvature at 0")
    slope_at_zero = slope[zero].item()
    if slope_at_zero >= 0:
        raise ValueError(
            f"loss {spec!r} has f'(0) = {slope_at_zero:g}; a preference loss needs f'(0) < 0 "
            "so that a step from the reference raises the chosen response"
        )
    _check_float32(spec, fn, value.detach())
    second_differences = value.detach().diff().diff()
    rounding = 1e-12 * value.detach().abs().max()
    is_convex = bool((second_differences >= -rounding).all())
    return Loss(spec, fn, value[zero].item(), slope_at_zero, curvature[zero].item(), is_convex, "user", "user-defined")


def _states() -> tuple[bytes, ...]:
    """The global generators of torch and numpy."""
    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002  the one that a user's function may move
    return bytes(torch.get_rng_state().tolist()), repr(numpy_state).encode()


def _check_elementwise(spec: str, fn: Callable[[Tensor], Tensor], z: Tensor, value: Tensor) -> None:
    """A mean, maximum, softmax or sort over the pairs, or their number, shows when a few of them come alone."""
    generator = torch.Generator().manual_seed(0)
    tolerance = 1e-12 * value[value.isfinite()].abs().max() if value.isfinite().any() else 0.0
    for size, _ in _SUBSETS:
        rows = torch.randint(len(z), (size,), generator=generator)
        alone = _call(spec, fn, z[rows]).detach()
        if not torch.allclose(alone, value[rows], rtol=1e-9, atol=float(tolerance), equal_nan=True):
            raise ValueError(f"loss {spec!r} is not elementwise: its value at one z depends on the other entries")
    table = torch.randint(len(z), (3, 5), generator=generator)  # pairs of the oracle come as a table
    if not torch.allclose(_call(spec, fn, z[table]).detach(), value[table], rtol=1e-9, equal_nan=True):
        raise ValueError(f"loss {spec!r} is not elementwise: a table of z gives other values than a row")


def _check_float32(spec: str, fn: Callable[[Tensor], Tensor], value: Tensor) -> None:
    """Training is in float32, and a policy far from its reference has βρ far from 0."""
    z = _grid().float().requires_grad_()
    in_float32 = _call(spec, fn, z)
    slope = _elementwise_grad(in_float32, z)
    close = torch.isclose(in_float32.double(), value, rtol=1e-2, atol=1e-3 * float(value.abs().max()))
    if not (close.all() and slope.isfinite().all()):
        worst = z[~(close & slope.isfinite())][0].item()
        raise ValueError(f"loss {spec!r} has another value in float32, or no finite gradient, as at z = {worst:g}")
    far = torch.tensor([sign * each for each in _FAR for sign in (1, -1)]).requires_grad_()
    values = _call(spec, fn, far)
    slopes = _elementwise_grad(values, far)
    if (wrong := values.isnan() | slopes.isnan()).any():
        raise ValueError(
            f"loss {spec!r} or its gradient is NaN in float32 at z = {far[wrong][0].item():g}; use the functions of "
            "torch that stay finite, such as softplus for log(1 + e^z)"
        )


def _call(spec: str, fn: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    try:
        value = fn(z)
    except (Exception, SystemExit) as error:  # whatever a user's code may raise; the cause stays attached
        raise ValueError(f"loss {spec!r} fails on {z.dtype} values of shape {tuple(z.shape)}: {error!r}") from error
    if not isinstance(value, Tensor) or value.shape != z.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss {spec!r} must map a tensor to an unreduced tensor of its shape; got {got}")
    if value.dtype != z.dtype:
        raise ValueError(f"loss {spec!r} must map {z.dtype} to {z.dtype}; got {value.dtype}")
    if not value.requires_grad:
        raise ValueError(f"loss {spec!r} is not differentiable: its output has no gradient")
    return value


def _elementwise_grad(value: Tensor, z: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=True, materialize_grads=True)
    return gradient
