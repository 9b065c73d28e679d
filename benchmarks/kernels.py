"""Time single operations on full-size planes, and compare them with what the memory allows.

The distance from the memory bandwidth is the time of the operation over the time that copying the same
bytes takes: an operation cannot come below 1 when its planes do not fit the cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from niripipe import astrodata
from niripipe.algorithms import background, combine, detect, linearity, noise, resample

SIZE = 1024
PLANE = SIZE * SIZE * 4


def best(work: Callable[[], object], repeat: int = 7) -> float:
    """Return the shortest time of several runs, s."""
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bandwidth() -> float:
    """Return bytes read and written per second by a copy of planes that do not fit the cache."""
    source = np.ones(64 * SIZE * SIZE, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / best(lambda: np.copyto(target, source))


def main() -> None:
    """Print one line an operation."""
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
    polynomial = {"gamma": 2.8e-7, "eta": 3.2e-12, "gain": 1.0, "time_delta": 0.09, "exposure_time": 20.0}
    shift = {"matrix": np.eye(2), "offset": (0.3, -0.4), "shape": data.shape}
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "frame.fits"
    frame.write(path, overwrite=True)
    rows: list[tuple[str, Callable[[], object], float]] = [
        ("combine 10, median", lambda: combine.combine(frames, operation="median", threads=2), 12),
        (
            "combine 10, clipped mean with variance and mask",
            lambda: combine.combine(frames, variances, masks, reject="varclip", threads=2),
            10 * 2.5 + 2.5,
        ),
        (
            "combine 10, noise model",
            lambda: combine.combine(frames, variances, masks, reject="noiseclip", threads=2),
            28,
        ),
        ("sky level", lambda: background.measure_background(data, mask), 1.5),
        ("detect", lambda: detect.detect_sources(data, mask), 1.5),
        ("resample, shift", lambda: resample.resample(data, variance, mask, **shift), 5),
        ("linearise", lambda: linearity.correct(data, variance, **polynomial), 4),
        ("variance", lambda: noise.variance(data, gain=1.0, read_noise=35.0), 2),
        ("subtract in place", lambda: frame.subtract(other), 7.5),
        ("read", lambda: astrodata.open(path)[0].data, 2),
        ("write with checksums", lambda: frame.write(path, overwrite=True), 5),
    ]
    rate = bandwidth()
    print(f"memory: {rate / 1e9:.1f} GB/s")
    print(f"{'operation':<50s}{'ms':>8s}{'times a copy':>14s}")
    for name, work, planes in rows:
        seconds = best(work)
        print(f"{name:<50s}{1e3 * seconds:8.1f}{seconds * rate / (planes * PLANE):14.1f}")
    folder.cleanup()


if __name__ == "__main__":
    main()
