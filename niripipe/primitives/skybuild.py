"""Making sky frames for many frames at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import extended, normalize
from niripipe.algorithms import sky as sky_algorithm
from niripipe.algorithms.combine import (
    Combined,
    combine,
    median_variance_factors,
    subset_medians,
)
from niripipe.algorithms.noise_line import NoiseLine, noise_line
from niripipe.algorithms.parallel import map_items
from niripipe.algorithms.robust import fast_median, good_pixels
from niripipe.astrodata import DQ, AstroData, Plane
from niripipe.errors import AlgorithmError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import opened_name
from niripipe.primitives.dithers import box_shifts
from niripipe.primitives.params import Field
from niripipe.primitives.stack import SkyCombineParams
from niripipe.primitives.stacking import Rejection, combination_settings, section_slices

__all__ = ["BuiltSky", "SkyBuildParams", "SkyBuilder", "as_built", "seconds_of"]

log = get_logger(__name__)

Float32 = NDArray[np.float32]

_EXTENDED = DQ.overlap
"""Bit that stands for extended light in a sky. Nothing else sets it before frames are aligned, and unlike
objects such pixels are used where every sky has them: a small galaxy leaves no hole."""

_NEEDING_VARIANCE = ("varclip", "noiseclip")
"""Ways of rejection that look at variances."""

_LEVEL_ROWS = 5
"""Levels of skies are compared on one of so many rows: 200000 pixels give a median to 0.3 % of their
deviation. It has no factor in common with the periods of the detector's patterns."""

_FEW_ROWS = 16
"""One of so many rows tells whether there is any sky."""
_LEAST_PIXELS = 64
"""Of fewer pixels no level is judged."""


class SkyBuildParams(SkyCombineParams):
    """Parameters of everything that makes a sky from frames that show sources."""

    mask_extended: bool = Field(
        True,
        description="with mask_objects: leave out also what galaxies leave below the detection threshold; "
        "dithered frames must agree on it",
    )


@dataclass(frozen=True, slots=True)
class BuiltSky:
    """A sky made of several frames, at the level of the first frame of all.

    Attributes
    ----------
    names : tuple of str
        The frames combined.
    data : ndarray of float32
        The sky; not to be changed.
    variance : ndarray of float32 or None
        Its variance.
    mask : ndarray of uint16 or None
        Its data quality; None if no frame has one.
    scales, offsets : dict of str to float
        What each frame was multiplied by, and what was added to it, to bring it to that level.
    times : dict of str to float
        When each was taken, s.
    """

    names: tuple[str, ...]
    data: Float32
    variance: Float32 | None
    mask: NDArray[np.uint16] | None
    scales: dict[str, float]
    offsets: dict[str, float]
    times: dict[str, float]
    _boxes: list[NDArray[np.float64]] = field(default_factory=list, repr=False, compare=False)

    def boxes(self) -> NDArray[np.float64]:
        """Return the medians of its boxes; they are computed once."""
        if not self._boxes:
            self._boxes.append(extended.box_medians(self.data, self.mask))
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


