from __future__ import annotations

import pickle
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from niripipe import night, simulate
from niripipe.cal_service import CalibrationService
from niripipe.errors import InputError, ParameterError
from niripipe.night import NightPlan, NightResult, NightSettings
from niripipe.night.jobs import KINDS
from niripipe.simulate import Night

from .conftest import Folder


@pytest.fixture(scope="module")
def plan(messy: Folder) -> NightPlan:
    return night.organise(messy.path)


def reason_of(plan: NightPlan, path: str) -> str:
    return next(item.reason for item in plan.left_out if item.path == path)


def warning_of(plan: NightPlan, name: str) -> str:
    return "\n".join(plan.job(name).warnings)


# ---- sorting


def test_reductions_are_named_by_what_they_are_and_only_as_long_as_needed(plan: NightPlan) -> None:
    assert [job.name for job in plan] == [
        "dark 20.002 s, Medium Background",
        "dark 60.001 s",
        "dark 2 x 30.001 s",
        "dark 20.002 s, Low Background",
        "bpm",
        "flat H",
        "flat K",
        "standard FS 17 H",
        "science SN2014J H, 20.002 s",
        "science SN2014J H, 7.001 s",
        "science SN2014J K, 60.001 s",
        "science SN2014J K, 2 x 30.001 s",
    ]


def test_frames_of_one_name_in_two_folders_do_not_share_a_product(tmp_path: Path) -> None:
    for name, hour in (("first", 18.0), ("second", 21.0)):
        folder = Folder(tmp_path / name)
        folder.path.mkdir()
        folder.add("dark", "dark", 3, hour=hour, exposure=hour)
        folder.add("h", "target", 4, hour=hour - 10, exposure=hour)
    plan = night.organise(tmp_path, recursive=True, settings=NightSettings(without_flat="skip"))
    products = [job.product for job in plan]
    assert len(set(products)) == 4
    assert sorted(products)[-2:] == ["second/N20160102S0001_dark.fits", "second/N20160102S0005_image.fits"]
    for job in plan:
        assert all(c.name == f"{job.folder}/N20160102S0001_dark.fits".strip("/") for c in job.calibrations)


def test_sky_frames_of_an_observation_are_reduced_with_its_target_and_are_known(
    plan: NightPlan, messy: Folder
) -> None:
    job = plan.job("science SN2014J H, 20.002 s")
    assert list(job.files) == messy.named("h target", "h sky")
    assert list(job.sky_files) == messy.named("h sky")


def test_the_sky_is_not_scaled_where_there_are_skies_beside_the_target(plan: NightPlan) -> None:
    assert plan.job("science SN2014J H, 20.002 s").parameters == {"skyCorrect:scale_sky": False}
    assert "2 of 5 frames show sky beside the target" in plan.job("science SN2014J H, 20.002 s").reasons[0]
    assert plan.job("science SN2014J K, 60.001 s").parameters == {}


def test_coadds_count_when_darks_are_chosen(plan: NightPlan) -> None:
    dark_of = {job.name: [c.job for c in job.calibrations if c.caltype == "processed_dark"] for job in plan}
    assert dark_of["science SN2014J K, 60.001 s"] == ["dark 60.001 s"]
    assert dark_of["science SN2014J K, 2 x 30.001 s"] == ["dark 2 x 30.001 s"]
    rejected = plan.explain("science SN2014J K, 60.001 s", "processed_dark").rows[1:]
    assert any("1 x 60.001 s is not 2 x 30.001 s" in " ".join(row["failed"]) for row in rejected)


def test_flats_come_lamp_on_first_and_the_bad_pixel_mask_adds_short_darks(
    plan: NightPlan, messy: Folder
) -> None:
    assert list(plan.job("flat H").files) == messy.named("h on", "h off")
    assert list(plan.job("bpm").files) == messy.named("h on", "h off", "dark short")


