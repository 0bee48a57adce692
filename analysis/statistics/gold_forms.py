"""The forms of gold against d = √KL that are fitted: Gao et al.'s two and a monotone one, two parameters each."""

import numpy as np

# d = √KL. The first two: Gao et al. 2023 (arXiv 2210.10760), section 3.1; `saturating` is ours: it never falls.
FORMS = {
    "best_of_n": "R = d (α − β d)",
    "rl": "R = d (α − β ln d)",
    "saturating": "R = a (1 − exp(−d / s))",
}
# Range of s of the saturating form, in units of the largest d: from a step to a straight line.
_SATURATION_RANGE = (0.02, 20.0)
_MAX_ITERATIONS, _TOLERANCE = 25, 1e-4  # of ln s
_CACHED = 20_000  # observations


def form_gold(form: str, parameters: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Gold of a form at d [m]; parameters [..., 2] give [..., m]."""
    first, second = parameters[..., 0, None], parameters[..., 1, None]
    if form == "saturating":
        return -first * np.expm1(-d / second)
    return first * d - second * _second_column(form, d)


def _second_column(form: str, d: np.ndarray) -> np.ndarray:
    """What β multiplies: d² or d ln d, which is 0 at d = 0."""
    return d**2 if form == "best_of_n" else d * np.log(np.where(d > 0, d, 1.0))


def fit_form(form: str, d: np.ndarray, gold: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted least squares in R data sets: d, gold, weight [R, n] give parameters [R, 2]."""
    if form == "saturating":
        return _fit_saturating(d, gold, weight)
    columns = np.stack([d, -_second_column(form, d)])
    gram = np.einsum("arn,brn,rn->rab", columns, columns, weight, optimize=True)
    moment = np.einsum("arn,rn,rn->ra", columns, gold, weight, optimize=True)
    # The pseudo-inverse: a single d > 0 determines only one of the two parameters.
    return (np.linalg.pinv(gram, rcond=1e-12, hermitian=True) @ moment[..., None])[..., 0]


def _fit_saturating(d: np.ndarray, gold: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gauss–Newton in ln s, a in closed form: from a grid of s for the first data set, from its fit for the others."""
    low, high = (float(np.log(d.max() * scale)) for scale in _SATURATION_RANGE)
    starts = np.linspace(low, high, 61)
    explained = []  # what the best a takes off the weighted sum of squares
    for start in starts:
        shape = -np.expm1(-d[0] * np.exp(-start))
        explained.append((weight[0] * shape * gold[0]).sum() ** 2 / (weight[0] * shape**2).sum())
    start = starts[int(np.argmax(explained))]
    first = _gauss_newton(d[:1], gold[:1], weight[:1], start=start, bounds=(low, high))
    # In pieces that stay in the processor's cache: four times as fast on large sweeps.
    parts = -(-len(d) // max(1, _CACHED // d.shape[1]))
    pieces = zip(*(np.array_split(array[1:], parts) for array in (d, gold, weight)), strict=True)
    start = float(np.log(first[0, 1]))
    rest = [_gauss_newton(d_part, *others, start=start, bounds=(low, high)) for d_part, *others in pieces]
    return np.concatenate([first, *rest])


def _gauss_newton(
    d: np.ndarray, gold: np.ndarray, weight: np.ndarray, *, start: float, bounds: tuple[float, float]
) -> np.ndarray:
    """Saturating form in R data sets, [R, 2] with a and s; ln s starts at `start` and stays within `bounds`."""
    log_scale = np.full(len(d), start)
    for _ in range(_MAX_ITERATIONS):
        ratio = d * np.exp(-log_scale)[:, None]
        decay = np.exp(-ratio)
        shape = 1 - decay
        weighted = weight * shape
        a = _best_factor(shape, gold, weighted)
        slope = -a[:, None] * ratio * decay  # derivative by ln s, less the part that a takes up
        slope -= shape * _best_factor(shape, slope, weighted)[:, None]
        residual = gold - a[:, None] * shape
        weighted = weight * slope
        step = np.einsum("rn,rn->r", weighted, residual) / np.maximum(np.einsum("rn,rn->r", weighted, slope), 1e-12)
        moved = np.clip(log_scale + np.clip(step, -0.5, 0.5), *bounds)
        largest = np.abs(moved - log_scale).max(initial=0.0)
        log_scale = moved
        if largest < _TOLERANCE:
            break
    shape = -np.expm1(-d * np.exp(-log_scale)[:, None])
    return np.stack([_best_factor(shape, gold, weight * shape), np.exp(log_scale)], axis=1)


def _best_factor(shape: np.ndarray, values: np.ndarray, weighted_shape: np.ndarray) -> np.ndarray:
    """Factors [R] that bring `shape` closest to `values`."""
    return np.einsum("rn,rn->r", weighted_shape, values) / np.einsum("rn,rn->r", weighted_shape, shape)
