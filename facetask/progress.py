"""Telling the user how far a run is: bars on a terminal, one line a stage otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

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


class Filtered:
    """Passes on the lines and warnings that are wanted."""

    def __init__(
        self, reporter: Reporter, line: Callable[[str], bool], warning: Callable[[str], bool] = lambda text: True
    ) -> None:
        self._reporter, self._line, self._warning = reporter, line, warning

    def line(self, text: str) -> None:
        """Show one line."""
        if self._line(text):
            self._reporter.line(text)

    def warn(self, text: str) -> None:
        """Show a line that the user should not miss."""
        if self._warning(text):
            self._reporter.warn(text)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Show the progress of one piece of work."""
        with self._reporter.bar(what, total) as advance:
            yield advance


class Console:
    """Reports to standard error: bars where it is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self._console = RichConsole(stderr=True, highlight=False, emoji=False, soft_wrap=not sys.stderr.isatty())
        self._bars: Progress | None = None

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print one line, marked."""
        self._console.print(f"warning: {text}", style="yellow", markup=False)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Draw a bar on a terminal, nothing otherwise; a bar within another is drawn below it."""
        if not self._console.is_terminal or total == 0:
            yield lambda done: None
            return
        if self._bars is None:
            with self._new_bars() as bars, self._one_of(bars, what, total) as advance:
                self._bars = bars
                try:
                    yield advance
                finally:
                    self._bars = None
        else:
            with self._one_of(self._bars, what, total) as advance:
                yield advance

    def _new_bars(self) -> Progress:
        """Return room for bars: what is done, how fast that goes, and the time left."""
        from rich import progress
        from rich.text import Text

        class Speed(progress.ProgressColumn):
            """Items a second, where that is one or more."""

            def render(self, task: progress.Task) -> Text:
                return Text(f"{task.speed:,.0f}/s" if task.speed and task.speed >= 1 else "")

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            Speed(),
            progress.TimeRemainingColumn(),
        )
        return progress.Progress(*columns, console=self._console, transient=True)

    @contextmanager
    def _one_of(self, bars: Progress, what: str, total: int) -> Iterator[Advance]:
        """Add a bar for one piece of work."""
        task = bars.add_task(what, total=total)
        try:
            yield lambda done: bars.advance(task, done)
        finally:
            if len(bars.tasks) > 1:
                bars.remove_task(task)