@pytest.mark.parametrize(("larger", "off"), [("h", 2), ("k", 2), ("k", 0)])
def test_the_bad_pixel_mask_is_made_of_the_largest_flats_that_have_lamp_off_frames(
    tmp_path: Path, larger: str, off: int
) -> None:
    folder = Folder(tmp_path)
    for label, hour in (("h", 18.0), ("k", 19.0)):
        count = 4 if label == larger else 3
        options = {"exposure": 10.001, "filter": label.upper()}
        folder.add(f"{label} on", "flat_on", count, hour=hour, **options)
        folder.add(f"{label} off", "flat_off", off if label == larger else 3, hour=hour + 0.3, **options)
    folder.add("dark short", "short_dark", 3, hour=20, exposure=1.001)
    # The limit for short darks is one of them; without lamp-off frames even a larger set is worth less.
    used = larger if off else "h"
    for limit, wanted in ((1.001, 1), (1.0, 0)):
        plan = night.organise(tmp_path, settings=NightSettings(short_dark=limit))
        masks = [list(job.files) for job in plan if job.kind == "bpm"]
        assert masks == [folder.named(f"{used} on", f"{used} off", "dark short")] * wanted


def test_flats_without_lamp_off_frames_are_made_with_a_warning(plan: NightPlan, messy: Folder) -> None:
    assert list(plan.job("flat K").files) == messy.named("k on")
    nearest_miss = "no lamp-off flats fit (filter_name is J_G0202, wanted K_G0204)"
    assert nearest_miss in warning_of(plan, "flat K")


def test_science_without_a_dark_is_planned_without_the_correction_and_with_a_warning(plan: NightPlan) -> None:
    name = "science SN2014J H, 7.001 s"
    assert plan.job(name).parameters == {"darkCorrect:do_cal": "skip"}
    assert "exposure_time is 20.002 s, wanted 7.001 s" in warning_of(plan, name)


def test_standards_without_darks_are_a_matter_of_course(plan: NightPlan) -> None:
    job = plan.job("standard FS 17 H")
    assert job.parameters == {"darkCorrect:do_cal": "skip"}
    assert not job.warnings
    assert any("the archive takes no darks for standards" in reason for reason in job.reasons)


def test_a_dark_that_nothing_needs_is_made_for_other_nights_but_short_ones_are_not(plan: NightPlan) -> None:
    assert "made for other nights" in plan.job("dark 20.002 s, Low Background").reasons[0]
    assert "dark 1.001 s" not in [job.name for job in plan]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("j", "no processed_flat fits (nearest"),
        ("j off", "filter_name is J_G0202"),
        ("dark lone", "only 1 dark of its set-up (5.001 s"),
        ("acquisition", "an acquisition"),
        ("spectrum", "a spectrum (Kgrism_G5228)"),
        ("failed", "failed the observatory's quality assessment"),
        ("foreign", "not a NIRI frame (INSTRUME is GMOS-N)"),
        ("twilight", "a twilight flat"),
        ("mute", "does not tell read_mode"),
        ("text", "cannot be read: the file is not FITS"),
        ("truncated", "cannot be read: the file is truncated"),
        ("twin", "the same frame as"),
    ],
)
def test_every_frame_that_fits_nowhere_is_listed_with_its_reason(
    plan: NightPlan, messy: Folder, label: str, reason: str
) -> None:
    for path in messy.files[label]:
        assert reason in reason_of(plan, path)
    assert messy.files[label][0] in str(plan) or Path(messy.files[label][0]).name.split(".fits")[0] in str(
        plan
    )


def test_missing_files_and_products_are_listed_too(messy: Folder, tmp_path: Path) -> None:
    frame = simulate.raw_frame(kind="dark", size=256, keywords={"PREPARE": "2016-01-02T00:00:00"})
    made = simulate.write_frame(frame, tmp_path)
    plan = night.organise([*messy.named("dark 20"), str(made), tmp_path / "gone.fits"])
    assert "no such file" in reason_of(plan, str(tmp_path / "gone.fits"))
    assert "processed already" in reason_of(plan, str(made))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_part_of_a_night_gives_a_plan_that_can_be_run_and_loses_no_file(
    messy: Folder, data: st.DataObject
) -> None:
    every = messy.named(*messy.files)
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    plan = night.organise(chosen)
    used = {path for job in plan for path in job.files}
    left_out = [item.path for item in plan.left_out]
    assert used | set(left_out) == set(chosen)
    assert not used & set(left_out)
    assert max(Counter(left_out).values(), default=1) == 1
    done: set[str] = set()
    for job in plan:
        assert done.issuperset(job.depends_on)
        done.add(job.name)
    assert len(done) == len(plan)
    assert len({job.product for job in plan}) == len(plan)
    assert sorted(plan, key=lambda job: KINDS.index(job.kind)) == list(plan)


