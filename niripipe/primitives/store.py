"""Primitives that finish products: mark what they are, and write them."""

from __future__ import annotations

import re

from niripipe.astrodata import AstroData
from niripipe.astrodata.filenames import plain_name
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, PrimitivesBase, primitive, raw_name, skipped
from niripipe.primitives.params import Field, SuffixParams
from niripipe.primitives.skymatch import SKY_FROM

__all__ = ["Store"]

log = get_logger(__name__)


class StoreDarkParams(SuffixParams, suffix="_dark"):
    """Parameters of `Store.storeProcessedDark`."""

    force: bool = Field(False, description="mark the product as a dark whatever its inputs were")


class StoreFlatParams(SuffixParams, suffix="_flat"):
    """Parameters of `Store.storeProcessedFlat`."""

    force: bool = Field(False, description="mark the product as a flat whatever its inputs were")


class StoreBPMParams(SuffixParams, suffix="_bpm"):
    """Parameters of `Store.storeBPM`."""


class StoreStandardParams(SuffixParams, suffix="_standard"):
    """Parameters of `Store.storeProcessedStandard`."""


class StoreScienceParams(SuffixParams):
    """Parameters of `Store.storeProcessedScience`."""


class Store(PrimitivesBase):
    """Products are written once, into the output folder; `CalibrationService.add_cal` registers them.

    A service whose `store_cal` is true, by the flag ``store`` of a configuration file for one, has darks,
    flats and masks registered as soon as they are written.

    Products of the modes ``ql`` and ``qa`` have the mode in their names, ``_ql_image``, and never replace
    those of ``sq``.
    """

    @primitive(stamp="PROCDARK", renames=False)
    def storeProcessedDark(self, frames: Frames, params: StoreDarkParams) -> Frames:
        """Mark frames as processed darks (PROCDARK) and write them.

        Raises
        ------
        DataError
            The frame is not a dark.
        """
        return self._store(frames, "DARK", params.suffix, force=params.force)

    @primitive(stamp="PROCFLAT", renames=False)
    def storeProcessedFlat(self, frames: Frames, params: StoreFlatParams) -> Frames:
        """Mark frames as processed flats (PROCFLAT) and write them.

        Raises
        ------
        DataError
            The frame is not a flat.
        """
        return self._store(frames, "FLAT", params.suffix, force=params.force)

    @primitive(stamp="PROCBPM", renames=False)
    def storeBPM(self, frames: Frames, params: StoreBPMParams) -> Frames:
        """Mark frames as bad pixel masks (PROCBPM) and write them.

        Raises
        ------
        DataError
            The frame is not a bad pixel mask.
        """
        return self._store(frames, "BPM", params.suffix)

    @primitive(stamp="PROCSTND", renames=False)
    def storeProcessedStandard(self, frames: Frames, params: StoreStandardParams) -> Frames:
        """Mark stacks of a standard star with a zero point as processed standards (PROCSTND), and write them.

        A stack without a zero point is written too, but is not a processed standard.
        """
        for frame in frames:
            if "ZP" not in frame.phu:
                self.note(
                    frame, skipped(f"no zero point: {frame.phu.get('ZPWHYNOT', 'none was determined')}")
                )
        return self._store(frames, "STANDARD", params.suffix)

    @primitive(stamp="PROCSCI", renames=False)
    def storeProcessedScience(self, frames: Frames, params: StoreScienceParams) -> Frames:
        """Mark frames as processed science images (PROCSCI) and write them into the output folder.

        NOTDONE in the primary header lists what was not done, of: dark, flat, sky (subtracted with other
        frames), alignment, stacking. Without any of the last three there is a warning.
        """
        for frame in frames:
            _say_what_is_missing(frame)
        return self._store(frames, None, params.suffix)

    def _store(self, frames: Frames, kind: str | None, suffix: str | None, *, force: bool = False) -> Frames:
        """Label and name products, and have them written when they are stamped."""
        for frame in frames:
            if kind is not None and force:
                _make_calibration(frame, kind)
            if kind not in (None, "STANDARD") and kind not in frame.tags:
                raise DataError(
                    f"The product is not a {kind}",
                    file=frame.filename,
                    found=", ".join(sorted(frame.tags)),
                    remedy="Run makeBPM first"
                    if kind == "BPM"
                    else f"Reduce {kind} frames, or pass force=True",
                )
            if suffix is not None:
                # A quick look does not replace a product of science quality.
                marked = suffix if self.context.mode == "sq" else f"_{self.context.mode}{suffix}"
                frame.update_filename(suffix=marked, strip=True)
            if "PROCMODE" not in frame.phu:
                frame.phu.set("PROCMODE", self.context.mode, "Processing mode [sq|ql|qa]")
            if kind != "BPM":
                _label(frame, self.context.mode, suffix)
            path = self.context.output_dir / str(frame.filename)
            then = None if kind is None else self.context.calibrations.register
            self.runner.save(frame, path, overwrite=self.context.overwrite, then=then)
        return frames


def _say_what_is_missing(frame: AstroData) -> None:
    phu = frame.phu
    single = phu.get("NCOMBINE", 1) == 1
    done = {
        "dark": "DARKIM" in phu,
        "flat": "FLATIM" in phu,
        "sky": "SUBSKY" in phu and phu.get(SKY_FROM, "other frames") == "other frames",
        "alignment": not single,
        "stacking": not single,
    }
    missing = [step for step, was_done in done.items() if not was_done]
    phu.remove("NOTDONE", ignore_missing=True)
    if missing:
        phu.set("NOTDONE", ", ".join(missing), "Steps that the product lacks")
    if not done["sky"] or single:
        log.warning("%s is a product without: %s", frame.filename, ", ".join(missing))


def _label(frame: AstroData, mode: str, suffix: str | None) -> None:
    """Rewrite DATALAB: trailing words give way to mode and suffix, ``GN-2016A-Q-1-1-001-SQ-DARK``."""
    label = frame.phu.get("DATALAB")
    if isinstance(label, str) and label:
        base = re.sub(r"(?<=\d)(-[A-Za-z]+)+$", "", label)
        ending = plain_name(suffix or "").replace("_", "-").upper()
        frame.phu["DATALAB"] = f"{base}-{mode.upper()}{ending}"


def _make_calibration(frame: AstroData, kind: str) -> None:
    """Give a product of science frames the header of a calibration, so that it is associated as one."""
    phu = frame.phu
    phu.set("OBSCLASS", "partnerCal")
    phu.set("OBSTYPE", kind)
    phu.set("OBJECT", {"FLAT": "Flat Frame", "DARK": "Dark Frame"}[kind])
    if kind == "FLAT":
        phu.set("GCALLAMP", "QH")
        phu.set("GCALSHUT", "OPEN")
    date = frame.ut_date()
    day = f"{date:%Y%m%d}" if date is not None else "00000000"
    number = re.search(r"S(\d{4})", raw_name(frame))
    phu.set("GEMPRGID", f"GN-CAL{day}")
    phu.set("OBSID", f"GN-CAL{day}-900")
    phu.set("DATALAB", f"GN-CAL{day}-900-{int(number.group(1)) if number else 0:03d}")
