"""Lists that outlive a reduction: frames arrive one at a time and are reduced together."""

from __future__ import annotations

import json
import threading

import pytest

from niripipe import astrodata
from niripipe.errors import ParameterError
from niripipe.primitives.lists import LIST_FILE

from .. import frames as make


def arrive(folder, number, *, purpose="forSky", get=None, **cards):
    """Reduce one new frame: put it on the list, get the list."""
    b = make.bench([make.frame(float(number), number=number, **cards)], folder=folder, mode="qa")
    b.p.addToList(purpose=purpose)
    b.p.getList(purpose=purpose, **(get or {}))
    return b


def numbers(b):
    return [int(ad.orig_filename[10:14]) for ad in b.main]


def entries(folder):
    return [json.loads(line) for line in (folder / LIST_FILE).read_text().splitlines()]


def test_frames_gather_as_they_arrive(tmp_path):
    assert numbers(arrive(tmp_path, 1)) == [1]
    assert numbers(arrive(tmp_path, 2)) == [1, 2]
    b = arrive(tmp_path, 3)
    assert numbers(b) == [1, 2, 3]
    assert [float(ad[0].data[0, 0]) for ad in b.main] == [1.0, 2.0, 3.0]
    assert b.main[0].filename == "N20160102S0001_forSky.fits"
    assert (tmp_path / "N20160102S0003_forSky.fits").is_file()


def test_the_list_is_text_that_says_what_is_on_it(tmp_path):
    arrive(tmp_path, 1)
    (entry,) = entries(tmp_path)
    assert entry["purpose"] == "forSky"
    assert entry["original"] == "N20160102S0001.fits"
    assert entry["file"] == "N20160102S0001_forSky.fits"
    assert "GN-2016A-Q-1-5" in entry["group"]


def test_the_frame_at_hand_is_kept_and_not_read_again(tmp_path):
    frame = make.frame(1.0, number=1)
    b = make.bench([frame], folder=tmp_path)
    b.p.addToList(purpose="forSky")
    b.p.getList(purpose="forSky")
    assert b.main[0] is frame


def test_a_frame_that_comes_twice_is_on_the_list_once_in_its_place(tmp_path):
    for number in (1, 2, 1, 3):
        b = arrive(tmp_path, number)
    assert numbers(b) == [1, 2, 3]


def test_other_groups_and_purposes_stay_apart(tmp_path):
    arrive(tmp_path, 1)
    arrive(tmp_path, 2, FILTER2="J_G0202")
    arrive(tmp_path, 3, OBSID="GN-2016A-Q-1-6")
    arrive(tmp_path, 4, purpose="forStack")
    assert numbers(arrive(tmp_path, 5)) == [1, 5]


def test_only_the_latest_are_wanted(tmp_path):
    for number in (1, 2, 3):
        arrive(tmp_path, number)
    assert numbers(arrive(tmp_path, 4, get={"max_frames": 2})) == [3, 4]


def test_lists_of_other_folders_do_not_join(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    arrive(tmp_path / "a", 1)
    assert numbers(arrive(tmp_path / "b", 2)) == [2]


def test_what_has_gone_or_changed_is_left_out_and_told(tmp_path, caplog):
    for number in (1, 2, 3, 4):
        arrive(tmp_path, number)
    (tmp_path / "N20160102S0001_forSky.fits").unlink()
    (tmp_path / "N20160102S0002_forSky.fits").write_bytes(b"not FITS")
    stranger = make.frame(9.0, number=3, FILTER2="J_G0202")
    stranger.write(tmp_path / "N20160102S0003_forSky.fits", overwrite=True)
    assert numbers(arrive(tmp_path, 5)) == [4, 5]
    assert "N20160102S0001_forSky.fits is on the list forSky but cannot be used" in caplog.text
    assert "N20160102S0003_forSky.fits is on the list forSky but has become another frame" in caplog.text


def test_a_damaged_line_costs_itself_only(tmp_path, caplog):
    arrive(tmp_path, 1)
    hostile = json.dumps(entries(tmp_path)[0] | {"file": "../../etc/passwd", "original": "x.fits"})
    with (tmp_path / LIST_FILE).open("a") as file:
        file.write('{"purpose": "forS\n[1, 2]\n' + hostile + "\n")
    assert numbers(arrive(tmp_path, 2)) == [1, 2]
    assert caplog.text.count("is damaged and passed over") == 3


def test_many_may_add_at_the_same_time(tmp_path):
    def add(number):
        b = make.bench([make.frame(1.0, number=number)], folder=tmp_path)
        b.p.addToList(purpose="forSky")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["original"][10:14] for entry in entries(tmp_path)) == [
        f"{n:04d}" for n in range(1, 13)
    ]


