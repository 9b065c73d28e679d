"""The current service of the process, for reductions that are given none, and the names of DRAGONS 4."""

from __future__ import annotations

from os import PathLike

from niripipe.cal_service.service import CalibrationService

__all__ = ["LocalDB", "clear_calservice", "get_calservice", "set_calservice", "set_local_database"]

_current: CalibrationService | None = None


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
    global _current
    if not isinstance(service, CalibrationService):
        chosen = CalibrationService.latest if service is None and config_file is None else None
        if chosen is None:
            chosen = CalibrationService()
            chosen.config(db_dir=service, config_file=config_file)
        service = chosen
    _current = service


def get_calservice() -> CalibrationService | None:
    """Return the current service, or None if there is none."""
    return _current


def clear_calservice() -> None:
    """Forget the current service, and which was configured last."""
    global _current
    _current = CalibrationService.latest = None


class LocalDB(CalibrationService):
    """A service with its store named at once, under the name that DRAGONS 4 uses.

    Parameters
    ----------
    dbfile : path-like
        As ``db_dir`` of `CalibrationService.config`.
    force_init : bool
        Create the store if it does not exist.
    """

    def __init__(self, dbfile: str | PathLike[str], *, force_init: bool = False) -> None:
        super().__init__()
        self.config(db_dir=dbfile)
        if force_init:
            self.init()


def set_local_database(config_file: str | PathLike[str] | None = None) -> CalibrationService:
    """Return a service configured from the usual places and make it current, as in DRAGONS 4.

    Parameters
    ----------
    config_file : path-like, optional
        Read the place of the store from this file.
    """
    service = CalibrationService()
    service.config(config_file=config_file)
    set_calservice(service)
    return service
