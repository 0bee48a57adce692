"""The GPO losses f(z), z = βρ (Tang et al. 2024, arXiv 2402.05749, Table 1).

ρ is the log-ratio margin of a preference pair, in nats; β multiplies it before f, once, outside this module:

    L(θ) = E_{(x, y_w, y_l) ~ μ} [ f(β ρ_θ(x, y_w, y_l)) ]

Every loss is a pure function from a tensor of any shape to an unreduced tensor of that shape. What the
harness may assume of a loss is declared beside it in ``LOSSES`` and verified by ``tests/bench/test_losses.py``.
"""

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
