"""Where facetask keeps what it can compute again: responses, rendered faces."""

from __future__ import annotations

import os
from pathlib import Path

from facetask.errors import RunDirError


def cache_folder(part: str = "") -> Path:
    """Return the cache's folder, or a part of it, made if need be: ``FACETASK_CACHE``, else the platform's place.

    Raises:
        RunDirError: If the folder cannot be made.
    """
    named = os.environ.get("FACETASK_CACHE")
    if named:
        root = Path(named).expanduser()
    else:
        from platformdirs import user_cache_path

        root = user_cache_path("facetask")
    folder = root / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(
            f"{folder}: the cache folder cannot be made ({error.strerror}); set FACETASK_CACHE to a writable folder"
        ) from None
    return folder
