"""Which calibrations belong to a frame: the association rules of the archive for NIRI.

Each type of calibration has a list of `Rule` in ``rules.toml``. A calibration is accepted when all are met;
accepted ones are ranked nearest in time first, then by quality of the processing, then latest registered. The
rules are those of the Gemini Observatory Archive, with these differences, each on purpose:

* Limits belong to the interval: a dark of exactly 0.01 s more and a flat of exactly 180 days are accepted,
  with a slack of 1 microsecond in exposure time and 1 millisecond in date against rounding.
* A product reduced in quick-look mode does not satisfy a request for science quality.
* A bad pixel mask that also carries the tag FLAT is a mask, never a flat.
* A bad pixel mask may be up to one day younger than the frame: flats of the same night serve, whether
  they were taken before or after the target. It must cover the frame's part of the detector.
* A processed flat that was made of the sky (SKYFLAT) is accepted like one of lamps, and comes after all of
  those. The archive knows none.
* A processed standard (a zero point) is of the same night, within 12 hours. Of several the nearest in time
  and airmass comes first: a difference of 1 in airmass counts as 2 hours. The archive has none.
* Names of optical components are compared by their identifiers (``G0204``) where they have one, as
  spelling varied over the years.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from niripipe.cal_service.facts import SKY_LIGHT, CalibrationFacts
from niripipe.errors import ParameterError

__all__ = [
    "ASSOCIATION_RULES",
    "PROCESSED_TYPES",
    "Assessment",
    "AssociationRules",
    "Rule",
    "Verdict",
    "applicable_types",
    "assess",
    "calibration_type",
    "full_type",
    "rules_for",
    "stored_type",
]

Comparison = Literal[
    "same", "same_components", "within", "not_after", "covers", "lamp_on", "is", "is_not", "at_least"
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition on a calibration.

    Attributes
    ----------
    descriptor : str
        The fact it is about: a field of `CalibrationFacts`.
    comparison : str
        ``same``: equal to the frame's value. ``same_components``: the same optical components.
        ``within``: no further from the frame's value than `tolerance`. ``not_after``: later than the frame's
        by no more than `tolerance`. ``covers``: the section contains the frame's. ``lamp_on``: a lamp was on.
        ``is``, ``is_not``: (not) `value`. ``at_least``: processed at least as well as `value`.
    tolerance : float
        In seconds for exposure times, in days for dates; the limit itself is accepted.
    slack : float
        What is added to `tolerance` against rounding, in the same unit.
    value : str, optional
        What ``is``, ``is_not`` and ``at_least`` compare with.
    """

    descriptor: str
    comparison: Comparison
    tolerance: float = 0.0
    slack: float = 0.0
    value: str | None = None

    @property
    def unit(self) -> str:
        """Unit of the tolerance."""
        return "d" if self.descriptor == "ut_datetime" else "s"


@dataclass(frozen=True, slots=True)
class AssociationRules:
    """The rules of one type of calibration.

    Attributes
    ----------
    caltype : str
        For example ``processed_dark``.
    rules : tuple of Rule
        All must be met.
    stale_after : float or None
        Age in days beyond which an accepted calibration deserves a warning.
    """

    caltype: str
    rules: tuple[Rule, ...]
    stale_after: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one calibration fares against one rule.

    Attributes
    ----------
    rule : Rule
        The rule.
    frame, calibration : CalibrationFacts
        What was compared.
    passed : bool
        Whether the rule is met.
    """

    rule: Rule
    frame: CalibrationFacts
    calibration: CalibrationFacts
    passed: bool

    @property
    def wanted(self) -> str:
        """What the frame asks for, for people to read."""
        rule = self.rule
        if rule.comparison == "lamp_on":
            return "IRhigh, IRlow, QH or Sky"
        if rule.comparison in ("is", "is_not", "at_least"):
            words = {"is": "", "is_not": "not ", "at_least": "at least "}[rule.comparison]
            return f"{words}{rule.value}"
        shown = _shown(rule.descriptor, self.frame)
        if rule.comparison == "within":
            return f"{shown} ± {rule.tolerance:g} {rule.unit}"
        if rule.comparison == "not_after":
            return f"not after {shown} + {rule.tolerance:g} {rule.unit}"
        return f"to cover {shown}" if rule.comparison == "covers" else shown

    @property
    def found(self) -> str:
        """What the calibration has, for people to read."""
        return _shown(self.rule.descriptor, self.calibration)

    @property
    def note(self) -> str:
        """Why the rule is not met, where the two values do not say it; else empty."""
        if self.passed:
            return ""
        rule = self.rule
        ours, theirs = getattr(self.frame, rule.descriptor), getattr(self.calibration, rule.descriptor)
        if rule.comparison not in ("lamp_on", "is", "is_not", "at_least"):
            for value, whose in ((ours, "frame"), (theirs, "calibration")):
                if value is None:
                    return f"the header of the {whose} does not tell it, and unknown matches nothing"
        if rule.comparison in ("within", "not_after"):
            return f"off by {_minus(theirs, ours):+.4g} {rule.unit}"
        if rule.descriptor == "coadds":
            exposures = _exposure(self.frame), _exposure(self.calibration)
            return f"{exposures[0]} is not {exposures[1]}, whatever the total exposure"
        return ""

    def __str__(self) -> str:
        text = f"{self.rule.descriptor} is {self.found}, wanted {self.wanted}"
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True, slots=True)
class Assessment:
    """How one calibration fares against all rules of its type.

    Attributes
    ----------
    facts : CalibrationFacts
        The calibration.
    verdicts : tuple of Verdict
        One a rule, in the order of the rules.
    days : float or None
        Calibration minus frame, in days; None if either has no date.
    """

    facts: CalibrationFacts
    verdicts: tuple[Verdict, ...]
    days: float | None

    @property
    def accepted(self) -> bool:
        """Whether every rule is met."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts of the rules that are not met."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    def rank(self, registered: int = 0) -> tuple[bool, float, int, int]:
        """Return the sorting key, best first.

        Flats of the sky come after those of lamps; then nearest in time, best processed, latest registered.
        """
        distance = float("inf") if self.days is None else abs(self.days) + self._airmass_in_days
        quality = QUALITY.get(self.facts.processing_mode, -1)
        return self.facts.gcal_lamp == SKY_LIGHT, distance, -quality, -registered

    @property
    def _airmass_in_days(self) -> float:
        """What a difference in airmass counts for standards, in days; 0 for other calibrations."""
        theirs = self.facts.airmass
        ours = self.verdicts[0].frame.airmass if self.verdicts else None
        if "STANDARD" not in self.facts.tags or ours is None or theirs is None:
            return 0.0
        return _DAYS_PER_AIRMASS * abs(ours - theirs)


