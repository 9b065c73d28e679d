"""Tags of Gemini data: what kind of exposure a primary header describes."""

from __future__ import annotations

import math

from niripipe.astrodata import AstroData, TagSet, astro_data_tag, header_value
from niripipe.instruments.headers import get_float, get_text, truth
from niripipe.instruments.tables import niri_tables

__all__ = ["OBSERVATORIES", "GeminiTags", "is_flat_lamp"]

OBSERVATORIES = {"GEMINI-NORTH": "NORTH", "GEMINI-SOUTH": "SOUTH"}
"""Tags of the two sites, by the name in the headers."""

_PROCESSED_KEYWORDS = frozenset(
    {
        "PROCARC", "GBIAS", "PROCBIAS", "PROCDARK", "GIFLAT", "PROCFLAT", "GIFRINGE", "PROCFRNG", "PROCPNHL",
        "PROCSTND", "PROCILLM",
    }
)  # fmt: skip
# Everything about the exposure that a bad pixel mask inherits from the frame it was made of.
_NOT_OF_A_MASK = frozenset(
    {
        "IMAGE", "SPECT", "SIDEREAL", "NON_SIDEREAL", "AZEL_TARGET", "FLAT", "GCALFLAT", "DARK", "ARC",
        "TWILIGHT", "LAMPON", "LAMPOFF", "GCAL_IR_ON", "GCAL_IR_OFF", "RAW", "PROCESSED_SCIENCE",
        "ACQUISITION",
    }
)  # fmt: skip
_OVERSCAN_TAGS = {"TRIMOVER": "OVERSCAN_TRIMMED", "SUBOVER": "OVERSCAN_SUBTRACTED"}


def is_flat_lamp(lamp: str | None) -> bool:
    """Tell whether a GCAL lamp is one for flats: ``IRhigh``, ``IRlow`` or a quartz halogen (``QH``)."""
    return lamp is not None and (lamp.lower() in ("irhigh", "irlow") or lamp.upper().startswith("QH"))


