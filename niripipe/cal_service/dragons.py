"""The calibration service under the names that DRAGONS 4 uses."""

from __future__ import annotations

from os import PathLike

from niripipe.cal_service.service import CalibrationService
from niripipe.cal_service.session import set_calservice

__all__ = ["LocalDB", "set_local_database"]


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
