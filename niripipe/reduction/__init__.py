"""Running recipes: the `Reduce` controller, look-up by tags, the plan, the runner and its report."""

from __future__ import annotations

from niripipe.reduction.lookup import Mode
from niripipe.reduction.plan import Plan
from niripipe.reduction.progress import Progress, ProgressBar
from niripipe.reduction.reduce import Reduce
from niripipe.reduction.report import RunReport
from niripipe.reduction.settings import normalize_ucals
from niripipe.reduction.usage import FramesLostWarning, Usage

__all__ = [
    "FramesLostWarning",
    "Mode",
    "Plan",
    "Progress",
    "ProgressBar",
    "Reduce",
    "RunReport",
    "Usage",
    "normalize_ucals",
]
