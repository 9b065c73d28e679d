"""Pictures of frames and products, without a display and without `matplotlib.pyplot`."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.wcs import WCS

from niripipe import astrodata
from niripipe.errors import InputError, ParameterError
from niripipe.night import NightResult

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from niripipe import plot
from niripipe.plot.canvas import directions
from niripipe.plot.stretch import norm_of
from niripipe.plot.thumbnails import block_means

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def product(serial: NightResult) -> str:
    return serial.products("science")[0]


def calls(serial: NightResult) -> dict[str, tuple[Callable[..., Any], tuple[str, ...], int]]:
    """Every function with what it draws and how many axes it needs."""
    image, flat, bpm = (serial.products(kind)[0] for kind in ("science", "flat", "bpm"))
    return {
        "show": (plot.show, (image,), 1),
        "stack": (plot.stack, (image,), 2),
        "compare": (plot.compare, (image, flat), 2),
        "alignment": (plot.alignment, (image,), 1),
        "sky": (plot.sky, (image,), 1),
        "growth": (plot.growth, (image,), 1),
        "noise": (plot.noise, (serial.products("standard")[0],), 1),
        "flat": (plot.flat, (flat,), 2),
        "bpm": (plot.bpm, (bpm,), 1),
    }


@pytest.mark.parametrize(
    "name", ["show", "stack", "compare", "alignment", "sky", "growth", "noise", "flat", "bpm"]
)
def test_every_function_returns_a_figure_and_draws_into_axes_given(serial: NightResult, name: str) -> None:
    function, frames, count = calls(serial)[name]
    figure = function(*frames)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(PNG)
    own = Figure()
    axes = [own.add_subplot(1, count, k + 1) for k in range(count)]
    assert function(*frames, ax=axes[0] if count == 1 else axes) is own
    assert all(a.has_data() for a in axes)
    with pytest.raises(InputError, match="Another number of axes"):
        function(*frames, ax=[*axes, axes[0]])


def test_nothing_global_is_touched_and_no_display_is_needed(product: str) -> None:
    code = f"""
import sys
import matplotlib
def settings():
    # Asking for the backend imports pyplot.
    return {{k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}}
before = settings()
from niripipe import plot
plot.show({product!r}, mask=True, objects=True).savefig("a.png")
plot.alignment({product!r}).savefig("b.png")
plot.save_png({product!r}, "c.png")
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    )
    assert all(Path(name).read_bytes().startswith(PNG) for name in ("a.png", "b.png", "c.png"))


def test_without_matplotlib_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from niripipe import plot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith('pip install "niripipe[plot]"')
    assert "ImportError" in done.stderr


@pytest.mark.parametrize("angle", [0.0, 30.0, 135.0, 250.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_compass_points_to_north_and_east(angle: float, mirrored: bool) -> None:
    # North is `angle` from +y towards -x; East is 90 degrees further, or less in a mirrored image.
    turn = np.radians(angle)
    north = np.array([-np.sin(turn), np.cos(turn)])
    east = np.array([-np.cos(turn), -np.sin(turn)]) * (-1 if mirrored else 1)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 60.0]
    wcs.wcs.crpix = [50, 50]
    wcs.wcs.cd = np.array([east, north]) * 0.1171 / 3600
    found = directions(wcs, (100, 100))
    assert found is not None
    assert found[0] == pytest.approx(north, abs=1e-3)
    assert found[1] == pytest.approx(east, abs=1e-3)
    assert found[2] == pytest.approx(0.1171, rel=1e-3)


def test_the_scale_bar_is_as_long_as_it_says(product: str) -> None:
    figure = plot.show(product)
    axes = figure.axes[0]
    line = axes.lines[0]
    label = next(text.get_text() for text in axes.texts if text.get_text().endswith("″"))
    assert np.ptp(line.get_xdata()) * 0.1171 == pytest.approx(float(label[:-1]), rel=2e-3)


def test_masks_and_objects_are_those_of_the_frame(product: str) -> None:
    frame = astrodata.open(product)
    frame[0].mask[:] = 0
    frame[0].mask[10:20, 30:35] = astrodata.DQ.cosmic_ray
    figure = plot.show(frame, mask=True, objects=True)
    axes = figure.axes[0]
    overlay = axes.images[1].get_array()
    assert overlay.count() == 50
    assert not overlay.mask[10:20, 30:35].any()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cosmic ray (50)"]
    assert len(axes.collections) > 0  # contours
    del frame[0].OBJMASK
    with pytest.raises(InputError, match="detectSources"):
        plot.show(frame, objects=True)


def test_stretches_are_checked_and_leave_bad_pixels_out() -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(100, 5, (200, 200))
    bad = np.zeros(data.shape, bool)
    bad[:40] = True
    spoilt = np.where(bad, 1e6, data)
    for stretch in ("asinh", "zscale", "linear"):
        norm = norm_of(spoilt, bad, stretch)  # type: ignore[arg-type]
        assert 60 < norm.vmin < 100 < norm.vmax < 200
    assert norm_of(data).vmin == pytest.approx(90, abs=0.5)
    assert norm_of(data, limits=(0, 7)).vmax == 7
    with pytest.raises(ParameterError, match="no such stretch"):
        norm_of(data, None, "log")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="two increasing numbers"):
        norm_of(data, limits=(2, 1))
    for empty in (np.full((9, 9), np.nan), np.zeros((9, 9))):
        assert np.isfinite([norm_of(empty).vmin, norm_of(empty).vmax]).all()


