"""The run around a plugin: where it reports to, and among which plugins it finds others.

A plugin is called with data and params only. What it shares with the run is set here while the run loads its
configuration, its images and its labels; outside of a run nothing is reported, and the bundled and installed plugins
are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from facetask.progress import Silent

if TYPE_CHECKING:
    from facetask.config import PluginLookup
    from facetask.progress import Reporter

_AROUND: ContextVar[tuple[PluginLookup, Reporter] | None] = ContextVar("facetask_run", default=None)


@contextmanager
def run_context(plugins: PluginLookup, reporter: Reporter | None = None) -> Iterator[None]:
    """Set what the plugins called inside share with the run."""
    token = _AROUND.set((plugins, reporter or Silent()))
    try:
        yield
    finally:
        _AROUND.reset(token)


def current_plugins() -> PluginLookup:
    """Return the run's plugin manager, or the one without a local folder."""
    from facetask.plugin_manager import default_manager

    around = _AROUND.get()
    return around[0] if around else default_manager()


def current_reporter() -> Reporter:
    """Return the run's reporter, or one that reports nothing."""
    around = _AROUND.get()
    return around[1] if around else Silent()
