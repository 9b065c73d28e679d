"""The report of a night: one page that needs nothing else, also from the products alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from astropy.table import Table

from niripipe import Reduce, astrodata, inspection, night
from niripipe.errors import InputError, StorageError
from niripipe.night import JobResult, JobStatus, NightPlan, NightResult
from niripipe.primitives.base import DONE
from niripipe.reduction.product_page import NO_PICTURES, changed_parameters
from niripipe.reduction.report import DroppedFrame
from niripipe.simulate import Night

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br"}
EVIL = "<script>alert('x')</script>\x1b[31m & more"


class Page(HTMLParser):
    """A page taken apart: visible text, links, pictures, and what is not closed properly."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(source)
        self.faults += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        given = dict(attrs)
        if tag == "a":
            self.links.append(given["href"] or "")
        if "src" in given:
            self.images.append(given["src"] or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + "\n"


@pytest.fixture(scope="module")
def page(serial: NightResult) -> Page:
    return Page((serial.output_dir / "night.html").read_text())


def test_a_night_leaves_a_report_and_a_log(serial: NightResult, page: Page) -> None:
    assert page.faults == []
    assert "Night of 2016-01-02" in page.text
    assert "5 of 5 reductions done" in page.text
    log = (serial.output_dir / "night.log").read_text()
    assert "REDUCTION: dark" in log
    assert f"wrote {serial.products('dark')[0]}" in log


def test_the_page_needs_nothing_else(page: Page, serial: NightResult) -> None:
    source = (serial.output_dir / "night.html").read_text()
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert "url(" not in source
    assert "@import" not in source
    assert all(not link.startswith(("http", "/", "file")) for link in page.links)
    assert all((serial.output_dir / unquote(link)).is_file() for link in page.links)


def test_every_product_has_a_picture_a_link_and_its_quality(page: Page, serial: NightResult) -> None:
    assert len(page.images) == len(serial.products())
    assert {Path(path).name for path in serial.products()} <= set(page.links)
    row = inspection.quality_table(serial.products("science"))[0]
    for name, digits in (("fwhm", 3), ("depth", 0), ("sky_level", 1), ("alignment", 3), ("flagged", 2)):
        assert f"{row[name].value:.{digits}f}" in page.text, name


def test_it_says_why_with_what_and_what_differs_from_the_defaults(page: Page, small_plan: NightPlan) -> None:
    flat = small_plan.explain("science", "processed_flat")
    assert flat.chosen is not None
    for job in small_plan:
        for text in (*job.reasons, *(c.reason for c in job.calibrations)):
            assert text.split("\n")[0] in page.text
    assert "skyCorrect" in page.text
    assert "scale_sky" in page.text
    for name in ("niripipe", "numpy", "astropy", "Python"):
        assert name in page.text


def test_parameters_that_differ_are_those_that_were_set(serial: NightResult) -> None:
    found = changed_parameters(astrodata.open(serial.products("science")[0]))
    assert ("skyCorrect", "scale_sky", False, True) in found
    assert all(value != default for _, _, value, default in found)
    assert not [entry for entry in found if entry[0] == "flatCorrect" and entry[1] == "suffix"]


def test_products_alone_give_the_report_again(serial: NightResult, tmp_path: Path) -> None:
    for product in serial.products():
        shutil.copy(product, tmp_path)
    (tmp_path / "foreign.fits").write_bytes(b"not a FITS file")
    stack = astrodata.open(tmp_path / Path(serial.products("science")[0]).name)
    stack.phu["OBJECT"] = EVIL.replace("\x1b[31m", "")
    astrodata.add_history(stack, "prepare", status="WARNING", reason=EVIL)
    stack.DROPPED = Table(
        [["lost.fits"], ["prepare"], ["<b>bold</b> reason"]], names=["IMAGE", "STEP", "REASON"]
    )
    stack.write(overwrite=True)
    path = night.report_html(tmp_path)
    assert path == tmp_path / "night.html"
    found = Page(path.read_text())
    assert found.faults == []
    assert not found.tags & {"script", "b"}
    assert EVIL.replace("\x1b", "\\x1b") in found.text
    assert "lost.fits (prepare): <b>bold</b> reason" in found.text
    assert "1 frame left out, " in found.text
    assert "foreign.fits: " in found.text
    assert len(found.images) == len(serial.products())
    assert "dark: N20160102S0423_dark.fits" in found.text
    assert night.report_html(tmp_path, tmp_path / "again.html").is_file()
    with pytest.raises(InputError, match="no product of niripipe"):
        night.report_html(tmp_path / "empty")
    with pytest.raises(StorageError):
        night.report_html(tmp_path, tmp_path)


def test_what_failed_and_what_was_left_out_is_on_the_page(serial: NightResult, tmp_path: Path) -> None:
    report = serial["standard"].report
    assert report is not None
    lossy = replace(
        report, dropped=[DroppedFrame("gone.fits", "prepare", "no <usable> pixel")], warnings=[EVIL]
    )
    results = (
        replace(serial["standard"], report=lossy, notes=("a note",)),
        JobResult("flat K", "flat", JobStatus.FAILED, f"it failed: {EVIL}"),
        JobResult("science K", "science", JobStatus.SKIPPED, "processed_flat is missing"),
        replace(serial["dark"], outputs=(str(tmp_path / "vanished.fits"),)),
    )
    path = replace(serial, results=results).to_html(tmp_path / "x.html")
    found = Page(path.read_text())
    assert found.faults == []
    assert "script" not in found.tags
    for text in (
        "gone.fits (prepare): no <usable> pixel",
        "flat K: failed",
        "a note",
        "2 of 4 reductions done",
        "processed_flat is missing",
        "vanished.fits",
        "\\x1b[31m",
    ):
        assert text in found.text


def test_a_single_reduction_has_a_page_too(small_night: Night, tmp_path: Path) -> None:
    reduction = Reduce(small_night.darks, output_dir=tmp_path / "products")
    reduction.runr()
    assert reduction.report is not None
    reduction.report.steps[0].outcomes[EVIL] = DONE
    path = reduction.report.to_html(tmp_path / "dark.html")
    found = Page(path.read_text())
    assert found.faults == []
    assert "4 of 4 frames used" in found.text
    assert set(found.links) == {f"products/{Path(reduction.output_filenames[0]).name}"}
    assert len(found.images) == 1


def test_pictures_and_report_can_be_chosen(small_plan: NightPlan, tmp_path: Path) -> None:
    few = NightPlan(tuple(job for job in small_plan if job.kind == "dark"))
    few.run(tmp_path / "a", report=False, log=False)
    assert sorted(p.suffix for p in (tmp_path / "a").iterdir()) == [".db", ".fits", ".json"]
    result = few.run(tmp_path / "b", png=True)
    assert Path(result.products()[0]).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "b" / "night.html").is_file()


