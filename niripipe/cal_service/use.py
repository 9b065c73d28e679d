"""What a calibration service is called, and what it is used for."""

from __future__ import annotations

from niripipe.cal_service.config import StoreLocation

__all__ = ["ServiceUse"]


class ServiceUse:
    """Name and use of a service: as its configuration file says, unless they are set."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._get_cal: bool | None = None
        self._store_cal: bool | None = None

    @property
    def dbfile(self) -> str:
        """Absolute path or URL of the store, without password."""
        return self._configured().shown

    @property
    def name(self) -> str:
        """What the service is called; the place of its store unless a name was given."""
        return self._name or self.dbfile

    @name.setter
    def name(self, name: str | None) -> None:
        self._name = name

    @property
    def get_cal(self) -> bool:
        """Whether calibrations are looked for here; ``get`` in a configuration file with flags."""
        return self._configured().get_cal if self._get_cal is None else self._get_cal

    @get_cal.setter
    def get_cal(self, wanted: bool) -> None:
        self._get_cal = wanted

    @property
    def store_cal(self) -> bool:
        """Whether recipes register their darks, flats and masks here; ``store`` in a configuration file."""
        return self._configured().store_cal if self._store_cal is None else self._store_cal

    @store_cal.setter
    def store_cal(self, wanted: bool) -> None:
        self._store_cal = wanted

    def _configured(self) -> StoreLocation:
        raise NotImplementedError
