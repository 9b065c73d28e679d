"""A messy folder of raw frames, of which only the headers matter, and a small night that can be reduced."""

from __future__ import annotations

import gzip
import os
import signal
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from niripipe import astrodata, night, simulate
from niripipe.night import NightPlan, NightResult
from niripipe.simulate import Effects, Night


def same_pixels(ours: str, theirs: str) -> bool:
    """Whether all planes of two products are equal bit for bit."""
    a, b = astrodata.open(ours)[0], astrodata.open(theirs)[0]
    planes = [(getattr(a, name), getattr(b, name)) for name in ("data", "variance", "mask")]
    return all((x is None and y is None) or x.tobytes() == y.tobytes() for x, y in planes)


def same_products(ours: NightResult, theirs: NightResult) -> bool:
    """Whether two runs made the same files with the same pixels."""
    names = [[Path(path).name for path in result.products()] for result in (ours, theirs)]
    return names[0] == names[1] and all(map(same_pixels, ours.products(), theirs.products()))


def hidden(folder: Path) -> list[str]:
    """Unfinished and private files in a folder of products."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


KILLER = """
import os, signal
from pathlib import Path

from niripipe.astrodata.fits_write import atomic_file


def half_written(p):
    \"\"\"Die in the middle of writing.\"\"\"
    p.prepare()
    if os.getpid() == {pid}:
        return  # a plan follows the recipe here
    with atomic_file(Path(p.context.output_dir) / "half.fits") as file:
        file.write(b"SIMPLE  =")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="session")
def killer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe that kills the process that runs it, with a file half written."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("processes cannot be killed here")
    path = tmp_path_factory.mktemp("recipe") / "killer.py"
    path.write_text(KILLER.format(pid=os.getpid()))
    return f"{path}.half_written"


@dataclass
class Folder:
    """A folder that raw frames are put into; `files` holds them by label."""

    path: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    number: int = 0

    def add(
        self,
        label: str,
        kind: str,
        count: int,
        *,
        hour: float = 8.0,
        day: date = date(2016, 1, 2),
        offset: float = 0.0,
        keywords: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Write dithered frames two minutes apart, numbered on."""
        on_sky = kind in ("target", "sky", "std")
        for k in range(count):
            self.number += 1
            start = datetime.combine(day, time()) + timedelta(hours=hour, minutes=2 * k)
            frame = simulate.raw_frame(
                kind=kind,  # type: ignore[arg-type]
                number=self.number,
                date=start.date(),
                ut=start.time(),
                p=3.0 * (k % 3) if on_sky else 0.0,
                q=offset + 3.0 * (k % 2) if on_sky else 0.0,
                size=256,
                effects=Effects.none(),
                keywords=keywords,
                **options,
            )
            path = str(simulate.write_frame(frame, self.path))
            self.files.setdefault(label, []).append(path)

    def named(self, *labels: str) -> list[str]:
        """Return the files of some labels."""
        return [path for label in labels for path in self.files[label]]


@pytest.fixture(scope="session")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Three filters, five kinds of darks, and most of what can be wrong with a file."""
    folder = Folder(tmp_path_factory.mktemp("messy"))
    add = folder.add
    h, k, j = ({"OBSID": f"GN-2016A-Q-1-{n}"} for n in (1, 2, 3))
    add("h target", "target", 3, keywords=h)
    add("h sky", "sky", 2, hour=8.2, offset=300, keywords=h)
    add("h short", "target", 3, hour=8.4, exposure=7.001, keywords=h)
    add("k 1x60", "target", 4, hour=9, filter="K", exposure=60.001, keywords=k)
    add("k 2x30", "target", 4, hour=9.3, filter="K", exposure=30.001, coadds=2, keywords=k)
    add("j", "target", 3, hour=10, filter="J", keywords=j)
    add("standard", "std", 4, hour=11, exposure=2.001, coadds=5)
    add("h on", "flat_on", 3, hour=18, exposure=42.001)
    add("h off", "flat_off", 3, hour=18.2, exposure=42.001)
    add("k on", "flat_on", 2, hour=18.4, exposure=10.001, filter="K")
    add("j off", "flat_off", 2, hour=18.6, exposure=10.001, filter="J")
    add("dark 20", "dark", 3, hour=19)
    add("dark 1x60", "dark", 3, hour=19.2, exposure=60.001)
    add("dark 2x30", "dark", 3, hour=19.4, exposure=30.001, coadds=2)
    add("dark low", "dark", 3, hour=19.6, read_mode="Low Background")
    add("dark lone", "dark", 1, hour=19.8, exposure=5.001)
    add("dark short", "short_dark", 3, hour=20, day=date(2016, 1, 3), exposure=1.001)
    add("acquisition", "target", 1, hour=7.5, keywords={"OBSCLASS": "acq"})
    add("spectrum", "target", 1, hour=7.6, keywords={"FILTER3": "Kgrism_G5228"})
    add("failed", "target", 1, hour=8.1, keywords=h | {"RAWGEMQA": "BAD", "RAWPIREQ": "NO"})
    add("foreign", "target", 1, hour=7.7, keywords={"INSTRUME": "GMOS-N"})
    add("twilight", "target", 1, hour=5, keywords={"OBJECT": "Twilight"})
    add("mute", "dark", 1, hour=21, keywords={"LNRS": 5})
    for label, name, content in (
        ("text", "notes.fits", b"not a FITS file"),
        ("truncated", "N20160102S0900.fits", Path(folder.files["h target"][0]).read_bytes()[:20000]),
        ("twin", f"{Path(folder.files['h on'][0]).name}.gz", gzip.compress(b"never looked at")),
    ):
        (folder.path / name).write_bytes(content)
        folder.files[label] = [str(folder.path / name)]
    (folder.path / "README.txt").write_text("no frame")
    return folder


@pytest.fixture(scope="session")
def small_night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """The tutorial's night in 256 x 256 pixels and with fewer calibration frames."""
    return simulate.night(
        tmp_path_factory.mktemp("night"), seed=11, size=256, n_flat=4, n_dark=4, n_short_dark=4, n_standard=4
    )


@pytest.fixture(scope="session")
def small_plan(small_night: Night) -> NightPlan:
    """Its plan."""
    return night.organise(small_night.folder)


@pytest.fixture(scope="session")
def serial(small_plan: NightPlan, tmp_path_factory: pytest.TempPathFactory) -> NightResult:
    """The result of running the plan in this process; not to be changed."""
    return small_plan.run(tmp_path_factory.mktemp("serial"))
