"""The highest point of curves on a grid, between its points."""

import numpy as np


def highest_point(x: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Where curves are highest, and how high; an end point stays where it is.

    Between grid points the vertex of the parabola through the highest point and its neighbors is taken.

    Args:
        x: [m] equally spaced, m ≥ 3.
        curves: [R, m].
    Returns:
        Places [R], heights [R] (of the grid's highest point), and whether the first curve's lies inside.
    """
    best = curves.argmax(axis=1)
    inner = np.clip(best, 1, len(x) - 2)
    rows = np.arange(len(curves))
    left, middle, right = (curves[rows, inner + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(bend < 0, 0.5 * (left - right) / bend, 0.0).clip(-1, 1)
    place = np.where(inner == best, x[inner] + shift * (x[1] - x[0]), x[best])
    return place, curves.max(axis=1), bool(inner[0] == best[0])
