from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import niripipe
from niripipe import simulate
from niripipe.errors import DataError, InputError, ParameterError, StorageError
from niripipe.simulate import Effects

FEW = {"size": 256, "n_target": 3, "n_sky": 2, "n_standard": 2, "n_flat": 2, "n_dark": 2, "n_short_dark": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> simulate.Night:
    return simulate.night(tmp_path_factory.mktemp("night") / "raw", seed=4, **FEW)


def _contents(night: simulate.Night) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*night.files, night.folder / "truth.json"]}


def test_a_night_is_the_same_bit_for_bit_for_any_number_of_threads(
    made: simulate.Night, tmp_path: Path
) -> None:
    again = simulate.night(tmp_path / "again", seed=4, threads=3, **FEW)
    assert _contents(again) == _contents(made)
    other = simulate.night(tmp_path / "other", seed=5, threads=1, **FEW)
    assert all(_contents(other)[name] != _contents(made)[name] for name in _contents(made))


def test_files_are_listed_by_kind(made: simulate.Night) -> None:
    assert [p.name for p in made.target] == [
        "N20160102S0270.fits",
        "N20160102S0271.fits",
        "N20160102S0272.fits",
    ]
    lists = [made.target, made.sky, made.standard, made.flats, made.darks, made.short_darks]
    assert [len(files) for files in lists] == [3, 2, 2, 4, 2, 2]
    assert (
        sorted(path for files in lists for path in files) == made.files == sorted(made.folder.glob("*.fits"))
    )


def test_frames_select_like_those_of_the_tutorial(made: simulate.Night) -> None:
    select, parse = niripipe.dataselect.select_data, niripipe.dataselect.expr_parser
    files = [str(path) for path in made.files]
    assert select(files, ["DARK"], [], parse("exposure_time==20")) == [str(p) for p in made.darks]
    assert select(files, ["DARK"], [], parse("exposure_time==1")) == [str(p) for p in made.short_darks]
    assert sorted(select(files, ["FLAT"])) == sorted(str(p) for p in made.flats)
    assert select(files, [], [], parse('object=="FS 17"')) == [str(p) for p in made.standard]
    assert select(files, ["IMAGE"], ["FLAT"], parse('object!="FS 17"')) == [
        str(p) for p in made.target + made.sky
    ]


def test_truth_survives_the_file(made: simulate.Night) -> None:
    read = simulate.open_night(made.folder).truth
    assert read.to_dict() == made.truth.to_dict()
    assert read.frames == made.truth.frames
    assert read.fields == made.truth.fields


def test_the_truth_file_has_the_layout_that_scoring_scripts_expect(made: simulate.Night) -> None:
    truth = json.loads((made.folder / "truth.json").read_text())
    assert {
        "frames",
        "stars",
        "cosmic_rays",
        "fwhm_pix",
        "std_flux",
        "dead",
        "hot",
        "seed",
        "sky_rate",
    } <= set(truth)
    first = truth["frames"]["N20160102S0270.fits"]
    assert {"kind", "dx", "dy", "sky"} <= set(first)
    assert len(truth["stars"][0]) == 3
    assert truth["fwhm_pix"] == pytest.approx(0.55 / 0.1171)


def test_pointing_errors_are_small_and_not_in_the_header(made: simulate.Night) -> None:
    errors = []
    for path in made.target + made.standard:
        frame = made.truth.frames[path.name]
        header = fits.getheader(path)
        assert (frame.p, frame.q) == (header["POFFSET"], header["QOFFSET"])
        errors += [frame.dx - frame.p / 0.1171, frame.dy + frame.q / 0.1171]
    assert 0.1 < np.std(errors) < 1.0


def test_bad_pixels_stand_out_in_the_calibrations(made: simulate.Night) -> None:
    dark = np.mean([fits.getdata(p) for p in made.short_darks], axis=0) * 12.3
    hot = made.truth.hot
    assert (dark[hot[:, 0], hot[:, 1]] > 1300).all()
    on, off = (
        np.mean([fits.getdata(p) for p in made.of_kind(kind)], axis=0) for kind in ("flat_on", "flat_off")
    )
    flat = (on - off) / np.median(on - off)
    dead = made.truth.dead
    assert (flat[dead[:, 0], dead[:, 1]] < 0.8).all()
    assert 0.8 < np.percentile(flat, 1) < np.percentile(flat, 99) < 1.25


def test_darks_of_a_night_have_the_read_noise_and_level_of_the_array(made: simulate.Night) -> None:
    first, second = (fits.getdata(p).astype(float) * 12.3 for p in made.darks)
    difference = first - second
    scatter = 1.4826 * np.median(np.abs(difference - np.median(difference))) / 2**0.5
    assert scatter == pytest.approx((35.0**2 + 5.0) ** 0.5, rel=0.03)
    # Pedestal, and 0.25 e-/s for 20 s.
    assert np.median(first) == pytest.approx(65, abs=3)


