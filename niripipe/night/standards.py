"""The standard stars of a night: which sets of frames give a zero point, and which science frames use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from niripipe import astrodata
from niripipe.errors import NiripipeError
from niripipe.night.jobs import MAKE_STANDARD, RECIPES, Draft, Job, chosen_parameters
from niripipe.photometry import standard_band
from niripipe.photometry.apertures import is_available
from niripipe.photometry.standards import joined
from niripipe.primitives.standard_stars import recognise_frame

__all__ = [
    "find_stars",
    "none_applied",
    "standard_files",
    "why_no_standard",
    "without_zero_point",
    "zero_point_by_hand",
]

_TYPE = "processed_standard"
_NO_PHOTUTILS = 'aperture photometry needs photutils (pip install "niripipe[photometry]")'
_NONE_APPLIED = "no zero point is applied: "


def find_stars(
    drafts: Iterable[Draft], parameters: Mapping[str, Mapping[str, Any]], recipes: Mapping[str, str]
) -> None:
    """Note in drafts of standards which star they show, or why they give no zero point.

    Parameters
    ----------
    drafts : iterable of Draft
        Those of standards get `Draft.star` where a standard is recognised by position and name, and the
        recipe is not the user's.
    parameters, recipes : mapping
        The user's, by kind or name of a reduction.
    """
    for draft in drafts:
        if draft.kind != "standard":
            continue
        chosen = recipes.get(draft.name, recipes.get(draft.kind, MAKE_STANDARD))
        if chosen != MAKE_STANDARD:
            draft.reasons.append(f"recipe {chosen}: set by the user; it makes no zero point")
            continue
        if not is_available():
            draft.warnings.append(f"no zero point, and no magnitudes: {_NO_PHOTUTILS}")
            continue
        own = chosen_parameters(parameters, draft)
        drops = own.get("removeFirstFrame:remove_first", own.get("remove_first", True))
        draft.named_after = draft.files[1] if drops and len(draft.files) > 2 else draft.files[0]
        try:
            star, reason = _star(draft, own)
        except NiripipeError as error:
            star, reason = "", str(error)
        draft.star = star
        if star:
            draft.reasons.append(f"{MAKE_STANDARD}: {star}, {reason}")
        else:
            draft.warnings.append(f"{RECIPES['standard']} without a zero point: {reason}")


def standard_files(calibrations: Mapping[str, str]) -> list[str]:
    """Return the processed standards among the calibrations of a job, the nearest first."""
    return [path for key, path in calibrations.items() if key.startswith(_TYPE)]


def none_applied(why: str) -> str:
    """Return the warning of a reduction for which no standard is planned."""
    return _NONE_APPLIED + (why if is_available() else _NO_PHOTUTILS)


def zero_point_by_hand(parameters: Mapping[str, Any]) -> bool:
    """Return whether the user's parameters name the standards of a reduction, or do without."""
    named = (parameters.get(key) for key in ("applyZeroPoint:standard", "standard"))
    return any(one is not None for one in named) or parameters.get("applyZeroPoint:do_cal") == "skip"


def why_no_standard(job: Job) -> str:
    """Return why a reduction that got no zero point has none, for its product."""
    planned = [one.name for one in job.calibrations if one.caltype == _TYPE]
    if planned:
        return f"{', '.join(planned)} has no zero point"
    told = (text.removeprefix(_NONE_APPLIED) for text in job.warnings if text.startswith(_NONE_APPLIED))
    return next(told, "there is no processed_standard")


def without_zero_point(path: str) -> str:
    """Return why a product of a standard has no zero point; empty if it has one."""
    try:
        header = astrodata.open(path).phu
    except NiripipeError as error:
        return str(error)
    return "" if "ZP" in header else str(header.get("ZPWHYNOT", "none was determined"))


def _star(draft: Draft, parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the standard that frames show and how it was recognised, or why none was."""
    prefix = "measureStandard:"
    own = {key[len(prefix) :]: value for key, value in parameters.items() if key.startswith(prefix)}
    frame = astrodata.open(draft.frames.first.path)
    if own.get("name"):
        return str(own["name"]), "named by the user"
    stars = joined(own.get("standards"), replace_shipped=bool(own.get("only_own", False)))
    found = recognise_frame(frame, stars, float(own.get("radius", 60.0)))
    if found.standard is None:
        return "", found.reason
    if found.doubt:
        draft.warnings.append(found.doubt)
    name = frame.filter_name(pretty=True)
    band = standard_band(name)
    if band is None:
        return "", f"standards have no magnitude near the filter {name}"
    if band.band not in found.standard.magnitudes:
        return "", f"{found.standard.label} has no magnitude in {band.band}"
    return found.standard.label, found.reason
