"""What every reader of a weights file returns, and how the readers get at the file's bytes."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from facetask import WeightsError


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file.

    Attributes:
        key: Its name or place there, for messages.
        values: Its numbers in the file's own order of axes, often a read-only view of the file's bytes.
    """

    key: str
    values: NDArray[Any]


StoredLayers = dict[str, list[Stored]]
"""Each layer's name in the file and its tensors, weights first; layers without any are left out."""


def check_is_file(path: Path) -> None:
    """Check that there is a file.

    Raises:
        WeightsError: If there is none, or something else.
    """
    if not path.is_file():
        found = "found a folder or device" if path.exists() else "no such file"
        raise WeightsError(f"{path}: expected a weights file, {found}")


def mapped(path: Path) -> mmap.mmap:
    """Return a file's bytes without reading them yet.

    Raises:
        WeightsError: If the file is missing, empty or cannot be read.
    """
    check_is_file(path)
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise WeightsError(f"{path}: the file is empty; fetch it again") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
