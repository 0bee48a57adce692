"""Parts of the pool: disjoint, complete, and refused where two seeds would share one."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.checked import ConfigError
from bench.data.parts import check_disjoint, rows_of


@given(st.integers(1, 60), st.integers(0, 400), st.integers(0, 10**6))
def test_consecutive_seeds_have_disjoint_parts_inside_the_pool(per_cell, more, first):
    pairs = per_cell + more
    parts = [set(rows_of(first + k, pairs, per_cell)) for k in range(pairs // per_cell)]
    assert all(len(part) == per_cell for part in parts)
    assert not any(one & other for one, other in combinations(parts, 2))
    assert set().union(*parts) <= set(range(pairs))


def test_the_default_pool_holds_the_ten_seeds_of_the_main_job():
    check_disjoint(range(100, 110), 25_600, 2560, 26_624)


@pytest.mark.parametrize(("seeds", "shared"), [([0, 1, 2, 3], "seed=0,3: both would train on part 0"),
                                               ([7, 4, 1], "seed=1,4: both would train on part 1")])  # fmt: skip
def test_two_seeds_on_one_part_are_refused(seeds, shared):
    with pytest.raises(ConfigError, match=shared) as refused:
        check_disjoint(seeds, 100, 30, 110)
    assert "3 disjoint parts of pairs.per_cell=30 (100 pairs are left after ties)" in str(refused.value)


def test_the_pool_that_is_advised_is_enough():
    # 110 sampled leave 100: four parts of 30 need 120, so 132 sampled at the same rate of ties.
    with pytest.raises(ConfigError, match=r"pairs.pool=132 is about enough"):
        check_disjoint(range(4), 100, 30, 110)
    check_disjoint(range(4), 132 * 100 // 110, 30, 132)


def test_one_seed_twice_is_one_seed():
    check_disjoint([5, 5, 5], 40, 30, 44)
