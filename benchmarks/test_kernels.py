"""Time single operations on full-size planes, and compare them with what the memory allows.

Usage: ``pip install ".[bench]"``, then ``python -m pytest benchmarks/test_kernels.py``. The distance from the
memory bandwidth, which each benchmark prints and pytest-benchmark keeps as ``times a copy``, is the time of
the operation over the time that copying the same bytes takes: an operation cannot come below 1 when its
planes do not fit the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.algorithms import background, combine, detect, linearity, noise, resample

SIZE = 1024
PLANE = SIZE * SIZE * 4

Kernel = tuple[Callable[[], object], float]
"""An operation, and how many planes of float32 it has to read and to write."""

NAMES = (
    "combine 10, median",
    "combine 10, clipped mean with variance and mask",
    "combine 10, noise model",
    "sky level",
    "detect",
    "resample, shift",
    "linearise",
    "variance",
    "subtract in place",
    "read",
    "write with checksums",
)


@pytest.fixture(scope="module")
def bandwidth() -> float:
    """Return bytes read and written per second by a copy of planes that do not fit the cache."""
    source = np.ones(64 * SIZE * SIZE, np.float32)
    target = np.empty_like(source)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return float(2 * source.nbytes / min(times))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    """Return the operations by name."""
    rng = np.random.default_rng(1)
    data = rng.normal(1000, 30, (SIZE, SIZE)).astype(np.float32)
    variance = np.full_like(data, 900)
    mask = np.zeros(data.shape, np.uint16)
    frames = [rng.normal(1000, 30, data.shape).astype(np.float32) for _ in range(10)]
    variances, masks = [variance] * 10, [mask] * 10
    frame = astrodata.create({"OBJECT": "benchmark"}, [])
    frame.append(data)
    frame[0].reset(data.copy(), mask=mask, variance=variance.copy())
    other = frame.copy()
    polynomial: dict[str, Any] = {
        "gamma": 2.8e-7,
        "eta": 3.2e-12,
        "gain": 1.0,
        "time_delta": 0.09,
        "exposure_time": 20.0,
    }
    shift: dict[str, Any] = {"matrix": np.eye(2), "offset": (0.3, -0.4), "shape": data.shape}
    path: Path = tmp_path_factory.mktemp("kernels") / "frame.fits"
    frame.write(path, overwrite=True)
    found: list[Kernel] = [
        (lambda: combine.combine(frames, operation="median", threads=2), 12),
        (lambda: combine.combine(frames, variances, masks, reject="varclip", threads=2), 10 * 2.5 + 2.5),
        (lambda: combine.combine(frames, variances, masks, reject="noiseclip", threads=2), 28),
        (lambda: background.measure_background(data, mask), 1.5),
        (lambda: detect.detect_sources(data, mask), 1.5),
        (lambda: resample.resample(data, variance, mask, **shift), 5),
        (lambda: linearity.correct(data, variance, **polynomial), 4),
        (lambda: noise.variance(data, gain=1.0, read_noise=35.0), 2),
        (lambda: frame.subtract(other), 7.5),
        (lambda: astrodata.open(path)[0].data, 2),
        (lambda: frame.write(path, overwrite=True), 5),
    ]
    return dict(zip(NAMES, found, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_kernel(
    name: str,
    kernels: dict[str, Kernel],
    bandwidth: float,
    benchmark: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Time one operation."""
    work, planes = kernels[name]
    benchmark(work)
    seconds = benchmark.stats.stats.min
    distance = seconds * bandwidth / (planes * PLANE)
    benchmark.extra_info["times a copy"] = round(distance, 1)
    with capsys.disabled():
        print(f"  {name:<50s}{1e3 * seconds:8.1f} ms {distance:8.1f} times a copy")
