"""Text files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from facetask.errors import RunDirError


def write_whole(path: Path, text: str) -> None:
    """Write a text, or leave what was there.

    Raises:
        OSError: If it cannot be written.
    """
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_output(path: Path, text: str) -> None:
    """Write a text for the user, or leave what was there; its folder is made.

    Raises:
        RunDirError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise RunDirError(f"{path}: cannot be written ({error.strerror})") from None
