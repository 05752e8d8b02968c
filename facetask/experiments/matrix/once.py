"""Progress of many runs on the same images: what each of them would say again is said once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetask.progress import Advance, Reporter


class Once:
    """Passes each line and each warning on for the first time only."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._told: set[str] = set()

    def line(self, text: str) -> None:
        """Show one line."""
        if self._is_new(text):
            self._reporter.line(text)

    def warn(self, text: str) -> None:
        """Show a line that the user should not miss."""
        if self._is_new(text):
            self._reporter.warn(text)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """Show the progress of one piece of work."""
        with self._reporter.bar(what, total) as advance:
            yield advance

    def _is_new(self, text: str) -> bool:
        """Return whether a text has not been told, and note it."""
        new = text not in self._told
        self._told.add(text)
        return new
