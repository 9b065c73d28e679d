"""What surrounds a reduction: hosts with handlers, loops and closed streams, few threads, odd characters."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import threading
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import Reduce, astrodata, dataselect, night
from niripipe.algorithms import parallel
from niripipe.algorithms.parallel import map_items, startable_threads
from niripipe.errors import InputError, NiripipeError
from niripipe.inspection import showd
from niripipe.logutils import get_logger
from niripipe.printable import printable

from .. import frames as make
from .spoil import frames, reduce

RED, OVER = "\x1b[31m", "‮"


# ---- characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{RED}red", r"\x1b[31mred"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        (f"a{OVER}b", r"a\u202eb"),
        ("\x9b31m", r"\x9b31m"),
        ("\udcff", r"\udcff"),
        ("étoile 星 α Ori", "étoile 星 α Ori"),
    ],
)
def test_what_controls_a_terminal_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(f"{text}\n", lines=True).endswith("\n")


def test_escapes_of_headers_and_names_reach_no_output(tmp_path, capsys):
    folder = tmp_path / "raw"
    paths = make.sequence(folder, [100.0, 110.0, 120.0])
    for path in paths:
        content = path.read_bytes()
        new = content.replace(b"'target  '", b"'" + RED.encode() + b"xx '").replace(b"H_G0203", b"H\x1b[1m23")
        assert new != content
        path.write_bytes(new)
    with fits.open(paths[0]) as hdus:
        # Headers that astropy read, as those of compressed images are.
        read = astrodata.open(hdus)
        assert "\x1b" not in repr(read.phu["OBJECT"])
    astrodata.open(paths[0]).info()
    shown = [capsys.readouterr().out, str(night.organise(folder)), str(showd(paths, "object, filter_name"))]
    r = Reduce(paths, mode="ql", output_dir=tmp_path / "out")
    try:
        shown.append(str(r.plan()))
        r.runr()
        shown += [str(r.report), r.report._repr_html_()]
    except NiripipeError as error:
        shown.append(str(error))
    odd = folder / f"{RED}a.fits"
    paths[0].rename(odd)
    with pytest.raises(NiripipeError) as caught:
        Reduce([odd], output_dir=tmp_path / "out").runr()
    shown += [str(caught.value), str(night.organise(folder)), str(InputError("no", found=f"{RED}a\nb"))]
    with pytest.raises(NiripipeError) as caught:
        dataselect.select_data([f"{RED}missing.fits"], [], [])
    shown.append(str(caught.value))
    for text in shown:
        assert "\x1b" not in text
    assert r"\x1b[31ma" in "".join(shown)


def test_log_lines_hold_no_escapes(tmp_path):
    from niripipe import logutils

    logutils.config(mode="quiet", file_name=tmp_path / "x.log")
    try:
        get_logger("niripipe.tests").warning("file %s is odd", f"{RED}a{OVER}")
    finally:
        logutils.reset()
    text = (tmp_path / "x.log").read_text()
    assert "\x1b" not in text
    assert r"\x1b[31ma\u202e" in text


# ---- warning filters


def test_filters_of_warnings_are_changed_by_one_thread_at_a_time(tmp_path, monkeypatch):
    unguarded: set[str] = set()
    enter = warnings.catch_warnings.__enter__

    def watched(self):
        calls = traceback.extract_stack()
        own = [c for c in calls if f"{Path('niripipe')}/" in c.filename and "quiet.py" not in c.filename]
        importing = any("importlib._bootstrap" in c.filename for c in calls)
        if own and not importing and not is_guarded():
            unguarded.add(f"{own[-1].filename}:{own[-1].lineno}")
        return enter(self)

    def is_guarded() -> bool:
        """Whether another thread has to wait for the filters now."""
        from niripipe.astrodata import quiet

        got = []
        other = threading.Thread(target=lambda: got.append(quiet._filters.acquire(blocking=False)))
        other.start()
        other.join()
        if got[0]:
            release = threading.Thread(target=lambda: None)
            release.start()
            release.join()
            monkeypatch.setattr(quiet, "_filters", threading.RLock())
        return not got[0]

    raws = frames()
    monkeypatch.setattr(warnings.catch_warnings, "__enter__", watched)
    outcome = reduce([raw.to_bytes() for raw in raws], [raw.name for raw in raws], tmp_path)
    assert outcome.error == ""
    product = astrodata.open(next((tmp_path / "out").iterdir()))
    assert product.SKYTABLE is not None if "SKYTABLE" in product.tables else True
    product.write(tmp_path / "copy.fits")
    assert unguarded == set()


def test_filters_of_the_host_stay_after_reductions_in_threads(tmp_path):
    paths = make.sequence(tmp_path / "raw", [3.0, 4.0, 5.0], kind="dark", first=20)
    before = list(warnings.filters)

    def work(number: int) -> None:
        for _ in range(3):
            Reduce(paths, output_dir=tmp_path / str(number), threads=1).runr()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert list(warnings.filters) == before


# ---- threads


class _Refused(threading.Thread):
    allowed = 0

    def start(self) -> None:
        if type(self).allowed <= 0:
            raise RuntimeError("can't start new thread")
        type(self).allowed -= 1
        super().start()


@pytest.mark.parametrize("allowed", [0, 1])
def test_work_is_done_where_no_thread_can_be_started(monkeypatch, allowed):
    visits = np.zeros(40, int)

    def visit(k: int) -> int:
        visits[k] += 1
        return k * k

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", _Refused)
        patch.setattr(_Refused, "allowed", allowed)
        assert map_items(visit, range(40), threads=4) == [k * k for k in range(40)]
        patch.setattr(_Refused, "allowed", allowed)
        assert startable_threads(4) == 1 + allowed
    assert (visits == 1).all()
    assert startable_threads(3) == 3


def test_a_reduction_without_threads_says_so_and_gives_the_same(tmp_path, monkeypatch, caplog):
    paths = make.sequence(tmp_path / "raw", [3.0, 4.0, 5.0], kind="dark", first=20)
    products = []
    for allowed in (9, 0):
        with monkeypatch.context() as patch:
            patch.setattr(parallel.threading, "Thread", _Refused)
            patch.setattr(_Refused, "allowed", allowed)
            r = Reduce(paths, output_dir=tmp_path / str(allowed), threads=3)
            r.runr()
        products.append(r.outputs[0][0].data.tobytes())
    assert products[0] == products[1]
    assert "1 of 3 threads" in caplog.text


# ---- hosts

HOST = """
    import asyncio, gc, os, signal, sys, threading, time
    from pathlib import Path
    from niripipe import Reduce

    darks, out = sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2])
    started = threading.active_count()

    def run(name):
        r = Reduce(darks, output_dir=out / name, threads=2)
        r.runr()
        return r.outputs[0][0].data.tobytes()

    handler = lambda *_: None
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    expected = run("handlers")
    assert signal.getsignal(signal.SIGTERM) is handler and signal.getsignal(signal.SIGINT) is handler

    async def main():
        loop = asyncio.get_running_loop()
        return [run("loop"), await loop.run_in_executor(None, run, "executor")]

    assert asyncio.run(main()) == [expected] * 2
    out.joinpath("asyncio").touch()

    # Reductions cut short anywhere, as by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = 0
    for k in range(20):
        timer = threading.Timer(0.0005 * k, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            run("interrupted")
            timer.join()
            time.sleep(0.002)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
    assert interrupted > 0
    assert run("interrupted") == expected
    left = [p.name for p in (out / "interrupted").iterdir()]
    assert left == ["N20160102S0020_dark.fits"], left

    files = lambda: len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    size = lambda: int(open("/proc/self/statm").read().split()[1]) if os.path.isdir("/proc/self") else 0
    for k in range(60):
        assert run("many") == expected
        if k == 20:
            gc.collect()
            before = files(), threading.active_count(), size()
    gc.collect()
    after = files(), threading.active_count(), size()
    assert after[:2] == before[:2], (before, after)
    # Pages of 4 kB: 8 MB.
    assert after[2] - before[2] < 2000, (before, after)

    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    sys.stdin = sys.stdout = sys.stderr = None
    assert run("closed") == expected
    out.joinpath("done").touch()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_host_keeps_its_handlers_streams_and_memory(darks, tmp_path):
    import subprocess

    package = Path(importlib.util.find_spec("niripipe").origin).parents[1]
    out = tmp_path / "out"
    out.mkdir()
    ran = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(HOST), darks[0].parent, out],
        capture_output=True, text=True, check=False, timeout=600,
        env={"PYTHONPATH": str(package), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (out / "done").exists(), ran.stderr