class GeminiTags(AstroData):
    """The tags of data of Gemini North or South."""

    @astro_data_tag
    def _tag_gemini(self) -> TagSet:
        return TagSet({"GEMINI"})

    @astro_data_tag
    def _tag_site(self) -> TagSet | None:
        site = OBSERVATORIES.get((get_text(self.phu, "OBSERVAT") or "").upper())
        return TagSet({site}) if site else None

    @astro_data_tag
    def _tag_acquisition(self) -> TagSet | None:
        return TagSet({"ACQUISITION"}) if get_text(self.phu, "OBSCLASS") in ("acq", "acqCal") else None

    @astro_data_tag
    def _tag_azel_target(self) -> TagSet | None:
        if get_text(self.phu, "FRAME") != "AZEL_TOPO":
            return None
        return TagSet(
            {"AZEL_TARGET", "AT_ZENITH"} if get_float(self.phu, "AIRMASS") == 1.0 else {"AZEL_TARGET"}
        )

    @astro_data_tag
    def _tag_gcal_flat(self) -> TagSet | None:
        """Mark flats by the lamp.

        DRAGONS goes by the lamp alone, which makes flats of arcs that list a lamp, and leaves out ``IRlow``;
        here the frame must be a flat (``OBSTYPE``, or no ``OBSTYPE`` at all) and every flat lamp counts.
        """
        if self._may_be_flat and is_flat_lamp(get_text(self.phu, "GCALLAMP")):
            return TagSet({"GCALFLAT", "FLAT", "CAL"})
        return None

    @astro_data_tag
    def _tag_gcal_lamp(self) -> TagSet | None:
        """Tell lamp-on from lamp-off flats by the shutter.

        DRAGONS makes LAMPOFF of any frame with no lamp and a closed shutter; here it must be a flat.
        """
        lamp, shutter = get_text(self.phu, "GCALLAMP"), get_text(self.phu, "GCALSHUT")
        if not self._may_be_flat or (lamp is not None and not is_flat_lamp(lamp)):
            return None
        if shutter == "OPEN" and lamp is not None:
            return TagSet({"GCAL_IR_ON", "LAMPON"}, blocked_by={"PROCESSED"})
        if shutter == "CLOSED" and (lamp is not None or "GCALLAMP" in self.phu):
            return TagSet({"GCAL_IR_OFF", "LAMPOFF"}, blocked_by={"PROCESSED", "PINHOLE"})
        return None

    @astro_data_tag
    def _tag_observation_mode(self) -> TagSet | None:
        mode = get_text(self.phu, "OBSMODE")
        if mode is None:
            return None
        return TagSet({"IMAGE"} if mode.upper() == "IMAGE" else {mode.upper(), "SPECT"})

    @astro_data_tag
    def _tag_sidereal(self) -> TagSet | None:
        """Tell moving targets from fixed ones by the differential tracking rates.

        DRAGONS calls a frame NON_SIDEREAL unless both rates are there and exactly 0. Here rates too slow to
        matter, and rates that are not recorded, mean SIDEREAL.
        """
        frames = {get_text(self.phu, "TRKFRAME"), get_text(self.phu, "FRAME")}
        if not frames & {"FK5", "APPT"}:
            return None
        in_ra = 15.0 * (get_float(self.phu, "RATRACK") or 0.0)
        in_dec = get_float(self.phu, "DECTRACK") or 0.0
        moving = math.hypot(in_ra, in_dec) > niri_tables().pointing.sidereal_rate
        return TagSet({"NON_SIDEREAL" if moving else "SIDEREAL"})

    @astro_data_tag
    def _tag_bpm(self) -> TagSet | None:
        """Mark bad pixel masks, which keep nothing of the frames they were made of.

        DRAGONS lets a mask made from flats keep FLAT, so that it can be taken for one.
        """
        if not ("BPMASK" in self.phu or "PROCBPM" in self.phu or get_text(self.phu, "OBSTYPE") == "BPM"):
            return None
        return TagSet({"BPM", "CAL", "PROCESSED"}, blocks=_NOT_OF_A_MASK)

    @astro_data_tag
    def _tag_mask(self) -> TagSet | None:
        return (
            TagSet({"MASK"}, blocks={"IMAGE", "SPECT"}) if get_text(self.phu, "OBSTYPE") == "MASK" else None
        )

    @astro_data_tag
    def _tag_raw(self) -> TagSet | None:
        """Mark untouched data: no processing time stamp, and neither prepared nor processed by any sign."""
        touched = "GEM-TLM" in self.phu or self._is_processed or self._is_prepared
        return None if touched else TagSet({"RAW"})

    @astro_data_tag
    def _tag_prepared(self) -> TagSet:
        return TagSet({"PREPARED" if self._is_prepared else "UNPREPARED"})

    @astro_data_tag
    def _tag_overscan(self) -> TagSet:
        return TagSet({tag for part, tag in _OVERSCAN_TAGS.items() if self._has_part(part)})

    @astro_data_tag
    def _tag_processed(self) -> TagSet | None:
        return TagSet({"PROCESSED"}) if self._is_processed else None

    @astro_data_tag
    def _tag_processed_science(self) -> TagSet | None:
        if get_text(self.phu, "OBSTYPE") == "OBJECT" and ("PROCSCI" in self.phu or "GMOSAIC" in self.phu):
            return TagSet({"PROCESSED_SCIENCE", "PROCESSED"}, blocks={"RAW"})
        return None

    @astro_data_tag
    def _tag_standard(self) -> TagSet | None:
        """Mark processed photometric standards: stacks with the zero point that was found in their frames."""
        return TagSet({"STANDARD"}) if "PROCSTND" in self.phu else None

    @astro_data_tag
    def _tag_fringe(self) -> TagSet | None:
        return TagSet({"FRINGE", "CAL"}) if "GIFRINGE" in self.phu or "PROCFRNG" in self.phu else None

    @astro_data_tag
    def _tag_telluric(self) -> TagSet | None:
        return TagSet({"TELLURIC", "CAL"}) if truth(header_value(self.phu, "PROCTELL")) else None

    @astro_data_tag
    def _tag_extracted(self) -> TagSet | None:
        return TagSet({"EXTRACTED"}) if "EXTRACT" in self.phu else None

    @property
    def _may_be_flat(self) -> bool:
        return get_text(self.phu, "OBSTYPE") in ("FLAT", None)

    @property
    def _is_prepared(self) -> bool:
        """Whether the data are PREPARED; cheaper than finding all tags."""
        return self._has_part("PREPAR")

    @property
    def _is_processed(self) -> bool:
        return not _PROCESSED_KEYWORDS.isdisjoint(self.phu.keywords())

    def _has_part(self, part: str) -> bool:
        """Return whether the name of a keyword of the primary header has a part."""
        return part in " ".join(self.phu.keywords())
