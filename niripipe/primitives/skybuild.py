"""Making sky frames for many frames at once, and finding how much of a sky is in a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import background, extended, normalize
from niripipe.algorithms import sky as sky_algorithm
from niripipe.algorithms.combine import combine, median_variance_factors, subset_medians
from niripipe.algorithms.combine.select import BEST_TIER
from niripipe.algorithms.flags import Flags
from niripipe.algorithms.parallel import share_items
from niripipe.algorithms.sources import PlaneSource
from niripipe.astrodata import DQ, ArrayPlane, AstroData
from niripipe.astrodata.planes import RowFunction, Rows
from niripipe.errors import AlgorithmError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.params import Field
from niripipe.primitives.stack import SkyCombineParams
from niripipe.primitives.stacking import Rejection, combination_settings, section_slices

__all__ = [
    "BuiltSky",
    "Match",
    "Noise",
    "Pixels",
    "Scaling",
    "SkyBuildParams",
    "SkyBuilder",
    "SkyLevel",
    "level_of",
    "match_sky",
    "seconds_of",
]

log = get_logger(__name__)

_EXTENDED = int(DQ.overlap)
"""Bit that stands for extended light in a sky. Nothing else sets it before frames are aligned, and unlike
objects such pixels are used where every sky has them: a small galaxy leaves no hole."""

SkyLevel = Literal["auto", "peak", "median", "faint", "boxes"]

_ALL = (slice(None), slice(None))

_NEEDING_VARIANCE = ("varclip", "noiseclip")
"""Ways of rejection that look at variances."""

_LEVEL_ROWS = 5
"""Levels of skies are compared on one of so many rows: 200000 pixels give a median to 0.3 % of their
deviation. It has no factor in common with the periods of the detector's patterns."""

_ROWS_COMPARED = 8
_SAME_NOISE = 1e-3
"""On so many rows, and to this relative precision, variances are compared to see that skies have the same."""

_LEAST_SKY = 0.15
"""Galaxies are masked in a frame only if more than this part of it remains."""
_CROWDED = 0.3
"""When less of the field than this agrees on a sky level, the level is checked against the skies'."""


class SkyBuildParams(SkyCombineParams):
    """Parameters of everything that makes a sky from frames that show sources."""

    mask_extended: bool = Field(
        True,
        description="with mask_objects: leave out also what galaxies leave below the detection threshold",
    )


class Scaling(Protocol):
    """What of the parameters says how a sky is matched to a frame."""

    @property
    def scale_sky(self) -> bool:
        """Whether to scale."""
        ...

    @property
    def offset_sky(self) -> bool:
        """Whether to shift."""
        ...

    @property
    def level(self) -> SkyLevel:
        """What the sky level is."""
        ...

    @property
    def debug_threshold(self) -> float:
        """Relative precision of a factor."""
        ...


@dataclass(frozen=True, slots=True)
class Noise:
    """The variance of a sky: a plane, or what it can be computed from where somebody needs it.

    Attributes
    ----------
    rows : callable
        Takes a slice of rows, returns their variance.
    using : tuple of ArrayPlane
        What that needs beside the sky.
    """

    rows: Rows
    using: tuple[ArrayPlane, ...]

    @classmethod
    def known(cls, variance: NDArray[np.float32]) -> Noise:
        """Return the variance that a plane has."""
        plane = ArrayPlane(variance)
        return cls(lambda rows: np.asarray(plane.rows()[rows]), (plane,))

    @classmethod
    def of_median(cls, sky: ArrayPlane, number: NDArray[Any], spread: RowFunction) -> Noise:
        """Return the variance of medians of some inputs; `spread` makes that of one of them from the median.

        The median is the better known level, and it saves looking at the variance of each input.
        """
        inputs = ArrayPlane(number)
        factors = median_variance_factors(int(number.max(initial=0)))

        def variance(rows: slice) -> NDArray[np.float32]:
            with np.errstate(all="ignore"):
                factor = factors.take(inputs.rows()[rows], mode="clip")
                return np.asarray(factor * spread(sky.rows()[rows], rows))

        return cls(variance, (inputs,))


