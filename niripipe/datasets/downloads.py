"""Getting files: by name from the archive, as a package, a static bad pixel mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol, Unpack

from niripipe.datasets.archive import ARCHIVE_URL, ArchiveFile
from niripipe.datasets.catalogue import DataSet, Role, bpm_names, get, unknown
from niripipe.datasets.connection import Connection, TransferOptions
from niripipe.datasets.frames import COMPRESSIONS, frame_name
from niripipe.datasets.integrity import Checksum, Content, Sums
from niripipe.datasets.jobs import Job, Wanted, check_digest, check_stored, discarding, record, settle
from niripipe.datasets.transfer import Cancelled, fetch
from niripipe.errors import InputError, NiripipeError, ParameterError, StorageError

__all__ = ["Progress", "download", "download_package", "fetch_bpm"]

_PACKAGE: tuple[Content, ...] = ("tar", "bz2", "gz")
_MIB = 1 << 20

_Source = DataSet | ArchiveFile | str


class Progress(Protocol):
    """What is told about the progress of a download; the same two methods that `Reduce` calls."""

    def update(self, step: str, done: int, total: int) -> None:
        """Take note that `done` of `total` files (of a package: mebibytes) have arrived."""

    def close(self) -> None:
        """Take note that the download has ended."""


def download(
    data: _Source | Iterable[str | ArchiveFile],
    folder: str | PathLike[str],
    *,
    roles: Iterable[Role] = (),
    base_url: str = ARCHIVE_URL,
    checksums: Mapping[str, str] | Literal["archive", "none"] = "archive",
    overwrite: bool = False,
    parallel: int = 2,
    progress: Progress | None = None,
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
    progress : Progress, optional
        Told how many files have arrived.
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
    wanted = _wanted(data, tuple(roles))
    if isinstance(checksums, Mapping):
        wanted = [_with_checksum(file, checksums) for file in wanted]
    elif checksums not in ("archive", "none"):
        raise ParameterError(
            "unknown way to check files",
            item="checksums",
            found=checksums,
            expected="a mapping, 'archive' or 'none'",
        )
    job = Job(
        folder=_made(folder),
        base_url=base_url,
        connection=Connection(**options),
        ask_archive=checksums == "archive",
        overwrite=overwrite,
    )
    return _run(job, wanted, parallel, progress)


def download_package(
    data: DataSet | str,
    folder: str | PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
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
    progress : Progress, optional
        Told how many mebibytes have arrived.
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
    connection, place = Connection(**options), _made(folder)
    expected = None if package.checksum is None else Checksum.parse(package.checksum)
    path, sums = place / package.name, Sums(place)
    if path.is_file() and not overwrite:
        check_stored(path, expected, sums, decompress=False, contents=_PACKAGE)
        record(path, sums)
        return path

    def notify(received: int, total: int | None) -> None:
        if progress is not None:
            progress.update(package.name, received // _MIB, max(total or received, _MIB) // _MIB)

    try:
        fetched = fetch(package.url, place, package.name, connection, contents=_PACKAGE, notify=notify)
    finally:
        if progress is not None:
            progress.close()
    with discarding(fetched):
        check_digest(fetched.path, package.url, expected, decompress=False)
        settle(fetched, path, sums)
    return path


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
        raise unknown("the catalogue knows no such bad pixel mask", "bad pixel mask", name, bpm_names())
    return download([file], cache_folder, base_url=base_url, checksums=checksums, parallel=1, **options)[0]


def _run(job: Job, wanted: list[Wanted], parallel: int, progress: Progress | None) -> list[Path]:
    """Obtain all files; collect what went wrong."""
    arrived: dict[str, Path] = {}
    faults: dict[str, NiripipeError] = {}
    pool = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="niripipe-download")
    try:
        waiting = {pool.submit(job.obtain, file): file.name for file in wanted}
        for future in as_completed(waiting):
            _collect(future, waiting[future], arrived, faults)
            if progress is not None:
                progress.update("download", len(arrived), len(wanted))
    except BaseException:
        job.stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if progress is not None:
            progress.close()
    if faults:
        raise _summary(faults, [file.name for file in wanted if file.name not in arrived], len(wanted))
    return [arrived[file.name] for file in wanted]


def _collect(
    future: Future[Path], name: str, arrived: dict[str, Path], faults: dict[str, NiripipeError]
) -> None:
    try:
        arrived[name] = future.result()
    except Cancelled:
        pass  # after a fault, which is what will be reported
    except NiripipeError as err:
        faults[name] = err


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


def _wanted(data: _Source | Iterable[str | ArchiveFile], roles: tuple[Role, ...]) -> list[Wanted]:
    if isinstance(data, str) and not data.endswith((".fits", *COMPRESSIONS)):
        data = get(data)
    if isinstance(data, DataSet):
        sums = data.checksums
        return [
            Wanted(name, Checksum.parse(sums[name]) if name in sums else None)
            for name in data.file_names(*roles)
        ]
    if roles:
        raise InputError("only data sets have roles", item="roles", found=", ".join(roles))
    items = [data] if isinstance(data, str | ArchiveFile) else list(data)
    files: dict[str, Wanted] = {}
    for item in items:
        if isinstance(item, ArchiveFile):
            listing = item if item.data_md5 is not None else None
            files.setdefault(frame_name(item.name), Wanted(frame_name(item.name), listing=listing))
        else:
            files.setdefault(frame_name(item), Wanted(frame_name(item)))
    return list(files.values())


def _with_checksum(file: Wanted, checksums: Mapping[str, str]) -> Wanted:
    text = checksums.get(file.name)
    return file if text is None else Wanted(file.name, Checksum.parse(text), file.listing)


def _made(folder: str | PathLike[str]) -> Path:
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StorageError(
            "the folder cannot be made",
            file=path,
            found=err.strerror or str(err),
            remedy="Name a folder that you may write to",
        ) from err
    return path