def test_persistence_shows_a_saturated_star_in_the_next_frame(tmp_path: Path) -> None:
    quiet = Effects.none(persistence=0.01, saturation=True)
    options = {"n_target": 2, "n_sky": 0, "n_standard": 0, "n_flat": 0, "n_dark": 0, "n_short_dark": 0}
    night = simulate.night(
        tmp_path, seed=1, size=256, scene="sparse", n_stars=0, n_saturated=1, effects=quiet, **options
    )
    first, second = (fits.getdata(p).astype(float) * 12.3 for p in night.target)
    x, y, _ = (round(v) for v in night.truth.positions(night.target[0].name)[0])
    assert first[y, x] > 200000
    elsewhere = simulate.night(
        tmp_path / "clean",
        seed=1,
        size=256,
        scene="sparse",
        n_stars=0,
        n_saturated=1,
        effects=Effects.none(saturation=True),
        **options,
    )
    ghost = second - fits.getdata(elsewhere.target[1]).astype(float) * 12.3
    # 1 per cent of the full well, 12.3 s after the end of the first frame, decaying in 60 s.
    assert ghost[y, x] == pytest.approx(2000 * np.exp(-12.3 / 60), rel=0.02)
    assert np.count_nonzero(np.abs(ghost) > 1) < 200


def test_conditions_vary_only_when_asked(tmp_path: Path) -> None:
    only = {
        "n_sky": 0,
        "n_standard": 0,
        "n_flat": 0,
        "n_dark": 0,
        "n_short_dark": 0,
        "size": 256,
        "scene": "empty",
    }
    steady = simulate.night(
        tmp_path / "steady", n_target=4, effects=Effects.none(), **only
    ).truth.frames.values()
    assert {(f.sky, f.transparency, f.fwhm_pix) for f in steady} == {(600.0, 1.0, 0.55 / 0.1171)}
    varying = Effects.none(seeing_rms=0.1, transparency_rms=0.05, sky_drift=0.01)
    moved = simulate.night(tmp_path / "moved", n_target=4, effects=varying, **only).truth.frames.values()
    for values in zip(*((f.sky, f.transparency, f.fwhm_pix) for f in moved), strict=True):
        assert len(set(values)) == 4
    assert all(f.transparency <= 1 for f in moved)


def test_progress_is_told_about_every_frame(tmp_path: Path) -> None:
    class Listener:
        def __init__(self) -> None:
            self.seen: list[tuple[str, int, int]] = []
            self.closed = False

        def update(self, step: str, done: int, total: int) -> None:
            self.seen.append((step, done, total))

        def close(self) -> None:
            self.closed = True

    listener = Listener()
    simulate.night(tmp_path, progress=listener, **FEW)
    assert listener.seen == [("simulate", i, 15) for i in range(1, 16)]
    assert listener.closed


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        simulate.night(tmp_path, **FEW)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_overwriting_replaces_the_simulated_night_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = simulate.night(tmp_path, overwrite=True, **FEW)
    second = simulate.night(tmp_path, overwrite=True, **(FEW | {"n_target": 1}))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {p.name for p in tmp_path.glob("*.fits")} == set(second.truth.frames) < set(first.truth.frames)


def test_frames_of_a_real_night_are_never_overwritten(tmp_path: Path) -> None:
    real = tmp_path / "N20160102S0271.fits"
    real.write_bytes(b"precious")
    with pytest.raises(StorageError, match="not made by the simulator"):
        simulate.night(tmp_path, overwrite=True, **FEW)
    assert real.read_bytes() == b"precious"
    (tmp_path / "truth.json").write_text('{"layout": 99}')
    with pytest.raises(StorageError, match="another simulator"):
        simulate.night(tmp_path, overwrite=True, **FEW)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        simulate.night(tmp_path / "file" / "night", **FEW)


@pytest.mark.parametrize(
    "bad", [{"seed": -1}, {"seed": 1.5}, {"threads": 0}, {"n_tarqet": 3}, {"size": 100}], ids=str
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, bad: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        simulate.night(tmp_path / "night", **bad)  # type: ignore[arg-type]
    assert not (tmp_path / "night").exists()


def test_a_failure_while_writing_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        simulate.night(tmp_path, **FEW)
    assert list(tmp_path.iterdir()) == []


def test_opening_what_is_not_a_night_is_an_error(tmp_path: Path, made: simulate.Night) -> None:
    with pytest.raises(InputError):
        simulate.open_night(tmp_path)
    for text in ("{}", "[]", "not json", '{"layout": 1}'):
        (tmp_path / "truth.json").write_text(text)
        with pytest.raises(DataError):
            simulate.read_truth(tmp_path)
    (tmp_path / "truth.json").write_text((made.folder / "truth.json").read_text())
    with pytest.raises(InputError, match="missing"):
        simulate.open_night(tmp_path)