@dataclass(frozen=True, slots=True)
class BuiltSky:
    """A sky made of several frames, at the level of the first frame of all.

    Attributes
    ----------
    names : tuple of str
        The frames combined.
    plane : ArrayPlane
        The sky, which the frames from which it is subtracted share.
    noise : Noise or None
        Its variance.
    flags : Flags or None
        Its data quality; None if no frame has one.
    scales, offsets : dict of str to float
        What each frame was multiplied by, and what was added to it, to bring it to that level.
    times : dict of str to float
        When each was taken, s.
    """

    names: tuple[str, ...]
    plane: ArrayPlane
    noise: Noise | None
    flags: Flags | None
    scales: dict[str, float]
    offsets: dict[str, float]
    times: dict[str, float]
    _boxes: list[NDArray[np.float64]] = field(default_factory=list, repr=False, compare=False)

    @property
    def data(self) -> NDArray[np.float32]:
        """The pixels, for reading only."""
        return self.plane.view()

    def mask(self) -> NDArray[np.uint16] | None:
        """Return the flags as a plane."""
        return None if self.flags is None else self.flags.add_to(np.zeros(self.plane.shape, np.uint16))

    def boxes(self) -> NDArray[np.float64]:
        """Return the medians of its boxes; they are computed once."""
        if not self._boxes:
            self._boxes.append(extended.box_medians(self.data, self.mask()))
        return self._boxes[0]

    def expected(self, time: float) -> tuple[float, float, float]:
        """Return factor and constant of this sky at a time, and how far the factor can be trusted.

        Interpolated between the skies before and after it; before the first and after the last the nearest
        one counts. The error is the rms by which each sky differs from what the others say about it; not
        finite where there are fewer than three.
        """
        when = np.array([self.times[name] for name in self.names])
        order = np.argsort(when, kind="stable")
        when = when[order]
        factors = np.array([1 / self.scales[self.names[k]] for k in order])
        constants = np.array([-self.offsets[self.names[k]] for k in order])
        misses = [
            factors[k] - np.interp(when[k], np.delete(when, k), np.delete(factors, k))
            for k in range(1, len(when) - 1)
        ]
        error = float(np.sqrt(np.mean(np.square(misses)))) if misses else float("inf")
        return float(np.interp(time, when, factors)), float(np.interp(time, when, constants)), error


@dataclass(frozen=True, slots=True)
class Match:
    """How much of a sky is in a frame.

    Attributes
    ----------
    factor, constant : float
        ``data - factor * sky - constant``.
    residual : float or None
        Level left; None where it cannot be measured.
    method : str
        How it was found.
    warning : str
        What the user should hear; empty if nothing.
    """

    factor: float
    constant: float
    residual: float | None
    method: str
    warning: str = ""


_Made = tuple[ArrayPlane, Noise | None, Flags | None]


