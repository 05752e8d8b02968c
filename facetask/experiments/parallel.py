"""Pieces of work in several processes: one that fails or dies is told, and the others go on.

Workers are started afresh (spawned), so that work, items and values must be picklable. Ctrl-C ends the workers and then
this process; what a piece of work has stored by then stays.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from facetask.errors import FacetaskError
from facetask.progress import Advance, Reporter, Silent

Item = TypeVar("Item")
Value = TypeVar("Value")
Work = Callable[[Item, Reporter], Value]

MEMORY_OF_A_JOB = 2 * 2**30
"""About what one run needs: at most a gibibyte of responses, and as much for everything else."""
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What became of one piece of work.

    Attributes:
        value: What it gave; None where it failed.
        error: Why it failed, in one line; empty where it did not.
        trace: Where that was raised, if it is a bug rather than an error that the user can mend.
        wall_s: How long it took.
    """

    value: Value | None = None
    error: str = ""
    trace: str = ""
    wall_s: float = 0.0


def default_jobs(n_items: int) -> int:
    """Return how many pieces of work to do at a time: one a core where memory allows, at least one."""
    room = _free_memory() // MEMORY_OF_A_JOB
    return max(1, min(_cores(), room, n_items))


def in_parallel(
    work: Work[Item, Value], items: Mapping[str, Item], jobs: int, reporter: Reporter
) -> Iterator[tuple[str, Outcome[Value]]]:
    """Yield each item's name and outcome, as they are done; what is reported has the item's name before it.

    Args:
        work: What to do with an item; a function of a module. With one job it is called in this process.
        items: The items by name.
        jobs: How many processes; each computes with its share of the cores.
        reporter: Where the items' lines and warnings go.
    """
    if min(jobs, len(items)) <= 1:
        for name, item in items.items():
            yield name, _attempt(work, item, Named(name, reporter))
        return
    pool = _Pool(work, min(jobs, len(items)), reporter)
    try:
        yield from pool.outcomes(items)
    finally:
        pool.close()


class Named:
    """Reports with a name before every line."""

    def __init__(self, name: str, reporter: Reporter) -> None:
        self._name, self._reporter = name, reporter

    def line(self, text: str) -> None:
        """Show one line."""
        self._reporter.line(f"{self._name} | {text}")

    def warn(self, text: str) -> None:
        """Show a line that the user should not miss."""
        self._reporter.warn(f"{self._name} | {text}")

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Show the progress of one piece of work."""
        with self._reporter.bar(f"{self._name} | {what}", total) as advance:
            yield advance


@dataclass
class _Worker:
    """A process and the name of what it is doing."""

    process: BaseProcess
    connection: Connection[Any, Any]
    name: str


class _Pool(Generic[Item, Value]):
    """The processes of one call."""

    def __init__(self, work: Work[Item, Value], jobs: int, reporter: Reporter) -> None:
        self._work, self._jobs, self._reporter = work, jobs, reporter
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def outcomes(self, items: Mapping[str, Item]) -> Iterator[tuple[str, Outcome[Value]]]:
        """Yield every item's outcome."""
        waiting = list(items)
        for name in waiting[: self._jobs]:
            self._workers.append(self._started(name, items[name]))
        del waiting[: self._jobs]
        while self._workers:
            ready = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                outcome = self._received(worker)
                if outcome is None:
                    continue
                name = worker.name
                if worker.process.exitcode is not None or not waiting:
                    self._workers.remove(worker)
                    self._end(worker)
                if waiting:
                    following = waiting.pop(0)
                    if worker in self._workers:
                        worker.name = following
                        worker.connection.send((following, items[following]))
                    else:
                        self._workers.append(self._started(following, items[following]))
                yield name, outcome

    def close(self) -> None:
        """End all processes, those in the middle of something too."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()

    def _started(self, name: str, item: Item) -> _Worker:
        """Return a new process that has begun with an item."""
        here, there = self._context.Pipe()
        threads = max(1, _cores() // self._jobs)
        process = self._context.Process(target=_serve, args=(there, self._work, threads))
        process.start()
        there.close()
        here.send((name, item))
        return _Worker(process, here, name)

    def _received(self, worker: _Worker) -> Outcome[Value] | None:
        """Show what a process reports, or return the outcome of its item."""
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            killed = " (killed: out of memory, perhaps; try fewer --jobs)" if code == -signal.SIGKILL else ""
            return Outcome(error=f"its process ended with exit code {code}{killed}")
        if kind == "outcome":
            done: Outcome[Value] = content
            return done
        getattr(Named(worker.name, self._reporter), kind)(content)
        return None

    def _end(self, worker: _Worker) -> None:
        """Wait for a process to end; it does once its connection is closed or it was told to."""
        worker.connection.close()
        worker.process.join(_PATIENCE_S)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()


class _Remote(Silent):
    """Reports from a worker to the process that started it."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def line(self, text: str) -> None:
        """Send one line."""
        self._send("line", text)

    def warn(self, text: str) -> None:
        """Send a warning."""
        self._send("warn", text)

    def _send(self, kind: str, text: str) -> None:
        """Send a text, or unwind where nobody is there to hear it."""
        try:
            self._connection.send((kind, text))
        except OSError:
            raise KeyboardInterrupt from None


def _serve(connection: Connection[Any, Any], work: Work[Any, Any], threads: int) -> None:
    """Do one item after the other until there are no more, or the process that started this one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then tells its workers
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        import torch

        torch.set_num_threads(threads)
        while True:
            _, item = connection.recv()
            connection.send(("outcome", _attempt(work, item, _Remote(connection))))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _interrupt(number: int, frame: Any) -> None:
    """Unwind as after Ctrl-C, once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _attempt(work: Work[Item, Value], item: Item, reporter: Reporter) -> Outcome[Value]:
    """Do one piece of work, whatever becomes of it."""
    start = time.perf_counter()
    try:
        return Outcome(value=work(item, reporter), wall_s=time.perf_counter() - start)
    except FacetaskError as error:
        return Outcome(error=str(error), wall_s=time.perf_counter() - start)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        return Outcome(error=told, trace=traceback.format_exc(), wall_s=time.perf_counter() - start)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Return how many bytes of memory programs may still take; where that is not told, as much as any need."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return MEMORY_OF_A_JOB * _cores()
