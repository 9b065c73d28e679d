"""The memory limit: frames move to disk and back bit for bit, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, simulate
from niripipe.astrodata import create
from niripipe.errors import ParameterError, StorageError
from niripipe.reduction import memory
from niripipe.reduction.memory import FrameStore, parse_size, resident_bytes


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (None, None),
        (1000, 1000),
        ("500 MB", 500_000_000),
        ("2GiB", 2 * 2**30),
        ("1.5 G", 1_500_000_000),
        ("64k", 64_000),
        ("10 B", 10),
    ],
)
def test_sizes_are_numbers_or_text(given, size):
    assert parse_size(given) == size


@pytest.mark.parametrize("given", ["much", "", "-5 MB", 0, "5 TB", "1.2.3 MB"])
def test_what_is_no_size_is_refused(given):
    with pytest.raises(ParameterError, match="max_memory"):
        parse_size(given)


def _frame(value: float):
    frame = create({"OBJECT": "x"})
    frame.append(np.full((64, 64), value, np.float32))
    frame[0].reset(
        np.full((64, 64), value, np.float32),
        mask=np.ones((64, 64), np.uint16),
        variance=np.ones((64, 64), np.float32),
    )
    return frame


def _store(tmp_path: Path, budget: int) -> FrameStore:
    store = FrameStore(10**9, tmp_path)
    store.budget, store._before = budget, 0
    return store


def _in_memory(frames):
    return [frame.nbytes > 0 for frame in frames]


def test_frames_of_other_streams_are_moved_first(tmp_path):
    frames, others = [_frame(i) for i in range(2)], [_frame(i) for i in range(2, 4)]
    with _store(tmp_path, 2 * frames[0].nbytes) as store:
        store.watch(frames, others)
        assert _in_memory(frames + others) == [True, True, False, False]
        for i, frame in enumerate(frames + others):
            assert (frame[0].read("data") == i).all()
            assert frame[0].read("mask").dtype == np.uint16


def test_the_same_frames_stay_in_memory_from_step_to_step(tmp_path):
    frames = [_frame(i) for i in range(6)]
    moved = 0
    with _store(tmp_path, 4 * frames[0].nbytes) as store:
        for _ in range(3):
            store.watch(frames)
            for frame in frames:
                with store.using(frame):
                    moved += frame.nbytes == 0
                    frame.add(1)
        assert _in_memory(frames)[:3] == [True] * 3
    # Two or three of the six in each step; all six of them if the oldest went first.
    assert moved <= 3 * 3


def test_a_frame_at_work_stays(tmp_path):
    frames = [_frame(i) for i in range(3)]
    with _store(tmp_path, 0) as store:
        store.watch(frames)
        with store.using(frames[1]):
            for frame in frames:
                frame[0].read("data")
            store.settle()
            assert _in_memory(frames) == [False, True, False]


def test_frames_in_no_stream_count_too_as_long_as_they_exist(tmp_path):
    stream, other, gone = _frame(0), _frame(1), _frame(2)
    with _store(tmp_path, 0) as store:
        store.watch([stream])
        store.add([other, gone])
        del gone
        store.settle()
        assert (stream.nbytes, other.nbytes) == (0, 0)
        # One file a plane of the frames that still exist.
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 2 * 3


def test_what_the_process_uses_beside_the_frames_leaves_less_for_them(tmp_path, monkeypatch):
    def budget(used: int) -> int:
        monkeypatch.setattr(memory, "resident_bytes", lambda: used)
        return FrameStore(10**9, tmp_path).budget

    assert budget(10**8) - budget(3 * 10**8) == 2 * 10**8
    assert 5 * 10**8 < budget(10**8) < 9 * 10**8
    # Where the system does not say, something is assumed, and a few frames always fit.
    assert 0 < budget(0) < 10**9
    assert budget(10**12) > 4 * 10**7


def test_planes_that_frames_share_count_once(tmp_path):
    frame = _frame(1)
    twin = frame.copy()
    with _store(tmp_path, frame.nbytes) as store:
        store.watch([frame, twin])
        assert frame.nbytes > 0


def test_rows_come_from_disk_without_loading_the_plane(tmp_path):
    frame = _frame(5)
    frame[0].data[10] = 7
    frame = frame.copy()
    with _store(tmp_path, 0) as store:
        store.watch([frame])
        store.settle()
        rows = frame[0].plane("data")
        assert rows.shape == (64, 64)
        assert (rows[10:11] == 7).all()
        assert (rows[11:64] == 5).all()
        assert rows[8:14:2][:, 0].tolist() == [5, 7, 5]
        assert frame.nbytes == 0


def test_the_scratch_folder_is_gone_afterwards_also_after_an_interrupt(tmp_path):
    frame = _frame(1)

    def interrupted() -> None:
        with _store(tmp_path, 0) as store:
            store.watch([frame])
            store.settle()
            assert len(list(tmp_path.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_lives_on_is_brought_back_before_the_folder_goes(tmp_path):
    frame = _frame(3)
    working = frame.copy()
    with _store(tmp_path, 0) as store:
        store.watch([working])
        store.settle()
        assert frame.nbytes == 0
        del working
    assert (frame[0].data == 3).all()
    assert list(tmp_path.iterdir()) == []


def test_without_a_limit_nothing_moves(tmp_path):
    frame = _frame(1)
    with FrameStore(None, tmp_path) as store:
        store.watch([frame])
        with store.using(frame):
            pass
        assert frame.nbytes > 0
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_made_is_named(tmp_path):
    with _store(tmp_path / "absent", 0) as store:
        frame = _frame(2)
        with pytest.raises(StorageError, match="scratch_dir"):
            store.watch([frame])


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    return simulate.night(folder / "raw", seed=4, size=256, n_target=5, n_sky=4, n_flat=3, n_dark=4)


def _products(night, folder: Path, **settings) -> list[np.ndarray]:
    dark = Reduce(night.darks, output_dir=folder, **settings)
    dark.runr()
    flat = Reduce(night.flats, output_dir=folder, **settings)
    flat.runr()
    science = Reduce(
        night.target + night.sky,
        output_dir=folder,
        calibrations={"processed_dark": dark.outputs[0], "processed_flat": flat.outputs[0]},
        parameters={"skyCorrect:scale_sky": False},
        **settings,
    )
    science.runr()
    stack = science.outputs[0][0]
    return [stack.data, stack.variance, stack.mask, stack.COVERAGE, flat.outputs[0][0].data]


def test_products_are_equal_bit_for_bit_whatever_the_limit_and_the_threads(night, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_LEAST", 0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    free = _products(night, tmp_path / "free", threads=1)
    for settings in (
        {"threads": 2},
        {"threads": 3, "max_memory": "1 MB", "scratch_dir": scratch},
        {"threads": 1, "max_memory": "1 MB", "scratch_dir": scratch},
    ):
        other = _products(night, tmp_path / "other", **settings)
        for one, two in zip(free, other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert list(scratch.iterdir()) == []


def test_unless_told_otherwise_a_reduction_has_a_fixed_amount_of_memory(night, tmp_path, monkeypatch):
    seen = []

    class Watching(FrameStore):
        def __init__(self, limit, *args, **options):
            seen.append((limit, options))
            super().__init__(limit, *args, **options)

    monkeypatch.setattr("niripipe.reduction.reduce.FrameStore", Watching)
    before = resident_bytes()
    for given in ({}, {"max_memory": None}, {"max_memory": "2 GB"}):
        Reduce(night.darks, output_dir=tmp_path, **given).runr()
    (automatic, relaxed), (none, _), (fixed, strict) = seen
    assert automatic == pytest.approx(before + 610e6, abs=100e6)
    assert (none, fixed) == (None, 2 * 10**9)
    assert (relaxed["required"], strict["required"]) == (False, True)


def test_without_room_for_scratch_files_the_automatic_limit_is_given_up(tmp_path, caplog):
    gone = tmp_path / "gone"
    frames = [_frame(k).copy() for k in range(3)]
    with FrameStore(10**6, gone, required=False) as store:
        store.budget = store._before = 0
        store.watch(frames)
        store.settle()
        assert store.limit is None
        assert all(frame.nbytes > 0 for frame in frames)
    assert "frames stay in memory" in caplog.text
    with FrameStore(10**6, gone) as store:
        store.budget = store._before = 0
        with pytest.raises(StorageError):
            store.watch(frames)
