"""User parameters take the habits of both generations of scripts: pairs in a list, and items of a dict."""

from __future__ import annotations

import copy
import pickle

import pytest

from niripipe import Reduce
from niripipe.errors import ParameterError

SCALE, MASK = "skyCorrect:scale_sky", "addDQ:user_bpm"


def test_pairs_are_appended():
    r = Reduce()
    assert r.uparms == [] == r.uparms
    r.uparms.append((SCALE, False))
    r.uparms.extend([(MASK, "x_bpm.fits")])
    r.uparms += [("addDQ:time", 3.0)]
    assert r.uparms == [(SCALE, False), (MASK, "x_bpm.fits"), ("addDQ:time", 3.0)]
    r.uparms = [(SCALE, True)]
    r.uparms.append((SCALE, False))
    assert dict(r.uparms) == {SCALE: False}


def test_items_are_set():
    r = Reduce()
    r.uparms[SCALE] = False
    r.uparms.update({"addDQ": {"time": 3.0}}, write_outputs=True)
    r.uparms |= {MASK: "x_bpm.fits"}
    assert r.uparms == {SCALE: False, "addDQ:time": 3.0, "write_outputs": True, MASK: "x_bpm.fits"}
    assert r.uparms.setdefault(SCALE, True) is False
    assert SCALE in r.uparms
    assert r.parameters is r.uparms
    r.uparms = {SCALE: True}
    r.uparms["addDQ"] = {"latency": False}
    assert list(r.uparms.items()) == [(SCALE, True), ("addDQ:latency", False)]


def test_paths_are_those_of_the_folder_of_the_moment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x_bpm.fits").touch()
    r = Reduce()
    r.uparms.append((MASK, "x_bpm.fits"))
    assert r.uparms[MASK] == str(tmp_path / "x_bpm.fits")


def test_copies_are_independent():
    r = Reduce(parameters={SCALE: False})
    for twin in (r.uparms.copy(), copy.deepcopy(r.uparms), pickle.loads(pickle.dumps(r.uparms))):  # noqa: S301
        twin[SCALE] = True
        assert r.uparms[SCALE] is False


def test_what_is_no_parameter_is_refused():
    r = Reduce()
    with pytest.raises(ParameterError, match="list of pairs"):
        r.uparms.append(SCALE)
    with pytest.raises(ParameterError, match="primitive:parameter"):
        r.uparms["a:b:c"] = 1
