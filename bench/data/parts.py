"""Which training pairs a seed trains on: disjoint parts of one pool, so that seeds are independent replications.

Seeds that draw overlapping subsets of one pool share part of their data, and the spread between them then understates
the error of their mean, the more so the more seeds there are.
"""

from collections.abc import Iterable

from bench.checked import ConfigError


def part_of(seed: int, pairs: int, per_cell: int) -> int:
    """Number of the part that `seed` trains on, out of those that `pairs` kept pairs make.

    >>> [part_of(seed, 25_700, 2560) for seed in (100, 109, 110)]
    [0, 9, 0]
    """
    return seed % (pairs // per_cell)


def rows_of(seed: int, pairs: int, per_cell: int) -> range:
    """Rows of that part: pairs follow one another as they were drawn, so that any run of them is a sample.

    >>> rows_of(1, 25_700, 2560)
    range(2560, 5120)
    """
    start = part_of(seed, pairs, per_cell) * per_cell
    return range(start, start + per_cell)


def check_disjoint(seeds: Iterable[int], pairs: int, per_cell: int, pool: int) -> None:
    """Refuse two seeds on one part.

    Args:
        pairs: training pairs that are left of `pool` after ties were dropped.
    Raises:
        ConfigError: naming two such seeds, and the pool that as many parts as seeds need.
    """
    owner: dict[int, int] = {}
    seeds = sorted(set(seeds))
    for seed in seeds:
        first = owner.setdefault(part := part_of(seed, pairs, per_cell), seed)
        if first != seed:
            enough = -(-len(seeds) * per_cell * pool // pairs)
            raise ConfigError(
                f"seed={first},{seed}: both would train on part {part} of the pool; pairs.pool={pool} gives "
                f"{pairs // per_cell} disjoint parts of pairs.per_cell={per_cell} ({pairs} pairs are left after ties), "
                f"and a seed takes part seed mod {pairs // per_cell}. For {len(seeds)} consecutive seeds "
                f"pairs.pool={enough} is about enough"
            )
