"""Quality assessment: frames arrive one at a time, are measured against truth, and join those before them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from niripipe import Reduce, astrodata, simulate

ZERO_POINT = 26.5


def truth_catalogue(night: simulate.Night, kind: str = "target") -> Table:
    """Return the stars of a field as a catalogue for a zero point of `ZERO_POINT` (e-/s)."""
    scene = night.truth.fields[kind]
    x, y, flux = scene.table.T
    ra, dec = scene.wcs.to_sky(x, y)
    return Table(
        {"RA": ra, "DEC": dec, "hmag": ZERO_POINT - 2.5 * np.log10(flux), "hmag_err": np.full(len(x), 0.02)}
    )


@dataclass(frozen=True)
class Arrived:
    """A night, and the reductions of its frames in the order in which they came."""

    night: simulate.Night
    folder: Path
    calibrations: dict[str, str]
    runs: list[Reduce]


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory, reality: bool) -> Arrived:
    folder = tmp_path_factory.mktemp("qa")
    night = simulate.night(
        folder / "raw",
        reality=reality,
        seed=21,
        size=256,
        scene="sparse",
        n_stars=40,
        n_target=4,
        n_sky=0,
        n_standard=0,
        n_flat=3,
        n_dark=3,
        n_short_dark=0,
        dither=8.0,
    )
    products = {}
    for caltype, files in (("processed_dark", night.darks), ("processed_flat", night.flats)):
        made = Reduce(files, output_dir=folder / "products")
        made.runr()
        products[caltype] = made.output_filenames[0]
    runs = []
    for path in night.target:
        run = Reduce(
            [path],
            mode="qa",
            calibrations=products,
            output_dir=folder / "qa",
            parameters={"addReferenceCatalog": {"source": truth_catalogue(night)}},
        )
        run.runr()
        runs.append(run)
    return Arrived(night, folder, products, runs)


def test_each_frame_is_stacked_with_those_before_it(arrived):
    runs = arrived.runs
    assert [run.outputs[0].phu["NCOMBINE"] for run in runs] == [1, 2, 3, 4]
    first = arrived.night.target[0].name.removesuffix(".fits")
    assert [Path(run.output_filenames[0]).name for run in runs] == [f"{first}_stack.fits"] * 4
    assert astrodata.open(runs[-1].output_filenames[0]).phu["NCOMBINE"] == 4


def test_the_stack_is_measured_and_carries_its_own_figures(arrived, reality):
    stack = arrived.runs[-1].outputs[0]
    hdr = stack[0].hdr
    # The frames have the transparency of the night; FLUX_AUTO misses some per cent of a Moffat profile.
    frames = [arrived.night.truth.frames[path.name] for path in arrived.night.target]
    clear = 2.5 * math.log10(np.mean([frame.transparency for frame in frames]))
    assert hdr["MEANZP"] == pytest.approx(ZERO_POINT + clear, abs=0.08)
    assert hdr["ZPNUM"] >= 3
    assert 0 < hdr["MEANZPER"] < 0.05
    assert hdr["ASTNUM"] >= 10
    fwhm = np.mean([frame.fwhm_pix for frame in frames]) * 0.1171
    # On the night with everything on one of the four is trailed by 8 pixels, and stars have haloes.
    assert stack.phu["MEANFWHM"] == pytest.approx(fwhm, rel=0.2 if reality else 0.12)
    assert stack.phu["CLOUDEXT"] == pytest.approx(26.77 - hdr["MEANZP"], abs=1e-3)


def test_single_frames_tell_the_sky_and_its_brightness(arrived):
    name = arrived.night.target[2].name
    frame = astrodata.open(arrived.folder / "qa" / name.replace(".fits", "_forSky.fits"))
    truth = arrived.night.truth.frames[name]
    # Thermal light is sky as well, and so are blobs of 2 % and fringes.
    sky = truth.sky + (0.0 if truth.reality is None else truth.reality.thermal)
    level = sky * truth.seconds
    assert frame.phu["SKYLEVEL"] == pytest.approx(level, rel=0.05)
    expected = 26.77 - 2.5 * math.log10(sky / 0.1171**2)
    assert frame.phu["BGMAG"] == pytest.approx(expected, abs=0.06)


def test_the_pointing_error_is_taken_out_by_the_catalogue(arrived):
    wcs = arrived.runs[-1].outputs[0][0].wcs
    catalogue = truth_catalogue(arrived.night)
    objects = arrived.runs[-1].outputs[0][0].OBJCAT
    known = np.asarray(objects["REF_NUMBER"]) > 0
    x, y = wcs.all_world2pix(catalogue["RA"], catalogue["DEC"], 1)
    near = [float(np.hypot(x - row["XWIN_IMAGE"], y - row["YWIN_IMAGE"]).min()) for row in objects[known]]
    assert np.median(near) < 0.35


def test_without_a_catalogue_the_frame_is_reduced_and_nobody_is_asked(reduced, monkeypatch):
    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("the network was used"))
    run = reduced.reduce([reduced.night.target[0]], "qa_alone", mode="qa")
    assert "no source was named" in str(run.report)
    assert run.outputs[0].phu["NCOMBINE"] == 1
    assert "MEANZP" not in run.outputs[0][0].hdr


def test_calibrations_gather_as_well(reduced):
    folder = "qa_darks"
    for path in reduced.night.darks[:3]:
        run = reduced.reduce([path], folder, mode="qa")
    assert run.outputs[0].phu["NCOMBINE"] == 3
    assert Path(run.output_filenames[0]).name.endswith("_qa_dark.fits")
    together = reduced.reduce(reduced.night.darks[:3], "darks_together")
    assert np.array_equal(together.outputs[0][0].data, run.outputs[0][0].data)


def test_flats_gather_as_well(reduced):
    files = reduced.night.flats
    # A lamp-off flat joins the lamp-on flats that came before it.
    for path in (files[0], files[-1], files[1], files[-2]):
        run = reduced.reduce([path], "qa_flats", mode="qa")
    assert run.outputs[0].phu["NCOMBINE"] == 2
    together = reduced.reduce([files[0], files[1], files[-1], files[-2]], "flats_together")
    assert np.array_equal(together.outputs[0][0].data, run.outputs[0][0].data)
