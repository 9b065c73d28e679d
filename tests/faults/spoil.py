"""Raw frames with one card spoilt, reduced from files to a stack, and what came of it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np

from niripipe import Reduce, astrodata
from niripipe.astrodata.headers import WatchedHeader
from niripipe.errors import NiripipeError
from niripipe.simulate import Effects, raw_frame
from niripipe.simulate.frames import RawFrame

SIZE = 256
OFFSETS = ((0, 0), (3, 2), (-3, 3), (-2, -3))
SPOILT = 2
"""Position of the frame that is spoilt where only one is."""
STRUCTURE = {"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "EXTEND", "PCOUNT", "GCOUNT", "XTENSION"}
"""Keywords that say how the file is laid out: tests/astrodata/test_fits_read.py spoils these."""


def frames() -> list[RawFrame]:
    random = np.random.default_rng(3)
    x, y = random.uniform(40, SIZE - 40, (2, 12))
    stars = list(zip(x.tolist(), y.tolist(), np.geomspace(3000, 60000, 12).tolist(), strict=True))
    effects = Effects.none(photon_noise=True, read_noise=True)
    return [
        raw_frame(number=270 + i, ut=time(11, 36 + i), p=p, q=q, size=SIZE, stars=stars, effects=effects)
        for i, (p, q) in enumerate(OFFSETS)
    ]


def recipe(p: Any) -> None:
    """A reduction without calibrations, as short as one to a stack can be."""
    p.prepare()
    p.addDQ()
    p.ADUToElectrons()
    p.addVAR(read_noise=True, poisson_noise=True)
    p.nonlinearityCorrect()
    p.separateSky()
    p.associateSky()
    p.skyCorrect()
    p.detectSources(catalogue="positions")
    p.adjustWCSToReference()
    p.resampleToCommonFrame()
    p.stackFrames()
    p.storeProcessedScience(suffix="_image")


def spoil(content: bytes, keyword: str, text: str | None) -> bytes:
    """Put text into the value field of all cards of a keyword, or take the cards out (None)."""
    card = f"{keyword:<8}= {text or '':>20}"[:80].ljust(80).encode()
    new = b" " * 80 if text is None else card
    found = [
        m.start() for m in re.finditer(f"{keyword:<8}= ".encode(), content[:40000]) if m.start() % 80 == 0
    ]
    for start in found:
        content = content[:start] + new + content[start + 80 :]
    if not found and text is not None:
        end = content.index(b"END".ljust(80))
        content = content[:end] + card + b"END".ljust(80) + content[end + 160 :]
    return content


def values(original: object) -> dict[str, str | None]:
    """Ways to spoil a card: what the value field holds, by name."""
    number = isinstance(original, int | float) and not isinstance(original, bool)
    found: dict[str, str | None] = {
        "missing": None,
        "empty": "''",
        "undefined": "",
        "of another type": "'many'" if number else "17",
        "NaN": "NaN",
        "negative": repr(-float(original)) if number and original else "-5.0",  # type: ignore[arg-type]
        "absurd": "1.0E+30",
        "zero": "0",
        "long": f"'{'q' * 66}'",
    }
    return found


@dataclass
class Outcome:
    """An error of niripipe, or pixels and WCS of the product; the warnings; the frames left out."""

    error: str
    pixels: np.ndarray | None
    wcs: Any
    warnings: set[str]

    def same_as(self, other: Outcome) -> bool:
        return (
            self.pixels is not None
            and other.pixels is not None
            and np.array_equal(self.pixels, other.pixels, equal_nan=True)
            and self.wcs == other.wcs
        )


class _Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.add(record.getMessage())


def reduce(raws: list[bytes], names: list[str], folder: Path) -> Outcome:
    """Reduce the files; anything but an error of niripipe passes."""
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in names]
    for path, content in zip(paths, raws, strict=True):
        path.write_bytes(content)
    heard, logger = _Keep(), logging.getLogger("niripipe")
    logger.addHandler(heard)
    r = Reduce(paths, recipe=recipe, threads=1, output_dir=folder / "out")
    try:
        r.runr()
    except NiripipeError as error:
        return Outcome(str(error), None, None, heard.texts)
    finally:
        logger.removeHandler(heard)
    product = r.outputs[0][0]
    return Outcome("", np.array(product.read("data")), product.linear_wcs, heard.texts)


def keywords_read(raw: RawFrame, path: Path) -> list[str]:
    """Return the keywords that any descriptor or tag asks a raw frame for, found by watching them."""
    asked: set[str] = set()

    class Watching(WatchedHeader):
        def get(self, key: Any, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

        def __getitem__(self, key: Any) -> Any:
            asked.add(key)
            return super().__getitem__(key)

        def __contains__(self, key: object) -> bool:
            asked.add(str(key))
            return super().__contains__(key)

    path.write_bytes(raw.to_bytes())
    ad = astrodata.open(path)
    ad.phu = ad.phu
    for extension in ad.extensions:
        extension.hdr.__class__ = Watching
    ad.phu.__class__ = Watching
    assert ad.tags
    for descriptor in ad.descriptors:
        getattr(ad, descriptor)()
    assert ad[0].wcs is not None
    plain = {key for key in asked if isinstance(key, str) and re.fullmatch(r"[A-Z0-9_-]{1,8}", key)}
    return sorted(plain - STRUCTURE)