def test_the_order_of_the_files_does_not_matter(plan: NightPlan, messy: Folder) -> None:
    shuffled = sorted(messy.named(*messy.files), key=lambda path: path[::-1])
    # Which of two twins is taken is decided by the order; the compressed one cannot be read.
    shuffled.remove(messy.files["twin"][0])
    assert [job.files for job in night.organise(shuffled)] == [job.files for job in plan]


# ---- settings


def test_science_without_a_dark_can_be_left_out(messy: Folder) -> None:
    plan = night.organise(messy.path, settings=NightSettings(without_dark="leave out"))
    assert "no processed_dark fits" in reason_of(plan, messy.files["h short"][0])
    assert plan.job("standard")


def test_science_without_a_flat_can_be_reduced(messy: Folder) -> None:
    plan = night.organise(messy.path, settings=NightSettings(without_flat="skip"))
    assert plan.job("science SN2014J J").parameters["flatCorrect:do_cal"] == "skip"
    assert "no processed_flat fits" in warning_of(plan, "science SN2014J J")


def test_only_what_is_needed_can_be_made(messy: Folder) -> None:
    plan = night.organise(messy.path, settings=NightSettings(only_needed=True))
    assert "dark 20.002 s" in [job.name for job in plan]
    assert reason_of(plan, messy.files["dark low"][0]) == "no frame of this night needs it"


def test_lamp_off_flats_that_one_flat_uses_are_not_listed_because_another_is_not_made(
    messy: Folder, tmp_path: Path
) -> None:
    more = Folder(tmp_path, number=300)
    more.add("other mask", "flat_on", 3, hour=18.1, exposure=42.001, keywords={"FPMASK": "f6-2pix_G5212"})
    files = messy.named("h target", "h on", "h off") + more.named("other mask")
    assert len(night.organise(files)) == 3
    plan = night.organise(files, settings=NightSettings(only_needed=True))
    assert [job.name for job in plan] == ["flat H", "science SN2014J H"]
    assert [item.path for item in plan.left_out] == more.named("other mask")


def test_short_darks_become_a_dark_where_a_frame_needs_it(messy: Folder) -> None:
    plan = night.organise(messy.path, settings=NightSettings(short_dark=25.0))
    assert "dark 20.002 s" in [job.name for job in plan]
    assert len(plan.job("bpm").files) == 9


def test_failed_science_frames_can_be_used(messy: Folder) -> None:
    plan = night.organise(messy.path, settings=NightSettings(use_failed=True))
    assert messy.files["failed"][0] in plan.job("science SN2014J H, 20.002 s").files


def test_observations_of_one_target_can_be_stacked_together(messy: Folder, tmp_path: Path) -> None:
    more = Folder(tmp_path, number=100)
    more.add("again", "target", 3, hour=9, keywords={"OBSID": "GN-2016A-Q-1-8"})
    files = messy.named("h target", "h on", "h off") + more.named("again")
    names = [job.name for job in night.organise(files) if job.kind == "science"]
    assert names == [
        "science SN2014J H, observation GN-2016A-Q-1-1",
        "science SN2014J H, observation GN-2016A-Q-1-8",
    ]
    together = night.organise(files, settings=NightSettings(group_by="target")).job("science")
    assert len(together.files) == 6


def test_darks_of_different_nights_make_different_products_and_the_nearest_is_chosen(
    messy: Folder, tmp_path: Path
) -> None:
    more = Folder(tmp_path, number=200)
    more.add("before", "dark", 3, day=date(2016, 1, 1), hour=20)
    plan = night.organise(messy.named("h target", "h on", "h off", "dark 20") + more.named("before"))
    assert [job.name for job in plan if job.kind == "dark"] == [
        "dark 20.002 s, 2016-01-01",
        "dark 20.002 s, 2016-01-02",
    ]
    chosen = plan.job("science").calibrations[0]
    assert chosen.job == "dark 20.002 s, 2016-01-02"
    assert "the nearest in time of 2 that fit" in chosen.reason


