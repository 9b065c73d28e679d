"""The calibration service: register processed calibrations, and find those that fit a frame."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from niripipe.astrodata import AstroData
from niripipe.cal_service.config import StoreLocation, find_store
from niripipe.cal_service.explain import Candidate, Explanation
from niripipe.cal_service.facts import CalibrationFacts, Frame, as_facts
from niripipe.cal_service.records import (
    CalibrationRecord,
    CalReturn,
    FileList,
    absolute,
    read_folder,
    read_record,
)
from niripipe.cal_service.rules import Assessment, assess, rules_for, stored_type
from niripipe.cal_service.use import ServiceUse
from niripipe.errors import InputError, ParameterError, StorageError
from niripipe.logutils import get_logger

if TYPE_CHECKING:
    from niripipe.cal_service.store import Store

__all__ = ["CalibrationService"]

log = get_logger(__name__)


class CalibrationService(ServiceUse):
    """Registers processed calibrations and finds those that fit a frame.

    Creating the object does nothing; `config` chooses the store, and is called with its defaults by whatever
    needs a store first. A store that does not exist yet is created by `init`, `add_cal`, `add_directory` and
    `rebuild`; to those who look for calibrations it is empty, which is logged once.

    The store holds path, checksum and the facts that association needs; never the files themselves, which
    stay where they are. One that was moved, deleted or changed is passed over for the next best.

    Services are independent of each other: each has its own store. One service may be used from several
    threads, and one store from several processes.

    Examples
    --------
    >>> caldb = CalibrationService()
    >>> caldb.config(db_dir="playground")                          # doctest: +SKIP
    >>> caldb.init()                                               # doctest: +SKIP
    >>> caldb.add_cal("N20160102S0423_dark.fits")                  # doctest: +SKIP
    >>> caldb.get_processed_dark("N20160102S0270.fits").files      # doctest: +SKIP
    ['/data/playground/N20160102S0423_dark.fits']
    >>> print(caldb.explain("N20160102S0270.fits", "processed_dark"))  # doctest: +SKIP
    """

    latest: ClassVar[CalibrationService | None] = None
    """The service that was configured last in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._location: StoreLocation | None = None
        self._told: set[str] = set()

    # ------------------------------------------------------------------ the store

    def config(
        self,
        db_dir: str | PathLike[str] | None = None,
        verbose: bool = False,
        config_file: str | PathLike[str] | None = None,
    ) -> None:
        """Choose the store; nothing is created.

        Parameters
        ----------
        db_dir : path-like or URL, optional
            Folder of the store, in which it is called ``cal_manager.db``; or the file itself (an existing
            file, or a name that ends in ``.db``, ``.sqlite`` or ``.sqlite3``); or the URL of a PostgreSQL
            database, ``postgresql+psycopg://user@host/database``, for which the driver is needed (``pip
            install "niripipe[cluster]"``). Relative paths are resolved now: a later change of folder does
            not matter.
        verbose : bool
            Log the details of the store as well.
        config_file : path-like, optional
            Read the place from this file: ``[calibs]`` with ``database_dir`` or ``databases``.

        Notes
        -----
        With neither argument the usual places of DRAGONS are looked at (``~/.geminidr/rsys.cfg``,
        ``$DRAGONSRC``, ``~/.dragons/dragonsrc``); if none names a local store it is ``cal_manager.db`` in
        the current folder. Which one is used is logged. If DRAGONS keeps a store of its own in that file, it
        is left alone and ``niripipe_cal_manager.db`` beside it is used.

        A store in a PostgreSQL database serves several computers, which must see the files under the same
        paths. It may share the database with others; see `niripipe.cal_service.backends`. Its password is
        never shown or logged, and is better kept in ``~/.pgpass`` than in the URL. Connecting is left to the
        first use.

        Raises
        ------
        InputError
            The configuration file is missing or names no usable store, or a URL cannot be used.
        """
        location = find_store(db_dir, config_file)
        if db_dir is None or Path(location.location) != absolute(db_dir):
            from niripipe.cal_service.store import beside_foreign

            location = beside_foreign(location)
        self._location = location
        self._told = set()
        CalibrationService.latest = self
        registers = ", products are registered by themselves" if self.store_cal else ""
        log.stdinfo("Calibration store: %s (%s%s)", location.shown, location.source, registers)
        if verbose:
            log.stdinfo("%r", self.list_files())

    def init(self, wipe: bool = False) -> None:
        """Create the store. One that exists is kept, whatever it holds.

        DRAGONS 2.1 emptied an existing store here, and 4.x refused; keeping it lets a script be run again.

        Parameters
        ----------
        wipe : bool
            Forget everything that is registered. Only ever done to a store of niripipe.

        Raises
        ------
        StorageError
            The store cannot be written, is damaged, or another program's file is there.
        """
        if wipe:
            self._store().wipe()
        else:
            self._store().add([])

    def rebuild(
        self, source: str | PathLike[str] | Iterable[str | PathLike[str]], walk: bool = False
    ) -> FileList:
        """Create the store anew from files; the remedy for a damaged or outdated store.

        Parameters
        ----------
        source : path-like or iterable of path-like
            A folder, whose processed calibrations are registered, or the files themselves.
        walk : bool
            Look into the folders inside the folder too.

        Returns
        -------
        FileList
            What the store holds now.

        Raises
        ------
        InputError, DataError, CalibrationError
            A file named is not a processed calibration. The store is unchanged.
        StorageError
            The store cannot be written, or another program's file is there.
        """
        if isinstance(source, str | PathLike):
            records = list(read_folder(source, walk))
        else:
            records = [read_record(path) for path in source]
        store = self._store()
        return FileList(store.wipe(records), store.shown)

    @property
    def source(self) -> str:
        """Who named the store: an argument, a configuration file, or the default."""
        return self._configured().source

    # ------------------------------------------------------------------ registering

    def add_cal(self, path: str | PathLike[str] | AstroData) -> CalibrationRecord:
        """Register a processed dark, flat, bad pixel mask or standard.

        Registering an unchanged file again does nothing; after a change it replaces the old entry. Files of
        the same name in different folders are different calibrations.

        Parameters
        ----------
        path : path-like or AstroData
            The file; an AstroData stands for the file that it was read from or written to.

        Returns
        -------
        CalibrationRecord

        Raises
        ------
        InputError
            There is no such file.
        DataError
            It cannot be opened.
        CalibrationError
            It is not a processed calibration; the message names the tags found.
        StorageError
            The store cannot be written.
        """
        record = self._store().add([read_record(path)])[0]
        log.fullinfo("Registered %s as %s", record.path, record.caltype)
        return record

    def add_directory(self, path: str | PathLike[str], walk: bool = False) -> list[CalibrationRecord]:
        """Register every processed calibration in a folder; other files are passed over.

        Parameters
        ----------
        path : path-like
            The folder.
        walk : bool
            Look into the folders inside it too.

        Returns
        -------
        list of CalibrationRecord
            What was registered. A FITS file that cannot be opened is named in a warning.

        Raises
        ------
        InputError
            There is no such folder.
        StorageError
            The store cannot be written.
        """
        return self._store().add(list(read_folder(path, walk)))

    def remove_cal(self, path: str | PathLike[str]) -> list[CalibrationRecord]:
        """Forget a calibration; its file is not touched.

        Parameters
        ----------
        path : path-like
            A bare file name forgets every calibration of that name; a path only the one file.

        Returns
        -------
        list of CalibrationRecord
            What was forgotten.

        Raises
        ------
        InputError
            Nothing of that name is registered; the message names what is.
        """
        store = self._store()
        bare = Path(path).name == str(path)
        found = store.records(name=str(path)) if bare else store.records(path=str(absolute(path)))
        if not found:
            raise _not_registered(str(path), store)
        store.remove([record.path for record in found])
        return found

    def list_files(self) -> FileList:
        """Return the files that are registered, sorted by name."""
        store = self._store()
        return FileList(store.records(), store.shown)

    # ------------------------------------------------------------------ finding

    def get_calibrations(
        self, frames: Frame | Sequence[Frame], caltype: str, procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Find the calibrations that fit frames.

        Parameters
        ----------
        frames : AstroData, path or CalibrationFacts, or a sequence of them
            What is to be calibrated.
        caltype : {"processed_dark", "processed_flat", "processed_bpm", "processed_standard"}
            Type of calibration.
        procmode : {"sq", "ql", "qa"}, optional
            Lowest acceptable quality of processing; any, if not given.
        howmany : int
            How many calibrations a frame at most.

        Returns
        -------
        CalReturn
            None where nothing fits; its `reasons` say why in a sentence, `explain` in full. A calibration
            further away in time than its type should be, and a registered file that is missing or changed,
            are logged as warnings, once.

        Raises
        ------
        ParameterError
            Unknown type or mode, or `howmany` below one.
        StorageError
            The store cannot be read.
        """
        caltype = stored_type(caltype)
        if howmany < 1:
            raise ParameterError("at least one calibration must be asked for", item="howmany", found=howmany)
        if not self.get_cal:
            reason = f"{self.name} is not asked for calibrations (its flag is store, without get)"
            self._tell_once(reason)
            number = len(_listed(frames))
            return CalReturn([None] * number, [None] * number, [[] for _ in range(number)], [reason] * number)
        store = self._store()
        records = store.records(caltype=caltype)
        if not records and store.state() == "absent":
            self._tell_once(f"The calibration store {store.shown} does not exist yet: it has no calibrations")
        answers = CalReturn([], [], [], [])
        for facts in map(as_facts, _listed(frames)):
            ranked = _ranked(facts, records, caltype, procmode)
            found = self._best(facts, ranked, caltype, howmany)
            answers.matches.append(found)
            answers.files.append(found[0].path if found else None)
            answers.origins.append(store.shown if found else None)
            answers.reasons.append(None if found else Explanation(facts, caltype, _candidates(ranked)).reason)
        return answers

    def get_processed_dark(
        self, frames: Frame | Sequence[Frame], procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Find processed darks; see `get_calibrations`."""
        return self.get_calibrations(frames, "processed_dark", procmode, howmany)

    def get_processed_flat(
        self, frames: Frame | Sequence[Frame], procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Find processed flats; see `get_calibrations`."""
        return self.get_calibrations(frames, "processed_flat", procmode, howmany)

    def get_processed_bpm(
        self, frames: Frame | Sequence[Frame], procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Find bad pixel masks; see `get_calibrations`."""
        return self.get_calibrations(frames, "processed_bpm", procmode, howmany)

    def require(
        self, frames: Frame | Sequence[Frame], caltype: str, procmode: str | None = None
    ) -> list[str]:
        """Find the best calibration of every frame, or fail.

        Returns
        -------
        list of str
            Absolute paths, one a frame.

        Raises
        ------
        CalibrationError
            A frame has none; the error holds the table of candidates and rules.
        """
        frames = _listed(frames)
        paths = []
        for frame, path in zip(frames, self.get_calibrations(frames, caltype, procmode).files, strict=True):
            if path is None:
                raise self.explain(frame, caltype, procmode).error()
            paths.append(path)
        return paths

    def explain(self, frame: Frame, caltype: str, procmode: str | None = None) -> Explanation:
        """Hold every registered calibration of a type against every rule.

        Parameters
        ----------
        frame : AstroData, path or CalibrationFacts
            What is to be calibrated.
        caltype, procmode
            As for `get_calibrations`.

        Returns
        -------
        Explanation
            A table that prints, renders in a notebook, and holds plain rows.
        """
        caltype = stored_type(caltype)
        store, facts = self._store(), as_facts(frame)
        records = store.records()
        ranked = _ranked(facts, [r for r in records if r.caltype == caltype], caltype, procmode)
        others = Counter(record.caltype for record in records if record.caltype != caltype)
        return Explanation(facts, caltype, _candidates(ranked), store=store.shown, others=others)

    def __repr__(self) -> str:
        if self._location is None:
            return f"<{type(self).__name__}: config() has not been called>"
        try:
            return f"<{type(self).__name__}: {self.list_files()!r}>"
        except StorageError as err:
            return f"<{type(self).__name__}: {err}>"

    def _repr_html_(self) -> str:
        if self._location is None:
            return "<p>Calibration service: config() has not been called</p>"
        try:
            return self.list_files()._repr_html_()
        except StorageError as err:
            return f"<p>{escape(str(err))}</p>"

    # ------------------------------------------------------------------ private

    def _configured(self) -> StoreLocation:
        if self._location is None:
            self.config()
        assert self._location is not None
        return self._location

    def _store(self) -> Store:
        # The database library is loaded when a store is first used, not when niripipe is imported.
        from niripipe.cal_service.store import Store

        return Store(self._configured().location)

    def _best(
        self,
        facts: CalibrationFacts,
        ranked: Iterable[tuple[CalibrationRecord, Assessment]],
        caltype: str,
        howmany: int,
    ) -> list[CalibrationRecord]:
        best: list[CalibrationRecord] = []
        stale_after = rules_for(caltype).stale_after
        for record, assessment in ranked:
            if len(best) == howmany or not assessment.accepted:
                break
            state = record.file_state()
            if state != "present":
                self._tell_once(f"{record.path} is {state} since it was registered; the next best is tried")
                continue
            if stale_after is not None and assessment.days is not None and abs(assessment.days) > stale_after:
                self._tell_once(
                    f"{record.name} fits {facts.filename} but is {abs(assessment.days):.0f} days away from it"
                )
            best.append(record)
        if not best:
            log.fullinfo("No %s fits %s", caltype, facts.filename)
        return best

    def _tell_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            log.warning("%s", message)


def _ranked(
    facts: CalibrationFacts, records: Iterable[CalibrationRecord], caltype: str, procmode: str | None
) -> list[tuple[CalibrationRecord, Assessment]]:
    """Return calibrations with their assessments: accepted ones first, best first."""
    assessed = [(record, assess(facts, record.facts, caltype, procmode)) for record in records]
    return sorted(assessed, key=lambda pair: (not pair[1].accepted, pair[1].rank(pair[0].number)))


def _candidates(ranked: Iterable[tuple[CalibrationRecord, Assessment]]) -> list[Candidate]:
    """Return what is ranked for an explanation: the others in the order of how little they lack."""
    candidates = [
        Candidate(record.name, record.path, assessment, record.file_state()) for record, assessment in ranked
    ]
    return sorted(candidates, key=lambda candidate: (not candidate.usable, len(candidate.faults)))


def _listed(frames: Frame | Sequence[Frame]) -> list[Frame]:
    if isinstance(frames, AstroData | CalibrationFacts | str | PathLike):
        return [frames]
    return list(frames)


def _not_registered(path: str, store: Store) -> InputError:
    names = sorted({record.name for record in store.records()})
    near = difflib.get_close_matches(Path(path).name, names, n=5, cutoff=0.5) or names[:5]
    return InputError(
        "this calibration is not registered",
        item=path,
        expected=", ".join(near) or None,
        remedy="list_files() shows what is registered" if names else "The store is empty",
    )
