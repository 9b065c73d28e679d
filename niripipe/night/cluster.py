"""A night as a graph on dask.distributed.

The whole plan is handed over at once: the scheduler knows what depends on what, keeps all workers at work,
and repeats what was lost with a worker. Nothing here imports dask; whoever has a client has done that.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Protocol

from niripipe.errors import NiripipeError, ParameterError
from niripipe.logutils import get_logger
from niripipe.night.jobs import Job
from niripipe.night.result import JobResult
from niripipe.night.tasks import Terms, do_job, failure, skipped, slim

if TYPE_CHECKING:
    from niripipe.night.run import Record

__all__ = ["ClusterClient", "as_client", "run_on_client"]

log = get_logger(__name__)

_GONE = ("cancelled", "lost")
_GONE_REMEDY = "The cluster has gone, or was told to stop. Run the plan again when it is back."


class ClusterClient(Protocol):
    """What is used of a ``distributed.Client``."""

    def submit(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Send a call to the cluster; return its future."""

    def cancel(self, futures: Any) -> Any:
        """Call off what has not been done."""


def as_client(executor: object) -> ClusterClient | None:
    """Return an executor if it is a client of dask.distributed, else None.

    Raises
    ------
    ParameterError
        The client is asynchronous, or closed.
    """
    client = getattr(sys.modules.get("distributed"), "Client", None)
    if client is None or not isinstance(executor, client):
        return None
    fault = _fault(executor)
    if fault:
        raise ParameterError(
            "The client cannot be used",
            item="executor",
            found=fault,
            expected="a client that is connected and not asynchronous",
        )
    usable: ClusterClient = executor
    return usable


def run_on_client(client: ClusterClient, jobs: Sequence[Job], terms: Terms, record: Record) -> None:
    """Run jobs as a graph on a client.

    Parameters
    ----------
    client : distributed.Client
        Its workers see the files of the night and the output folder under the same paths.
    jobs : sequence of Job
        Each after those that it depends on.
    terms : Terms
        What holds for all.
    record : Record
        Gets every result as soon as it is there.

    Notes
    -----
    A job whose worker is lost is done again on another, as often as the setting
    ``distributed.scheduler.allowed-failures`` allows; and once more alone, if others were lost as well. What
    depends on a job that could not be done is recorded as skipped, or done without its product in another
    graph.
    """
    run = uuid.uuid4().hex[:8]
    rest = dict(enumerate(jobs, 1))
    rounds = 0
    while rest:
        rounds += 1
        if _fault(client):
            _give_up(rest, record, _fault(client))
            return
        graph = {number: job for number, job in rest.items() if not _is_skipped(job, record)}
        failed = _run_graph(client, graph, terms, record, f"{run}-{rounds}")
        # An error also befalls what depends on it; only the first in each chain has failed by itself.
        names = {graph[number].name for number in failed}
        first = {
            number: error for number, error in failed.items() if names.isdisjoint(graph[number].depends_on)
        }
        lost = [number for number, error in first.items() if isinstance(error, _WorkersLost)]
        # A lost worker is held against all jobs that it had: which one it died of shows when each is alone.
        for number in lost if len(lost) > 1 else ():
            rounds += 1
            del first[number]
            first |= _run_graph(client, {number: graph[number]}, terms, record, f"{run}-{rounds}")
        for number, error in first.items():
            record.add(failure(graph[number], error))
        rest = {number: job for number, job in rest.items() if job.name not in record.results}


def _fault(client: Any) -> str:
    """Return why a client is of no use; nothing if it is."""
    if client.asynchronous:
        return "asynchronous"
    return "" if client.status == "running" else f"{client.status}"


def _give_up(rest: dict[int, Job], record: Record, fault: str) -> None:
    """Record what cannot be done any more because the cluster has gone."""
    for job in rest.values():
        if not _is_skipped(job, record):
            record.add(failure(job, _lost(job, f"the client is {fault}", _GONE_REMEDY)))


def _is_skipped(job: Job, record: Record) -> bool:
    """Record a job that cannot be done because of others; return whether it is such a one."""
    if not job.depends_on or not record.ready(job):
        return False
    result = skipped(job, {name: record.results[name] for name in job.depends_on})
    if result is not None:
        record.add(result)
    return result is not None


def _run_graph(
    client: ClusterClient, graph: dict[int, Job], terms: Terms, record: Record, run: str
) -> dict[int, Exception]:
    """Run what can be run; return the errors of the rest."""
    futures: dict[str, Any] = {}
    numbers: dict[Any, int] = {}
    failed: dict[int, Exception] = {}
    try:
        for number, job in graph.items():
            made = [
                futures[name] if name in futures else slim(record.results[name]) for name in job.depends_on
            ]
            log.status("REDUCTION: %s", job.name)
            # The part before the first hyphen is what the dashboard groups by.
            key = f"{job.kind}-{run}-{number}"
            future = client.submit(do_job, job, number, terms, *made, key=key)
            futures[job.name], numbers[future.key] = future, number
        for future in sys.modules["distributed"].as_completed(list(futures.values())):
            number = numbers[future.key]
            outcome = _outcome(graph[number], future)
            if isinstance(outcome, Exception):
                failed[number] = outcome
            else:
                record.add(outcome)
    except BaseException:
        client.cancel(list(futures.values()))
        raise
    return failed


def _outcome(job: Job, future: Any) -> JobResult | Exception:
    if future.status in _GONE:
        return _lost(job, f"its state is {future.status}", _GONE_REMEDY)
    try:
        result: JobResult = future.result()
    except CancelledError as error:
        return _lost(job, str(error), _GONE_REMEDY)
    except Exception as error:
        if type(error).__name__ != "KilledWorker":
            return error
        found = f"all workers that tried were lost ({getattr(error, 'allowed_failures', 0) + 1})"
        remedy = "Workers are often killed for want of memory: give them more, or start fewer."
        return _lost(job, found, remedy, _WorkersLost)
    return result


class _WorkersLost(NiripipeError):
    """The workers that had a job were lost, perhaps through another job that they had as well."""


def _lost(job: Job, found: str, remedy: str, kind: type[NiripipeError] = NiripipeError) -> NiripipeError:
    return kind(
        "The cluster could not bring this reduction to an end", item=job.name, found=found, remedy=remedy
    )