def test_frames_are_split_where_two_neighbours_are_far_apart_not_where_a_set_is_long(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for label, hour in (("one", 15.0), ("one", 16.0), ("one", 17.0), ("two", 18.5), ("two", 19.0)):
        folder.add(label, "dark", 2, hour=hour)
    plan = night.organise(tmp_path, settings=NightSettings(gap=1.25 / 24))
    assert [list(job.files) for job in plan] == [folder.files["one"], folder.files["two"]]


@pytest.mark.parametrize(("late", "nearest"), [(18.9, "early"), (18.3, "late")])
def test_the_time_between_two_sets_is_that_between_their_nearest_frames(
    tmp_path: Path, late: float, nearest: str
) -> None:
    folder = Folder(tmp_path)
    for hour in (16.2, 16.8, 17.4):
        folder.add("early", "flat_off", 2, hour=hour, exposure=42.001)
    folder.add("on", "flat_on", 3, hour=18, exposure=42.001)
    for hour in (late, late + 0.6):
        folder.add("late", "flat_off", 2, hour=hour, exposure=42.001)
    folder.add("target", "target", 3, hour=8)
    plan = night.organise(tmp_path, settings=NightSettings(gap=0.75 / 24))
    assert list(plan.job("flat").files) == folder.named("on", nearest)


@pytest.mark.parametrize("wrong", [{"without_dark": "sometimes"}, {"min_frames": 0}, {"group_by": "moon"}])
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        NightSettings(**wrong)  # type: ignore[arg-type]


# ---- calibrations of a store


@pytest.fixture(scope="module")
def store(serial: NightResult) -> CalibrationService:
    """A store that holds the calibrations of the small night."""
    return serial.calibrations


def test_calibrations_of_a_store_are_used_where_the_night_has_none(
    small_night: Night, store: CalibrationService
) -> None:
    plan = night.organise(small_night.target, calibrations=store)
    (job,) = plan.jobs
    assert [(c.caltype, c.job) for c in job.calibrations] == [
        ("processed_bpm", None),
        ("processed_dark", None),
        ("processed_flat", None),
        ("processed_standard", None),
    ]
    for calibration in job.calibrations:
        assert calibration.path in store.get_calibrations(small_night.target[0], calibration.caltype).files


def test_a_product_made_anew_replaces_the_registered_one_of_its_name(
    small_night: Night, store: CalibrationService
) -> None:
    plan = night.organise(small_night.files, calibrations=store)
    makers = [c.job for c in plan.job("science").calibrations]
    assert makers == ["bpm", "dark 20.002 s", "flat H", "standard FS 17 H"]
    assert len(plan.explain("science", "processed_dark")) == 1


# ---- the plan as an object


def test_the_plan_says_everything_in_text_and_in_html(plan: NightPlan) -> None:
    text, page = str(plan), plan._repr_html_()
    assert text.startswith("12 reductions of 43 raw frames; 15 files are left out")
    for job in plan:
        for piece in (job.name, job.recipe, job.product, *job.reasons, *job.warnings):
            assert piece in text
    assert page.count("<tr>") == 12
    assert "&#x27;skip&#x27;" in page


def test_the_table_has_a_row_for_each_reduction(plan: NightPlan) -> None:
    rows = plan.table()
    assert [row["reduction"] for row in rows] == [job.name for job in plan]
    assert rows[5]["depends_on"] == ("bpm",)
    assert rows[5]["inputs"] == "N20160102S0024 - N20160102S0029"


def test_a_plan_and_its_jobs_are_plain_data(plan: NightPlan) -> None:
    again = pickle.loads(pickle.dumps(plan))  # noqa: S301 (our own bytes)
    assert again.jobs == plan.jobs
    assert str(again) == str(plan)


def test_a_reduction_is_found_by_name_or_by_a_kind_that_is_unique(plan: NightPlan) -> None:
    assert plan.job("standard") is plan.job("standard FS 17 H")
    with pytest.raises(InputError, match="several reductions of this kind"):
        plan.job("dark")
    with pytest.raises(InputError, match="Did you mean 'flat H'"):
        plan.job("flat h")
    with pytest.raises(InputError, match="needs no such calibration"):
        plan.explain("flat H", "processed_dark")


# ---- parameters


def test_parameters_go_to_a_kind_or_to_one_reduction_the_name_being_stronger(messy: Folder) -> None:
    plan = night.organise(
        messy.path,
        parameters={
            "science": {"skyCorrect:scale_sky": True, "stackFrames:operation": "median"},
            "science SN2014J K, 60.001 s": {"stackFrames:operation": "wtmean"},
        },
    )
    chosen = {job.name: job.parameters for job in plan if job.kind == "science"}
    assert chosen["science SN2014J H, 20.002 s"]["skyCorrect:scale_sky"] is True
    assert chosen["science SN2014J K, 60.001 s"]["stackFrames:operation"] == "wtmean"
    assert chosen["science SN2014J K, 2 x 30.001 s"]["stackFrames:operation"] == "median"
    assert "stackFrames:operation='wtmean': set by the user" in str(plan)


def test_parameters_can_be_changed_afterwards_without_touching_the_first_plan(plan: NightPlan) -> None:
    changed = plan.with_parameters({"bpm": {"makeBPM:flat_lo_thresh": 0.5}})
    assert changed.job("bpm").parameters == {"makeBPM:flat_lo_thresh": 0.5}
    assert plan.job("bpm").parameters == {}


def test_all_faults_of_parameters_are_reported_together_before_anything_is_done(
    plan: NightPlan, tmp_path: Path
) -> None:
    wrong = {
        "bmp": {},
        "flat H": {"normalizeFlat:scal": "mean"},
        "science": {"skyCorrect:dilation": -1},
    }
    with pytest.raises(ParameterError) as caught:
        plan.run(tmp_path / "out", parameters=wrong)
    text = str(caught.value)
    assert "Did you mean 'bpm'" in text
    assert "Did you mean 'scale'" in text
    assert text.startswith("3 faults found in the plan of the night")
    assert "flat H: The primitive normalizeFlat has no parameter 'scal'" in text
    assert "science SN2014J K, 60.001 s; science SN2014J K, 2 x 30.001 s: " in text
    assert not (tmp_path / "out").exists()


def test_the_names_of_products_follow_the_parameters(plan: NightPlan) -> None:
    assert plan.job("standard").product == "N20160102S0021_standard.fits"
    kept = plan.with_parameters({"standard": {"removeFirstFrame:remove_first": False}})
    assert kept.job("standard").product == "N20160102S0020_standard.fits"


def test_a_parameter_without_effect_is_warned_about(plan: NightPlan) -> None:
    changed = plan.with_parameters({"flat H": {"skyCorrect:scale_sky": False}})
    assert "has no effect" in warning_of(changed, "flat H")


def test_recipes_can_be_chosen_and_are_checked(messy: Folder) -> None:
    plan = night.organise(messy.named("dark 20"), recipes={"dark": "prepare"})
    assert plan.job("dark").recipe == "prepare"
    with pytest.raises(InputError, match="Did you mean 'makeProcessedDark'"):
        night.organise(messy.named("dark 20"), recipes={"dark": "makeProcesedDark"})


# ---- bad input


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no FITS files"):
        night.organise(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        night.organise(tmp_path / "none")
    with pytest.raises(InputError, match="made of files"):
        night.organise([1])  # type: ignore[list-item]


def test_a_folder_in_which_nothing_fits_gives_an_empty_plan_that_says_why(messy: Folder) -> None:
    plan = night.organise(messy.named("text", "spectrum"))
    assert len(plan) == 0
    assert str(plan).startswith("0 reductions of 0 raw frames; 2 files are left out")


def test_folders_inside_are_looked_into_when_asked(messy: Folder, tmp_path: Path) -> None:
    inner = Folder(tmp_path / "inner")
    inner.path.mkdir()
    inner.add("dark", "dark", 2)
    assert len(night.organise(tmp_path, recursive=True)) == 1
    with pytest.raises(InputError, match=r"no FITS files.*inner \(2 FITS files\)"):
        night.organise(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "top.fits").write_bytes(next(inner.path.iterdir()).read_bytes())
    (note,) = [note for note in night.organise(tmp_path).notes if "not looked into" in note]
    assert note == "not looked into (recursive=True does): inner (2 FITS files)"
    assert not any("not looked into" in note for note in night.organise(tmp_path, recursive=True).notes)
    assert not any("not looked into" in note for note in night.organise(inner.path).notes)
