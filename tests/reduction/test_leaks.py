from __future__ import annotations

import threading
from datetime import time
from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, simulate
from niripipe.cal_service import CalibrationService
from niripipe.errors import NiripipeError
from niripipe.simulate import Effects

SIZE = 256
RUNS = 100
SETTLED = 12  # runs after which all modules, thread pools and connections that are made once are there


@pytest.fixture(scope="module")
def darks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("raw")
    return [
        simulate.write_frame(
            simulate.raw_frame(
                kind="dark",
                number=number,
                ut=time(19, number),
                size=SIZE,
                effects=Effects.none(read_noise=True),
            ),
            folder,
        )
        for number in range(3)
    ]


def open_descriptors() -> dict[str, str]:
    """What this process has open, by descriptor."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except OSError:
            continue  # that of the listing itself
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not tell what is open")
def test_neither_descriptors_nor_threads_add_up_over_many_reductions(
    darks: list[Path], tmp_path: Path
) -> None:
    truncated = tmp_path / darks[0].name
    truncated.write_bytes(darks[0].read_bytes()[:-4000])
    service = CalibrationService()
    service.config(db_dir=tmp_path)
    service.init()
    counts = []
    pixels = set()
    for run in range(RUNS):
        if run % 5 == 4:
            # A reduction that fails must let go of everything too.
            with pytest.raises(NiripipeError, match="truncated"):
                Reduce([truncated], output_dir=tmp_path, threads=2).runr()
        else:
            reduction = Reduce(
                darks,
                calibrations=service,
                output_dir=tmp_path,
                threads=1 + run % 3,
                max_memory="100 MB" if run % 5 == 3 else None,
            )
            reduction.runr()
            service.add_cal(reduction.output_filenames[0])
            pixels.add(np.asarray(reduction.outputs[0][0].data).tobytes())
        counts.append((len(open_descriptors()), threading.active_count()))
    assert len(pixels) == 1
    descriptors, threads = zip(*counts[SETTLED:], strict=True)
    assert max(descriptors) == min(descriptors), open_descriptors()
    assert set(threads) == {threads[0]}, [thread.name for thread in threading.enumerate()]
