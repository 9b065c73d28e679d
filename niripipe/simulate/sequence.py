"""Which frames a night consists of: names, kinds, times, offsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

from niripipe.errors import ParameterError
from niripipe.simulate.settings import NightPlan

__all__ = ["Exposure", "Field", "Kind", "plan_exposures"]

Kind = Literal["target", "sky", "std", "flat_on", "flat_off", "dark", "short_dark"]

#: Seconds from the end of a frame to the start of the next: on the sky with an offset, and on the calibration
#: unit.
_OVERHEAD_SKY, _OVERHEAD_CAL = 12.3, 4.6
#: First file number and UT of each sequence on the tutorial's pattern; numbers grow when a sequence is too
#: long.
_STARTS: dict[Kind, tuple[int, time]] = {
    "target": (270, time(11, 36, 12, 300000)),
    "std": (295, time(13, 2, 40, 800000)),
    "flat_off": (363, time(17, 41, 3, 100000)),
    "flat_on": (373, time(18, 5, 27, 600000)),
    "dark": (423, time(19, 20, 9, 400000)),
    "short_dark": (463, time(19, 40, 55, 200000)),
}
#: Exposures of a block before the telescope goes between target and sky.
_BLOCK = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where the telescope was sent: name of the object, RA and Dec (degrees, FK5)."""

    name: str
    ra: float
    dec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One frame, before chance touches it.

    Attributes
    ----------
    name : str
        File name.
    kind : Kind
        What it is for.
    start : datetime
        UT of the start.
    exposure : float
        s per coadd, as the header states it.
    coadds : int
        Coadds, summed.
    field : Field
        Target or calibration.
    p, q : float
        Offsets, arcsec.
    observation, number : int
        Number of the observation in the programme, and of the frame in the observation (from 1).
    """

    name: str
    kind: Kind
    start: datetime
    exposure: float
    coadds: int
    field: Field
    p: float = 0.0
    q: float = 0.0
    observation: int = 1
    number: int = 1

    @property
    def on_sky(self) -> bool:
        """Whether the telescope looks at the sky."""
        return self.kind in ("target", "sky", "std")

    @property
    def seconds(self) -> float:
        """Exposure time over all coadds, s."""
        return self.exposure * self.coadds


TARGET = Field(name="SN2014J", ra=148.92558, dec=69.67389)
STANDARD = Field(name="FS 17", ra=132.8300, dec=11.8700)
FLAT = Field(name="GCALflat", ra=22.0, dec=89.97)
DARK = Field(name="Dark", ra=22.0, dec=89.97)


def plan_exposures(plan: NightPlan) -> tuple[Exposure, ...]:
    """List the frames of a night in the order of their names.

    Parameters
    ----------
    plan : NightPlan
        The plan.

    Returns
    -------
    tuple of Exposure

    Raises
    ------
    ParameterError
        If the plan holds no frame at all.
    """
    frames: list[Exposure] = []
    for sequence in (_target, _standard, _lamp_off, _lamp_on, _darks, _short_darks):
        frames.extend(sequence(plan, _next_number(frames)))
    if not frames:
        raise ParameterError("The night has no frames", item="n_target ... n_short_dark", found=0)
    return tuple(sorted(frames, key=lambda frame: frame.name))


def _target(plan: NightPlan, after: int) -> Iterator[Exposure]:
    dither = 3.0 if plan.dither is None else plan.dither
    target, sky = _dithers(plan.n_target, dither), _dithers(plan.n_sky, dither)
    order: list[tuple[Kind, float, float]] = []
    for block in range(0, max(len(target), len(sky)), _BLOCK):
        order += [("target", p, q) for p, q in target[block : block + _BLOCK]]
        order += [("sky", p, q + plan.sky_offset) for p, q in sky[block : block + _BLOCK]]
    clock = _Clock(plan, "target", after, _OVERHEAD_SKY)
    for number, (kind, p, q) in enumerate(order, 1):
        name, start = clock.tick(plan.exposure * plan.coadds)
        yield Exposure(
            name=name, kind=kind, start=start, exposure=plan.exposure, coadds=plan.coadds,
            field=TARGET, p=p, q=q, observation=12, number=number,
        )  # fmt: skip


def _standard(plan: NightPlan, after: int) -> Iterator[Exposure]:
    dither = 10.0 * plan.setup.size / 1024 if plan.standard_dither is None else plan.standard_dither
    clock = _Clock(plan, "std", after, _OVERHEAD_SKY)
    seconds, coadds = plan.standard_exposure, plan.standard_coadds
    for number, (p, q) in enumerate(_dithers(plan.n_standard, dither), 1):
        name, start = clock.tick(seconds * coadds)
        yield Exposure(
            name=name, kind="std", start=start, exposure=seconds, coadds=coadds, field=STANDARD, p=p, q=q,
            observation=20, number=number,
        )  # fmt: skip


def _lamp_off(plan: NightPlan, after: int) -> Iterator[Exposure]:
    return _calibrations(plan, "flat_off", plan.n_flat, plan.flat_exposure, after)


def _lamp_on(plan: NightPlan, after: int) -> Iterator[Exposure]:
    return _calibrations(plan, "flat_on", plan.n_flat, plan.flat_exposure, after)


def _darks(plan: NightPlan, after: int) -> Iterator[Exposure]:
    return _calibrations(plan, "dark", plan.n_dark, plan.exposure, after, plan.coadds)


def _short_darks(plan: NightPlan, after: int) -> Iterator[Exposure]:
    # Taken on the next UT date, whose numbers start anew.
    del after
    return _calibrations(plan, "short_dark", plan.n_short_dark, plan.short_exposure, 0)


def _calibrations(
    plan: NightPlan, kind: Kind, count: int, seconds: float, after: int, coadds: int = 1
) -> Iterator[Exposure]:
    clock = _Clock(plan, kind, after, _OVERHEAD_CAL)
    # Lamp off and on belong to one observation.
    observation = {"flat_off": 30, "flat_on": 30, "dark": 40}.get(kind, 50)
    offset = plan.n_flat if kind == "flat_on" else 0
    for number in range(1, count + 1):
        name, start = clock.tick(seconds * coadds)
        yield Exposure(
            name=name, kind=kind, start=start, exposure=seconds, coadds=coadds,
            field=FLAT if kind.startswith("flat") else DARK, observation=observation, number=offset + number,
        )  # fmt: skip


class _Clock:
    """Hands out file names and start times, leaving the gaps that other instruments fill."""

    def __init__(self, plan: NightPlan, kind: Kind, after: int, overhead: float) -> None:
        number, start = _STARTS[kind]
        self._day = plan.date + timedelta(days=int(kind == "short_dark"))
        self._number = max(number, after)
        self._start = datetime.combine(self._day, start)
        self._overhead = overhead

    def tick(self, seconds: float) -> tuple[str, datetime]:
        name, start = f"N{self._day:%Y%m%d}S{self._number:04d}.fits", self._start
        self._number += 1
        # The archive states times to a tenth of a second.
        self._start += timedelta(seconds=round(seconds + self._overhead, 1))
        return name, start


def _next_number(frames: list[Exposure]) -> int:
    return 1 + max((int(frame.name[10:14]) for frame in frames), default=0)


def _dithers(count: int, step: float) -> list[tuple[float, float]]:
    """Centre, four corners of a box, then points that fill the box without repeating (Halton sequence)."""
    corners = [(0.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)]
    more = [(2 * _halton(i, 2) - 1, 2 * _halton(i, 3) - 1) for i in range(1, max(0, count - 5) + 1)]
    return [(round(step * x, 4), round(step * y, 4)) for x, y in (corners + more)[:count]]


def _halton(index: int, base: int) -> float:
    value, fraction = 0.0, 1.0 / base
    while index > 0:
        index, digit = divmod(index, base)
        value += digit * fraction
        fraction /= base
    return value