def test_block_means_leave_bad_pixels_out() -> None:
    rng = np.random.default_rng(2)
    data = rng.normal(size=(23, 31)).astype(np.float32)
    bad = rng.random(data.shape) < 0.3
    bad[:4, :4] = True
    data[5, 5] = np.nan
    found = block_means(data, bad, 8)
    assert found.shape == (5, 7)
    for j in range(5):
        for i in range(7):
            box = np.s_[4 * j : 4 * j + 4, 4 * i : 4 * i + 4]
            values = data[box][~bad[box] & np.isfinite(data[box])]
            if values.size:
                assert found[j, i] == pytest.approx(values.mean(), abs=1e-6)
            else:
                assert np.isnan(found[j, i])
    assert (block_means(data, None, 100)[0] == data[0]).all()


def test_thumbnails_are_small_and_show_north_of_the_array_at_the_top(product: str, tmp_path: Path) -> None:
    frame = astrodata.open(product)
    frame[0].data = np.zeros(frame[0].shape, np.float32)
    frame[0].mask = np.zeros(frame[0].shape, np.uint16)
    frame[0].data[-40:] = 1000.0
    png = plot.thumbnail_png(frame, size=64)
    width, height = struct.unpack(">II", png[16:24])
    assert max(width, height) <= 64
    start = png.index(b"IDAT") + 4
    length = struct.unpack(">I", png[start - 8 : start - 4])[0]
    rows = np.frombuffer(zlib.decompress(png[start : start + length]), np.uint8).reshape(height, width + 1)[
        :, 1:
    ]
    assert (rows[0] == 255).all()
    assert (rows[-1] < 128).all()
    path = plot.save_png(frame, tmp_path / "a.png")
    assert path.read_bytes().startswith(PNG)
    assert plot.save_png(frame, tmp_path / "a.png") == path


def test_what_cannot_be_drawn_is_said(serial: NightResult) -> None:
    dark = serial.products("dark")[0]
    for function, what in (
        (plot.alignment, "ALIGNMENT"),
        (plot.sky, "STACKING"),
        (plot.growth, "detectSources"),
        (plot.stack, "COVERAGE"),
    ):
        with pytest.raises(InputError, match=what):
            function(dark)
    with pytest.raises(InputError, match="no image"):
        plot.show(astrodata.create({"INSTRUME": "NIRI"}))


def test_the_curve_of_growth_is_that_of_the_stars(product: str) -> None:
    frame = astrodata.open(product)
    catalogue = frame[0].OBJCAT
    y, x = np.mgrid[: frame[0].shape[0], : frame[0].shape[1]]
    sigma = 4.0 / 2.3548
    image = np.zeros(frame[0].shape)
    where = np.argsort(-np.asarray(catalogue["FLUX_AUTO"]))[:1]
    for row in catalogue[where]:
        image += 1e5 * np.exp(
            -((x + 1 - row["X_IMAGE"]) ** 2 + (y + 1 - row["Y_IMAGE"]) ** 2) / (2 * sigma**2)
        )
    catalogue["PROFILE_FWHM"], catalogue["PROFILE_EE50"] = 4.0, 4.2
    catalogue["ELLIPTICITY"], catalogue["CLASS_STAR"] = 0.02, 0.0
    catalogue["CLASS_STAR"][where] = 0.95
    catalogue["FLUXERR_AUTO"] = catalogue["FLUX_AUTO"] / 1000
    for name in ("IMAFLAGS_ISO", "NIMAFLAGS_ISO", "FLAGS"):
        catalogue[name] = 0
    catalogue["B_IMAGE"], catalogue["ISOAREA_IMAGE"] = 2.0, 100.0
    frame[0].OBJCAT = catalogue
    frame[0].data = image.astype(np.float32)
    frame[0].mask = np.zeros(image.shape, np.uint16)
    median = plot.growth(frame).axes[0].lines[-2]
    radii = np.asarray(median.get_xdata()) / 0.1171
    expected = 1 - np.exp(-(radii**2) / (2 * sigma**2))
    assert np.asarray(median.get_ydata()) == pytest.approx(expected, abs=0.02)
