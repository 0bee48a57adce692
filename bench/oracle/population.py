"""The loss over all pairs with their exact probabilities, and its optimum: training without sampling."""

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_matrix
from torch import Tensor

from bench.config import LabelsConfig
from bench.losses import Loss
from bench.oracle.exact import ExactWorld, require_finite
from bench.policies.policy import Policy
from gold_rm.labeling import DETERMINISTIC

# Of the loss in the solver's own units, where all responses weigh alike; float64 reaches about 1e-8.
_LARGEST_SLOPE = 1e-5


def pair_probabilities(world: ExactWorld, labels: LabelsConfig) -> Tensor:
    """P(context, chosen, rejected) of one pair of the preference data, [contexts, responses, responses] float64.

    As `bench.data.preferences` draws it: two independent responses of π_ref to a prompt, labeled by gold; pairs of one
    response twice are dropped, and ties in gold as well under ``deterministic``. Sums to 1 over everything.
    """
    reference = world.log_reference.exp()
    drawn = world.context_share[:, None, None] * reference[:, :, None] * reference[:, None, :]
    margin = world.gold[:, :, None] - world.gold[:, None, :]
    if labels.rule == DETERMINISTIC:
        first_wins = (margin > 0).double()
        kept = margin != 0
    else:
        first_wins = torch.sigmoid(margin / labels.temperature)
        kept = ~torch.eye(len(world.responses), dtype=torch.bool).expand_as(margin)
    first_wins = first_wins * (1 - labels.flip_rate) + (1 - first_wins) * labels.flip_rate
    probability = torch.where(kept, drawn * first_wins, 0.0)
    total = probability.sum()
    if total <= 0:
        raise ValueError("all gold scores are equal, so that no pair is left to learn from")
    return probability / total


def population_loss(log_ratio: Tensor, pairs: Tensor, loss: Loss, beta: float) -> Tensor:
    """E f(βρ) over all pairs: the exact value of GPO's objective (Tang et al. 2024, eq. 5), a scalar.

    Args:
        log_ratio: u = log π − log π_ref, [contexts, responses]; a constant per context cancels in ρ.
        pairs: `pair_probabilities`.
    Raises:
        FloatingPointError: f is not finite at a pair that can occur.
    """
    rho = log_ratio[:, :, None] - log_ratio[:, None, :]
    value = torch.where(pairs > 0, loss.fn(beta * rho), 0.0)
    return (pairs * require_finite(f"{loss.name} loss, β = {beta:g}, of the pair", value)).sum()


def population_gradient(
    policy: Policy, world: ExactWorld, pairs: Tensor, loss: Loss, beta: float
) -> tuple[Tensor, ...]:
    """Exact gradient of `population_loss` in each of ``policy.parameters()``, in their order."""
    value = population_loss(world.logprobs(policy) - world.log_reference, pairs, loss, beta)
    return torch.autograd.grad(value, list(policy.parameters()))


def implicit_reward(pairs: Tensor, loss: Loss) -> Tensor:
    """What a loss makes of the labels: its optimum over all policies is π_ref tilted by this reward, at λ = β.

    `population_loss` depends on a policy through v = βu alone, so that the v that minimizes it is the same for every β,
    and π ∝ π_ref exp(v/β) (`bench.oracle.exact.tilted`). Under Bradley–Terry labels v is gold / temperature for
    ``logistic`` and ``savage`` and half of that for ``exponential``, by their links; the others bend it.

    Solved by scipy from v = 0, one context at a time, so that it shares nothing with training but f.

    Args:
        pairs: `pair_probabilities`.
    Returns:
        v, [contexts, responses], dimensionless; each context up to a constant.
    Raises:
        ValueError: v is infinite (labels that are certain, under a loss that falls for ever).
        RuntimeError: the solver did not converge.
    """
    certain = (pairs > 0) & (pairs.transpose(1, 2) == 0)
    if certain.any() and _falls_for_ever(loss):
        raise ValueError(f"{loss.name}: with labels that are certain its optimum lies at infinity; add label noise")
    solve = _solve_hinge if _is_hinge(loss) else _solve_smooth
    return torch.stack([solve(of_context / of_context.sum(), loss) for of_context in pairs])


def _falls_for_ever(loss: Loss) -> bool:
    near, far = loss.fn(torch.tensor([20.0, 30.0], dtype=torch.float64))
    return bool(far < near)


def _is_hinge(loss: Loss) -> bool:
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    return torch.allclose(loss.fn(z), (1 - z).clamp(min=0))


def _solve_smooth(pairs: Tensor, loss: Loss) -> Tensor:
    # Rare responses have tiny gradients; in units in which all weigh alike, the problem is well-conditioned.
    scale = (pairs.sum(0) + pairs.sum(1)).clamp(min=1e-12).rsqrt()

    def value_and_gradient(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(scaled).requires_grad_(True)
        value = population_loss((point * scale)[None], pairs[None], loss, beta=1.0)
        (gradient,) = torch.autograd.grad(value, point)
        return value.item(), gradient.numpy()

    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    found = minimize(value_and_gradient, np.zeros(len(scale)), jac=True, method="L-BFGS-B", options=options)
    if (slope := np.abs(found.jac).max()) > _LARGEST_SLOPE:
        raise RuntimeError(f"{loss.name}: no optimum found; slope {slope:.1e} left ({found.message})")
    return torch.from_numpy(found.x) * scale


def _solve_hinge(pairs: Tensor, loss: Loss) -> Tensor:
    """The kinks of max(0, 1 − z) stop gradient methods; as a linear program it is solved exactly.

    Minimize Σ p_ij s_ij over v and s ≥ 0 with s_ij ≥ 1 − (v_i − v_j). Its solution sorts responses into whole numbers.
    """
    first, second = (pairs > 0).nonzero(as_tuple=True)
    responses, slacks = len(pairs), len(first)
    row = np.arange(slacks)
    entries = np.concatenate([np.full(slacks, -1.0), np.full(slacks, 1.0), np.full(slacks, -1.0)])
    columns = np.concatenate([first.numpy(), second.numpy(), responses + row])
    at_most = csr_matrix((entries, (np.tile(row, 3), columns)), shape=(slacks, responses + slacks))
    found = linprog(
        np.concatenate([np.zeros(responses), pairs[first, second].numpy()]),
        A_ub=at_most,
        b_ub=np.full(slacks, -1.0),
        bounds=[(0, 0)] + [(None, None)] * (responses - 1) + [(0, None)] * slacks,
        method="highs-ipm",
    )
    if found.status != 0:
        raise RuntimeError(f"{loss.name}: no optimum found ({found.message})")
    return torch.from_numpy(found.x[:responses])
