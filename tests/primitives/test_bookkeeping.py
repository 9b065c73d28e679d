"""Bookkeeping: frames are picked, sorted, moved and written, and no pixel changes."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from niripipe import astrodata
from niripipe.errors import InputError, ParameterError, StorageError

from .. import frames as make


@pytest.fixture
def mixed():
    return [
        make.frame(1.0, kind="lamp_on", number=1),
        make.frame(2.0, kind="lamp_off", number=2),
        make.frame(3.0, kind="dark", number=3),
        make.frame(4.0, number=4),
    ]


def numbers(frames):
    return [int(ad.orig_filename[10:14]) for ad in frames]


def three(**cards):
    return [make.frame(float(i), number=i, UT=f"08:0{4 - i}:00.0", **cards) for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ("DARK", [3]),
        ("FLAT", [1, 2]),
        ("DARK, LAMPON", [1, 3]),
        (["DARK"], [3]),
        (None, [1, 2, 3, 4]),
        ("GMOS", []),
    ],
)
def test_frames_are_kept_or_dropped_by_any_of_the_tags(mixed, tags, kept):
    b = make.bench(mixed)
    b.p.selectFromInputs(tags=tags, outstream="chosen")
    assert numbers(b.p.streams["chosen"]) == kept
    b.p.removeFromInputs(tags=tags)
    assert numbers(b.main) == ([1, 2, 3, 4] if tags is None else [i for i in (1, 2, 3, 4) if i not in kept])


def test_frames_are_dropped_from_the_ends(mixed):
    b = make.bench(mixed)
    b.p.rejectInputs(at_start=1, at_end=2)
    assert numbers(b.main) == [2]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (4, 0), (0, 4), (3, 3), (0, 9), (9, 9)])
def test_dropping_more_than_there_are_leaves_none(mixed, start, end):
    b = make.bench(mixed)
    b.p.rejectInputs(at_start=start, at_end=end)
    assert len(b.main) == max(0, 4 - start - end)


def test_the_frame_taken_first_is_dropped_whatever_its_place_in_the_list():
    b = make.bench(three())
    b.p.removeFirstFrame()
    assert numbers(b.main) == [1, 2]


def test_an_only_frame_is_kept_and_the_history_says_so():
    b = make.bench(three()[:1])
    b.p.removeFirstFrame()
    assert len(b.main) == 1
    assert b.main[0].history[-1].reason == "the only frame"


@pytest.mark.parametrize("name", ["N20160102S0002", "N20160102S0002.fits", "N20160102S0002_prepared.fits"])
def test_frames_can_be_dropped_by_name(name):
    b = make.prepared(three())
    b.p.removeFirstFrame(remove_first=False, remove_files=name)
    assert numbers(b.main) == [1, 3]


def test_without_a_time_the_first_frame_is_not_guessed():
    b = make.bench([make.frame(number=1), make.frame(filename="nameless.fits", UT=None, DATE_OBS=None)])
    with pytest.raises(InputError, match=r"nameless.*remove_first=False"):
        b.p.removeFirstFrame()
    b.p.removeFirstFrame(remove_first=False)
    assert len(b.main) == 2


def test_frames_are_sorted_by_a_descriptor_with_unknown_values_last():
    b = make.bench([*three(), make.frame(number=4, AIRMASS=None)])
    b.main[0].phu["AIRMASS"], b.main[1].phu["AIRMASS"], b.main[2].phu["AIRMASS"] = 1.5, 1.1, 1.3
    b.p.sortInputs(descriptor="airmass")
    assert numbers(b.main) == [2, 3, 1, 4]
    b.p.sortInputs(descriptor="airmass", reverse=True)
    assert numbers(b.main) == [1, 3, 2, 4]
    b.p.sortInputs(descriptor="ut_datetime")
    assert numbers(b.main)[-2:] == [4, 1] or numbers(b.main)[0] == 4


def test_sorting_by_something_unknown_is_refused():
    with pytest.raises(ParameterError, match="airmas"):
        make.bench(three()).p.sortInputs(descriptor="airmas")


def test_streams_are_emptied_copied_and_appended():
    b = make.bench(three())
    b.p.copyInputs(outstream="other")
    b.p.appendStream(from_stream="other", copy=True)
    assert numbers(b.main) == [1, 2, 3, 1, 2, 3]
    b.main[3][0].data[:] = 9
    assert b.p.streams["other"][0][0].data[0, 0] == 1
    b.p.clearStream(stream="other")
    assert b.p.streams["other"] == []
    b.p.copyInputs(outstream="again")
    b.p.clearAllStreams()
    assert b.p.streams["again"] == []
    assert len(b.main) == 6
    b.p.clearStream()
    assert b.main == []


def test_appending_a_stream_that_does_not_exist_changes_nothing():
    b = make.bench(three())
    b.p.appendStream(from_stream="absent")
    assert numbers(b.main) == [1, 2, 3]


def test_merged_frames_keep_all_extensions_in_order_and_the_name_of_the_first():
    inputs = three()
    for i, ad in enumerate(inputs):
        ad[0].mask = np.full(make.SHAPE, i, np.uint16)
        ad[0].hdr["WHICH"] = i
    b = make.bench(inputs)
    name = b.main[0].filename
    b.p.copyInputs(outstream="other")
    b.p.mergeInputs()
    (merged,) = b.main
    assert merged.filename == name
    assert [ext.hdr["WHICH"] for ext in merged] == [0, 1, 2]
    assert [ext.mask[0, 0] for ext in merged] == [0, 1, 2]
    assert [ext.data[0, 0] for ext in merged] == [1, 2, 3]
    merged[1].data[:] = 9
    assert b.p.streams["other"][1][0].data[0, 0] == 2
    assert [len(ad) for ad in b.p.streams["other"]] == [1, 1, 1]


def test_a_single_frame_is_merged_into_itself():
    b = make.bench(three()[:1])
    frame = b.main[0]
    b.p.mergeInputs()
    assert b.main == [frame]


@pytest.mark.parametrize("attribute", ["mask", "variance", "OBJMASK", "OBJCAT", "SKYTABLE"])
def test_planes_and_tables_are_copied_from_another_stream(attribute):
    b = make.bench(three())
    b.p.copyInputs(outstream="other")
    for i, ad in enumerate(b.p.streams["other"]):
        plane = np.full(make.SHAPE, i + 1)
        value = Table({"N": [i + 1]}) if attribute in ("OBJCAT", "SKYTABLE") else plane
        kinds = {"mask": np.uint16, "variance": np.float32, "OBJMASK": np.uint8}
        setattr(
            ad if attribute == "SKYTABLE" else ad[0],
            attribute,
            value.astype(kinds[attribute]) if attribute in kinds else value,
        )
    b.p.transferAttribute(source="other", attribute=attribute)
    for i, ad in enumerate(b.main):
        found = getattr(ad if attribute == "SKYTABLE" else ad[0], attribute)
        first = found["N"][0] if isinstance(found, Table) else found[0, 0]
        assert first == i + 1
    # what was copied is independent
    if attribute == "mask":
        b.main[0][0].mask[:] = 77
        assert b.p.streams["other"][0][0].mask[0, 0] == 1


def test_one_source_frame_serves_all_and_other_lengths_are_refused():
    b = make.bench(three())
    b.p.copyInputs(outstream="other")
    b.p.streams["other"][0][0].mask = np.ones(make.SHAPE, np.uint16)
    with pytest.raises(ParameterError):
        b.p.transferAttribute(source="absent", attribute="mask")
    b.p.rejectInputs(stream="other", at_end=1)
    with pytest.raises(ParameterError, match=r"2 frames.*expected: 1 or 3"):
        b.p.transferAttribute(source="other", attribute="mask")
    b.p.rejectInputs(stream="other", at_end=1)
    b.p.transferAttribute(source="other", attribute="mask")
    assert all((ad[0].mask == 1).all() for ad in b.main)


@pytest.mark.parametrize("attribute", ["OBJCAT", "nonsense", None])
def test_an_attribute_that_the_source_does_not_have_is_refused(attribute):
    b = make.bench(three())
    b.p.copyInputs(outstream="other")
    with pytest.raises(ParameterError, match="no such attribute"):
        b.p.transferAttribute(source="other", attribute=attribute)


def test_frames_are_written_under_the_names_asked_for(tmp_path):
    b = make.bench(three()[:1], folder=tmp_path)
    b.p.writeOutputs()
    b.p.writeOutputs(outfilename="mine.fits")
    b.p.writeOutputs(prefix="q", suffix="_now")
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {make.name(1), "mine.fits", "qN20160102S0001_now.fits"}
    assert astrodata.open(tmp_path / "mine.fits")[0].data[0, 0] == 1


def test_one_name_for_several_frames_and_forbidden_replacement_are_refused(tmp_path):
    b = make.bench(three(), folder=tmp_path)
    with pytest.raises(ParameterError, match="several frames"):
        b.p.writeOutputs(outfilename="mine.fits")
    b.p.writeOutputs()
    with pytest.raises(StorageError, match=make.name(1)):
        b.p.writeOutputs(overwrite=False)