def test_without_a_purpose_there_is_a_list_too(tmp_path):
    b = make.bench([make.frame(1.0)], folder=tmp_path)
    b.p.addToList()
    b.p.getList()
    assert (tmp_path / "N20160102S0001_list.fits").is_file()


@pytest.mark.parametrize("purpose", ["../up", "a b", "for_sky"])
def test_a_purpose_that_is_no_part_of_a_file_name_is_refused(tmp_path, purpose):
    with pytest.raises(ParameterError, match="part of a file name"):
        arrive(tmp_path, 1, purpose=purpose)
    assert list(tmp_path.iterdir()) == []


def test_what_was_done_to_a_frame_before_is_in_it_when_it_comes_back(tmp_path):
    b = make.prepared([make.frame(1.0, number=1)], folder=tmp_path)
    b.p.ADUToElectrons()
    b.p.addToList(purpose="forSky")
    back = arrive(tmp_path, 2).main[0]
    assert [step.primitive for step in back.history][:3] == ["prepare", "ADUToElectrons", "addToList"]
    assert float(back[0].data[0, 0]) == pytest.approx(12.3)
    assert astrodata.open(tmp_path / "N20160102S0001_forSky.fits")[0].hdr["BUNIT"] == "electron"


def test_the_lists_can_be_shown(tmp_path, caplog):
    for number in (1, 2):
        arrive(tmp_path, number)
    b = arrive(tmp_path, 3, purpose="forStack")
    caplog.clear()
    caplog.set_level("INFO", "niripipe")
    b.p.showList()
    assert caplog.text.count("forSky: N2016") == 2
    assert "forStack: N20160102S0003_forStack.fits" in caplog.text
    caplog.clear()
    b.p.showList(purpose="forStack")
    assert "forSky:" not in caplog.text


def written(path, level, **cards):
    return make.write(path, make.noise(int(level), 1.0, level), **cards)


def listed(folder, path):
    b = make.bench([astrodata.open(path)], folder=folder, mode="qa")
    b.p.prepare()
    b.p.addToList(purpose="forSky")
    b.p.getList(purpose="forSky")
    return b


def test_two_frames_of_one_name_are_two_on_a_list(tmp_path, caplog):
    first = written(tmp_path / "a" / "obj.fits", 1.0)
    second = written(tmp_path / "b" / "obj.fits", 2.0, UT="09:00:00.0", DATALAB="GN-2016A-Q-1-5-002")
    out = tmp_path / "out"
    out.mkdir()
    listed(out, first)
    b = listed(out, second)
    assert [round(float(ad[0].data.mean())) for ad in b.main] == [1, 2]
    assert sorted(path.name for path in out.glob("*.fits")) == ["obj_forSky-2.fits", "obj_forSky.fits"]
    assert "another frame than one on the list" in caplog.text


def test_a_copy_under_another_name_is_on_a_list_once(tmp_path):
    path = written(tmp_path / "obj.fits", 1.0)
    copy = tmp_path / "obj (1).fits"
    copy.write_bytes(path.read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    listed(out, path)
    assert len(listed(out, copy).main) == 1
    assert len(listed(out, path).main) == 1
