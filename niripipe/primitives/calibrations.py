"""Finding, opening and fitting calibrations, once per reduction."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakValueDictionary

from niripipe import astrodata
from niripipe.astrodata import AstroData, Section, add_provenance, file_md5
from niripipe.astrodata.filenames import plain_name
from niripipe.cal_service.facts import facts_of
from niripipe.cal_service.masks import mask_origin, masks_to_unite
from niripipe.cal_service.rules import assess
from niripipe.errors import CalibrationError, DataError, InputError, StorageError
from niripipe.instruments.niri import AstroDataNiri
from niripipe.instruments.tables import niri_tables
from niripipe.logutils import get_logger

if TYPE_CHECKING:
    from niripipe.cal_service import CalibrationService

__all__ = ["CalibrationBook", "FoundCalibration", "clipped", "window_in"]

log = get_logger(__name__)

_MOST_MASKS = 50
"""Masks of one frame that are looked at for different origins: more nights are hardly kept in one store."""


_MOST_STANDARDS = 20
"""Standards of one night in one filter that are looked at."""


@dataclass(frozen=True, slots=True)
class FoundCalibration:
    """A calibration for one frame.

    Attributes
    ----------
    frame : AstroData
        The calibration, opened once for all frames that use it.
    caltype : str
        For example ``processed_dark``.
    origin : str
        ``parameter``, ``user`` or the name of the service that found it.
    """

    frame: AstroData
    caltype: str
    origin: str

    @property
    def name(self) -> str:
        """File name without accents, for headers and reports."""
        return plain_name(self.frame.filename or "calibration in memory")


class CalibrationBook:
    """The calibrations of one reduction.

    A calibration comes, in this order, from the primitive's own parameter, from the calibrations that the
    user named for the whole run, and from the calibration service. Every file is opened once.

    Parameters
    ----------
    service : CalibrationService or None
        Where calibrations are looked up.
    user : mapping of str to path or AstroData
        Calibrations by type that the user named for the whole run.
    mode : str
        Mode of the reduction, passed to the service.
    """

    def __init__(
        self,
        service: CalibrationService | None = None,
        user: Mapping[str, Path | AstroData] | None = None,
        mode: str = "sq",
    ) -> None:
        self.service = service
        self.user = dict(user or {})
        self.mode = mode
        self.used: dict[tuple[str, str], str] = {}
        self.files: dict[str, set[str]] = {}
        self.reasons: dict[str, str | None] = {}
        self._open: dict[Path, AstroData] = {}
        # Frames are large: those that nobody else keeps are opened again when they are wanted.
        self._applied: WeakValueDictionary[tuple[str, str], AstroData] = WeakValueDictionary()
        # Frames that the reduction lets go of are not kept alive by what was found for them.
        self._found: WeakKeyDictionary[AstroData, dict[str, FoundCalibration | None]] = WeakKeyDictionary()
        self._further: WeakKeyDictionary[AstroData, list[FoundCalibration]] = WeakKeyDictionary()
        self._lock = threading.RLock()

    def find(
        self, frame: AstroData, caltype: str, given: AstroData | Path | None = None
    ) -> FoundCalibration | None:
        """Return the calibration of a type for a frame, or None when there is none.

        Parameters
        ----------
        frame : AstroData
            The frame to be calibrated.
        caltype : str
            ``processed_dark``, ``processed_flat`` or ``processed_bpm``.
        given : AstroData or path, optional
            The value of the primitive's own parameter.

        Raises
        ------
        InputError, DataError
            A calibration named by the user that cannot be opened.
        """
        with self._lock:
            if given is not None:
                return FoundCalibration(self.opened(given), caltype, "parameter")
            if caltype in self.user:
                return FoundCalibration(self.opened(self.user[caltype]), caltype, "user")
            if self.service is None:
                return None
            if caltype not in self._found.get(frame, {}):
                self.look_up([frame], caltype)
            return self._found[frame][caltype]

    def is_prescribed(self, frame: AstroData, caltype: str) -> bool:
        """Return whether a frame should have a calibration of a type: no flats in thermal filters."""
        return caltype != "processed_flat" or facts_of(frame).uses_lamp_flats is not False

    def find_masks(self, frame: AstroData) -> list[FoundCalibration]:
        """Return the bad pixel masks of a frame that are used together, the best first.

        One that the user named for the whole run stands alone. Of those in the service the best of each
        origin is used, and all that the user registered; see `niripipe.cal_service.masks_to_unite`.

        Raises
        ------
        InputError, DataError
            A mask named by the user that cannot be opened.
        """
        with self._lock:
            best = self.find(frame, "processed_bpm")
            if best is None:
                return []
            return [best, *self._further.get(frame, ())] if best.origin != "user" else [best]

    def find_standards(
        self, frame: AstroData, given: Sequence[AstroData | Path] | None = None
    ) -> list[FoundCalibration]:
        """Return the processed standards for a frame, the nearest in time and airmass first.

        Those that are given by hand come before the one of the whole run, and that before those of the
        service.

        Raises
        ------
        InputError, DataError
            A standard named by the user that cannot be opened.
        """
        kind = "processed_standard"
        with self._lock:
            if given is not None:
                named = [FoundCalibration(self.opened(one), kind, "parameter") for one in given]
                return sorted(
                    named, key=lambda one: assess(facts_of(frame), facts_of(one.frame), kind).rank()
                )
            if kind in self.user:
                return [FoundCalibration(self.opened(self.user[kind]), kind, "user")]
            if self.service is None:
                return []
            answers = self.service.get_calibrations(
                [frame], kind, procmode=self.mode, howmany=_MOST_STANDARDS
            )
            self.reasons[kind] = answers.reasons[0]
            return [
                FoundCalibration(self.opened(Path(record.path)), kind, answers.origins[0] or "service")
                for record in answers.matches[0]
            ]

    def look_up(self, frames: Sequence[AstroData], caltype: str) -> None:
        """Ask the service for the calibrations of many frames at once; `find` has the answers."""
        with self._lock:
            if self.service is None or caltype in self.user:
                return
            many = {"howmany": _MOST_MASKS} if caltype == "processed_bpm" else {}
            answers = self.service.get_calibrations(list(frames), caltype, procmode=self.mode, **many)
            for frame, (path, origin), matches in zip(frames, answers.items(), answers.matches, strict=True):
                found = None
                if path is not None:
                    found = FoundCalibration(self.opened(Path(path)), caltype, origin or "service")
                self._found.setdefault(frame, {})[caltype] = found
                if many and found is not None:
                    others = [self.opened(Path(record.path)) for record in matches if record.path != path]
                    masks = [(mask, mask_origin(mask)) for mask in (found.frame, *others)]
                    self._further[frame] = [
                        FoundCalibration(mask, caltype, found.origin) for mask in masks_to_unite(masks)[1:]
                    ]
            self.reasons[caltype] = next((reason for reason in answers.reasons if reason), None)

    def opened(self, source: AstroData | Path) -> AstroData:
        """Return a frame that the user named, opened once; a frame in memory is returned as it is.

        Raises
        ------
        InputError, DataError
            The file cannot be opened.
        """
        if isinstance(source, AstroData):
            return source
        path = Path(source).absolute()
        with self._lock:
            if path not in self._open:
                self._open[path] = astrodata.open(path)
            return self._open[path]

    def missing(self, frame: AstroData, caltype: str) -> CalibrationError:
        """Return the error for a frame that has no calibration, with every candidate and its fault."""
        if self.service is None:
            return CalibrationError(
                f"No {caltype} for this frame, and no calibration service to look for one",
                file=frame.filename,
                remedy=f"Pass calibrations=, name one with ucals={{'{caltype}': ...}}, activate a service "
                f"with cal_service.set_calservice(), or switch the step off with do_cal='skip'",
            )
        return self.service.explain(frame, caltype, self.mode).error()

    def remember(self, frame: AstroData, calibration: FoundCalibration, step: str) -> None:
        """Note in the frame's provenance and for the run report that a step used a calibration."""
        path = calibration.frame.source_path or calibration.frame.path
        add_provenance(frame, str(path or calibration.name), file_md5(path), step)
        with self._lock:
            name = frame.orig_filename or frame.filename or ""
            self.used[name, calibration.caltype] = calibration.name
            self._applied[calibration.caltype, calibration.name] = calibration.frame
            if calibration.origin != "parameter" and path is not None:
                self.files.setdefault(calibration.caltype, set()).add(path)

    def applied(self, frame: AstroData, caltype: str, name: str) -> AstroData | None:
        """Return a calibration that was applied to a frame, by the name that it has in the frame's header.

        It is one that this reduction used, or the file that the frame's provenance names, if its checksum is
        the same; else None.
        """
        with self._lock:
            known = self._applied.get((caltype, name))
            if known is not None:
                return known
            for record in frame.provenance:
                path = Path(record.filename)
                if record.provenance_added_by != caltype or path.name != name or not record.md5:
                    continue
                if file_md5(path) == record.md5:
                    self._applied[caltype, name] = opened = self.opened(path)
                    return opened
            return None

    def register(self, path: Path) -> None:
        """Register a product with the service, if that is one that wants products.

        What cannot be registered is a warning: the product itself is good.
        """
        if self.service is None or not getattr(self.service, "store_cal", False):
            return
        try:
            self.service.add_cal(path)
        except (DataError, InputError, StorageError) as error:
            log.warning("%s is not registered: %s", path.name, error)

    def release(self) -> None:
        """Release all frames; the record of what was used stays."""
        with self._lock:
            self._found.clear()
            self._further.clear()
            self._open.clear()


