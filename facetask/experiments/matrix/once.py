"""Progress of many runs on the same images: what each of them would say again is said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetask.progress import Filtered

if TYPE_CHECKING:
    from facetask.progress import Reporter


class Once(Filtered):
    """Passes each line and each warning on for the first time only."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter, self._is_new, self._is_new)
        self._told: set[str] = set()

    def _is_new(self, text: str) -> bool:
        """Return whether a text has not been told, and note it."""
        new = text not in self._told
        self._told.add(text)
        return new
