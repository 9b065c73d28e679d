"""File names of products: prefixes and suffixes around the name of the original file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePath

__all__ = ["base_name", "product_name", "split_name"]

_COMPRESSED = (".gz", ".bz2", ".fz")


@lru_cache(maxsize=4096)
def base_name(path: str) -> str:
    """Return a file name without the folder in front of it."""
    return PurePath(path).name


@lru_cache(maxsize=4096)
def split_name(name: str) -> tuple[str, str]:
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
    >>> split_name("N1_a.fits.gz")
    ('N1_a', '.fits')
    """
    path = PurePath(name)
    if path.suffix.lower() in _COMPRESSED:
        path = path.with_suffix("")
    return path.stem, path.suffix


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
        Name of the original file, which tells apart root and suffix when `strip` is set.
    prefix, suffix : str, optional
        What to put in front of and behind the stem.
    strip : bool
        Replace the present prefix and suffix instead of adding to them. Only the part from the last
        underscore on counts as suffix, and each is replaced only if a new one is given; an empty string
        removes it.

    Returns
    -------
    str
        The new name; a compression extension is dropped.

    Examples
    --------
    >>> product_name("qN1_a_c.fits", "N1.fits", prefix="p", suffix="_b", strip=True)
    'pN1_a_b.fits'
    """
    stem, extension = split_name(name)
    before, after = "", ""
    if strip:
        before, stem, after = _parts(stem, split_name(original)[0] if original else "")
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
