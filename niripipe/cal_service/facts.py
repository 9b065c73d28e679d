"""What the association rules need to know about a frame or a calibration."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from os import PathLike
from typing import Any

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import NiripipeError, StorageError

__all__ = ["SKY_LIGHT", "CalibrationFacts", "Frame", "SectionLimits", "as_facts", "damaged_entry", "facts_of"]

SectionLimits = tuple[int, int, int, int]

SKY_LIGHT = "Sky"
"""What stands for the lamp in the facts of a flat that was made of frames of the sky."""

_STATIC_MASK = re.compile(r"bpm_(\d{8})_", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CalibrationFacts:
    """The facts of one file that decide which calibrations and frames belong together.

    None means that the header does not say, and matches nothing.

    Attributes
    ----------
    filename : str
        Name of the file, without folder.
    tags : frozenset of str
        The tags of the file.
    instrument, program_id, observation_class, object, data_label : str or None
        As given by the descriptors of the same names.
    ut_datetime : datetime.datetime or None
        Start of the exposure, UTC, without time zone.
    exposure_time : float or None
        Total exposure in seconds, all coadds together.
    coadds : int or None
        Number of exposures summed in the detector controller.
    read_mode, well_depth_setting : str or None
        Detector settings; ``Unknown`` of the descriptors is None here.
    filter_name, camera, focal_plane_mask, disperser : str or None
        Full names, component identifiers included.
    detector_binning : str or None
        ``"1x1"``.
    gcal_lamp : str or None
        Calibration lamp, ``Off`` if its shutter is closed; ``Sky`` for a processed flat of the sky.
    uses_lamp_flats : bool or None
        Whether the filter gets lamp flats at all; thermal filters do not.
    qa_state : str or None
        Verdict of the observatory's quality assessment.
    processing_mode : str or None
        ``sq``, ``ql`` or ``qa`` for a product, None for raw data and products that do not say.
    data_section, detector_section : tuple of int or None
        ``(x1, x2, y1, y2)``, 0-based, ends excluded: of the array in the file, and of the detector.
    airmass : float or None
        For standards, of which one at the airmass of the frame is the better one.
    """

    filename: str = ""
    tags: frozenset[str] = frozenset()
    instrument: str | None = None
    program_id: str | None = None
    observation_class: str | None = None
    object: str | None = None
    data_label: str | None = None
    ut_datetime: datetime | None = None
    exposure_time: float | None = None
    coadds: int | None = None
    read_mode: str | None = None
    well_depth_setting: str | None = None
    filter_name: str | None = None
    camera: str | None = None
    focal_plane_mask: str | None = None
    disperser: str | None = None
    detector_binning: str | None = None
    gcal_lamp: str | None = None
    uses_lamp_flats: bool | None = None
    qa_state: str | None = None
    processing_mode: str | None = None
    data_section: SectionLimits | None = None
    detector_section: SectionLimits | None = None
    airmass: float | None = None

    def to_json(self) -> str:
        """Return the facts as JSON text."""
        values = asdict(self) | {"tags": sorted(self.tags)}
        if self.airmass is None:
            del values["airmass"]  # as in stores made before standards were registered
        return json.dumps(values, sort_keys=True, default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: str) -> CalibrationFacts:
        """Return the facts written by `to_json`.

        Raises
        ------
        StorageError
            The text is not what `to_json` writes.
        """
        try:
            values = json.loads(text)
            values["tags"] = frozenset(values["tags"])
            if values["ut_datetime"] is not None:
                values["ut_datetime"] = datetime.fromisoformat(values["ut_datetime"])
            for name in ("data_section", "detector_section"):
                values[name] = None if values[name] is None else tuple(values[name])
            return cls(**values)
        except (TypeError, ValueError, KeyError) as err:
            raise damaged_entry(text) from err


Frame = AstroData | CalibrationFacts | str | PathLike[str]
"""What calibrations can be asked for: an open frame, its facts, or its path."""

_OTHER_FACTS = {"filename", "tags", "detector_binning", "processing_mode"}
_DESCRIPTORS = [field.name for field in fields(CalibrationFacts) if field.name not in _OTHER_FACTS]
"""The facts that descriptors of the same name give."""


def damaged_entry(found: object) -> StorageError:
    """Return the error for what is found in a store where something else was written."""
    return StorageError(
        "an entry of the calibration store is damaged",
        found=str(found)[:80],
        remedy="Recreate the store from the calibration files with rebuild()",
    )


def facts_of(ad: AstroData) -> CalibrationFacts:
    """Collect the facts of an open file; only headers are read.

    Parameters
    ----------
    ad : AstroData
        A frame or a processed calibration.

    Returns
    -------
    CalibrationFacts
        A descriptor that the data do not have, or that finds its keyword broken, gives None; so do values
        that differ between extensions. A mask without ``DATE-OBS`` is dated by its name where that is one of
        the archive's (``bpm_20010317_niri_...``: valid from that day).
    """
    values = {name: _descriptor(ad, name) for name in _DESCRIPTORS}
    for name in ("data_section", "detector_section"):
        values[name] = None if values[name] is None else tuple(int(limit) for limit in values[name])
    for name in ("read_mode", "well_depth_setting"):
        values[name] = None if values[name] in ("Unknown", "Invalid") else values[name]
    if values["detector_section"] is None:
        # Masks made elsewhere may lack the read-out window; a full-size array can only be the whole detector.
        values["detector_section"] = values["data_section"]
    tags = frozenset(str(tag) for tag in ad.tags)
    if "BPM" in tags and not str(ad.phu.get("DATE-OBS") or "").strip():
        # Only DATE-OBS is worth more than the name: DATE tells when the mask was written.
        values["ut_datetime"] = _valid_from(ad.filename) or values["ut_datetime"]
    if "SKYFLAT" in ad.phu:
        values["gcal_lamp"] = SKY_LIGHT
    mode = str(ad.phu.get("PROCMODE") or "").strip().lower()
    return CalibrationFacts(
        filename=ad.filename or "",
        tags=tags,
        processing_mode=mode or None,
        detector_binning=_descriptor(ad, "binning"),
        **values,
    )


def as_facts(frame: Frame) -> CalibrationFacts:
    """Return the facts of an open frame or of a file; facts are returned as they are."""
    if isinstance(frame, CalibrationFacts):
        return frame
    return facts_of(frame if isinstance(frame, AstroData) else astrodata.open(frame))


def _valid_from(filename: str | None) -> datetime | None:
    """Return the date in the name of one of the archive's masks, from which on it is valid."""
    found = _STATIC_MASK.match(filename or "")
    try:
        return None if found is None else datetime.strptime(found[1], "%Y%m%d")
    except ValueError:
        return None


def _descriptor(ad: AstroData, name: str) -> Any:
    descriptor = getattr(ad, name, None)
    if descriptor is None:
        return None
    try:
        value = descriptor()
    except NiripipeError:
        return None
    if not isinstance(value, list):
        return value
    return value[0] if value and all(other == value[0] for other in value) else None
