"""Every error that facetask raises on purpose, in one tree.

FacetaskError                 the message is for the user: what, where, found, what to do
├── ConfigError               the configuration file or an override
├── PluginError               a plugin that is unknown, cannot be imported or breaks its contract
├── WeightsError              a weights file that is missing, truncated or of another layout
├── DataError                 images, tables, labels and splits
├── CurveError                moments, regressions and characteristic curves
├── SurgeryError              tracing, cuts and keep sets
├── CheckpointError           a saved model that cannot be read
├── ExportError               a saved model that cannot be exported
└── RunDirError               the run directory

The command line prints the message and exits with status 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FacetaskError(Exception):
    """Base of all errors whose message is meant for the user."""


class ConfigError(FacetaskError):
    """The configuration file or an override is wrong; the message lists every problem."""


class PluginError(FacetaskError):
    """A plugin is unknown, cannot be imported or breaks its contract."""


class WeightsError(FacetaskError):
    """A weights file is missing, truncated or of another layout than expected."""


class DataError(FacetaskError):
    """Images, tables, labels or splits cannot be used as asked."""


class CurveError(FacetaskError):
    """Moments, a regression or a characteristic curve cannot be computed."""


class SurgeryError(FacetaskError):
    """A network cannot be traced, cut or pruned as asked."""


class CheckpointError(FacetaskError):
    """A saved model cannot be read."""


class ExportError(FacetaskError):
    """A saved model cannot be exported."""


class RunDirError(FacetaskError):
    """A run directory cannot be written or belongs to another configuration."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or the known names where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not names:
        return "; none is known here"
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return f"; known: {shown}"


def first_names(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names joined by commas, with an ellipsis where there are more."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "")
