"""The data catalogue: which data sets there are, and how to get them from the Gemini Observatory Archive.

>>> from niripipe import datasets
>>> datasets.names()
['niri_static_bpm', 'niriimg_tutorial']
>>> tutorial = datasets.get("niriimg_tutorial")
>>> len(tutorial.file_names())
55
>>> tutorial.file_names("sky")[0]
'N20160102S0275.fits'

Frames come by name, by the result of a search, or as a package:

>>> datasets.download("niriimg_tutorial", "playdata")                        # doctest: +SKIP
>>> found = datasets.find(program="GN-2015B-Q-31", date="2016-01-02")        # doctest: +SKIP
>>> datasets.download(found, "playdata")                                     # doctest: +SKIP
>>> package = datasets.download_package("niriimg_tutorial", "downloads")     # doctest: +SKIP
>>> datasets.unpack(package, "downloads")                                    # doctest: +SKIP

Everything lands in the folder the caller names; nothing is read from the home directory or from the
environment. A file appears under its name only when it is complete and has passed its checks. Checksums are
those of the catalogue, else those the archive publishes; what has arrived is recorded in ``SHA256SUMS`` in
the same folder (``sha256sum -c SHA256SUMS`` checks it too) and compared with that record ever after.
"""

from __future__ import annotations

from niripipe.datasets.archive import ARCHIVE_URL, ArchiveFile, ArchiveFiles, find
from niripipe.datasets.catalogue import (
    ArchiveSource,
    DataSet,
    FileGroup,
    Package,
    bpm_names,
    get,
    names,
    read,
)
from niripipe.datasets.connection import ServerUnreachable, TransferOptions
from niripipe.datasets.downloads import download, download_package, fetch_bpm
from niripipe.datasets.unpacking import unpack
from niripipe.reduction.progress import Progress

__all__ = [
    "ARCHIVE_URL",
    "ArchiveFile",
    "ArchiveFiles",
    "ArchiveSource",
    "DataSet",
    "FileGroup",
    "Package",
    "Progress",
    "ServerUnreachable",
    "TransferOptions",
    "bpm_names",
    "download",
    "download_package",
    "fetch_bpm",
    "find",
    "get",
    "names",
    "read",
    "unpack",
]
