"""Results as JSON files: written whole or not at all, validated when read back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from facetask.errors import RunDirError

Record = TypeVar("Record", bound=BaseModel)


def write_record(record: BaseModel, path: Path) -> None:
    """Write a record as indented JSON; its folder is made.

    Raises:
        RunDirError: If the file cannot be written.
    """
    partial = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunDirError(f"{path}: cannot be written ({error.strerror})") from None


def read_record(model: type[Record], path: Path, what: str) -> Record:
    """Read a record back.

    Args:
        model: What the file must hold.
        path: The file.
        what: The same in words, for messages: ``a sweep's results``.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: not {what} ({error})") from None
