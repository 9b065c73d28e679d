from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from niripipe.algorithms.parallel import map_blocks, map_items, row_blocks
from niripipe.errors import ParameterError


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows_per_block", [1, 3, 7, 100])
def test_every_row_is_visited_once_and_results_come_in_row_order(threads: int, rows_per_block: int) -> None:
    visits = np.zeros(23, int)

    def visit(rows: slice) -> int:
        time.sleep(0.001 * (rows.start % 3))
        visits[rows] += 1
        return rows.start

    starts = map_blocks(visit, 23, rows_per_block=rows_per_block, threads=threads)
    assert (visits == 1).all()
    assert starts == list(range(0, 23, rows_per_block))


def test_one_thread_runs_in_the_caller() -> None:
    seen = map_blocks(lambda rows: threading.current_thread(), 4, rows_per_block=1)
    assert set(seen) == {threading.current_thread()}


def test_two_threads_run_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=10)
    map_blocks(lambda rows: barrier.wait(), 2, rows_per_block=1, threads=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_in_row_order_is_raised(threads: int) -> None:
    def fail(rows: slice) -> None:
        if rows.start >= 2:
            raise ValueError(rows.start)

    with pytest.raises(ValueError, match="2"):
        map_blocks(fail, 6, rows_per_block=1, threads=threads)


def test_nothing_to_do_does_nothing() -> None:
    assert map_blocks(lambda rows: 1, 0, threads=3) == []


def test_blocks_and_threads_must_be_positive() -> None:
    with pytest.raises(ParameterError, match="rows_per_block"):
        row_blocks(5, 0)
    with pytest.raises(ParameterError, match="threads"):
        map_blocks(lambda rows: None, 5, threads=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_items_keep_their_order_and_the_first_error_counts(threads: int) -> None:
    assert map_items(lambda k: k * k, range(7), threads=threads) == [0, 1, 4, 9, 16, 25, 36]
    with pytest.raises(ZeroDivisionError):
        map_items(lambda k: 1 // k, [1, 0, 2], threads=threads)
