"""Names of a data set: its path, what it was called at first, and the names of products."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from pathlib import Path, PurePath

from niripipe.astrodata.headers import header_value
from niripipe.astrodata.slices import Slices
from niripipe.errors import InputError

__all__ = ["FileNames", "plain_name", "product_name"]

_COMPRESSED = (".gz", ".bz2", ".fz")
_FITS = (".fits", ".fit", ".fts")


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
            self._parts.orig_filename = _base_name(os.fspath(path))

    @property
    def filename(self) -> str | None:
        """File name without folder. Setting it keeps the folder of `path`."""
        return None if self.path is None else _base_name(self.path)

    @filename.setter
    def filename(self, name: str | os.PathLike[str]) -> None:
        self._refuse_slice("filename")
        if Path(name).is_absolute():
            raise ValueError(f"a file name is relative; set path to change the folder as well: {name}")
        folder = Path.cwd() if self.path is None else Path(self.path).parent
        self.path = folder / name

    @property
    def source_path(self) -> str | None:
        """File that the data set was opened from, whatever it is called now; None if made in memory."""
        return self._parts.read_from

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
            Replace the present prefix and suffix instead of adding to them, see `product_name`.

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
            original = plain_name(self.orig_filename or self.filename)
            self._parts.phu.set("ORIGNAME", original, "Original file name before processing")
        if self.orig_filename is not None and plain_name(self.orig_filename) == original:
            # The name in the header has no accents.
            original = self.orig_filename
        self.filename = product_name(
            str(self.filename), str(original), prefix=prefix, suffix=suffix, strip=strip
        )


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """Return a text with what a FITS header can hold: letters without accents, and ``_`` for other signs.

    Examples
    --------
    >>> plain_name("ngc1068_filtre_\u00e9troit.fits")
    'ngc1068_filtre_etroit.fits'
    """
    if name.isascii() and name.isprintable():
        return name
    letters = (sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    return "".join(sign if sign.isascii() and sign.isprintable() else "_" for sign in letters)


@lru_cache(maxsize=4096)
def _base_name(path: str) -> str:
    """Return a file name without the folder in front of it."""
    return PurePath(path).name


@lru_cache(maxsize=4096)
def _split_name(name: str) -> tuple[str, str]:
    """Split a file name into stem and extension, without compression.

    Parameters
    ----------
    name : str
        A file name; a folder in front of it is dropped.

    Returns
    -------
    stem, extension : str
        ``N1.fits.bz2`` gives ``("N1", ".fits")``: products are written uncompressed unless their name
        asks for compression.

    Examples
    --------
    >>> _split_name("N1_a.fits.gz")
    ('N1_a', '.fits')
    """
    path = PurePath(name)
    if path.suffix.lower() in _COMPRESSED:
        path = path.with_suffix("")
    return path.stem, ".fits" if path.suffix.lower() in _FITS else path.suffix


def product_name(
    name: str,
    original: str | None = None,
    *,
    prefix: str | None = None,
    suffix: str | None = None,
    strip: bool = False,
) -> str:
    """Return the name of a product made from a file.

    Parameters
    ----------
    name : str
        Present file name.
    original : str, optional
        Name of the original file, which shows where the root ends when `strip` is set.
    prefix, suffix : str, optional
        What to put in front of and behind the stem.
    strip : bool
        Replace the present prefix and suffix instead of adding to them. Only the part from the last
        underscore on counts as suffix, and each is replaced only if a new one is given; an empty string
        removes it.

    Returns
    -------
    str
        The new name; a compression extension is dropped, and ``.fit``, ``.fts``, ``.FITS`` become ``.fits``.

    Examples
    --------
    >>> product_name("qN1_a_c.fits", "N1.fits", prefix="p", suffix="_b", strip=True)
    'pN1_a_b.fits'
    """
    stem, extension = _split_name(name)
    before, after = "", ""
    if strip:
        before, stem, after = _parts(stem, _split_name(original)[0] if original else "")
    new_prefix = before if prefix is None else prefix
    new_suffix = after if suffix is None else suffix
    return f"{new_prefix}{stem}{new_suffix}{extension}"


def _parts(stem: str, root: str) -> tuple[str, str, str]:
    """Split a stem into prefix, root and replaceable suffix."""
    start = stem.find(root) if root else -1
    before = stem[:start] if start >= 0 else ""
    rest_from = start + len(root) if start >= 0 else 0
    cut = stem.rfind("_", rest_from)
    if cut < 0:
        return before, stem[len(before) :], ""
    return before, stem[len(before) : cut], stem[cut:]
