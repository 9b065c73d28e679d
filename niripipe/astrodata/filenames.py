"""Names of a data set: its path, and what it was called at first."""

from __future__ import annotations

import os
from pathlib import Path

from niripipe.astrodata import naming
from niripipe.astrodata.headers import header_value
from niripipe.astrodata.slices import Slices
from niripipe.errors import InputError

__all__ = ["FileNames"]


class FileNames(Slices):
    """Path and file names; see `niripipe.astrodata.AstroData`."""

    @property
    def path(self) -> str | None:
        """File name with its folder. The first one given also becomes `orig_filename`."""
        return self._parts.path

    @path.setter
    def path(self, path: str | os.PathLike[str] | None) -> None:
        self._refuse_slice("path")
        self._parts.path = None if path is None else os.fspath(path)
        if self._parts.orig_filename is None and path is not None:
            self._parts.orig_filename = naming.base_name(os.fspath(path))

    @property
    def filename(self) -> str | None:
        """File name without folder. Setting it keeps the folder of `path`."""
        return None if self.path is None else naming.base_name(self.path)

    @filename.setter
    def filename(self, name: str | os.PathLike[str]) -> None:
        self._refuse_slice("filename")
        if Path(name).is_absolute():
            raise ValueError(f"a file name is relative; set path to change the folder as well: {name}")
        folder = Path.cwd() if self.path is None else Path(self.path).parent
        self.path = folder / name

    @property
    def orig_filename(self) -> str | None:
        """File name when the data set was opened or first named."""
        return self._parts.orig_filename

    @orig_filename.setter
    def orig_filename(self, name: str | None) -> None:
        self._refuse_slice("orig_filename")
        self._parts.orig_filename = name

    def update_filename(
        self, prefix: str | None = None, suffix: str | None = None, strip: bool = False
    ) -> None:
        """Change prefix and suffix of the file name.

        Parameters
        ----------
        prefix, suffix : str, optional
            What to put in front of and behind the stem; an empty string removes what is there if `strip`.
        strip : bool
            Replace the present prefix and suffix instead of adding to them, see `naming.product_name`.

        Raises
        ------
        InputError
            The data set has no name and the PHU no ORIGNAME.
        """
        original = header_value(self._parts.phu, "ORIGNAME")
        if self.filename is None:
            if not original:
                raise InputError(
                    "the data set has no file name",
                    item="filename",
                    remedy="Set filename, or ORIGNAME in the primary header.",
                )
            self.filename = str(original)
        if not original:
            original = self.orig_filename
            self._parts.phu.set("ORIGNAME", original, "Original file name before processing")
        self.filename = naming.product_name(
            str(self.filename), str(original), prefix=prefix, suffix=suffix, strip=strip
        )
