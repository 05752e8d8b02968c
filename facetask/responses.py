"""Pooled filter responses of all taps for all images, in one forward pass, cached by content.

The cache holds one folder for each network and, in it, shards: a matrix of responses and the digests of the images that
its rows belong to. So a new task, another table over the same images or a grown data set costs a forward pass only for
images never seen, and an interrupted pass goes on where it stopped.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facetask.cache import cache_folder
from facetask.data.images import DIGEST_SIZE
from facetask.errors import CurveError, RunDirError
from facetask.statistics.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from facetask.data.loader import ImageLoader
    from facetask.progress import Advance

SHARD_ROWS = 1024
MOST_BYTES_IN_MEMORY = 2**30


@dataclass(frozen=True)
class Responses:
    """Filter responses of several taps for the same images.

    Attributes:
        matrix: ``(n_images, n_filters)`` float32, the taps' filters side by side.
        columns: Which columns belong to each tap, in network order.
    """

    matrix: NDArray[np.float32]
    columns: dict[str, slice]

    def tap(self, name: str) -> NDArray[np.float32]:
        """Return one tap's responses, ``(n_images, n_filters)``, a part of the matrix and no copy."""
        return self.matrix[:, self.columns[name]]

    def taps(self, names: Iterable[str]) -> Rows:
        """Return several taps' responses side by side, ``(n_images, sum of n_filters)``, still to be read."""
        return Rows(self.matrix, tuple(self.columns[name] for name in names))


class ResponseCache:
    """The responses of one network on disk.

    Args:
        network: The network's fingerprint.
        width: Number of filters.
    """

    def __init__(self, network: str, width: int) -> None:
        self._folder = cache_folder(f"responses/{network}")
        self._width = width
        self._shards: list[Path] = []
        self._starts = [0]  # of each shard, were they one below the other, and the end of the last
        self._place: dict[bytes, int] = {}
        for keys in sorted(self._folder.glob("*.keys")):
            self._index(keys)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._place

    def __len__(self) -> int:
        return len(self._place)

    def read(self, digests: NDArray[np.void]) -> NDArray[np.float32]:
        """Return the responses of cached images, ``(n, width)``; beyond a gibibyte as a memory map.

        Raises:
            RunDirError: If there is no room on disk for the memory map.
        """
        rows = room(len(digests), self._width)
        places = np.fromiter((self._place[digest.tobytes()] for digest in digests), np.intp, len(digests))
        order = np.argsort(places, kind="stable")
        ends = np.searchsorted(places[order], self._starts)
        for shard, start, first, end in zip(self._shards, self._starts[:-1], ends[:-1], ends[1:], strict=True):
            if first < end:
                wanted = order[first:end]
                rows[wanted] = np.load(shard, mmap_mode="r")[places[wanted] - start]
        return rows

    def write(self, digests: NDArray[np.void], rows: NDArray[np.float32]) -> None:
        """Add a shard of one or more rows; it counts only once its keys are written, so half a shard is none.

        Raises:
            RunDirError: If the cache cannot be written.
        """
        shard = self._folder / f"{uuid.uuid4().hex}.npy"
        partial, keys = shard.with_suffix(".partial"), shard.with_suffix(".keys")
        try:
            np.save(shard, rows)
            partial.write_bytes(digests.tobytes())
            os.replace(partial, keys)
        except OSError as error:
            for path in (shard, partial):
                path.unlink(missing_ok=True)
            raise RunDirError(
                f"{self._folder}: the cache cannot be written ({error.strerror}); make room, or set FACETASK_CACHE to "
                "another folder"
            ) from None
        self._index(keys)

    def _index(self, keys: Path) -> None:
        """Note which images a shard holds; a damaged shard is passed over and its images computed again."""
        shard = keys.with_suffix(".npy")
        digests = keys.read_bytes()
        n = len(digests) // DIGEST_SIZE
        try:
            rows = np.load(shard, mmap_mode="r")
            intact = rows.shape == (n, self._width) and rows.dtype == np.float32
        except (OSError, ValueError, EOFError):
            intact = False
        if intact:
            start = self._starts[-1]
            for row in range(n):
                self._place[digests[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE]] = start + row
            self._shards.append(shard)
            self._starts.append(start + n)


