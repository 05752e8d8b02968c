"""Telling the user how far a run is: bars on a terminal, one line a stage otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Where a run reports to."""

    def line(self, text: str) -> None:
        """Show one line."""

    def warn(self, text: str) -> None:
        """Show a line that the user should not miss."""

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Show the progress of one piece of work; the function given back counts items done."""


class Silent:
    """Reports nothing; for use from Python."""

    def line(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Show nothing."""
        yield lambda done: None


class Console:
    """Reports to standard error: bars where it is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self._console = RichConsole(stderr=True, highlight=False, emoji=False, soft_wrap=not sys.stderr.isatty())

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print one line, marked."""
        self._console.print(f"warning: {text}", style="yellow", markup=False)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Draw a bar on a terminal, nothing otherwise."""
        if not self._console.is_terminal or total == 0:
            yield lambda done: None
            return
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(what, total=total)
            yield lambda done: bars.advance(task, done)
