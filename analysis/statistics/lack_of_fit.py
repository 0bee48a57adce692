"""Do the data reject a form of gold against d = √KL? Its misses against the spread between seeds.

A repeated-measures F test. Seeds are subjects, the configurations (β and step) are what each is measured at, and the
residuals from the form are the measurements. What two fitted parameters and a shift common to all configurations take
up (seeds and evaluation prompts shift them all) is projected out; what is left has mean 0 if the form is right.
Configurations differ in noise and share seeds, so the degrees of freedom are reduced by Greenhouse and Geisser's ε
(1959, Psychometrika 24:95), which needs no model of either.
"""

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.gold_forms import form_gold

_STEP = 1e-5  # relative, of the numerical derivative by a parameter


def by_configuration(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """√KL and gold, each [seeds, configurations], of checkpoints ``strength, seed, step, kl, gold``.

    Those at step 0 are known and left out, and so are configurations that lack a seed.
    """
    moved = rows[rows["step"] > 0]
    table = moved.pivot_table(index="seed", columns=["strength", "step"], values=["kl", "gold"], aggfunc="mean")
    complete = table["kl"].notna().all().to_numpy()
    return np.sqrt(table["kl"].to_numpy()[:, complete]), table["gold"].to_numpy()[:, complete]


def lack_of_fit(form: str, parameters: np.ndarray, d: np.ndarray, gold: np.ndarray) -> float:
    """p that misses as large come from the spread between seeds; NaN with fewer than two seeds or four configurations.

    Args:
        parameters: [2] of the fit.
        d, gold: see `by_configuration`.
    """
    seeds, places = gold.shape
    if seeds < 2 or places < 4:
        return np.nan
    residual = gold - form_gold(form, parameters, d.ravel()).reshape(d.shape)
    taken = np.stack([*_slopes(form, parameters, d.mean(axis=0)), np.ones(places)], axis=1)
    rank = np.linalg.matrix_rank(taken)
    free = np.linalg.svd(taken, full_matrices=True)[0][:, rank:]
    return _repeated_measures(residual @ free)


def _slopes(form: str, parameters: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    """Derivatives by the two parameters at d [m]."""
    slopes = []
    for number in range(2):
        step = np.zeros(2)
        step[number] = _STEP * max(abs(parameters[number]), _STEP)
        slopes.append(
            (form_gold(form, parameters + step, d) - form_gold(form, parameters - step, d)) / (2 * step[number])
        )
    return slopes


def _repeated_measures(values: np.ndarray) -> float:
    """p of mean 0 in every column of values [seeds, columns]."""
    seeds, columns = values.shape
    mean = values.mean(axis=0)
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    total = np.trace(covariance)
    if total <= 1e-20 * (1 + (mean**2).sum()):
        return np.nan
    epsilon = total**2 / (columns * (covariance**2).sum())
    f = seeds * (mean**2).sum() / total
    return float(stats.f.sf(f, epsilon * columns, epsilon * columns * (seeds - 1)))
