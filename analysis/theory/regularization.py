"""The offline regularizer of GPO against KL, computed exactly (Tang et al. 2024, arXiv 2402.05749, section 4).

The μ-weighted squared loss is E_{y₁, y₂ ~ μ}[½ρ²], ρ = u(y₁) − u(y₂), u = log π − log π_ref. Its gradient and that of
KL(π‖π_ref) are written out for policies whose expectations are finite sums (a softmax over arms, a mixture of
Gaussians on a grid), so that where the two pull apart is computed rather than argued. The paper shows this with a
bandit and a mixture of Gaussians whose settings are not available; those of `bandit` and `gaussian_mixture` are ours.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logsumexp, softmax
from scipy.stats import norm

Array = NDArray[np.float64]


class PolicyFamily(Protocol):
    """Policies over fixed points with weights `measure`: ∫ g dy = Σ measure · g(points), shapes [points]."""

    @property
    def measure(self) -> Array: ...

    def log_density(self, parameters: Array) -> Array:
        """log π at the points, [points]."""

    def scores(self, parameters: Array) -> Array:
        """∇ log π at the points, [points, parameters]."""


@dataclass(frozen=True)
class SoftmaxFamily:
    """π = softmax(parameters) over `arms` arms."""

    arms: int

    @property
    def measure(self) -> Array:
        return np.ones(self.arms)

    def log_density(self, parameters: Array) -> Array:
        return log_softmax(parameters)

    def scores(self, parameters: Array) -> Array:
        return np.eye(self.arms) - softmax(parameters)


@dataclass(frozen=True)
class GaussianMixtureFamily:
    """Two Gaussians of SD 1; parameters are the first one's weight as a log-odds, and the two means.

    Integrals are sums over a grid on [−limit, limit]. For densities this smooth, a spacing of a tenth of their width
    leaves an error near rounding.
    """

    limit: float = 12.0
    points: int = 241

    @property
    def grid(self) -> Array:
        return np.linspace(-self.limit, self.limit, self.points)

    @property
    def measure(self) -> Array:
        return np.full(self.points, 2 * self.limit / (self.points - 1))

    def _log_joint(self, parameters: Array) -> Array:
        log_odds, *means = parameters
        log_weights = -np.logaddexp(0.0, [-log_odds, log_odds])
        distance = self.grid[:, None] - np.array(means)
        return log_weights - distance**2 / 2 - np.log(2 * np.pi) / 2

    def log_density(self, parameters: Array) -> Array:
        return logsumexp(self._log_joint(parameters), axis=1)

    def scores(self, parameters: Array) -> Array:
        responsibility = softmax(self._log_joint(parameters), axis=1)
        by_mean = responsibility * (self.grid[:, None] - parameters[1:])
        return np.column_stack([responsibility[:, 0] - expit(parameters[0]), by_mean])


class SampledGradient(NamedTuple):
    """Mean and standard error of a gradient estimate, each [parameters]."""

    mean: Array
    se: Array


@dataclass(frozen=True)
class Regularization:
    """A policy family, its reference, and the distribution μ that pairs come from.

    Attributes:
        reference: parameters of π_ref, [parameters].
        behavior: density of μ at the family's points, [points]; None is on-policy, μ = π at every step, held
            fixed when the loss is differentiated.
    """

    family: PolicyFamily
    reference: Array
    behavior: Array | None = None

    def _parts(self, parameters: Array) -> tuple[Array, Array, Array]:
        """u, and the probabilities of the points under π and μ; each [points]."""
        log_policy = self.family.log_density(parameters)
        log_ratio = log_policy - self.family.log_density(self.reference)
        policy = np.exp(log_policy) * self.family.measure
        mu = policy if self.behavior is None else self.behavior * self.family.measure
        return log_ratio, policy, mu

    def kl(self, parameters: Array) -> float:
        """KL(π‖π_ref) in nats."""
        log_ratio, policy, _ = self._parts(parameters)
        return _finite("KL(π‖π_ref)", float(policy @ log_ratio))

    def kl_gradient(self, parameters: Array) -> Array:
        """∇KL = E_π[u ∇log π], [parameters]."""
        log_ratio, policy, _ = self._parts(parameters)
        return (policy * log_ratio) @ self.family.scores(parameters)

    def squared_loss(self, parameters: Array) -> float:
        """E_μ[½ρ²], which for independent y₁, y₂ is the variance of u under μ; in nats²."""
        log_ratio, _, mu = self._parts(parameters)
        return _finite("E_μ[½ρ²]", float(mu @ (log_ratio - mu @ log_ratio) ** 2))

    def squared_loss_gradient(self, parameters: Array) -> Array:
        """∇E_μ[½ρ²] with μ held fixed = 2 E_μ[(u − E_μ u) ∇log π], [parameters]; on-policy, 2∇KL (Theorem 1)."""
        log_ratio, _, mu = self._parts(parameters)
        return 2 * (mu * (log_ratio - mu @ log_ratio)) @ self.family.scores(parameters)

    def sampled_gradient(self, parameters: Array, pairs: int, rng: np.random.Generator) -> SampledGradient:
        """Monte-Carlo ∇E_μ[½ρ²] = mean of ρ ∇ρ over pairs drawn independently from μ."""
        log_ratio, _, mu = self._parts(parameters)
        first, second = rng.choice(len(mu), size=(2, pairs), p=mu / mu.sum())
        scores = self.family.scores(parameters)
        per_pair = (log_ratio[first] - log_ratio[second])[:, None] * (scores[first] - scores[second])
        return SampledGradient(per_pair.mean(axis=0), per_pair.std(axis=0, ddof=1) / np.sqrt(pairs))


@dataclass(frozen=True)
class Descent:
    """A setting in which the squared loss alone is minimized by plain gradient descent.

    Attributes:
        off_policy: the problem, with a fixed μ; on-policy pairs are the same with μ = π.
        start: parameters of the policy at step 0.
    """

    off_policy: Regularization
    start: Array
    learning_rate: float
    steps: int


def bandit() -> Descent:
    """Three arms; μ mostly shows the arm that the policy, at the start, hardly ever takes."""
    reference, start, mu = (np.array(p) for p in ((0.05, 0.80, 0.15), (0.32, 0.67, 0.01), (0.02, 0.28, 0.70)))
    problem = Regularization(SoftmaxFamily(3), np.log(reference), mu)
    return Descent(problem, np.log(start), learning_rate=0.1, steps=400)


def gaussian_mixture() -> Descent:
    """π_ref has equal modes at −2 and 2; the policy starts with a tenth of its mass near −1, and μ lies at −1.5."""
    family = GaussianMixtureFamily()
    problem = Regularization(family, np.array([0.0, -2.0, 2.0]), norm.pdf(family.grid, loc=-1.5))
    return Descent(problem, np.array([np.log(0.1 / 0.9), -1.0, 2.0]), learning_rate=0.1, steps=400)


def descend(problem: Regularization, start: Array, *, learning_rate: float, steps: int) -> pd.DataFrame:
    """Minimize the squared loss alone, tracking KL.

    Returns:
        One row per step, 0 to `steps`: step, squared_loss (nats²), kl (nats), and the cosine between the gradients
        of the two (1 where either vanishes).
    Raises:
        FloatingPointError: the loss or KL is not finite; names which.
    """
    parameters = np.array(start, dtype=np.float64)
    rows = []
    for step in range(steps + 1):
        gradient, kl_gradient = problem.squared_loss_gradient(parameters), problem.kl_gradient(parameters)
        size = np.linalg.norm(gradient) * np.linalg.norm(kl_gradient)
        cosine = float(gradient @ kl_gradient / size) if size > 0 else 1.0
        rows.append((step, problem.squared_loss(parameters), problem.kl(parameters), cosine))
        parameters -= learning_rate * gradient
    return pd.DataFrame(rows, columns=["step", "squared_loss", "kl", "cosine"])


def compare_gradients(
    off_policy: Regularization, parameters: Array, *, pairs: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Theorem 1 and its failure: ∇E_μ[½ρ²] against 2∇KL at one policy, for μ = π and for a fixed μ.

    Args:
        pairs: how many are drawn for the sampled gradient.
    Returns:
        One row per kind of pairs and parameter: ``pairs`` (on-policy | off-policy), ``parameter``,
        ``twice_kl_gradient``, ``exact``, ``sampled``, ``sampled_se``.
    """
    frames = []
    for name, problem in _with_on_policy(off_policy).items():
        sampled = problem.sampled_gradient(parameters, pairs, rng)
        frames.append(pd.DataFrame({
            "pairs": name, "parameter": range(len(parameters)),
            "twice_kl_gradient": 2 * problem.kl_gradient(parameters),
            "exact": problem.squared_loss_gradient(parameters), "sampled": sampled.mean, "sampled_se": sampled.se,
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _with_on_policy(off_policy: Regularization) -> dict[str, Regularization]:
    return {"on-policy": replace(off_policy, behavior=None), "off-policy": off_policy}


def on_and_off_policy(setting: Descent) -> pd.DataFrame:
    """`descend` with μ fixed and with μ = π, stacked; column ``pairs``: off-policy | on-policy."""
    runs = [
        descend(problem, setting.start, learning_rate=setting.learning_rate, steps=setting.steps).assign(pairs=name)
        for name, problem in _with_on_policy(setting.off_policy).items()
    ]
    return pd.concat(runs, ignore_index=True)


def _finite(term: str, value: float) -> float:
    if not np.isfinite(value):
        raise FloatingPointError(f"{term} is {value}")
    return value
