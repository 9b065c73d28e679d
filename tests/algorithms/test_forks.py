"""Work is shared with copies of the process: results are those of one process, whatever becomes of a copy."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from niripipe.algorithms import detect, forks, parallel
from niripipe.algorithms.forks import SharedRoom, can_fork, map_forked, shared_empty
from niripipe.algorithms.parallel import even_rows, row_blocks, share_items

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system does not copy processes")

HERE = os.getpid()


def squared(number):
    """Take long enough for every helper to get an item."""
    time.sleep(0.01)
    return number * number


def children() -> list[str]:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


@pytest.fixture(autouse=True)
def _nothing_is_left():
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert children() == []
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


@pytest.mark.parametrize("processes", [1, 2, 4, 30])
def test_results_come_in_order_from_as_many_processes(processes):
    found = map_forked(lambda number: (squared(number), os.getpid()), range(24), processes=processes)
    assert [value for value, _ in found] == [k * k for k in range(24)]
    workers = {process for _, process in found}
    assert 1 <= len(workers) <= min(processes, 24)
    assert len(workers) > 1 or processes == 1


def test_nothing_to_do_does_nothing():
    assert map_forked(squared, [], processes=3) == []
    assert share_items(squared, [], workers=3) == []


def test_what_helpers_write_into_shared_arrays_is_seen_here():
    plane, own = shared_empty((40, 7), np.float32), np.zeros((40, 7), np.float32)

    def fill(rows):
        time.sleep(0.01)
        plane[rows] = own[rows] = np.arange(rows.start, rows.stop)[:, None]
        return os.getpid()

    workers = map_forked(fill, row_blocks(40, 4), processes=2)
    np.testing.assert_array_equal(plane, np.repeat(np.arange(40, dtype=np.float32)[:, None], 7, axis=1))
    assert {HERE} < set(workers)
    assert not np.array_equal(own, plane)
    assert shared_empty((0, 3), np.uint8).shape == (0, 3)


def test_room_is_used_again_as_soon_as_nobody_has_the_array():
    room = SharedRoom()
    plane = room.empty((40, 7), np.float32)
    place = plane.ctypes.data
    part = plane[3:5].reshape(-1).view(np.uint32)
    del plane
    other = room.empty((40, 7), np.float32)
    assert other.ctypes.data != place
    part[:] = 7
    del part
    again = room.empty((7, 40), np.int32)
    assert again.ctypes.data == place

    def fill(value):
        again[value] = value

    map_forked(fill, range(7), processes=2)
    assert (again == np.arange(7)[:, None]).all()


def test_room_goes_with_its_owner():
    room = SharedRoom()
    kept, left = room.empty((4, 5), np.float32), room.empty((4, 5), np.float32)
    memory = [weakref.ref(array.base) for array in (kept, left)]
    del left
    assert [one() is None for one in memory] == [False, False]
    del room
    assert [one() is None for one in memory] == [False, True]
    kept[:] = 3
    del kept
    assert memory[0]() is None


def test_the_first_error_in_order_is_raised_and_nothing_after_it_matters():
    def fail(number):
        time.sleep(0.01)
        if number in (3, 4, 5, 11):
            raise ValueError(number)
        return number

    for _ in range(5):
        with pytest.raises(ValueError, match=r"^3$"):
            map_forked(fail, range(12), processes=2)


@pytest.mark.parametrize("how", ["killed", "exit", "raises", "unpicklable"])
def test_what_a_helper_did_not_do_is_done_here(how):
    def fragile(number):
        time.sleep(0.01)
        if os.getpid() != HERE and number > 4:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exit":
                os._exit(3)
            if how == "raises":
                raise RuntimeError("only in a helper")
            return number, lambda: None
        return number, os.getpid()

    found = map_forked(fragile, range(12), processes=3)
    assert [number for number, _ in found] == list(range(12))
    assert {process for _, process in found[5:]} == {HERE}


def test_a_helper_that_stands_still_is_given_up(monkeypatch):
    monkeypatch.setattr(forks, "_SECONDS", 0.2)
    monkeypatch.setattr(forks, "_TIMES", 1.0)

    def stuck(number):
        time.sleep(0.01 if os.getpid() == HERE else 1000)
        return number

    begun = time.monotonic()
    assert map_forked(stuck, range(6), processes=2) == list(range(6))
    assert time.monotonic() - begun < 60


def test_an_interrupt_ends_the_helpers():
    def interrupted(number):
        if os.getpid() == HERE:
            raise KeyboardInterrupt
        time.sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        map_forked(interrupted, range(6), processes=3)


def test_an_interrupt_from_the_keyboard_is_not_the_helpers_business():
    def unimpressed(number):
        if os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return number, os.getpid()

    found = map_forked(unimpressed, range(8), processes=2)
    assert len({process for _, process in found}) == 2


def test_where_no_process_can_be_made_all_is_done_here(monkeypatch):
    def none():
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(forks, "_fork", none)
    assert map_forked(squared, range(5), processes=3) == [k * k for k in range(5)]


@pytest.mark.parametrize("missing", ["memfd_create", "pidfd_open"])
def test_where_there_is_no_room_for_files_all_is_done_nevertheless(missing, monkeypatch):
    def none(*_):
        raise OSError("too many open files")

    monkeypatch.setattr(os, missing, none)
    found = map_forked(lambda k: (k, os.getpid()), range(5), processes=3)
    assert [k for k, _ in found] == list(range(5))
    # A helper that cannot be waited for may have done some of it before it is stopped.
    assert missing == "pidfd_open" or {process for _, process in found} == {HERE}
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_more_items_than_the_queue_holds(monkeypatch):
    monkeypatch.setattr(forks, "_MOST", 7)
    assert map_forked(lambda k: -k, range(50), processes=2) == [-k for k in range(50)]


def test_a_helper_makes_no_helpers():
    def nested(number):
        time.sleep(0.01)
        return os.getpid(), can_fork(), sum(share_items(squared, [1, 2, number], workers=2))

    found = map_forked(nested, range(6), processes=2)
    assert {copy for process, copy, _ in found if process != HERE} == {False}
    assert [total for _, _, total in found] == [5 + k * k for k in range(6)]


def test_threads_of_the_process_are_no_hindrance():
    stop, busy = threading.Event(), threading.Event()
    lock = threading.Lock()

    def hold():
        with lock:
            busy.set()
            stop.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    busy.wait(30)
    results = []
    elsewhere = threading.Thread(target=lambda: results.extend(map_forked(squared, range(8), processes=2)))
    elsewhere.start()
    elsewhere.join(60)
    stop.set()
    holder.join(30)
    assert results == [k * k for k in range(8)]


def test_a_lock_that_a_thread_holds_is_free_in_a_copy():
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with detect._limits:
            held.set()
            go_on.wait(60)

    def try_it(_):
        time.sleep(0.01)
        return os.getpid() != HERE and not detect._limits.locked()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    found = map_forked(try_it, range(6), processes=2)
    assert detect._limits.locked()
    go_on.set()
    holder.join(60)
    assert any(found)


def test_a_copy_is_made_only_where_it_pays(monkeypatch):
    made = []
    monkeypatch.setattr(
        parallel, "map_forked", lambda f, items, processes: made.append(items) or list(map(f, items))
    )
    assert share_items(lambda k: k, range(100), workers=2) == list(range(100))
    assert made == []
    monkeypatch.setattr(parallel, "_COPY", 0.0)
    monkeypatch.setattr(parallel, "fork_seconds", lambda: 0.0)
    assert share_items(lambda k: k, range(100), workers=2) == list(range(100))
    assert made == [range(1, 100)]
    assert share_items(lambda k: k, range(3), workers=1) == [0, 1, 2]
    # A process with much memory takes long to copy.
    monkeypatch.setattr(parallel, "fork_seconds", lambda: 1.0)
    assert share_items(lambda k: k, range(3), workers=2) == [0, 1, 2]
    assert len(made) == 1


def test_it_is_known_how_long_a_copy_takes():
    map_forked(squared, range(2), processes=2)
    assert 0 < forks.fork_seconds() < 10


def test_threads_share_the_work_where_processes_cannot(monkeypatch):
    monkeypatch.setattr(parallel, "can_fork", lambda: False)
    barrier = threading.Barrier(2, timeout=10)
    assert sorted(share_items(lambda k: barrier.wait(), range(2), workers=2)) == [0, 1]


@pytest.mark.parametrize(("rows", "block", "workers"), [(1024, 68, 2), (10, 100, 2), (7, 1, 3), (1, 5, 4)])
def test_each_worker_gets_as_many_blocks(rows, block, workers):
    found = even_rows(rows, block, workers)
    assert 1 <= found <= block
    assert len(row_blocks(rows, found)) % workers == 0 or found * workers > rows - workers or found == 1
