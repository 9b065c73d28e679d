"""Which frames a night consists of: names, kinds, times, offsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal, NamedTuple

from niripipe.errors import ParameterError
from niripipe.photometry import Standard
from niripipe.photometry.standards import is_called, shipped
from niripipe.simulate.settings import NightPlan

__all__ = [
    "DARK",
    "FIELDS",
    "FLAT",
    "STANDARD",
    "TARGET",
    "Exposure",
    "Field",
    "Kind",
    "plan_exposures",
    "standard_star",
]

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
#: Hours of the night (UT) over which standards that the plan names are spread.
_FROM, _TO = 5.0, 15.5
#: Seconds from the sequence of one filter to that of the next.
_CHANGE = 40.0
#: Exposures of a block before the telescope goes between target and sky.
_BLOCK = 5


class Field(NamedTuple):
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
    wheel : str
        Filter, where the night has its own for each frame.
    standard : str
        Name of the standard star, where the plan names some.
    scene : str
        What is seen, where it is more than the kind says.
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
    wheel: str = ""
    standard: str = ""
    scene: str = ""

    @property
    def on_sky(self) -> bool:
        """Whether the telescope looks at the sky."""
        return self.kind in ("target", "sky", "std")

    @property
    def seconds(self) -> float:
        """Exposure time over all coadds, s."""
        return self.exposure * self.coadds


TARGET = Field("SN2014J", ra=148.92558, dec=69.67389)
STANDARD = Field("FS 17", ra=132.8304583, dec=11.8695556)
FLAT = Field("GCALflat", ra=22.0, dec=89.97)
DARK = Field("Dark", ra=22.0, dec=89.97)
FIELDS: dict[Kind, Field] = {
    "target": TARGET,
    "sky": TARGET,
    "std": STANDARD,
    "flat_on": FLAT,
    "flat_off": FLAT,
    "dark": DARK,
    "short_dark": DARK,
}
"""Where the telescope is sent for each kind of frame."""


class _Sequence(NamedTuple):
    """Frames taken one after another; `shots` has kind and offsets (P, Q in arcsec) of each."""

    kind: Kind
    shots: list[tuple[Kind, float, float]]
    exposure: float
    coadds: int
    observation: int
    first: int = 1
    wheel: str = ""
    standard: str = ""
    clock: timedelta = timedelta(0)


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
    for sequence in _sequences(plan):
        frames += _exposures(
            plan, sequence, after=max((int(frame.name[10:14]) for frame in frames), default=0)
        )
    if not frames:
        raise ParameterError("The night has no frames", item="n_target ... n_short_dark", found=0)
    return tuple(sorted(frames, key=lambda frame: frame.name))


def standard_star(name: str) -> Standard:
    """Return a standard star by its name.

    Raises
    ------
    ParameterError
        There is no such standard.
    """
    found = next((star for star in shipped() if is_called(star, name)), None)
    if found is None:
        raise ParameterError(
            "There is no such standard star", item="standards", found=name,
            expected="a name in niripipe.photometry.standards()",
        )  # fmt: skip
    return found


def _sequences(plan: NightPlan) -> list[_Sequence]:
    """Return the sequences of a night: of one filter, or of all filters and standards that the plan names."""
    if not plan.standards:
        return _of_one_filter(plan)
    found: list[_Sequence] = []
    for index, wheel in enumerate(plan.all_filters):
        for sequence in _of_one_filter(plan):
            shift = timedelta(seconds=index * _CHANGE) + index * _duration(plan, sequence)
            changed = sequence._replace(observation=sequence.observation + index, wheel=wheel, clock=shift)
            if sequence.kind == "std":
                found += _of_standards(plan, changed)
            elif sequence.kind not in ("dark", "short_dark") or index == 0:
                found.append(changed)
    return sorted(found, key=lambda sequence: _STARTS[sequence.kind][0])


def _of_standards(plan: NightPlan, sequence: _Sequence) -> list[_Sequence]:
    """Return a sequence for each standard, spread over the night."""
    count = len(plan.standards)
    hours = [_FROM + (_TO - _FROM) * (k + 0.5) / count for k in range(count)]
    clock = _STARTS["std"][1]
    usual = timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second)
    return [
        sequence._replace(
            standard=name,
            observation=100 * (k + 1) + sequence.observation,
            clock=sequence.clock + timedelta(hours=hours[k]) - usual,
        )
        for k, name in enumerate(plan.standards)
    ]


def _duration(plan: NightPlan, sequence: _Sequence) -> timedelta:
    overhead = _OVERHEAD_SKY if sequence.kind in ("target", "std") else _OVERHEAD_CAL
    return len(sequence.shots) * timedelta(seconds=sequence.exposure * sequence.coadds + overhead)


def _of_one_filter(plan: NightPlan) -> list[_Sequence]:
    def still(kind: Kind, count: int) -> list[tuple[Kind, float, float]]:
        return [(kind, 0.0, 0.0)] * count

    n, seconds = plan.n_flat, plan.flat_exposure
    dither = 10.0 * plan.setup.size / 1024 if plan.standard_dither is None else plan.standard_dither
    standard: list[tuple[Kind, float, float]] = [("std", p, q) for p, q in _dithers(plan.n_standard, dither)]
    return [
        _Sequence("target", _target_and_sky(plan), plan.exposure, plan.coadds, 12),
        _Sequence("std", standard, plan.standard_exposure, plan.standard_coadds, 20),
        # Lamp off and on belong to one observation.
        _Sequence("flat_off", still("flat_off", n), seconds, 1, 30),
        _Sequence("flat_on", still("flat_on", n), seconds, 1, 30, first=n + 1),
        _Sequence("dark", still("dark", plan.n_dark), plan.exposure, plan.coadds, 40),
        _Sequence("short_dark", still("short_dark", plan.n_short_dark), plan.short_exposure, 1, 50),
    ]


def _target_and_sky(plan: NightPlan) -> list[tuple[Kind, float, float]]:
    dither = 3.0 if plan.dither is None else plan.dither
    target, sky = _dithers(plan.n_target, dither), _dithers(plan.n_sky, dither)
    order: list[tuple[Kind, float, float]] = []
    for block in range(0, max(len(target), len(sky)), _BLOCK):
        order += [("target", p, q) for p, q in target[block : block + _BLOCK]]
        order += [("sky", p, q + plan.sky_offset) for p, q in sky[block : block + _BLOCK]]
    return order


def _exposures(plan: NightPlan, sequence: _Sequence, after: int) -> Iterator[Exposure]:
    """Yield the frames of a sequence, leaving the gaps in numbers and time that other instruments fill."""
    first, clock = _STARTS[sequence.kind]
    day = plan.date
    if sequence.kind == "short_dark":
        # Taken on the next UT date, whose numbers start anew.
        day, after = day + timedelta(days=1), 0
    number, start = max(first, after + 1), datetime.combine(day, clock) + sequence.clock
    overhead = _OVERHEAD_SKY if sequence.kind in ("target", "std") else _OVERHEAD_CAL
    # The archive states times to a tenth of a second.
    step = timedelta(seconds=round(sequence.exposure * sequence.coadds + overhead, 1))
    star = standard_star(sequence.standard) if sequence.standard else None
    for k, (kind, p, q) in enumerate(sequence.shots):
        yield Exposure(
            name=f"N{day:%Y%m%d}S{number + k:04d}.fits",
            kind=kind,
            start=start + k * step,
            exposure=sequence.exposure,
            coadds=sequence.coadds,
            field=FIELDS[kind] if star is None else Field(star.label, round(star.ra, 7), round(star.dec, 7)),
            p=p,
            q=q,
            observation=sequence.observation,
            number=sequence.first + k,
            wheel=sequence.wheel,
            standard=sequence.standard,
            scene=f"{kind} {sequence.standard} {sequence.wheel}" if sequence.wheel else "",
        )


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
