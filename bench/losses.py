"""The GPO losses f(z), z = βρ (Tang et al. 2024, arXiv 2402.05749, Table 1).

ρ is the log-ratio margin of a preference pair, in nats; β multiplies it before f, once, outside this module:

    L(θ) = E_{(x, y_w, y_l) ~ μ} [ f(β ρ_θ(x, y_w, y_l)) ]

Every loss is a pure function from a tensor of any shape to an unreduced tensor of that shape. What the
harness may assume of a loss is declared beside it in ``LOSSES`` and verified by ``tests/bench/test_losses.py``.
"""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Below this z the exponential loss continues along its tangent: e^30 ≈ 1e13 keeps the loss, its gradient
# and the squared gradient norm finite in float32 down to z = −1e4. β ρ = −30 is a pair ranked wrongly by
# 30/β nats: past it only the size of the gradient is affected, and gradient clipping rescales that anyway.
EXPONENTIAL_SATURATION = -30.0


def logistic(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Logistic loss, log(1 + e^−z): DPO.

    Args:
        z: βρ, any shape, dimensionless.
    Returns:
        Tensor of z's shape.
    Reference: Rafailov et al. 2023, arXiv 2305.18290, eq. 7.

    >>> logistic(torch.tensor([0.0]))
    tensor([0.6931])
    """
    # log(1 − σ(z)) = logσ(−z) is the stable form; here log(1 + e^−z) = −logσ(z).
    return -functional.logsigmoid(z)


def hinge(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hinge loss, max(0, 1 − z): the ranking part of SLiC, on log-ratios to the reference.

    Reference: Zhao et al. 2023, arXiv 2305.10425 (with a cross-entropy term that GPO leaves out).

    >>> hinge(torch.tensor([0.0, 2.0]))
    tensor([1., 0.])
    """
    return functional.relu(1 - z)


def squared(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Squared loss, (z − 1)²: IPO, with β = 2τ of Azar et al. up to a constant factor.

    Reference: Azar et al. 2023, arXiv 2310.12036, eq. 17: (ρ − 1/(2τ))² = (2τρ − 1)² / (4τ²).

    >>> squared(torch.tensor([0.0, 3.0]))
    tensor([1., 4.])
    """
    return (z - 1) ** 2


def exponential(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Exponential loss, e^−z, continued along its tangent for z < −30 so that float32 does not overflow.

    Reference: Tang et al. 2024, arXiv 2402.05749, Table 1. The saturation is ours.

    >>> exponential(torch.tensor([0.0]))
    tensor([1.])
    """
    inside = z.clamp(min=EXPONENTIAL_SATURATION)
    beyond = z - inside  # zero inside, z + 30 < 0 where saturated
    # f(s) + f'(s)(z − s) with f' = −f; the detached factor keeps the slope of the tangent constant.
    value = torch.exp(-inside)
    return value - value.detach() * beyond


def truncated_quadratic(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Truncated quadratic loss, max(0, 1 − z)²: the squared loss without its pull back from above.

    Reference: Bartlett et al. 2006; Tang et al. 2024, arXiv 2402.05749, Table 1.

    >>> truncated_quadratic(torch.tensor([0.0, 3.0]))
    tensor([1., 0.])
    """
    return functional.relu(1 - z) ** 2


def savage(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Savage loss, (1 + e^z)^−2: bounded, and not convex for z < −ln 2.

    Reference: Masnadi-Shirazi & Vasconcelos 2008; Tang et al. 2024, arXiv 2402.05749, Table 1.

    >>> savage(torch.tensor([0.0]))
    tensor([0.2500])
    """
    return torch.sigmoid(-z) ** 2


@dataclass(frozen=True)
class Loss:
    """A loss and the facts the harness and the theory rest on (all at z = 0 unless said otherwise)."""

    name: str
    fn: Callable[[Tensor], Tensor]
    value_at_zero: float
    slope_at_zero: float
    curvature_at_zero: float
    is_convex: bool
    algorithm: str
    reference: str

    @property
    def local_strength(self) -> float:
        """f''(0)/|f'(0)|: the local regularization strength per unit of β (Tang et al. 2024, section 4)."""
        return self.curvature_at_zero / abs(self.slope_at_zero)


LN2 = 0.6931471805599453

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("logistic", logistic, LN2, -1 / 2, 1 / 4, True, "DPO", "arXiv 2305.18290"),
        Loss("squared", squared, 1.0, -2.0, 2.0, True, "IPO", "arXiv 2310.12036"),
        Loss("hinge", hinge, 1.0, -1.0, 0.0, True, "SLiC", "arXiv 2305.10425"),
        Loss("exponential", exponential, 1.0, -1.0, 1.0, True, "GPO", "arXiv 2402.05749"),
        Loss("truncated_quadratic", truncated_quadratic, 1.0, -2.0, 2.0, True, "GPO", "arXiv 2402.05749"),
        Loss("savage", savage, 1 / 4, -1 / 4, 1 / 8, False, "GPO", "arXiv 2402.05749"),
    )
}


def resolve_loss(spec: str) -> Loss:
    """Look up a built-in loss by name, or import and check a user's own ``package.module:function``.

    Args:
        spec: a key of ``LOSSES``, or ``package.module:function`` naming an elementwise f(z).
    Raises:
        ValueError: unknown name (the nearest valid one is named), import failure, or a function that is not
            a usable loss (fails, wrong shape, not elementwise, not finite on [−10, 10], not differentiable,
            no f''(0), or f'(0) ≥ 0).
    """
    if spec in LOSSES:
        return LOSSES[spec]
    if ":" in spec:
        return _load_user_loss(spec)
    # DPO, IPO and SLiC are what many will type first, and no spelling of the names used here.
    by_algorithm = {loss.algorithm.lower(): name for name, loss in LOSSES.items() if loss.algorithm != "GPO"}
    nearest = by_algorithm.get(spec.lower()) or difflib.get_close_matches(spec, LOSSES, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown loss {spec!r}; did you mean {nearest!r}? "
        f"Allowed: {', '.join(LOSSES)}, or package.module:function for your own f(z)"
    )


def _load_user_loss(spec: str) -> Loss:
    module_name, _, function_name = spec.partition(":")
    try:
        fn = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"loss {spec!r} cannot be imported as package.module:function: {error}") from error
    if not callable(fn):
        raise ValueError(f"loss {spec!r} is a {type(fn).__name__}, not a function f(z)")
    return _check_user_loss(spec, fn)


