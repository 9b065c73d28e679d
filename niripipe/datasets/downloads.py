"""Getting files: by name from the archive, as a package, a static bad pixel mask.

A file that is there already is checked; what is missing is fetched and checked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Literal, Unpack

from niripipe.datasets.archive import ARCHIVE_URL, ArchiveFile, file_url, look_up
from niripipe.datasets.catalogue import DataSet, Role, bpm_names, get
from niripipe.datasets.connection import Cancelled, Connection, ServerUnreachable, TransferOptions
from niripipe.datasets.frames import COMPRESSIONS, frame_name
from niripipe.datasets.integrity import (
    Content,
    Sums,
    check_digest,
    checksum_of,
    content_of,
    parse_checksum,
)
from niripipe.datasets.transfer import fetch
from niripipe.errors import InputError, NiripipeError, ParameterError, StorageError, storage_faults
from niripipe.logutils import get_logger
from niripipe.primitives.params import nearest
from niripipe.reduction.progress import Progress, as_progress

__all__ = ["download", "download_package", "fetch_bpm"]

_MIB = 1 << 20
_SUFFIXES = {"bz2": ".bz2", "gz": ".gz"}

_log = get_logger(__name__)

_Source = DataSet | ArchiveFile | str


def download(
    data: _Source | Iterable[str | ArchiveFile],
    folder: str | PathLike[str],
    *,
    roles: Iterable[Role] = (),
    base_url: str = ARCHIVE_URL,
    checksums: Mapping[str, str] | Literal["archive", "none"] = "archive",
    overwrite: bool = False,
    parallel: int = 2,
    progress: Progress | bool | None = None,
    **options: Unpack[TransferOptions],
) -> list[Path]:
    """Download frames from the archive, by name.

    A frame appears in the folder only when it is complete and right. One that is there already and is right
    is not fetched again, compressed or not, so that an interrupted download is continued by the same call.
    One file that cannot be had does not keep the others from arriving; the error names those that are
    missing.

    Parameters
    ----------
    data : str, DataSet, ArchiveFile, or iterable of str and ArchiveFile
        A data set or its name; or the name of a file (``N20160102S0270.fits``), several of them, or what
        `find` has returned.
    folder : path-like
        Where to; made if it does not exist.
    roles : iterable of str
        Only these groups of a data set.
    base_url : str
        The archive.
    checksums : mapping, "archive" or "none"
        What frames are checked against, unless the catalogue or an `ArchiveFile` says: ``sha256:<hex>`` or
        ``md5:<hex>`` of the uncompressed files by name; what the archive publishes, which takes a further
        request for each file; or nothing but their length.
    overwrite : bool
        Fetch frames that are there already, and replace them.
    parallel : int
        How many files at a time; 1 to 8.
    progress : Progress or bool, optional
        Told how many files have arrived; True shows it as text.
    **options
        See `TransferOptions`.

    Returns
    -------
    list of Path
        In the order asked for. The archive delivers uncompressed files; where a server delivers compressed
        ones, names end in ``.fits.bz2`` or ``.fits.gz``.

    Raises
    ------
    InputError
        An unknown data set, role or file.
    StorageError
        A file did not arrive, or is not what it should be, or is proprietary; or one that is there already
        differs from what it should be. `ServerUnreachable` if the server did not answer.
    """
    if not 1 <= parallel <= 8:
        raise ParameterError("files at a time", item="parallel", found=parallel, expected="1 to 8")
    if not isinstance(checksums, Mapping) and checksums not in ("archive", "none"):
        raise ParameterError(
            "unknown way to check files",
            item="checksums",
            found=checksums,
            expected="a mapping, 'archive' or 'none'",
        )
    wanted = _wanted(data, tuple(roles), checksums if isinstance(checksums, Mapping) else {})
    connection = Connection(**options)
    transfer = _Download(_made(folder), connection, overwrite, base_url, ask_archive=checksums == "archive")
    display = as_progress(progress)
    arrived: dict[str, Path] = {}
    faults: dict[str, NiripipeError] = {}
    pool = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="niripipe-download")
    try:
        futures = {pool.submit(transfer.obtain, file): file.name for file in wanted}
        for future in as_completed(futures):
            try:
                arrived[futures[future]] = future.result()
            except Cancelled:
                pass  # after a fault, which is what will be reported
            except NiripipeError as err:
                faults[futures[future]] = err
            display.update("download", len(arrived), len(wanted))
    finally:
        transfer.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        display.close()
    if faults:
        raise _summary(faults, [file.name for file in wanted if file.name not in arrived], len(wanted))
    return [arrived[file.name] for file in wanted]


def download_package(
    data: DataSet | str,
    folder: str | PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
    **options: Unpack[TransferOptions],
) -> Path:
    """Download a data set as one file; `unpack` opens it.

    Parameters
    ----------
    data : DataSet or str
        A data set or its name.
    folder : path-like
        Where to; made if it does not exist.
    overwrite : bool
        Fetch a package that is there already.
    progress : Progress or bool, optional
        Told how many mebibytes have arrived; True shows it as text.
    **options
        See `TransferOptions`.

    Returns
    -------
    Path
        The tar file.

    Raises
    ------
    InputError
        An unknown data set, or one without a package.
    StorageError
        The package did not arrive or is not what it should be.
    """
    data_set = get(data) if isinstance(data, str) else data
    package = data_set.package
    if package is None:
        raise InputError(
            "there is no package of this data set",
            item="data set",
            found=data_set.name,
            remedy="Use download(), which fetches the frames one by one",
        )
    transfer = _Download(_made(folder), Connection(**options), overwrite)
    display = as_progress(progress)

    def notify(received: int, total: int | None) -> None:
        display.update(package.name, received // _MIB, max(total or received, _MIB) // _MIB)

    try:
        return transfer.obtain(_Wanted(package.name, package.checksum, package_url=package.url), notify)
    finally:
        display.close()


def fetch_bpm(
    name: str,
    cache_folder: str | PathLike[str],
    *,
    base_url: str = ARCHIVE_URL,
    checksums: Mapping[str, str] | Literal["archive", "none"] = "archive",
    **options: Unpack[TransferOptions],
) -> Path:
    """Return a static bad pixel mask of the archive, from the cache folder or fetched into it.

    Parameters
    ----------
    name : str
        One of `bpm_names`, with or without ``.fits``.
    cache_folder : path-like
        Where masks are kept; made if it does not exist.
    base_url : str
        The archive.
    checksums : mapping, "archive" or "none"
        See `download`.
    **options
        See `TransferOptions`.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The catalogue knows no such mask. Any file of the archive can be had by `download`.
    StorageError
        See `download`.
    """
    file = frame_name(name)
    if file not in bpm_names():
        raise InputError(
            "the catalogue knows no such bad pixel mask",
            item="bad pixel mask",
            found=repr(name),
            expected=" or ".join(bpm_names()),
            remedy=nearest(file, bpm_names()),
        )
    return download([file], cache_folder, base_url=base_url, checksums=checksums, parallel=1, **options)[0]


def _summary(faults: Mapping[str, NiripipeError], missing: list[str], total: int) -> NiripipeError:
    first = next(iter(faults.values()))
    if total == 1:
        return first
    same = {type(fault) for fault in faults.values()}
    kind = same.pop() if len(same) == 1 else StorageError
    error = kind(
        f"{len(missing)} of {total} files did not arrive",
        item=", ".join(missing),
        found="; ".join(dict.fromkeys(str(fault) for fault in faults.values())),
        remedy="The others are there; the same call continues the download",
    )
    error.__cause__ = first
    return error


def _wanted(
    data: _Source | Iterable[str | ArchiveFile], roles: tuple[Role, ...], checksums: Mapping[str, str]
) -> list[_Wanted]:
    """Return the frames that the caller means, each once; `checksums` are stronger than the catalogue's."""
    if isinstance(data, str) and not data.endswith((".fits", *COMPRESSIONS)):
        data = get(data)
    items: Iterable[str | ArchiveFile]
    if isinstance(data, DataSet):
        items, checksums = data.file_names(*roles), {**data.checksums, **checksums}
    elif roles:
        raise InputError("only data sets have roles", item="roles", found=", ".join(roles))
    else:
        items = [data] if isinstance(data, str | ArchiveFile) else data
    files: dict[str, _Wanted] = {}
    for item in items:
        name = frame_name(item if isinstance(item, str) else item.name)
        checksum = parse_checksum(checksums[name]) if name in checksums else None
        listing = item if isinstance(item, ArchiveFile) and item.data_md5 is not None else None
        files.setdefault(name, _Wanted(name, checksum, listing))
    return list(files.values())