def clipped(frame: AstroData, calibration: AstroData) -> AstroData:
    """Return a calibration cut to the part of the detector that a frame covers.

    Parameters
    ----------
    frame : AstroData
        Frame with one extension.
    calibration : AstroData
        Calibration with one extension, of the same or a larger part of the detector. It is not changed.

    Returns
    -------
    AstroData
        `calibration` itself when it covers the same pixels, else a copy cut to size. Where a header does not
        say which part of the detector it is, equal shapes are taken for the same part.

    Raises
    ------
    DataError
        The calibration does not cover the frame.
    """
    window = window_in(frame, calibration)
    if window is None:
        return calibration
    cut = calibration.copy()
    cut.crop(*window)
    return cut


def window_in(frame: AstroData, calibration: AstroData) -> tuple[int, int, int, int] | None:
    """Return the part of a calibration that a frame covers; only headers are read.

    Returns
    -------
    tuple of int or None
        First and last column and row, 0-based: ``x1, y1, x2, y2``; None if it is all of it.

    Raises
    ------
    DataError
        The calibration does not cover the frame.
    """
    wanted, has = _section_of(frame), _section_of(calibration)
    if frame[0].shape == calibration[0].shape and (wanted is None or has is None or wanted == has):
        return None
    if wanted is None or has is None or not has.contains(wanted):
        raise DataError(
            "The calibration does not cover the frame's part of the detector",
            file=frame.filename,
            item=calibration.filename,
            found=f"calibration {has and has.as_iraf_section()}",
            expected=f"at least {wanted and wanted.as_iraf_section()}, or the shape {frame[0].shape}",
            remedy="Use a calibration of the same subarray, or a full-frame one.",
        )
    x1, y1 = wanted.x1 - has.x1, wanted.y1 - has.y1
    return x1, y1, x1 + (wanted.x2 - wanted.x1) - 1, y1 + (wanted.y2 - wanted.y1) - 1


def _section_of(frame: AstroData) -> Section | None:
    """Return which part of the detector a frame covers; by its size where the header is not NIRI's."""
    if isinstance(frame, AstroDataNiri):
        section: Section | None = frame[0].detector_section()
        return section
    size = niri_tables().detector.size
    return Section(0, size, 0, size) if frame[0].shape == (size, size) else None
