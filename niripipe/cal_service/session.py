"""The current service of the process, for reductions that are given none, and the names of DRAGONS 4."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from niripipe.cal_service.service import CalibrationService
from niripipe.errors import InputError, ParameterError

__all__ = [
    "LocalDB",
    "clear_calservice",
    "get_calservice",
    "load_config",
    "set_calservice",
    "set_local_database",
]

_current: CalibrationService | None = None

_INSTEAD = {
    "valid_caltypes": "Leave it out: darks, flats and bad pixel masks are known.",
    "procmode": "Leave it out: Reduce(mode=...) decides, or get_calibrations(..., procmode=...).",
    "log": "Leave it out: messages go to the logger 'niripipe', see niripipe.logutils.",
}


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
    name : str, optional
        What it is called in messages and in the origin of calibrations; the place of the store by default.
    valid_caltypes, procmode, log : None
        Arguments of DRAGONS that have no meaning here.
    get_cal, store_cal : bool
        Whether calibrations are looked for there; whether recipes register their products by themselves.
    force_init : bool
        Create the store if it does not exist.

    Raises
    ------
    ParameterError
        An argument is given that has no meaning here; the message says what to use instead.
    """

    def __init__(
        self,
        dbfile: str | PathLike[str],
        name: str | None = None,
        valid_caltypes: None = None,
        procmode: None = None,
        get_cal: bool = True,
        store_cal: bool = False,
        log: None = None,
        force_init: bool = False,
    ) -> None:
        for item, given in (("valid_caltypes", valid_caltypes), ("procmode", procmode), ("log", log)):
            if given is not None:
                raise ParameterError(
                    "LocalDB does not take this argument of DRAGONS",
                    item=item,
                    found=given,
                    remedy=_INSTEAD[item],
                )
        super().__init__()
        self.name, self.get_cal, self.store_cal = name, get_cal, store_cal
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


def load_config(filenames: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None) -> None:
    """Read where the calibration store is, and make it current, as in DRAGONS 4.

    Parameters
    ----------
    filenames : path-like or sequence of path-like, optional
        Configuration files; of several the last one that names a store counts. By default the usual places.

    Raises
    ------
    InputError
        None of them names a store, or one cannot be read.
    """
    if filenames is None:
        set_local_database()
        return
    files = [filenames] if isinstance(filenames, str | PathLike) else list(filenames)
    faults = []
    for file in reversed(files):
        try:
            set_local_database(file)
            return
        except InputError as error:
            faults.append(error)
    raise (
        faults[-1] if faults else InputError("no configuration file was named", item="filenames", found=files)
    )