def room(n: int, width: int) -> NDArray[np.float32]:
    """Return zeros for n images' responses, ``(n, width)``.

    Up to a gibibyte they lie in memory, beyond it in a nameless file of the cache, mapped: the system keeps of it what
    it can.

    Raises:
        RunDirError: If there is no room on disk.
    """
    n_bytes = 4 * n * width
    if n_bytes <= MOST_BYTES_IN_MEMORY:
        return np.zeros((n, width), dtype=np.float32)
    folder = cache_folder("responses")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process in the middle of a write
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.memmap(file, np.float32, "r+", shape=(n, width))
    except OSError as error:
        raise RunDirError(
            f"{folder}: no room for {n} images' responses, {n_bytes / 1e9:.1f} GB ({error.strerror}); make room, or "
            "set FACETASK_CACHE to another folder"
        ) from None


def collect_responses(
    responder: nn.Module, loader: ImageLoader, cache: ResponseCache, advance: Advance = lambda done: None
) -> NDArray[np.float32]:
    """Return pooled responses for all images, ``(n_images, n_filters)``, computing those that are not cached.

    Args:
        responder: Maps images to pooled responses, ``(batch, n_filters)``.
        loader: How images reach it.
        cache: Where the responses of earlier passes lie; new ones are added, also when this is interrupted.
        advance: Counts images done, cached ones included.

    Raises:
        CurveError: If a response is not finite.
        DataError: If an image cannot be read any more.
        RunDirError: If the cache cannot be written.
    """
    digests = loader.images.keys
    todo = _first_of_each(digests, cache)
    advance(len(digests) - len(todo))
    pending: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []

    def flush() -> None:
        if pending:
            cache.write(digests[np.concatenate([rows for rows, _ in pending])], np.concatenate([x for _, x in pending]))
            pending.clear()

    try:
        for rows, values in loader.outputs(responder, todo):
            _check_finite(values, [loader.images.data.paths[row] for row in rows])
            pending.append((rows, values))
            advance(len(rows))
            if sum(len(values) for _, values in pending) >= SHARD_ROWS:
                flush()
    finally:
        flush()
    return cache.read(digests)


def forward_responses(responder: nn.Module, loader: ImageLoader, images: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return pooled responses that nobody needs again, ``(n_images, n_filters)``; zeros but for some images.

    Args:
        responder: Maps images to pooled responses, ``(batch, n_filters)``.
        loader: How images reach it.
        images: Indices of the images to compute, at least one.

    Raises:
        DataError: If an image cannot be read any more.
        RunDirError: If there is no room on disk.
    """
    batches = loader.outputs(responder, images)
    rows, values = next(batches)
    found = room(len(loader.images.keys), values.shape[1])
    found[rows] = values
    for rows, values in batches:
        found[rows] = values
    return found


def _first_of_each(digests: NDArray[np.void], cache: ResponseCache) -> NDArray[np.intp]:
    """Return the first row of every content that the cache lacks."""
    seen: set[bytes] = set()
    rows = []
    for row, digest in enumerate(digests):
        key = digest.tobytes()
        if key not in cache and key not in seen:
            seen.add(key)
            rows.append(row)
    return np.array(rows, dtype=np.intp)


def _check_finite(values: NDArray[np.float32], paths: list[Path]) -> None:
    """Raise where a response is NaN or infinite: it would poison every moment it enters."""
    finite = np.isfinite(values)
    if not finite.all():
        image, column = np.argwhere(~finite)[0]
        raise CurveError(
            f"{paths[image].name}: filter response {column} is {values[image, column]}; the network's weights or its "
            "preprocessing are wrong for this image"
        )
