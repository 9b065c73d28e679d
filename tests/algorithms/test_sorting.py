from __future__ import annotations

import itertools

import numpy as np
import pytest

from niripipe.algorithms.sorting import (
    lower_median_rows,
    network,
    order_rows,
    select_rows,
    sort_rows,
)


@pytest.mark.parametrize("n", range(1, 11))
def test_the_network_sorts_all_zero_one_inputs(n: int) -> None:
    # By the zero-one principle it then sorts everything.
    columns = np.array(list(itertools.product((0, 1), repeat=n)), np.float32).T
    assert (sort_rows(columns) == np.sort(columns, axis=0)).all()


@pytest.mark.parametrize("n", [11, 16, 23, 40, 65, 200])
def test_longer_columns_are_sorted_too(n: int) -> None:
    block = np.random.default_rng(n).normal(size=(n, 50)).astype(np.float32)
    block[:, 0] = 3
    assert (sort_rows(block) == np.sort(block, axis=0)).all()


@pytest.mark.parametrize("n", range(1, 31))
def test_every_rank_can_be_selected_alone(n: int) -> None:
    block = np.random.default_rng(n).normal(size=(n, 20)).astype(np.float32)
    ordered = np.sort(block, axis=0)
    for rank in range(n):
        assert (select_rows(block, (rank,))[0] == ordered[rank]).all()
    assert (lower_median_rows(block) == ordered[(n - 1) // 2]).all()


@pytest.mark.parametrize("n", range(1, 31))
def test_a_block_is_left_as_it_is(n: int) -> None:
    block = np.random.default_rng(n).normal(size=(n, 20)).astype(np.float32)
    block.flags.writeable = False
    ordered = np.sort(block, axis=0)
    for rank in range(n):
        assert (select_rows(block, (rank,))[0] == ordered[rank]).all()
    assert (lower_median_rows(block) == ordered[(n - 1) // 2]).all()
    lowest, median, highest = order_rows(block)
    assert (lowest == ordered[0]).all()
    assert (median == np.median(block, axis=0)).all()
    assert (highest == ordered[-1]).all()


def test_selection_takes_fewer_steps_than_sorting() -> None:
    n = 20
    exchanges = [low + high for *_, low, high in network(n, (10,))]
    assert sum(exchanges) < 0.8 * 2 * len(network(n))


def test_infinities_sort_last_and_several_dimensions_are_kept() -> None:
    block = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    block[2] = np.inf
    ordered = sort_rows(block)
    assert ordered.shape == block.shape
    assert np.isinf(ordered[-1]).all()
    assert np.isfinite(ordered[:-1]).all()


def test_results_own_their_memory() -> None:
    block = np.arange(6, dtype=np.float32).reshape(3, 2)
    for result in (lower_median_rows(block), sort_rows(block)):
        assert not np.shares_memory(result, block)
