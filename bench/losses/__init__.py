"""GPO losses: those of the paper (`gpo`), and finding them and users' own by name (`user`)."""

from bench.losses.gpo import (
    EXPONENTIAL_SATURATION,
    LN2,
    LOSSES,
    Loss,
    exponential,
    hinge,
    logistic,
    savage,
    squared,
    truncated_quadratic,
)
from bench.losses.user import loss_values, resolve_loss

__all__ = [
    "EXPONENTIAL_SATURATION",
    "LN2",
    "LOSSES",
    "Loss",
    "exponential",
    "hinge",
    "logistic",
    "loss_values",
    "resolve_loss",
    "savage",
    "squared",
    "truncated_quadratic",
]
