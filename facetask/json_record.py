"""Results as JSON files: written whole or not at all, validated when read back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from facetask.errors import RunDirError
from facetask.whole_file import write_output


class Record(BaseModel):
    """What a results file holds, or a part of it: frozen, without unknown keys; what is not a number becomes null."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_record(record: Record, path: Path) -> None:
    """Write a record as indented JSON; its folder is made.

    Raises:
        RunDirError: If the file cannot be written.
    """
    write_output(path, record.model_dump_json(indent=2) + "\n")


def read_record(model: type[AnyRecord], path: Path, what: str) -> AnyRecord:
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
