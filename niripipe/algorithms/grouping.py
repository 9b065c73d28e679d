"""Which frames look at the same field, which of them are sky, and which skies go with a frame.

All decisions are made on small records, without frames, and each comes with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from niripipe.algorithms.arrays import Bool

__all__ = [
    "Exposure",
    "FrameClass",
    "Separation",
    "SkyChoice",
    "SkyRecord",
    "angular_separation",
    "choose_skies",
    "classify",
    "fields_overlap",
    "group_frames",
    "is_mosaic",
    "mean_position",
]

Position = tuple[float, float]
Directions = tuple[ArrayLike, ArrayLike]

# Largest difference in exposure time of a frame and its sky, seconds.
_EXPOSURE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Exposure:
    """What `classify` needs to know of a frame.

    Attributes
    ----------
    name : str
        File name.
    position : tuple of float
        Right ascension and declination of its field, degrees.
    guided : bool or None
        Whether a wavefront sensor was guiding; None when the header does not say.
    is_object, is_sky : bool
        What the header or the user says already.
    """

    name: str
    position: Position
    guided: bool | None = None
    is_object: bool = False
    is_sky: bool = False


@dataclass(frozen=True, slots=True)
class FrameClass:
    """What a frame is: object, sky, both or neither, its group, and why."""

    is_object: bool
    is_sky: bool
    group: int
    reason: str


@dataclass(frozen=True, slots=True)
class Separation:
    """Result of `classify`.

    Attributes
    ----------
    frames : tuple of FrameClass
        In the order of the input.
    warnings : tuple of str
        What the user should hear about.
    """

    frames: tuple[FrameClass, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SkyRecord:
    """What `choose_skies` needs to know of a frame.

    Attributes
    ----------
    name : str
        File name.
    time : float
        Start of the exposure, seconds from any epoch.
    position : tuple of float
        Right ascension and declination of the pointing, degrees.
    configuration : tuple of (str, object)
        Everything that must be equal, each with its name: shape, section, read mode, well, coadds ...
    exposure_time : float
        Seconds.
    """

    name: str
    time: float
    position: Position
    configuration: tuple[tuple[str, object], ...] = ()
    exposure_time: float = 0.0


@dataclass(frozen=True, slots=True)
class SkyChoice:
    """The skies of one frame.

    Attributes
    ----------
    skies : tuple of int
        Indices into the list of skies, in order of time.
    rejected : dict
        Index of each other sky and why it was not taken.
    warnings : tuple of str
        Departures from what was asked for.
    """

    skies: tuple[int, ...]
    rejected: dict[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def angular_separation(first: Directions, second: Directions) -> Any:
    """Return the angles between positions (longitude, latitude), numbers or arrays, all in degrees.

    Vincenty's form of the great-circle distance, exact for small and for large angles.
    """
    lon = np.deg2rad(np.subtract(second[0], first[0]))
    lat1, lat2 = np.deg2rad(first[1]), np.deg2rad(second[1])
    across = np.hypot(
        np.cos(lat2) * np.sin(lon), np.cos(lat1) * np.sin(lat2) - np.sin(lat1) * np.cos(lat2) * np.cos(lon)
    )
    along = np.sin(lat1) * np.sin(lat2) + np.cos(lat1) * np.cos(lat2) * np.cos(lon)
    return np.rad2deg(np.arctan2(across, along))


def mean_position(positions: Sequence[Position]) -> Position:
    """Return the direction of the mean of unit vectors; all in degrees."""
    lon, lat = np.deg2rad(positions).T
    x, y = np.mean(np.cos(lat) * np.cos(lon)), np.mean(np.cos(lat) * np.sin(lon))
    z = np.mean(np.sin(lat))
    return math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.atan2(z, math.hypot(x, y)))


def fields_overlap(
    centre: tuple[ArrayLike, ArrayLike], shape: tuple[ArrayLike, ArrayLike], fraction: float = 0.9
) -> Bool:
    """Tell whether frames show the field of another one.

    Parameters
    ----------
    centre : tuple of float or array
        Positions (y, x) of the frames' centres, ((ny-1)/2, (nx-1)/2), in the pixels of the other frame.
    shape : tuple of int or array
        Shapes (ny, nx) of the frames.
    fraction : float
        Share of the field within which the centres must lie, above 0 and up to 1.

    Returns
    -------
    ndarray of bool
        Of the shape of the arguments.
    """
    (y, x), (ny, nx) = map(np.asarray, centre), map(np.asarray, shape)
    inside: Bool = np.abs(y - (ny - 1) / 2) < fraction * ny
    return inside & (np.abs(x - (nx - 1) / 2) < fraction * nx)


def group_frames(overlap: Bool) -> list[list[int]]:
    """Group frames that overlap, directly or through others.

    Parameters
    ----------
    overlap : ndarray of bool, shape (n, n)
        Whether frame i overlaps frame j; used for i > j.

    Returns
    -------
    list of list of int
        Members of each group. A frame that joins two groups merges the later one into the earlier; the
        order is that of DRAGONS.
    """
    groups: list[list[int]] = []
    for frame in range(len(overlap)):
        found: list[int] | None = None
        for group in list(reversed(groups)):
            if not overlap[frame, group].any():
                continue
            if found is None:
                group.append(frame)
            else:
                group.extend(found)
                groups.remove(found)
            found = group
        if found is None:
            groups.append([frame])
    return groups


def is_mosaic(exposures: Sequence[Exposure], groups: Sequence[Sequence[int]], touching: Bool) -> bool:
    """Tell whether the fields of a list are tiles of one image rather than object and sky.

    Parameters
    ----------
    exposures : sequence of Exposure
    groups : sequence of sequence of int
        Frames of the same field, from `group_frames`.
    touching : ndarray of bool, shape (n, n)
        Whether frames share any pixel, in any corner.

    Returns
    -------
    bool
        True for two fields or more, all guided, that share pixels at their edges: sky is observed where
        nothing of the object's field is seen, and tiles are not.
    """
    guided = all(exposure.guided for exposure in exposures)
    return guided and len(groups) > 1 and len(group_frames(touching)) == 1


def classify(
    exposures: Sequence[Exposure],
    groups: Sequence[Sequence[int]],
    target: Position | None = None,
    *,
    mosaic: bool = False,
) -> Separation:
    """Sort frames into objects and skies.

    Parameters
    ----------
    exposures : sequence of Exposure
        The frames.
    groups : sequence of sequence of int
        Frames of the same field, from `group_frames`.
    target : tuple of float, optional
        Right ascension and declination of the target, degrees; used only when neither header nor user nor
        guiding says anything. Default: the position of the first frame.
    mosaic : bool
        Where nothing else is known, every frame is object and sky (`is_mosaic`).

    Returns
    -------
    Separation
        Frames that are neither are possible only when something was known of some groups and nothing of
        others.

    Notes
    -----
    The rules, in order: what header or user say holds for the whole group; a frame that was not
    guided is sky, unless it is said to be object; when only one class has members the rest gets the other,
    and if there is no rest every frame is both; when nothing is known a single field is both, of two fields
    the one nearer to the target is object, of more the nearest ones until half of the frames are. The rules
    are those of DRAGONS (separateSky), except that guiding must be known to be off for all wavefront
    sensors, and that it decides only when there are guided frames too: a night in which nothing was guided
    says nothing about what is sky. What is decided by the distance from the target alone is a guess, and a
    warning names the frames that are taken for sky.
    """
    known = _Known(
        {k for k, frame in enumerate(exposures) if frame.is_object},
        {k for k, frame in enumerate(exposures) if frame.is_sky},
        [[] for _ in exposures],
    )
    known.spread(groups)
    warnings = _apply_guiding(exposures, known, groups)
    known.fill_empty()
    if exposures and not known.objects and not known.skies:
        centres = [mean_position([exposures[k].position for k in members]) for members in groups]
        known.sort_by_distance(
            [range(len(exposures))] if mosaic else groups, centres, target or exposures[0].position
        )
        warnings += _guessed(exposures, known, len(groups))
    group_of = {k: g for g, members in enumerate(groups) for k in members}
    frames = tuple(
        FrameClass(
            k in known.objects,
            k in known.skies,
            group_of.get(k, -1),
            "; ".join(reasons) or "nothing is known of its field",
        )
        for k, reasons in enumerate(known.why)
    )
    warnings += [
        f"{exposure.name} is neither object nor sky"
        for exposure, frame in zip(exposures, frames, strict=True)
        if not (frame.is_object or frame.is_sky)
    ]
    return Separation(frames, tuple(warnings))


def choose_skies(
    frame: SkyRecord,
    skies: Sequence[SkyRecord],
    *,
    time: float = 900.0,
    distance: float = 1.0,
    min_skies: int | None = 3,
    max_skies: int | None = None,
    use_all: bool = False,
) -> SkyChoice:
    """Choose the sky frames to combine for a frame.

    Parameters
    ----------
    frame : SkyRecord
        The frame.
    skies : sequence of SkyRecord
        The sky frames, the frame itself possibly among them. They are only read: a sky that gets no
        partners itself stays a sky for others.
    time : float
        Largest difference in time, seconds.
    distance : float
        Least separation on the sky, arcseconds; strictly more than this is far enough. It keeps a frame
        from being its own sky.
    min_skies : int or None
        When fewer lie within ``time``, later and earlier ones are taken up to this number, with a warning.
        None or 0: never.
    max_skies : int or None
        Take at most so many, nearest in time first.
    use_all : bool
        Take every sky that is far enough and matches in configuration and exposure, whenever it was taken.

    Returns
    -------
    SkyChoice
        With no skies and every reason when there is none.
    """
    gap = [abs(sky.time - frame.time) for sky in skies]
    rejected: dict[int, str] = {}
    candidates = []
    for k, sky in enumerate(skies):
        away = 3600 * angular_separation(frame.position, sky.position)
        if sky.configuration != frame.configuration:
            rejected[k] = _difference(sky, frame)
        elif abs(sky.exposure_time - frame.exposure_time) > _EXPOSURE_TOLERANCE:
            rejected[k] = f"exposure {sky.exposure_time:g} s instead of {frame.exposure_time:g} s"
        elif not away > distance:
            rejected[k] = f"only {away:.2f} arcsec away, more than {distance:g} wanted"
        else:
            candidates.append(k)
    if use_all:
        return SkyChoice(tuple(sorted(candidates, key=lambda k: (skies[k].time, k))), rejected)
    candidates.sort(key=lambda k: gap[k])
    wanted = max(min_skies or 0, sum(gap[k] <= time for k in candidates))
    if max_skies is not None:
        wanted = min(wanted, max_skies)
    chosen = candidates[:wanted]
    for k in candidates[wanted:]:
        late = gap[k] > time
        rejected[k] = f"{gap[k]:.0f} s away, {time:g} allowed" if late else f"{len(chosen)} nearer in time"
    warnings = []
    late_gaps = [gap[k] for k in chosen if gap[k] > time]
    if late_gaps:
        warnings.append(
            f"{len(late_gaps)} of {len(chosen)} skies are more than {time:g} s away "
            f"(up to {max(late_gaps):.0f} s), to have {min_skies}"
        )
    if min_skies and len(chosen) < min(min_skies, max_skies or min_skies):
        warnings.append(f"only {len(chosen)} skies, {min_skies} wanted")
    return SkyChoice(tuple(sorted(chosen, key=lambda k: (skies[k].time, k))), rejected, tuple(warnings))


def _difference(sky: SkyRecord, frame: SkyRecord) -> str:
    wanted = dict(frame.configuration)
    differ = [
        f"{name} {value} instead of {wanted.get(name)}"
        for name, value in sky.configuration
        if value != wanted.get(name)
    ]
    return "another configuration: " + ", ".join(differ)


@dataclass(frozen=True, slots=True)
class _Known:
    """Indices of the frames known to be objects and skies, and for each frame the reasons."""

    objects: set[int]
    skies: set[int]
    why: list[list[str]]

    def spread(self, groups: Sequence[Sequence[int]]) -> None:
        """Let what is known of a frame hold for its group."""
        for known, label in ((self.objects, "object"), (self.skies, "sky")):
            for k in known:
                self.why[k].append(f"said to be {label}")
            for members in groups:
                if known.intersection(members):
                    for k in set(members) - known:
                        self.why[k].append(f"same field as a frame said to be {label}")
                    known.update(members)

    def fill_empty(self) -> None:
        """When only one class has members, give the rest, or all, to the other."""
        for known, empty, label in ((self.objects, self.skies, "sky"), (self.skies, self.objects, "object")):
            if known and not empty:
                rest = set(range(len(self.why))) - known
                for k in rest or known:
                    also = "" if rest else "also "
                    self.why[k].append(f"{also}{label}, as nothing else is")
                empty.update(rest or known)
                return

    def sort_by_distance(
        self, groups: Sequence[Sequence[int]], centres: Sequence[Position], target: Position
    ) -> None:
        """Make the fields near the target objects, and the others skies."""
        number = len(self.why)
        if len(groups) < 2:
            self.objects.update(range(number))
            self.skies.update(range(number))
            for reasons in self.why:
                reasons.append("one field only, object and sky")
            return
        distance = [3600 * angular_separation(centre, target) for centre in centres]
        for g in sorted(range(len(groups)), key=lambda g: distance[g]):
            enough = self.objects and (len(groups) == 2 or 2 * len(self.objects) >= number)
            known, label = (self.skies, "sky") if enough else (self.objects, "object")
            known.update(groups[g])
            for k in groups[g]:
                self.why[k].append(f"{label}, field {distance[g]:.0f} arcsec from the target")
        if not self.skies:
            self.skies.update(self.objects)


def _guessed(exposures: Sequence[Exposure], known: _Known, fields: int) -> list[str]:
    """Return what the user should know of frames that were sorted by their distance from the target."""
    if fields < 2:
        return []
    skies = [f"{exposures[k].name} ({'; '.join(known.why[k])})" for k in sorted(known.skies - known.objects)]
    if not skies:
        return [
            f"{fields} fields that touch are taken for a mosaic: every frame is object and sky; "
            "name the sky frames with separateSky:ref_sky if there are any"
        ]
    return [
        f"{len(skies)} of {len(exposures)} frames are taken for sky, by their distance from the target, "
        f"and will not be in the product: {', '.join(skies)}; name object frames with separateSky:ref_obj"
    ]


def _apply_guiding(
    exposures: Sequence[Exposure], known: _Known, groups: Sequence[Sequence[int]]
) -> list[str]:
    """Make frames without guiding skies; return warnings."""
    unguided = [k for k, frame in enumerate(exposures) if frame.guided is False]
    if len(unguided) == len(exposures):
        return ["no frame was guided; guiding does not tell objects from skies"] if unguided else []
    warnings = []
    same_field = {k for members in groups if any(exposures[j].guided for j in members) for k in members}
    for k in unguided:
        if k in known.objects:
            warnings.append(f"{exposures[k].name} is said to be object but was not guided")
        else:
            known.why[k].append("not guided")
            known.skies.add(k)
            if k in same_field and not exposures[k].is_sky:
                warnings.append(
                    f"{exposures[k].name} is taken for sky and will not be in the product: it shows the "
                    "field of guided frames, but no wavefront sensor guided (PWFS1_ST, PWFS2_ST, OIWFS_ST); "
                    "name object frames with separateSky:ref_obj"
                )
    return warnings
