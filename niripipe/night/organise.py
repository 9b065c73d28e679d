"""Sorting a folder of raw frames into reductions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from niripipe.cal_service import CalibrationService
from niripipe.errors import InputError
from niripipe.inspection import frame_files
from niripipe.night.frames import read_frames
from niripipe.night.jobmaker import AvailableCalibrations, JobMaker
from niripipe.night.jobs import CALTYPES, name_all
from niripipe.night.plan import NightPlan
from niripipe.night.settings import NightSettings
from niripipe.night.sorter import Sorter
from niripipe.reduction import Mode
from niripipe.reduction.inputs import expand

__all__ = ["organise"]


def organise(
    source: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    calibrations: CalibrationService | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    recipes: Mapping[str, str] | None = None,
    mode: Mode = "sq",
    settings: NightSettings | None = None,
    mask: str = "*.fits*",
    recursive: bool = False,
) -> NightPlan:
    """Sort raw frames into reductions, with their calibrations, and say why.

    Only headers are read. Frames that fit nowhere are listed with the reason, files that cannot be read
    among them.

    Parameters
    ----------
    source : path-like, or iterable of path-like
        A folder of raw frames, ``@list``, or the files themselves.
    calibrations : CalibrationService, optional
        Further calibrations, beside those that the night makes. Of all that meet the rules the nearest in
        time is taken; a product of this night replaces a registered one of the same name.
    parameters : mapping of str to mapping, optional
        Parameters of primitives by kind of reduction or by its name in the plan:
        ``{"science": {"skyCorrect:scale_sky": True}, "flat H": {...}}``. The name is stronger than the kind,
        and both are stronger than what the plan would set.
    recipes : mapping of str to str, optional
        Recipes by kind or name, where not the usual ones are wanted.
    mode : {"sq", "ql", "qa"}
        Mode of all reductions.
    settings : NightSettings, optional
        How frames are sorted.
    mask : str
        Pattern of file names in the folder.
    recursive : bool
        Whether to look into the folders inside the folder.

    Returns
    -------
    NightPlan
        Prints, renders in a notebook, and runs.

    Raises
    ------
    InputError
        There is no such folder, there are no files, or no such recipe.
    ParameterError
        Parameters for a reduction that is not in the plan, an unknown parameter, or a value that is refused.

    Notes
    -----
    - Darks are sorted by window, read mode, well, coadds and exposure time; each set makes a processed dark,
      except darks of about 1 s that no frame needs: those only serve for bad pixel masks.
    - Flats are sorted by window, well, filter, camera, mask, exposure and lamp. Lamp-off flats join the
      lamp-on flats that they fit, nearest in time. Each set makes a processed flat.
    - One bad pixel mask is made for each window for which there are flats and short darks of one well
      depth: from the largest set of flats, preferably with lamp-off frames.
    - Standards (``partnerCal``, ``progCal``) and science frames are sorted by observation and set-up. Sky
      frames of the same observation are in the same set; where there are any, the sky is not scaled to the
      level of the target frames (``skyCorrect:scale_sky``), which an extended source would spoil.
    - A science set without a dark is reduced without the dark correction and a warning; one without a flat is
      left out. `NightSettings` changes that.
    """
    settings = settings or NightSettings()
    paths = _paths(source, mask, recursive)
    frames, left_out = read_frames(paths, settings)
    sorter = Sorter(frames, settings, mode)
    drafts = sorter.drafts()
    name_all(drafts)
    available = AvailableCalibrations(
        [draft for draft in drafts if draft.kind in CALTYPES], calibrations, mode
    )
    maker = JobMaker(available, settings, mode, parameters or {}, recipes or {})
    jobs = [job for draft in drafts if (job := maker.job(draft)) is not None]
    used = {path for job in jobs for path in job.files}
    unused = {item.path: item for item in (*maker.left_out, *sorter.left_out, *left_out)}
    plan = NightPlan(
        jobs=tuple(jobs),
        left_out=tuple(unused[path] for path in sorted(unused) if path not in used),
        notes=tuple(sorter.notes),
        explanations=maker.explanations,
        mode=mode,
        settings=settings,
        calibrations=calibrations,
    )
    return plan.checked(parameters or {}, recipes or {})


def _paths(
    source: str | PathLike[str] | Iterable[str | PathLike[str]], mask: str, recursive: bool
) -> list[Path]:
    if isinstance(source, (str, PathLike)) and not str(source).startswith("@"):
        path = Path(source)
        return [path] if path.is_file() else _found(frame_files(path, mask=mask, recursive=recursive), source)
    given = [source] if isinstance(source, (str, PathLike)) else list(source)
    for position, item in enumerate(given):
        if not isinstance(item, (str, PathLike)):
            raise InputError(
                "A night is made of files",
                item=f"source[{position}]",
                found=type(item).__name__,
                expected="a path",
            )
    return _found([Path(str(item)) for item in expand(given)], source)


def _found(paths: list[Path], source: object) -> list[Path]:
    if not paths:
        raise InputError(
            "There are no FITS files to organise",
            file=source if isinstance(source, (str, PathLike)) else None,
        )
    return paths
