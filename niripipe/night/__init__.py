"""A folder of raw frames, sorted, planned and reduced.

>>> from niripipe import night
>>> plan = night.organise("raw")                   # doctest: +SKIP
>>> print(plan)                                    # doctest: +SKIP
>>> result = plan.run("products")                  # doctest: +SKIP
>>> print(result)                                  # doctest: +SKIP

`organise` reads headers only. It sorts the frames by the association rules of `niripipe.cal_service`, says
why for every choice, and names the frames that fit nowhere. `NightPlan.run` reduces everything in the right
order: darks, bad pixel masks, flats, standards, science.
"""

from __future__ import annotations

from niripipe.night.frames import LeftOut, NightFrame
from niripipe.night.html import report_html
from niripipe.night.jobs import Job, PlannedCalibration
from niripipe.night.organise import organise
from niripipe.night.plan import NightPlan
from niripipe.night.result import JobResult, JobStatus, NightResult
from niripipe.night.settings import NightSettings

__all__ = [
    "Job",
    "JobResult",
    "JobStatus",
    "LeftOut",
    "NightFrame",
    "NightPlan",
    "NightResult",
    "NightSettings",
    "PlannedCalibration",
    "organise",
    "report_html",
]