class SkyBuilder:
    """Combines skies; what does not depend on the frame to be corrected is computed once.

    Parameters
    ----------
    skies : dict of str to AstroData
        By name. Not changed. Those that no later sky needs are let go of.
    partners : mapping of str to sequence of str
        Which other skies show the sky of a sky.
    params : SkyBuildParams
    threads : int
    with_variance : bool
        Whether the skies need a variance.
    """

    def __init__(
        self,
        skies: dict[str, AstroData],
        partners: Mapping[str, Sequence[str]],
        params: SkyBuildParams,
        *,
        threads: int,
        with_variance: bool = True,
    ) -> None:
        self.skies = dict(skies)
        self.params = params
        self._with_variance = with_variance or params.reject_method in _NEEDING_VARIANCE
        self.threads = threads
        self.names = tuple(skies)
        self.times = {name: seconds_of(frame) for name, frame in skies.items()}
        masks = share_items(self._own_mask, self._frames, workers=threads)
        if params.mask_objects:
            for frame in self._frames:
                if frame[0].rows("OBJMASK") is None:
                    log.warning("%s has no object mask: its objects may show in the sky", frame.filename)
        self._masks = dict(zip(self.names, masks, strict=True))
        self._data = {name: _Plane(frame, "data") for name, frame in skies.items()}
        self._extended_levels: dict[str, float] | None = None
        if params.mask_objects and params.mask_extended and len(skies) > 1:
            self._mask_extended(partners)
        self.scales, self.offsets = self._normalisation()

    def built(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[list[BuiltSky]]:
        """Yield the skies made of the subsets in order, as many as are made at a time.

        Put subsets with many names in common next to each other. It can be called once: the skies are let go
        of on the way.
        """
        done = 0
        for made in self._medians(subsets) if self._only_medians() else self._plain(subsets):
            which = subsets[done : done + len(made)]
            done += len(made)
            yield [self._as_built(subset, *one) for subset, one in zip(which, made, strict=True)]

    def _as_built(
        self, subset: tuple[str, ...], plane: ArrayPlane, noise: Noise | None, flags: Flags | None
    ) -> BuiltSky:
        return BuiltSky(
            subset, plane, noise, None if flags is None else _cleaned(flags),
            {name: self.scales[name] for name in subset},
            {name: self.offsets[name] for name in subset},
            {name: self.times[name] for name in subset},
        )  # fmt: skip

    @property
    def _frames(self) -> list[AstroData]:
        return list(self.skies.values())

    def _only_medians(self) -> bool:
        """Whether the combination is one whose work can be shared."""
        p = self.params
        trimmed = p.reject_method == "none" or (p.reject_method == "minmax" and p.nlow == p.nhigh)
        return p.operation == "median" and trimmed

    def _medians(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[list[_Made]]:
        place = {name: k for k, name in enumerate(self.names)}
        last_use = {name: k for k, subset in enumerate(subsets) for name in subset}
        spread = self._common_spread(subsets)
        variance = None if spread else self._variance(self.names)
        sources = {
            name: [self._data[name], *([variance[k]] if variance else [])]
            for k, name in enumerate(self.names)
        }
        self.skies.clear()
        batches = subset_medians(
            list(self._data.values()),
            variance,
            list(self._masks.values()),
            [[place[name] for name in subset] for subset in subsets],
            scale=[self.scales[name] for name in self.names],
            zero=[self.offsets[name] for name in self.names],
            threads=self.threads,
        )
        done = 0
        for results in batches:
            done += len(results)
            for name in [name for name in sources if last_use.get(name, -1) < done]:
                for source in sources.pop(name):
                    source.release()
            made: list[_Made] = []
            for k in range(done - len(results), done):
                result = results.pop(0)
                plane, noise = ArrayPlane(result.data), None
                if spread is not None:
                    noise = Noise.of_median(plane, result.count, spread[k])
                elif result.variance is not None:
                    noise = Noise.known(result.variance)
                made.append((plane, noise, None if result.mask is None else Flags.of(result.mask)))
            del result, plane, noise  # skies are not to stay longer than their frames
            yield made

    def _plain(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[list[_Made]]:
        params = self.params
        for subset in subsets:
            variance = self._variance(subset)
            rejection: Rejection = params.reject_method
            if rejection in _NEEDING_VARIANCE and variance is None:
                rejection = "minmax"
            made = combine(
                [self._data[name] for name in subset],
                variance,
                [self._masks[name] for name in subset],
                **combination_settings(params, rejection),
                scale=[self.scales[name] for name in subset],
                zero=[self.offsets[name] for name in subset],
                threads=self.threads,
            )
            noise = Noise.known(made.variance) if variance and made.variance is not None else None
            yield [(ArrayPlane(made.data), noise, None if made.mask is None else Flags.of(made.mask))]

    def _common_spread(self, subsets: Sequence[tuple[str, ...]]) -> list[RowFunction] | None:
        """Return for each subset the variance of one of its skies as a function of their median.

        None where variances are not wanted, or where they are not all the same function of the data: those
        of frames that were taken and corrected alike are, up to the levels that the skies are brought to.
        """
        functions = [frame[0].variance_function() for frame in self._frames]
        if not self._with_variance or any(function is None for function in functions):
            return None
        rows = slice(0, None, max(self._frames[0][0].shape[0] // _ROWS_COMPARED, 1))
        values = self._frames[0][0].rows("data")[rows]
        first = functions[0](values, rows)
        for function in functions[1:]:
            if not np.allclose(function(values, rows), first, rtol=_SAME_NOISE, atol=0, equal_nan=True):
                return None

        def spread(subset: tuple[str, ...]) -> RowFunction:
            factor = np.float32(np.mean([self.scales[name] for name in subset]))
            constant = np.float32(np.mean([self.offsets[name] for name in subset]))
            return lambda median, rows: functions[0]((median - constant) / factor, rows) * factor**2

        return [spread(subset) for subset in subsets]

    def _variance(self, names: Sequence[str]) -> list[_Plane] | None:
        """Return the variances of some skies, or None where they are not wanted or one of them has none."""
        frames = [self.skies[name] for name in names]
        if not self._with_variance or any(frame[0].rows("variance") is None for frame in frames):
            return None
        return [_Plane(frame, "variance") for frame in frames]

    def _own_mask(self, frame: AstroData) -> _Mask:
        """Return the mask of a sky with its objects in the private bit."""
        mask = _Mask(frame, with_flags=self.params.apply_dq)
        if self.params.mask_objects:
            grown = objmask.dilated(frame, self.params.dilation)
            if grown is not None:
                mask.add(int(objmask.OBJECT_BIT), grown)
        return mask

    def _mask_extended(self, partners: Mapping[str, Sequence[str]]) -> None:
        """Put extended light into the masks, where it is seen."""
        if min(self.skies[self.names[0]][0].shape) < 4 * extended.BOX:
            return
        boxes = share_items(
            lambda name: extended.box_medians(self._data[name], self._masks[name]),
            self.names,
            workers=self.threads,
        )
        place = {name: k for k, name in enumerate(self.names)}
        others = [[place[p] for p in partners.get(name, ()) if p in place] for name in self.names]
        light = extended.extended_light(boxes, others)
        self._extended_levels = dict(zip(self.names, light.levels.tolist(), strict=True))
        found = 0
        for name, mask in zip(self.names, light.masks, strict=True):
            if mask.any():
                found += 1
                own = self._masks[name]
                own.add(_EXTENDED, extended.over_pixels(mask, own.shape))
        if found:
            log.stdinfo(
                "%d of %d skies show extended light, over up to %.0f %% of the field",
                found, len(self.names), 100 * light.masks.mean(axis=(1, 2)).max(),
            )  # fmt: skip

    def _normalisation(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return factors and offsets that bring every sky to the level of the first."""
        ones, zeros = dict.fromkeys(self.names, 1.0), dict.fromkeys(self.names, 0.0)
        if not (self.params.scale or self.params.zero):
            return ones, zeros
        rows, columns = section_slices(self.params.statsec, self._data[self.names[0]].shape)
        where = (slice(rows.start, rows.stop, _LEVEL_ROWS), columns)
        kind = normalize.scale_factors if self.params.scale else normalize.zero_offsets
        try:
            found = kind(
                list(self._data.values()),
                list(self._masks.values()),
                method="reference",
                section=where,
                run=partial(share_items, workers=self.threads),
            )
        except AlgorithmError:
            # Objects and galaxies may leave two frames without a pixel in common.
            if not self.params.scale or self._extended_levels is None:
                raise
            return {name: 1 / level for name, level in self._extended_levels.items()}, zeros
        values = dict(zip(self.names, found.tolist(), strict=True))
        return (values, zeros) if self.params.scale else (ones, values)


@dataclass(frozen=True, slots=True)
class Pixels:
    """What of a frame a sky is compared with; it is read as far as it is looked at.

    Attributes
    ----------
    data : PlaneSource
    mask : PlaneSource or None
    objects : PlaneSource or None
        Its sources, where they are known.
    """

    data: PlaneSource
    mask: PlaneSource | None
    objects: PlaneSource | None

    @classmethod
    def of(cls, frame: AstroData) -> Pixels:
        """Return the present pixels of a frame."""
        ext = frame[0]
        return cls(ext.rows("data"), ext.rows("mask"), ext.rows("OBJMASK"))


def match_sky(frame: AstroData, pixels: Pixels, sky: BuiltSky, params: Scaling) -> Match:
    """Find by which factor and constant a sky fits a frame.

    Parameters
    ----------
    frame : AstroData
        The frame; its sources are left out where they are known.
    pixels : Pixels
        Its pixels.
    sky : BuiltSky
    params : Scaling

    Returns
    -------
    Match

    Raises
    ------
    AlgorithmError
        If the frame cannot be measured, or the sky has no level to scale.
    """
    level = _level_kind(params.level, sky.data.shape)
    objects: Any = pixels.objects
    if params.level == "auto" and level == "boxes" and (params.scale_sky or params.offset_sky):
        objects = _with_extended_light(pixels, sky)
    arguments = (pixels.data, sky.data, pixels.mask, sky.mask(), objects)
    try:
        if params.scale_sky:
            found = sky_algorithm.sky_factor(*arguments, level=level, threshold=params.debug_threshold)
            return _believed(found, frame, sky, arguments, level)
        if params.offset_sky:
            found = sky_algorithm.sky_offset(*arguments, level=level)
            return Match(1.0, found.value, found.residual, "offset", _doubt(found, "offset"))
    except AlgorithmError as error:
        error.file = frame.filename
        raise
    factor, constant, _ = sky.expected(seconds_of(frame))
    return Match(factor, constant, _residual(arguments, factor, constant, level), "interpolated")


def level_of(pixels: Pixels) -> float:
    """Return the background level of a frame, without its sources where they are known."""
    planes = (None if plane is None else plane[_ALL] for plane in (pixels.mask, pixels.objects))
    return background.measure_background(pixels.data[_ALL], *planes).level


def _with_extended_light(pixels: Pixels, sky: BuiltSky) -> Any:
    """Return an object mask with the galaxies of a frame in it that detection does not see whole."""
    objects = pixels.objects
    own = extended.box_medians(pixels.data, pixels.mask, objects)
    light = extended.extended_light([own, sky.boxes()], [[1], []]).masks[0]
    # A galaxy over all of the field is not seen against a sky beside it; nothing would be left to measure.
    if not light.any() or light.mean() > 1 - _LEAST_SKY:
        return objects
    shown = extended.over_pixels(light, sky.data.shape)
    return shown if objects is None else shown | (objects[_ALL] != 0)


def _believed(
    found: sky_algorithm.SkyMatch,
    frame: AstroData,
    sky: BuiltSky,
    arguments: tuple[Any, ...],
    level: sky_algorithm.LevelKind,
) -> Match:
    """Check a factor against what the skies around it say where extended light may have spoilt it."""
    expected, constant, error = sky.expected(seconds_of(frame))
    base = float(np.median(sky.data[::16, ::16]))
    excess = (found.value - expected) * base
    if found.share >= _CROWDED or constant:
        return Match(found.value, 0.0, found.residual, "scaled")
    if np.isfinite(error) and excess > max(3 * error * base, 0.1 * found.std):
        text = (
            f"only {100 * found.share:.0f} % of the field agree on a sky level, and it lies "
            f"{100 * (found.value / expected - 1):.2f} % above that of the skies, which is more than they "
            f"differ ({100 * error / expected:.2f} %): taken for light of the target, and the level of the "
            "skies is used (scale_sky=False does so always)"
        )
        return Match(expected, 0.0, _residual(arguments, expected, 0.0, level), "interpolated", text)
    return Match(found.value, 0.0, found.residual, "scaled", _doubt(found, "scale"))


def _doubt(found: sky_algorithm.SkyMatch, what: str) -> str:
    if found.share >= _CROWDED:
        return ""
    return (
        f"only {100 * found.share:.0f} % of the field agree on a sky level: extended light may be "
        f"subtracted; {what}_sky=False takes the level from the skies"
    )


def _residual(
    arguments: tuple[Any, ...], factor: float, constant: float, level: sky_algorithm.LevelKind
) -> float | None:
    try:
        return sky_algorithm.sky_residual(*arguments, factor=factor, level=level).residual - constant
    except AlgorithmError:
        # A frame all of whose pixels are masked has no level; its subtraction is none the worse.
        return None


def _level_kind(wanted: SkyLevel, shape: tuple[int, ...]) -> sky_algorithm.LevelKind:
    if wanted != "auto":
        return wanted
    return "boxes" if min(shape) >= 8 * extended.BOX else "peak"


def _cleaned(flags: Flags) -> Flags:
    """Turn the private object bit into "no data", and forget brightness: it was another exposure's."""
    bits = flags.bits & ~(objmask.OBJECT_BIT | np.uint16(_EXTENDED | DQ.non_linear | DQ.saturated))
    bits[flags.bits & objmask.OBJECT_BIT != 0] |= np.uint16(DQ.no_data)
    left = bits != 0
    return Flags(flags.where[left], bits[left])


def seconds_of(frame: AstroData) -> float:
    """Return when a frame was taken, s; NaN where it does not say."""
    time = frame.ut_datetime()
    return float("nan") if time is None else float(time.timestamp())


class _Plane:
    """Data or variance of a sky, read piece by piece from wherever it is, so that many skies need no memory.

    What waits in the scratch folder of the reduction stays there. Once released it cannot be read, and
    keeps nothing alive.
    """

    def __init__(self, frame: AstroData, name: str) -> None:
        # The frame as a whole, which the reduction may move to the scratch folder as long as it exists.
        self._frame: AstroData | None = frame
        self._name = name
        self.shape: tuple[int, int] = frame[0].shape

    def release(self) -> None:
        """Let go of the sky."""
        self._frame = None

    def __getitem__(self, key: slice | tuple[slice, slice], /) -> NDArray[Any]:
        assert self._frame is not None
        found: NDArray[Any] = self._frame[0].rows(self._name)[key]
        return found


class _Mask:
    """The data quality of a sky, and what is left out of it for the time being.

    It is asked for often, so that flags are kept as a list, and the rest as bits.
    """

    def __init__(self, frame: AstroData, *, with_flags: bool) -> None:
        self.shape: tuple[int, int] = frame[0].shape
        source = frame[0].rows("mask") if with_flags else None
        self._flags = Flags.none() if source is None else Flags.of(source)
        self._added: list[tuple[np.uint16, NDArray[np.uint8]]] = []
        bad = self._flags.bits & np.uint16(0xFFFF & ~BEST_TIER) != 0
        unusable = np.zeros(self.shape, bool)
        unusable.reshape(-1)[self._flags.where[bad]] = True
        self._unusable = np.packbits(unusable, axis=1)

    def add(self, flag: int, where: NDArray[np.bool_]) -> None:
        """Set a bit of the mask where something is true."""
        packed = np.packbits(where, axis=1)
        self._added.append((np.uint16(flag), packed))
        self._unusable |= packed

    def unusable(self, rows: slice) -> NDArray[np.bool_]:
        """Return which pixels of some rows cannot be used."""
        return np.unpackbits(self._unusable[rows], axis=1, count=self.shape[1]).view(np.bool_)

    def at(self, rows: slice, where: NDArray[np.intp]) -> NDArray[np.uint16]:
        """Return the flags of some pixels of some rows."""
        flags = self._flags.at(where + rows.start * self.shape[1])
        row, column = np.divmod(where, self.shape[1])
        for flag, packed in self._added:
            bits = packed[row + rows.start, column >> 3] >> (7 - (column & 7)).astype(np.uint8)
            flags |= (bits & 1) * flag
        return flags

    def __getitem__(self, key: slice | tuple[slice, slice], /) -> NDArray[np.uint16]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        height = len(range(*rows.indices(self.shape[0])))
        mask = self._flags.add_to(np.zeros((height, self.shape[1]), np.uint16), rows, self.shape[0])
        for flag, packed in self._added:
            mask |= np.unpackbits(packed[rows], axis=1, count=self.shape[1]) * flag
        return mask[:, columns]