def _check_user_loss(spec: str, fn: Callable[[Tensor], Tensor]) -> Loss:
    """Check f on a grid over [−10, 10] and at 0; measure the facts that a built-in loss declares."""
    # Double precision, and a grid that holds 0 exactly (linspace misses it), so that the facts are exact.
    z = (torch.arange(-1000, 1001, dtype=torch.float64) / 100).requires_grad_()
    zero = len(z) // 2
    value = _call_user_loss(spec, fn, z)
    # A mean, softmax or sort over the pairs shows when half of them come alone and in reverse.
    if not torch.allclose(_call_user_loss(spec, fn, z[:zero].flip(0)).flip(0), value[:zero], equal_nan=True):
        raise ValueError(f"loss {spec!r} is not elementwise: its value at one z depends on the other entries")
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
    second_differences = value.detach().diff().diff()
    rounding = 1e-12 * value.detach().abs().max()
    is_convex = bool((second_differences >= -rounding).all())
    return Loss(spec, fn, value[zero].item(), slope_at_zero, curvature[zero].item(), is_convex, "user", "user-defined")


def _call_user_loss(spec: str, fn: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    try:
        value = fn(z)
    except Exception as error:  # whatever a user's code may raise; the cause stays attached
        raise ValueError(f"loss {spec!r} fails on a tensor of {len(z)} values: {error!r}") from error
    if not isinstance(value, Tensor) or value.shape != z.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss {spec!r} must map a tensor to an unreduced tensor of its shape; got {got}")
    if not value.requires_grad:
        raise ValueError(f"loss {spec!r} is not differentiable: its output has no gradient")
    return value


def _elementwise_grad(value: Tensor, z: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=True, materialize_grads=True)
    return gradient
