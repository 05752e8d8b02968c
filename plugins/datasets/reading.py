"""What the readers of published layouts share: what is in a folder, which images a list names.

A reader returns every image that is annotated, whether its file exists or not: a run counts the missing ones, names
them, and stops where they are more than ``data.max_bad_share``. Only where none of them exists does the reader refuse.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facetask import DataError

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_SHOWN = 5


def need_folder(folder: Path, expected: str) -> None:
    """Check that a folder exists.

    Raises:
        DataError: If it does not; the message says what was expected there and what is.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected {expected}, found {what_is_at(folder)}")


def find_file(root: Path, places: Sequence[str], expected: str) -> Path:
    """Return the first of some places in a folder where there is a file.

    Raises:
        DataError: If there is none.
    """
    need_folder(root, expected)
    for place in places:
        if (root / place).is_file():
            return root / place
    raise DataError(f"{root / places[0]}: no such file; expected {expected}, found {what_is_at(root)}")


def what_is_at(path: Path) -> str:
    """Return what a message says was found at a path: its entries, or those of the nearest folder above it."""
    if path.is_file():
        return "a file"
    if not path.is_dir():
        above = next(parent for parent in path.absolute().parents if parent.is_dir())
        return f"nothing ({above} has: {shown(os.listdir(above))})"
    return shown(os.listdir(path)) or "an empty folder"


def shown(items: Iterable[str]) -> str:
    """Return the first five items in order, and how many there are if more."""
    listed = sorted(items)
    return ", ".join(listed[:_SHOWN]) + (f", … ({len(listed)} in all)" if len(listed) > _SHOWN else "")


def is_image(name: str) -> bool:
    """Return whether a file of this name is taken for an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_names(folder: Path, expected: str) -> list[str]:
    """Return the sorted names of the images that lie in a folder itself.

    Raises:
        DataError: If there is no folder, or no image in it.
    """
    need_folder(folder, expected)
    names = sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name) and entry.is_file())
    if not names:
        raise DataError(f"{folder}: expected {expected}, found {what_is_at(folder)}")
    return names


def image_tree(root: Path, depth: int, expected: str) -> list[tuple[str, ...]]:
    """Return, sorted, the folders' names and the file name of every image ``depth`` folders below the root.

    Raises:
        DataError: If there is none, or an image lies at another depth.
    """
    need_folder(root, expected)
    found: list[tuple[str, ...]] = []
    folders: list[tuple[str, ...]] = [()]
    while folders:
        parts = folders.pop()
        with os.scandir(root.joinpath(*parts)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_image(entry.name) and entry.is_file():
                    found.append((*parts, entry.name))
                elif len(parts) <= depth and entry.is_dir():
                    folders.append((*parts, entry.name))
    misplaced = ["/".join(parts) for parts in found if len(parts) != depth + 1]
    if misplaced:
        raise DataError(f"{root}: expected {expected}; {len(misplaced)} images lie elsewhere: {shown(misplaced)}")
    if not found:
        raise DataError(f"{root}: expected {expected}, found no image there ({what_is_at(root)})")
    return sorted(found)


def listed_images(folder: Path, names: Sequence[str], listing: Path) -> tuple[Path, ...]:
    """Return the paths of the images that a list names, of which at least one must exist.

    Raises:
        DataError: If a name repeats or leads out of the folder, or the folder has none of the images.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{listing}: {len(repeated)} image names stand in more than one row: {shown(repeated)}")
    outside = [name for name in names if os.path.isabs(name) or (".." in name and ".." in Path(name).parts)]
    if outside:
        raise DataError(f"{listing}: {len(outside)} image names lead out of {folder}: {shown(outside)}")
    need_folder(folder, f"the {len(names)} images of {listing.name}")
    paths = tuple(folder / name for name in names)
    need_some(paths, folder, listing)
    return paths


def need_some(paths: Sequence[Path], folder: Path, listing: Path) -> None:
    """Check that at least one of the listed images exists.

    Raises:
        DataError: If none does, as in an archive whose images were not extracted.
    """
    if not any(os.path.isfile(path) for path in paths):
        wanted = shown(path.relative_to(folder).as_posix() for path in paths)
        raise DataError(
            f"{folder}: expected the images of {listing.name} ({wanted}), found none of them "
            f"({what_is_at(folder)}); extract the archive of the images here"
        )


def text(values: Iterable[str | None]) -> NDArray[np.object_]:
    """Return a text column, ``(n,)``, None where missing."""
    return np.array(list(values), dtype=object)


def numbers(values: Iterable[float]) -> NDArray[np.float64]:
    """Return a number column, ``(n,)``, NaN where missing."""
    return np.array(list(values), dtype=np.float64)