def _made(folder: str | PathLike[str]) -> Path:
    path = Path(folder)
    with storage_faults("the folder cannot be made", path, remedy="Name a folder that you may write to"):
        path.mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A frame or package to get, and what is known about it.

    Attributes
    ----------
    name : str
    checksum : str or None
        ``md5:<hex>`` or ``sha256:<hex>``: of a package as it is, of a frame without compression.
    listing : ArchiveFile or None
        What the archive says of a frame.
    package_url : str or None
        Where a package is; None for a frame of the archive.
    """

    name: str
    checksum: str | None = None
    listing: ArchiveFile | None = None
    package_url: str | None = None

    @property
    def contents(self) -> tuple[Content, ...]:
        """What the file may be."""
        return ("tar" if self.package_url else "fits", "bz2", "gz")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes it may have, bytes; none if they are not known."""
        if self.listing is None or not (self.listing.data_size and self.listing.file_size):
            return ()
        # As it is, or compressed; if only one of them is known the other cannot be excluded.
        return (self.listing.data_size, self.listing.file_size)

    def expected(self, *, as_stored: bool) -> tuple[str | None, bool]:
        """Return a checksum, and whether it is that of the uncompressed content.

        Parameters
        ----------
        as_stored : bool
            The file is a compressed one from the archive.
        """
        if self.checksum is not None or self.listing is None:
            return self.checksum, self.package_url is None
        if as_stored and self.listing.file_md5 is not None:
            return f"md5:{self.listing.file_md5.lower()}", False
        digest = self.listing.data_md5
        return None if digest is None else f"md5:{digest.lower()}", True