class SkyBuilder:
    """Combines skies; what does not depend on the frame to be corrected is computed once.

    Parameters
    ----------
    skies : dict of str to AstroData
        By name. Their masks are changed: objects and extended light are marked in them.
    partners : mapping of str to sequence of str
        Which other skies show the sky of a sky.
    params : SkyBuildParams
    threads : int
    with_variance : bool
        Whether the skies need a variance.
    each : callable
        Applies a function to frames one by one, such as `PrimitivesBase.map`, which keeps a limit of memory.
    """

    def __init__(
        self,
        skies: dict[str, AstroData],
        partners: Mapping[str, Sequence[str]],
        params: SkyBuildParams,
        *,
        threads: int,
        with_variance: bool = True,
        each: Callable[[Callable[[AstroData], None], Iterable[AstroData]], object],
    ) -> None:
        self.skies = skies
        self.params = params
        self.threads = threads
        self.names = tuple(skies)
        self.times = {name: seconds_of(frame) for name, frame in skies.items()}
        self._with_variance = with_variance or params.reject_method in _NEEDING_VARIANCE
        self._extended_levels: dict[str, float] | None = None
        each(self._mark_objects, skies.values())
        if params.mask_objects and params.mask_extended and len(skies) > 1:
            self._mark_extended(partners)
        self.scales, self.offsets = self._normalisation()

    def built(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[list[BuiltSky]]:
        """Yield the skies made of the subsets in order, as many as are made at a time.

        Put subsets with many names in common next to each other. It can be called once: the frames are
        released when they are combined.
        """
        return self._medians(subsets) if self._only_medians() else self._combined(subsets)

    def _only_medians(self) -> bool:
        """Whether the combination is one whose work can be shared between skies."""
        p = self.params
        trimmed = p.reject_method == "none" or (p.reject_method == "minmax" and p.nlow == p.nhigh)
        return p.operation == "median" and trimmed

    def _medians(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[list[BuiltSky]]:
        index = {name: k for k, name in enumerate(self.names)}
        variances = self._planes("variance") if self._with_variance else None
        line = None
        if variances is not None:
            line = noise_line(self._data(), variances, threads=self.threads)
        batches = subset_medians(
            self._data(),
            variances if line is None else None,
            self._masks(),
            [[index[name] for name in subset] for subset in subsets],
            scale=[self.scales[name] for name in self.names],
            zero=[self.offsets[name] for name in self.names],
            threads=self.threads,
        )
        names = iter(subsets)
        left = len(subsets)
        for results in batches:
            left -= len(results)
            if not left:
                self.skies.clear()
            while results:
                # Few at a time get a variance: a batch holds more than memory has room for.
                some = [results.pop(0) for _ in results[: 2 * self.threads]]
                yield [self._median_sky(next(names), made, line) for made in some]

    def _median_sky(self, names: tuple[str, ...], made: Combined, line: NoiseLine | None) -> BuiltSky:
        variance = made.variance
        if line is not None:
            variance = self._variance_at(made.data, made.count, line, names)
        return self._sky(names, made.data, variance, made.mask)

    def _combined(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[list[BuiltSky]]:
        rejection: Rejection = self.params.reject_method
        index = {name: k for k, name in enumerate(self.names)}
        data, masks = self._data(), self._masks()
        variances = self._planes("variance") if self._with_variance else None
        if rejection in _NEEDING_VARIANCE and variances is None:
            rejection = "minmax"
        for subset in subsets:
            which = [index[name] for name in subset]
            made = combine(
                [data[k] for k in which],
                None if variances is None else [variances[k] for k in which],
                [masks[k] for k in which],
                **combination_settings(self.params, rejection),
                scale=[self.scales[name] for name in subset],
                zero=[self.offsets[name] for name in subset],
                threads=self.threads,
            )
            yield [self._sky(subset, made.data, made.variance if variances else None, made.mask)]

    def _sky(
        self,
        names: tuple[str, ...],
        data: Float32,
        variance: Float32 | None,
        mask: NDArray[np.uint16] | None,
    ) -> BuiltSky:
        return BuiltSky(
            names,
            data,
            variance,
            None if mask is None else _cleaned(mask),
            {name: self.scales[name] for name in names},
            {name: self.offsets[name] for name in names},
            {name: self.times[name] for name in names},
        )

    def _variance_at(
        self, median: Float32, number: NDArray[np.integer], line: NoiseLine, names: Sequence[str]
    ) -> Float32:
        """Return the variance of a median of skies: that of one sky at this level, by the number of inputs.

        The median is the better known level, and the variances of the inputs need not be read again.
        """
        factor = np.float32(np.mean([self.scales[name] for name in names]))
        constant = np.float32(np.mean([self.offsets[name] for name in names]))
        variance = line.at((median - constant) / factor)
        variance *= factor**2
        variance *= median_variance_factors(int(number.max(initial=0)))[number]
        return variance

    # ---- planes

    def _data(self) -> list[Plane]:
        return [frame[0].plane("data") for frame in self.skies.values()]

    def _masks(self) -> list[Plane | None]:
        return [frame[0].plane("mask") for frame in self.skies.values()]

    def _planes(self, name: str) -> list[Plane] | None:
        """Return a plane of every sky, or None if one of them has none."""
        planes = [frame[0].plane(name) for frame in self.skies.values()]
        return None if any(plane is None for plane in planes) else planes

    def _mark_objects(self, frame: AstroData) -> None:
        """Put the objects of a sky into its mask, in the private bit."""
        ext, params = frame[0], self.params
        if not params.apply_dq:
            ext.mask = None
        if not params.mask_objects:
            return
        if ext.plane("OBJMASK") is None:
            log.warning("%s has no object mask: its objects may show in the sky", frame.filename)
            return
        objmask.add_to_mask(frame, objmask.OBJECT_BIT, objmask.dilated(frame, params.dilation))

    def _mark_extended(self, partners: Mapping[str, Sequence[str]]) -> None:
        """Put extended light into the masks of the skies that show any."""
        frames = list(self.skies.values())
        if min(frames[0][0].shape) < 4 * extended.BOX:
            return
        boxes = map_items(
            lambda frame: extended.box_medians(frame[0].plane("data"), frame[0].plane("mask")),
            frames,
            threads=self.threads,
        )
        index = {name: k for k, name in enumerate(self.names)}
        others = [[index[p] for p in partners.get(name, ()) if p in index] for name in self.names]
        light = extended.extended_light(boxes, others, box_shifts(frames, extended.BOX))
        self._extended_levels = dict(zip(self.names, light.levels.tolist(), strict=True))
        shown = [k for k, mask in enumerate(light.masks) if mask.any()]
        for k in shown:
            where = extended.over_pixels(light.masks[k], frames[k][0].shape)
            objmask.add_to_mask(frames[k], _EXTENDED, where)
        if shown:
            log.stdinfo(
                "%d of %d skies show extended light, over up to %.0f %% of the field",
                len(shown), len(self.names), 100 * light.masks.mean(axis=(1, 2)).max(),
            )  # fmt: skip

    def _normalisation(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return factors and offsets that bring every sky to the level of the first."""
        ones, zeros = dict.fromkeys(self.names, 1.0), dict.fromkeys(self.names, 0.0)
        if not (self.params.scale or self.params.zero):
            return ones, zeros
        data = self._data()
        rows, columns = section_slices(self.params.statsec, data[0].shape)
        where = (slice(rows.start, rows.stop, _LEVEL_ROWS), columns)
        scaled = self.params.scale and not self._hardly_any()
        kind = normalize.scale_factors if scaled else normalize.zero_offsets
        try:
            found = kind(
                data,
                self._masks(),
                method="reference",
                section=where,
                threads=self.threads,
            )
        except AlgorithmError:
            # Objects and galaxies may leave two frames without a pixel in common.
            if not scaled or self._extended_levels is None:
                raise
            return {name: 1 / level for name, level in self._extended_levels.items()}, zeros
        values = dict(zip(self.names, found.tolist(), strict=True))
        return (values, zeros) if scaled else (ones, values)

    def _hardly_any(self) -> bool:
        """Whether a sky has too little light to be scaled; then all are shifted to one level."""
        for plane, mask in zip(self._data(), self._masks(), strict=True):
            thin = slice(0, None, _FEW_ROWS)
            values = plane[thin]
            good = values[good_pixels(values, None if mask is None else mask[thin])]
            if good.size < _LEAST_PIXELS:
                continue
            level = fast_median(good)
            # A deviation below; one rank at a time is found several times quicker than two.
            rank = int(0.1587 * good.size)
            std = level - float(np.partition(good, rank)[rank])
            if not sky_algorithm.can_be_scaled(level, std, good.size * _FEW_ROWS):
                log.warning("there is hardly any sky (%.3g): skies are shifted, not scaled", level)
                return True
        return False


def _cleaned(mask: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Turn the private object bit into "no data", and drop brightness: it was another exposure's."""
    flagged = np.flatnonzero(mask)
    bits = mask.reshape(-1)[flagged]
    objects = bits & objmask.OBJECT_BIT != 0
    bits &= ~(objmask.OBJECT_BIT | np.uint16(_EXTENDED | DQ.non_linear | DQ.saturated))
    bits[objects] |= np.uint16(DQ.no_data)
    cleaned = np.zeros_like(mask)
    cleaned.reshape(-1)[flagged] = bits
    return cleaned


def seconds_of(frame: AstroData) -> float:
    """Return when a frame was taken, s; NaN where it does not say."""
    time = frame.ut_datetime()
    return float("nan") if time is None else float(time.timestamp())


def as_built(sky: AstroData) -> BuiltSky:
    """Return a sky frame in the form of one that was just made."""
    name, ext = opened_name(sky), sky[0]
    return BuiltSky(
        (name,),
        ext.read("data"),
        ext.read("variance"),
        ext.read("mask"),
        {name: 1.0},
        {name: 0.0},
        {name: seconds_of(sky)},
    )