def test_a_report_that_cannot_be_written_does_not_stop_the_night(
    small_plan: NightPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "night.html").mkdir()
    few = NightPlan(tuple(job for job in small_plan if job.kind == "dark"))
    assert few.run(tmp_path).ok
    assert any("the report of the night is not complete" in text for text in caplog.messages)


def test_without_matplotlib_there_are_no_pictures_and_it_is_said(serial: NightResult, tmp_path: Path) -> None:
    shutil.copy(serial.products("dark")[0], tmp_path)
    code = f"""
import sys
sys.modules["matplotlib"] = None
from niripipe.night import report_html
report_html({str(tmp_path)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    found = Page((tmp_path / "night.html").read_text())
    assert found.images == []
    assert NO_PICTURES in found.text


# ---- in a browser


@pytest.fixture(scope="module")
def browser() -> str:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    return CHROMIUM


def opened(browser: str, page: Path, *options: str) -> str:
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={page.parent / 'profile'}", *options, page.as_uri()]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.fixture
def measured(serial: NightResult, tmp_path: Path) -> Path:
    """The report with a script that notes what a browser makes of it."""
    source = (serial.output_dir / "night.html").read_text()
    script = """<script>
const root = document.documentElement, style = getComputedStyle(document.body);
const broken = [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length;
document.title = [innerWidth, root.scrollWidth, broken, style.backgroundColor, style.color].join("|");
</script>"""
    path = tmp_path / "page.html"
    path.write_text(source.replace("</body>", script + "</body>"))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_wide_screen_and_a_phone(browser: str, measured: Path, scheme: str) -> None:
    shades = {}
    for width in (1400, 390):
        setting = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
        dom = opened(browser, measured, f"--window-size={width},900", setting, "--dump-dom")
        found = re.search(r"<title>(\d+)\|(\d+)\|(\d+)\|([^|]+)\|([^<]+)</title>", dom)
        assert found is not None
        inner, content, broken = map(int, found.groups()[:3])
        assert content <= inner
        assert broken == 0
        paper, ink = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in found.groups()[3:])
        shades[width] = paper - ink
    assert all((shade > 300) == (scheme == "light") for shade in shades.values())
    assert measured.stat().st_size < 2_000_000
