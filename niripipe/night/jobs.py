"""The reductions of a night as plain data: what goes in, what is made, what it depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from niripipe.cal_service import SKY_LIGHT, CalibrationFacts
from niripipe.night.frames import root_name
from niripipe.night.sets import FrameSet, exposure_text, section_text
from niripipe.reduction import Mode
from niripipe.reduction.settings import absolute_parameters

__all__ = [
    "CALTYPES",
    "KINDS",
    "MAKE_STANDARD",
    "RECIPES",
    "SKY_FLAT",
    "Draft",
    "Job",
    "Kind",
    "PlannedCalibration",
    "chosen_parameters",
    "name_all",
    "product_facts",
    "product_name",
    "set_by_user",
]

Kind = Literal["dark", "bpm", "flat", "standard", "science"]

KINDS: tuple[Kind, ...] = ("dark", "bpm", "flat", "standard", "science")
"""The kinds of reductions in the order in which they are run."""

RECIPES: dict[Kind, str] = {
    "dark": "makeProcessedDark",
    "bpm": "makeProcessedBPM",
    "flat": "makeProcessedFlat",
    "standard": "reduce",
    "science": "reduce",
}
SKY_FLAT = "makeSkyFlat"
"""The recipe of flats that are made of frames of the sky."""

MAKE_STANDARD = "makeStandard"
"""The recipe of standards that are recognised."""

CALTYPES: dict[Kind, str] = {"dark": "processed_dark", "bpm": "processed_bpm", "flat": "processed_flat"}


@dataclass(frozen=True, slots=True)
class PlannedCalibration:
    """A calibration that a reduction will use.

    Attributes
    ----------
    caltype : str
        For example ``processed_dark``.
    name : str
        File name.
    job : str or None
        The reduction of this night that makes it.
    path : str or None
        The file, if it exists already.
    reason : str
        Why this one.
    required : bool
        Whether the reduction is skipped when `job` fails; without a bad pixel mask it is not.
    """

    caltype: str
    name: str
    job: str | None
    path: str | None
    reason: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Job:
    """One reduction of the night: plain data, which can be sent to another process.

    Attributes
    ----------
    name : str
        Unique in the plan, for example ``flat H``.
    kind : {"dark", "bpm", "flat", "standard", "science"}
        What is made.
    files : tuple of str
        Absolute paths of the inputs, in the order in which they are given to ``Reduce``.
    recipe : str
        Name of the recipe.
    parameters : dict
        Parameters of primitives, keys ``primitive:parameter``.
    calibrations : tuple of PlannedCalibration
        What it will use; no other calibration is looked for.
    product : str
        The expected file name of the product, with `folder`.
    folder : str
        Folder of the product below that of the others; empty for most. Reductions whose frames have the same
        names in different folders would replace each other's products.
    mode : str
        ``sq``, ``ql`` or ``qa``.
    sky_files : tuple of str
        Those of `files` that show sky beside the target.
    reasons, warnings : tuple of str
        Why it is as it is, and what the user should hear about.
    """

    name: str
    kind: Kind
    files: tuple[str, ...]
    recipe: str
    parameters: dict[str, Any]
    calibrations: tuple[PlannedCalibration, ...]
    product: str
    mode: Mode = "sq"
    folder: str = ""
    sky_files: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The names of the reductions whose products are used."""
        return tuple(dict.fromkeys(c.job for c in self.calibrations if c.job is not None))


@dataclass(slots=True)
class Draft:
    """A reduction while the plan is made.

    Attributes
    ----------
    kind : str
        What is made.
    frames : FrameSet
        The frames that decide set-up, name and time of the product.
    extra : tuple of FrameSet
        Further inputs, after `frames`: lamp-off flats, short darks.
    reasons, warnings : list of str
        For the job.
    of_sky : bool
        Whether it is a flat that is made of frames of the sky.
    no_sky_flat : str
        Why there is no such flat for these frames, if they lack one.
    folder : str
        Folder of the product, see `Job`.
    star : str
        Name of the standard star, of whose frames a zero point is made.
    named_after : str
        The file that gives the product its name, if not the first.
    """

    kind: Kind
    frames: FrameSet
    extra: tuple[FrameSet, ...] = ()
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    name: str = ""
    of_sky: bool = False
    no_sky_flat: str = ""
    folder: str = ""
    star: str = ""
    named_after: str = ""

    @property
    def caltype(self) -> str:
        """The type of calibration that is made; empty if none is."""
        return "processed_standard" if self.star else CALTYPES.get(self.kind, "")

    @property
    def files(self) -> tuple[str, ...]:
        """All inputs, in order."""
        return tuple(path for part in (self.frames, *self.extra) for path in part.paths)

    def product(self, mode: Mode) -> str:
        """Return the file name that the product will have."""
        recipe = MAKE_STANDARD if self.star else ""
        first = self.named_after or self.frames.first.path
        return str(Path(self.folder) / product_name(first, self.kind, mode, recipe))


