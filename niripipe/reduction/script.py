"""A reduction as a script that makes the same products again."""

from __future__ import annotations

import pprint
from os import PathLike
from pathlib import Path
from typing import Any

from niripipe.astrodata import AstroData, file_md5
from niripipe.errors import InputError
from niripipe.reduction.report import RunReport

__all__ = ["as_script"]


def as_script(report: RunReport) -> str:
    """Return a Python script that makes the products of a run again, bit for bit.

    Parameters
    ----------
    report : RunReport
        Of a finished run.

    Returns
    -------
    str
        The script. It names all files by absolute path, checks that they are what they were, gives the
        calibrations by hand, and writes into the current folder.

    Raises
    ------
    InputError
        The run had frames, calibrations or a recipe that exist in memory only, or has not finished.
    """
    settings = report.settings
    if settings is None:
        raise InputError("There is no run to make a script of", item="report")
    files = [_path(source, "files") for source in settings.files]
    parameters = {name: _literal(name, value) for name, value in settings.parameters.items()}
    calibrations = {kind: sorted(paths) for kind, paths in sorted(report.calibration_files.items())}
    checked = [*files, *(path for paths in calibrations.values() for path in paths)]
    checked += [value for value in parameters.values() if isinstance(value, str) and Path(value).is_file()]
    lines = [
        f'"""{report.recipe} ({report.mode}) on {len(files)} files, as {report.software} did it."""',
        "",
        "from niripipe import CalibrationService, Reduce",
        "from niripipe.astrodata import file_md5",
        "",
        f"checksums = {_layout({path: file_md5(path) for path in checked})}",
        "changed = [path for path, md5 in checksums.items() if file_md5(path) != md5]",
        'assert not changed, f"these files are not what they were: {changed}"',
        "",
        f"files = {_layout(files)}",
        *_calibration_lines(calibrations),
        "reduction = Reduce(",
        "    files,",
        f"    recipe={_recipe(settings.recipe)!r},",
        f"    mode={settings.mode!r},",
        f"    parameters={_layout(parameters)},",
        "    calibrations=calibrations,",
        f"    suffix={settings.suffix!r},",
        ")",
        "reduction.runr()",
        "print(reduction.output_filenames)",
        "",
    ]
    return "\n".join(lines)


def _calibration_lines(calibrations: dict[str, list[str]]) -> list[str]:
    """Return the lines that define the calibrations: by type, or in a store where there are several."""
    if all(len(paths) == 1 for paths in calibrations.values()):
        by_type = {kind: paths[0] for kind, paths in calibrations.items()}
        return [f"calibrations = {_layout(by_type)}"]
    every = [path for paths in calibrations.values() for path in paths]
    return [
        "calibrations = CalibrationService()",
        'calibrations.config("reproduced.db")',
        "calibrations.init(wipe=True)",
        f"for path in {_layout(every)}:",
        "    calibrations.add_cal(path)",
    ]


def _path(source: Any, item: str) -> str:
    if isinstance(source, AstroData):
        raise InputError(
            "A frame that exists in memory only cannot be named in a script",
            item=item,
            found=source.filename,
            remedy="Write it to a file and reduce that.",
        )
    return str(Path(source).expanduser().absolute())


def _recipe(recipe: Any) -> str:
    if isinstance(recipe, str):
        return recipe
    raise InputError(
        "A recipe that exists in memory only cannot be named in a script",
        item="recipe",
        found=getattr(recipe, "__name__", repr(recipe)),
        remedy="Put it into a file and name it as 'path/file.function'.",
    )


def _literal(name: str, value: Any) -> Any:
    """Return a parameter's value in a form that a script can hold; files by absolute path."""
    if isinstance(value, (AstroData, PathLike)):
        return _path(value, name)
    if isinstance(value, str) and value and Path(value).is_file():
        return str(Path(value).absolute())
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return value
    raise InputError(
        "A parameter that exists in memory only cannot be named in a script",
        item=name,
        found=type(value).__name__,
        remedy="Write it to a file and name that.",
    )


def _layout(value: Any) -> str:
    return pprint.pformat(value, width=100, sort_dicts=False)