#: By how many days a standard is the worse for each unit of airmass between it and the frame: zero points
#: drift by about 0.01 mag an hour, and the extinction is known to 0.02 mag per airmass.
_DAYS_PER_AIRMASS = 2 / 24

#: Processing modes, best highest. Products that do not say stand between science quality and quick look,
#: where the archive's ordering puts them.
QUALITY: Mapping[str | None, int] = MappingProxyType({"sq": 3, None: 2, "ql": 1, "qa": 0})

#: Calibrations that a store can hold.
PROCESSED_TYPES = ("processed_dark", "processed_flat", "processed_bpm", "processed_standard")


def calibration_type(tags: frozenset[str] | set[str]) -> str | None:
    """Return the type of processed calibration that a file is, from its tags, or None.

    A bad pixel mask made from flats carries the tags of both; it is a mask.
    """
    if "BPM" in tags:
        return "processed_bpm"
    if "PROCESSED" not in tags or "PROCESSED_SCIENCE" in tags:
        return None
    for kind in ("DARK", "FLAT", "STANDARD"):
        if kind in tags:
            return f"processed_{kind.lower()}"
    return None


def full_type(caltype: str) -> str:
    """Return the full name of a type of calibration: `bpm` is short for `processed_bpm`."""
    return "processed_bpm" if caltype == "bpm" else caltype


def stored_type(caltype: str, item: str = "caltype") -> str:
    """Return the full name of a type of calibration that a store can hold.

    Raises
    ------
    ParameterError
        The type is another; `item` is what the user named it with.
    """
    full = full_type(caltype)
    if full not in PROCESSED_TYPES:
        raise _unknown_type(caltype, PROCESSED_TYPES, item)
    return full


def rules_for(caltype: str) -> AssociationRules:
    """Return the rules of a type of calibration.

    Raises
    ------
    ParameterError
        The type is unknown.
    """
    found = ASSOCIATION_RULES.get(full_type(caltype))
    if found is None:
        raise _unknown_type(caltype, ASSOCIATION_RULES)
    return found


def _unknown_type(found: str, known: Iterable[str], item: str = "caltype") -> ParameterError:
    return ParameterError("unknown type of calibration", item=item, found=found, expected=", ".join(known))


def assess(
    frame: CalibrationFacts, calibration: CalibrationFacts, caltype: str, procmode: str | None = None
) -> Assessment:
    """Hold one calibration against every rule.

    Parameters
    ----------
    frame, calibration : CalibrationFacts
        The frame that needs a calibration, and a candidate.
    caltype : str
        Type of calibration.
    procmode : {"sq", "ql", "qa"}, optional
        The lowest quality of processing that is acceptable; any, if not given. A product that does not say
        how it was made is acceptable.

    Returns
    -------
    Assessment

    Raises
    ------
    ParameterError
        An unknown type or mode.
    """
    rules = rules_for(caltype).rules
    if procmode is not None:
        if procmode not in ("sq", "ql", "qa"):
            raise ParameterError(
                "unknown processing mode", item="procmode", found=procmode, expected="sq, ql or qa"
            )
        rules = (*rules, Rule("processing_mode", "at_least", value=procmode))
    days = None
    if frame.ut_datetime is not None and calibration.ut_datetime is not None:
        days = (calibration.ut_datetime - frame.ut_datetime).total_seconds() / _DAY
    verdicts = (Verdict(rule, frame, calibration, _is_met(rule, frame, calibration)) for rule in rules)
    return Assessment(calibration, tuple(verdicts), days)


