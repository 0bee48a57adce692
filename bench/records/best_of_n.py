"""What best-of-n means, for those who write it down and those who read it."""

import math


def best_of_n_kl(n: int) -> float:
    """Upper bound on KL of best-of-n, exact without ties: ln n − (n − 1)/n nats (arXiv 2401.01879).

    >>> best_of_n_kl(1)
    0.0
    """
    return math.log(n) - (n - 1) / n


def best_of_n_weights(size: int, n: int) -> list[float]:
    """Weight of each of `size` draws, worst first, in the mean over all n-subsets of the best of each.

    The i-th is the best of C(i − 1, n − 1) subsets (Nakano et al. 2021, arXiv 2112.09332, appendix I), so that the
    weighted mean of any quantity is unbiased for that of the best of n.

    >>> best_of_n_weights(4, 2)
    [0.0, 0.16666666666666666, 0.3333333333333333, 0.5]
    """
    weights = [0.0] * size
    weight = n / size  # of the last: C(size − 1, n − 1) / C(size, n)
    for i in range(size, n - 1, -1):
        weights[i - 1] = weight
        weight *= (i - n) / (i - 1) if i > 1 else 0.0
    return weights


def best_of_n_sizes(size: int) -> list[int]:
    """The n up to `size` that are measured: powers of two, and `size`.

    >>> best_of_n_sizes(6)
    [1, 2, 4, 6]
    """
    return sorted({2**power for power in range(size.bit_length()) if 2**power <= size} | {size})
