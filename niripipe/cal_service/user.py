"""Calibrations that the user names by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.cal_service.facts import CalibrationFacts, as_facts
from niripipe.cal_service.records import absolute
from niripipe.cal_service.rules import Verdict, assess, calibration_type, rules_for, stored_type
from niripipe.errors import CalibrationError, InputError, ParameterError

__all__ = ["broken_rules", "choice_warning", "user_calibrations"]


def user_calibrations(
    value: Mapping[str, str | PathLike[str] | AstroData] | Iterable[str] | str | None,
) -> dict[str, Path | AstroData]:
    """Read and check calibrations named by hand.

    Parameters
    ----------
    value : mapping of type to path or AstroData, or iterable of str, or None
        ``{"processed_dark": "x_dark.fits"}`` or ``["processed_dark:x_dark.fits"]``. The first colon
        separates; the path may have more. ``bpm`` means ``processed_bpm``.

    Returns
    -------
    dict of str to Path or AstroData
        Full type names and absolute paths.

    Raises
    ------
    ParameterError
        An unknown type, a type named twice, or an entry that is not understood.
    InputError
        A file that does not exist.
    DataError
        A file that cannot be opened.
    CalibrationError
        A file that is a calibration of another type, or none.
    """
    result: dict[str, Path | AstroData] = {}
    for key, source in _pairs(value):
        caltype = stored_type(key, "ucals")
        if caltype in result:
            raise ParameterError("a calibration is named twice", item="ucals", found=caltype)
        result[caltype] = _checked(caltype, source)
    return result


def broken_rules(
    frame: AstroData | CalibrationFacts, calibration: AstroData | CalibrationFacts, caltype: str
) -> tuple[Verdict, ...]:
    """Return the association rules that a calibration chosen by hand does not meet for a frame.

    Parameters
    ----------
    frame, calibration : AstroData or CalibrationFacts
        The frame and the calibration. Only headers are read.
    caltype : str
        Type of calibration.

    Returns
    -------
    tuple of Verdict
        Empty if it fits. ``str(verdict)`` says what was found and what wanted.

    Raises
    ------
    ParameterError
        Unknown type.
    """
    return assess(as_facts(frame), as_facts(calibration), rules_for(caltype).caltype).failed


def choice_warning(
    frames: Sequence[AstroData | CalibrationFacts], calibration: AstroData | CalibrationFacts, caltype: str
) -> str | None:
    """Return what to warn of when a calibration chosen by hand breaks rules for some of the frames.

    The choice is obeyed nevertheless: the user may know more than the headers tell.

    Parameters
    ----------
    frames : sequence of AstroData or CalibrationFacts
        The frames that are to be treated with it.
    calibration : AstroData or CalibrationFacts
        The calibration.
    caltype : str
        Type of calibration.

    Returns
    -------
    str or None
        One line for the log: how many frames, the first of them, and each rule broken for it with both
        values. None if it fits all.

    Raises
    ------
    ParameterError
        Unknown type.
    """
    chosen = as_facts(calibration)
    broken = [
        (facts, verdicts)
        for facts in map(as_facts, frames)
        if (verdicts := broken_rules(facts, chosen, caltype))
    ]
    if not broken:
        return None
    first, verdicts = broken[0]
    whom = first.filename or "the frame"
    if len(frames) > 1:
        whom = f"{len(broken)} of {len(frames)} frames ({whom}{', ...' if len(broken) > 1 else ''})"
    faults = "; ".join(str(verdict) for verdict in verdicts)
    return f"{chosen.filename or caltype}, chosen by hand, is used although it does not fit {whom}: {faults}"


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return list(value.items())
    pairs = []
    for text in [value] if isinstance(value, str) else list(value):
        if not isinstance(text, str) or ":" not in text:
            raise ParameterError(
                "a calibration is named as 'type:path'",
                item="ucals",
                found=text,
                expected="for example 'processed_dark:N20160102S0423_dark.fits'",
            )
        key, path = text.split(":", 1)
        pairs.append((key.strip(), path.strip()))
    return pairs


def _checked(caltype: str, source: Any) -> Path | AstroData:
    result: Path | AstroData
    if isinstance(source, AstroData):
        ad = result = source
    elif isinstance(source, str | PathLike) and str(source):
        path = absolute(source)
        if not path.is_file():
            raise InputError("there is no such calibration file", file=path, item=f"ucals, {caltype}")
        ad, result = astrodata.open(path), path
    else:
        raise ParameterError("a calibration is named by its path", item=f"ucals, {caltype}", found=source)
    if calibration_type(ad.tags) != caltype:
        raise CalibrationError(
            f"this file is not a {caltype}",
            file=ad.filename,
            item="tags",
            found=", ".join(sorted(ad.tags)),
            expected="BPM" if caltype == "processed_bpm" else f"PROCESSED and {caltype[10:].upper()}",
        )
    return result