def applicable_types(frame: CalibrationFacts) -> tuple[str, ...]:
    """Return the types of calibration that a NIRI imaging frame is to have, by the archive's rules.

    In thermal filters no lamp flats are taken, as the lamps vanish in the background. So no flat is asked
    for; one that was made of the sky is used where there is one.
    """
    tags = frame.tags
    if "BPM" in tags:
        return ()
    types: list[str] = []
    if "IMAGE" in tags and "FLAT" not in tags:
        science = frame.observation_class == "science"
        if science:
            types += ["dark", "photometric_standard", "processed_dark"]
        if (science or frame.observation_class == "partnerCal") and frame.uses_lamp_flats is not False:
            types.append("flat")
        if frame.uses_lamp_flats is not False:
            types.append("processed_flat")
    elif "IMAGE" in tags and _lamp_is_on(frame.gcal_lamp):
        types.append("lampoff_flat")
    return (*types, "processed_bpm")


_DAY = 86400.0
#: What is added to tolerances against rounding: 1 microsecond in exposure time, 1 millisecond in date.
_SLACK = {"exposure_time": 1e-6, "ut_datetime": 1e-3 / _DAY}


def _read_rules() -> Mapping[str, AssociationRules]:
    text = resources.files(__package__).joinpath("rules.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    return MappingProxyType(
        {
            caltype: AssociationRules(
                caltype,
                tuple(
                    Rule(**rule, slack=_SLACK.get(rule["descriptor"], 0.0))
                    for rule in raw[entry.get("same_rules_as", caltype)]["rules"]
                ),
                entry.get("stale_after"),
            )
            for caltype, entry in raw.items()
        }
    )


#: The rules by type. The types that do not start with ``processed_`` are raw frames.
ASSOCIATION_RULES: Mapping[str, AssociationRules] = _read_rules()


def _is_met(rule: Rule, frame: CalibrationFacts, calibration: CalibrationFacts) -> bool:
    ours, theirs = getattr(frame, rule.descriptor), getattr(calibration, rule.descriptor)
    match rule.comparison:
        case "lamp_on":
            return theirs == SKY_LIGHT or _lamp_is_on(theirs)
        case "is":
            return bool(theirs == rule.value)
        case "is_not":
            return bool(theirs != rule.value)
        case "at_least":
            return theirs is None or QUALITY.get(theirs, -1) >= QUALITY[rule.value]
    if ours is None or theirs is None:
        return False
    match rule.comparison:
        case "same_components":
            return _components(ours) == _components(theirs)
        case "within":
            return abs(_minus(theirs, ours)) <= rule.tolerance + rule.slack
        case "not_after":
            return _minus(theirs, ours) <= rule.tolerance + rule.slack
        case "covers":
            x1, x2, y1, y2 = theirs
            return bool(x1 <= ours[0] and x2 >= ours[1] and y1 <= ours[2] and y2 >= ours[3])
    return bool(ours == theirs)


def _minus(a: Any, b: Any) -> float:
    if isinstance(a, datetime):
        return (a - b).total_seconds() / _DAY  # type: ignore[no-any-return]
    return float(a) - float(b)


def _components(name: str) -> list[str]:
    """Return the components of a name: identifiers where there are, else the names themselves."""
    parts = [part.strip() for part in name.split("&")]
    found = [re.search(r"_(G\d{4})$", part, re.IGNORECASE) for part in parts]
    return sorted(match[1].upper() if match else part for match, part in zip(found, parts, strict=True))


def _lamp_is_on(lamp: str | None) -> bool:
    return lamp is not None and (lamp in ("IRhigh", "IRlow") or lamp.startswith("QH"))


def _shown(descriptor: str, facts: CalibrationFacts) -> str:
    value = getattr(facts, descriptor)
    if value is None:
        return "unknown"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, tuple):
        return f"[{value[0] + 1}:{value[1]},{value[2] + 1}:{value[3]}]"
    if descriptor == "exposure_time":
        # The total is what is compared; how it came about is shown where it is not one exposure.
        total = f"{_decimal(value)} s"
        return total if facts.coadds in (None, 1) else f"{total} ({_exposure(facts)})"
    return str(value)


def _exposure(facts: CalibrationFacts) -> str:
    if facts.exposure_time is None:
        return "unknown"
    if facts.coadds is None or facts.coadds < 1:
        return f"{_decimal(facts.exposure_time)} s"
    return f"{facts.coadds} x {_decimal(facts.exposure_time / facts.coadds)} s"


def _decimal(number: float) -> str:
    return f"{number:.4f}".rstrip("0").rstrip(".")