def chosen_parameters(parameters: Mapping[str, Mapping[str, Any]], job: Job | Draft) -> dict[str, Any]:
    """Return the user's parameters of a reduction: those of its kind, and over them those of its name."""
    chosen = {**parameters.get(job.kind, {}), **parameters.get(job.name, {})}
    # The night may run when the current folder is another one.
    return absolute_parameters(chosen)


def set_by_user(chosen: Mapping[str, Any]) -> list[str]:
    """Return what is said of the parameters that the user set."""
    return [f"{key}={value!r}: set by the user" for key, value in chosen.items()]


def product_name(path: str, kind: Kind, mode: Mode, recipe: str = "") -> str:
    """Return the file name of the product that is named after a frame."""
    marked = f"_{mode}" if mode != "sq" else ""
    suffix = kind if kind in CALTYPES else "standard" if recipe == MAKE_STANDARD else "image"
    return f"{root_name(Path(path).name)}{marked}_{suffix}.fits"


def product_facts(draft: Draft, mode: Mode) -> CalibrationFacts:
    """Return the facts that a calibration product will have: its first frame's, and what it was made into."""
    facts = draft.frames.facts
    tags = facts.tags - {"RAW", "UNPREPARED"} | {"PROCESSED", "PREPARED"}
    if draft.kind == "bpm":
        tags |= {"BPM"}
    if draft.star:
        tags |= {"STANDARD"}
    if draft.of_sky:
        tags |= {"CAL", "FLAT"}
        facts = replace(facts, gcal_lamp=SKY_LIGHT)
    return replace(facts, filename=draft.product(mode), tags=frozenset(tags), processing_mode=mode)


def name_all(drafts: Sequence[Draft]) -> None:
    """Give every draft a different name, as short as it can be among the others."""
    parts = [[_base_name(draft)] for draft in drafts]
    for qualifier in zip(*map(_qualifiers, drafts), strict=True):
        for clash in _clashes(parts):
            if len({qualifier[k] for k in clash}) > 1:
                for k in clash:
                    parts[k].append(qualifier[k])
    for clash in _clashes(parts):
        for number, k in enumerate(clash, 1):
            parts[k].append(f"no. {number}")
    for draft, words in zip(drafts, parts, strict=True):
        draft.name = ", ".join(words)
    _separate_products(drafts)


def _separate_products(drafts: Sequence[Draft]) -> None:
    """Give products a folder where frames of one name, in different folders, would give them one name."""
    holders: dict[tuple[str, str], list[Path]] = {}
    for draft in drafts:
        for path in map(Path, draft.frames.paths):
            folders = holders.setdefault((draft.kind, root_name(path.name)), [])
            if path.parent not in folders:
                folders.append(path.parent)
    labels: dict[Path, str] = {}
    for draft in drafts:
        first = Path(draft.frames.first.path)
        if any(
            holders[draft.kind, root_name(Path(path).name)][0] != first.parent for path in draft.frames.paths
        ):
            label = re.sub(r"[^A-Za-z0-9_-]+", "", first.parent.name) or "other"
            taken = {one for folder, one in labels.items() if folder != first.parent}
            draft.folder = labels.setdefault(
                first.parent, label if label not in taken else f"{label}{len(labels) + 1}"
            )
            draft.reasons.append(
                f"its product is in the folder {draft.folder}: others have frames of the same names"
            )


def _clashes(parts: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the indices of the drafts that have the same name so far."""
    members: dict[tuple[str, ...], list[int]] = {}
    for k, words in enumerate(parts):
        members.setdefault(tuple(words), []).append(k)
    return [found for found in members.values() if len(found) > 1]


def _base_name(draft: Draft) -> str:
    frame = draft.frames.first
    if draft.kind == "dark":
        return f"dark {exposure_text(frame.facts)}"
    if draft.kind == "bpm":
        return "bpm"
    if draft.kind == "flat":
        return f"{'sky ' if draft.of_sky else ''}flat {frame.filter}"
    return f"{draft.kind} {frame.facts.object} {frame.filter}"


def _qualifiers(draft: Draft) -> tuple[str, ...]:
    """Return what may distinguish reductions, the most distinctive first."""
    frame = draft.frames.first
    facts = frame.facts
    observation = "" if draft.kind in CALTYPES else f"observation {frame.observation_id}"
    return (
        section_text(facts),
        (facts.camera or "unknown camera").split("_")[0],
        facts.read_mode or "unknown read mode",
        f"{facts.well_depth_setting or 'unknown'} well",
        facts.gcal_lamp or "no lamp",
        exposure_text(facts),
        observation,
        f"{frame.time:%Y-%m-%d}",
    )
