"""The current service of the process, for reductions that are given none."""

from __future__ import annotations

from os import PathLike
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niripipe.cal_service.service import CalibrationService

__all__ = ["clear_calservice", "get_calservice", "set_calservice"]


def set_calservice(
    service: CalibrationService | str | PathLike[str] | None = None,
    config_file: str | PathLike[str] | None = None,
) -> None:
    """Make a service current: reductions that are given none use it.

    This is the one thing that the whole process shares; pass ``calibrations=`` to ``Reduce`` where several
    services are in use.

    Parameters
    ----------
    service : CalibrationService or path-like, optional
        The service, or the place of its store as for `CalibrationService.config`. Without it, the service
        configured last in this process, or else a new one in the usual place.
    config_file : path-like, optional
        Read the place of the store from this file instead.
    """
    from niripipe.cal_service.service import CalibrationService

    if not isinstance(service, CalibrationService):
        chosen = _session.latest if service is None and config_file is None else None
        if chosen is None:
            chosen = CalibrationService()
            chosen.config(db_dir=service, config_file=config_file)
        service = chosen
    with _lock:
        _session.current = service


def get_calservice() -> CalibrationService | None:
    """Return the current service, or None if there is none."""
    return _session.current


def clear_calservice() -> None:
    """Forget the current service, and which was configured last."""
    with _lock:
        _session.current = _session.latest = None


def remember(service: CalibrationService) -> None:
    """Note that a service was configured; it does not become current by that."""
    with _lock:
        _session.latest = service


class _Session:
    current: CalibrationService | None = None
    latest: CalibrationService | None = None


_session = _Session()
_lock = Lock()