@dataclass(slots=True)
class _Download:
    """What all files of one call have in common.

    Attributes
    ----------
    folder : Path
    connection : Connection
    overwrite : bool
        Fetch files that are there already.
    base_url : str
        The archive.
    ask_archive : bool
        Ask the archive for the checksums of frames that have none.
    stop : threading.Event
        Set to give up what is being fetched.
    """

    folder: Path
    connection: Connection
    overwrite: bool
    base_url: str = ARCHIVE_URL
    ask_archive: bool = False
    stop: threading.Event = field(init=False, default_factory=threading.Event)
    _sums: Sums = field(init=False)
    _gone: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._sums = Sums(self.folder)

    def obtain(self, wanted: _Wanted, notify: Callable[[int, int | None], None] | None = None) -> Path:
        """Return the path of a file, having fetched it if need be.

        Parameters
        ----------
        wanted : _Wanted
        notify : callable, optional
            See `fetch`.

        Raises
        ------
        NiripipeError
            See `fetch`; or a file that is there already is not what it should be.
        """
        if self._gone.is_set():
            # Otherwise all files would wait in vain, one after the other.
            raise Cancelled("the server is gone", item=wanted.name)
        suffixes = ("",) if wanted.package_url else ("", *COMPRESSIONS)
        candidates = (self.folder / (wanted.name + suffix) for suffix in suffixes)
        stored = next((path for path in candidates if path.is_file()), None)
        try:
            if stored is not None and not self.overwrite:
                return self._checked(stored, wanted)
            path = self._fetched(self._informed(wanted), notify)
        except ServerUnreachable:
            self._gone.set()
            raise
        if stored is not None and stored != path:
            # Otherwise the frame would be there twice, once in each compression.
            stored.unlink(missing_ok=True)
        return path

    def _informed(self, wanted: _Wanted) -> _Wanted:
        if not self.ask_archive or wanted.checksum is not None or wanted.listing is not None:
            return wanted
        return replace(wanted, listing=look_up(wanted.name, self.base_url, self.connection))

    def _checked(self, path: Path, wanted: _Wanted) -> Path:
        """Check a file that is there already against the record and against what it should be."""
        remedy = "Pass overwrite=True to fetch it again"
        if (content := content_of(path)) not in wanted.contents:
            raise StorageError(
                "the file that is there is not what it should be",
                file=path,
                found=content,
                expected=" or ".join(wanted.contents),
                remedy=remedy,
            )
        recorded = self._sums.get(path.name)
        if recorded is None:
            wanted = self._informed(wanted)
        elif (actual := checksum_of(path)) != recorded:
            raise StorageError(
                "the file has changed since it was downloaded",
                file=path,
                found=actual,
                expected=recorded,
                remedy=remedy,
            )
        expected, decompress = wanted.expected(as_stored=False)
        if expected is not None:
            check_digest(path, str(path), expected, decompress=decompress, remedy=remedy)
        if recorded is None:
            self._sums.record(path)
        return path

    def _fetched(self, wanted: _Wanted, notify: Callable[[int, int | None], None] | None) -> Path:
        url = wanted.package_url or file_url(wanted.name, self.base_url)

        def check(path: Path, content: Content) -> None:
            expected, decompress = wanted.expected(as_stored=content != "fits")
            if expected is not None:
                check_digest(path, url, expected, decompress=decompress)

        arrived, content = fetch(
            url,
            self.folder,
            wanted.name,
            self.connection,
            contents=wanted.contents,
            check=check,
            sizes=wanted.sizes,
            notify=notify,
            stop=self.stop,
        )
        suffix = "" if wanted.package_url else _SUFFIXES.get(content, "")
        path = self.folder / (wanted.name + suffix)
        try:
            with storage_faults("the download cannot be given its name", path):
                arrived.replace(path)
        finally:
            arrived.unlink(missing_ok=True)
        self._sums.record(path)
        _log.fullinfo("%s has arrived in %s", path.name, self.folder)
        return path
