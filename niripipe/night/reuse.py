"""Products of an earlier run of a night that are still good: same inputs, parameters, calibrations, version.

Beside the products is a small file in JSON, which holds for each reduction what decided its product and
the checksums of what was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from niripipe import __version__
from niripipe.astrodata import file_md5, utc_now
from niripipe.logutils import get_logger
from niripipe.night.jobs import Job
from niripipe.night.result import JobResult, JobStatus

__all__ = ["MANIFEST", "Manifest", "fingerprint"]

MANIFEST = "night.json"
"""Name of the file, in the folder of the products."""

log = get_logger(__name__)


def fingerprint(job: Job, calibrations: Mapping[str, str]) -> str | None:
    """Return a checksum of all that decides the product of a reduction.

    Parameters
    ----------
    job : Job
        Its files and calibrations count by what they contain.
    calibrations : mapping of str to str
        Type to path.

    Returns
    -------
    str or None
        None if something exists in memory only, or cannot be read.
    """
    files = [*job.files, *calibrations.values()]
    checksums = [file_md5(path) for path in files]
    if not all(checksums):
        return None
    content = {
        "version": __version__,
        "recipe": [job.recipe, _file_of(job.recipe)],
        "mode": job.mode,
        "product": job.product,
        "parameters": {key: [value, _files_in(value)] for key, value in job.parameters.items()},
        "files": [[Path(path).name, md5] for path, md5 in zip(files, checksums, strict=True)],
        "types": sorted(calibrations),
    }
    try:
        text = json.dumps(content, sort_keys=True)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _file_of(recipe: str) -> str:
    """Return the checksum of the file of a recipe of the user's own."""
    location = recipe.rpartition("::" if "::" in recipe else ".")[0]
    return file_md5(location if location.endswith(".py") else f"{location}.py") if location else ""


def _files_in(value: Any) -> list[str]:
    """Return the checksums of the files that a parameter names."""
    values = value if isinstance(value, list | tuple) else [value]
    return [file_md5(one) for one in values if isinstance(one, str) and os.path.sep in one]


class Manifest:
    """What is finished in a folder of products.

    Parameters
    ----------
    folder : pathlib.Path
        The folder; a file in it that cannot be read counts as none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read, so that everything is reduced again: %s", self._path, error)
            return
        if isinstance(found, dict):
            self._entries = {key: entry for key, entry in found.items() if isinstance(entry, dict)}

    def finished(self, job: Job, calibrations: Mapping[str, str]) -> JobResult | None:
        """Return the result of a reduction that need not be done again, or None.

        Its notes say that it is not new, and repeat what was remarked when it was made.
        """
        entry = self._entries.get(job.product, {})
        outputs = entry.get("outputs")
        if not isinstance(outputs, dict) or not outputs:
            return None
        folder = self._path.parent
        if any(not md5 or file_md5(folder / name) != md5 for name, md5 in outputs.items()):
            return None
        if entry.get("fingerprint") != fingerprint(job, calibrations):
            return None
        notes = (
            f"reused, made {entry.get('made')}: inputs, parameters, calibrations and version are the same",
            *map(str, entry.get("remarks", ())),
        )
        log.status("%s: %s is %s", job.name, ", ".join(outputs), notes[0])
        paths = tuple(str(folder / name) for name in outputs)
        return JobResult(job.name, job.kind, JobStatus.DONE, outputs=paths, notes=notes, reused=True)

    def record(self, job: Job, result: JobResult) -> None:
        """Note that a reduction is finished; one that lost most of its frames is done again next time."""
        if not result.ok or result.fingerprint is None:
            self._entries.pop(job.product, None)
        else:
            self._entries[job.product] = {
                "fingerprint": result.fingerprint,
                "outputs": {Path(path).name: file_md5(path) for path in result.outputs},
                "made": utc_now()[:19],
                "remarks": [text for text in (result.frames_lost, *result.warnings) if text],
            }
        self._write()

    def _write(self) -> None:
        """Replace the file as a whole; without it the next run does all again, which is no error."""
        try:
            handle, name = tempfile.mkstemp(prefix=f".{MANIFEST}-", dir=self._path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._entries, file, indent=1)
            Path(name).replace(self._path)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
