"""The images of a run, each read once to find the ones that cannot be used."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facetask.errors import DataError, first_names
from facetask.preprocessing import open_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.progress import Advance
    from facetask.records import FaceData

DIGEST_SIZE = 16
SCAN_BATCH = 256


@dataclass(frozen=True)
class Images:
    """The usable images of a dataset.

    Attributes:
        data: The dataset without the images that cannot be read.
        digests: Content digest of each image file, ``(n,)`` of 16 bytes.
        bad: Message for each image that was left out.
    """

    data: FaceData
    digests: NDArray[np.void]
    bad: tuple[str, ...]

    def fingerprint(self) -> str:
        """Return a digest of all images in their order."""
        return hashlib.blake2b(self.digests.tobytes(), digest_size=DIGEST_SIZE).hexdigest()


def content_digest(path: Path) -> bytes:
    """Return a digest of a file's content, by which results computed from it are cached.

    Raises:
        OSError: If the file cannot be read.
    """
    return hashlib.blake2b(path.read_bytes(), digest_size=DIGEST_SIZE).digest()


def scan_images(
    data: FaceData,
    max_bad_share: float,
    *,
    known_good: Callable[[bytes], bool] = lambda digest: False,
    advance: Advance = lambda done: None,
) -> Images:
    """Read every image file once; leave out and report the ones that are missing or broken.

    Args:
        data: The dataset.
        max_bad_share: Share of unreadable images above which this raises.
        known_good: Whether a file of this content is known to decode, so that it need not be tried again.
        advance: Counts images done.

    Raises:
        DataError: If there is no image, or too many are unreadable.
    """
    if not len(data):
        raise DataError(f"{data.source or 'dataset'}: no image in it")

    def examine(path: Path) -> bytes | str:
        try:
            digest = content_digest(path)
        except OSError as error:
            return f"{path.name} ({error.strerror})"
        if not known_good(digest):
            try:
                open_image(path)
            except DataError:
                return f"{path.name} (cannot be decoded)"
        return digest

    found: list[bytes | str] = []
    # Hashing and decoding release the GIL. Filters are set here, not in the threads, which would race for them.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on damaged EXIF data beside sound pixels
        for start in range(0, len(data), SCAN_BATCH):
            found += pool.map(examine, data.paths[start : start + SCAN_BATCH])
            advance(min(SCAN_BATCH, len(data) - start))
    bad = tuple(item for item in found if isinstance(item, str))
    if len(bad) / len(data) > max_bad_share:
        raise DataError(
            f"{data.source or 'dataset'}: {len(bad)} of {len(data)} images cannot be read, more than "
            f"data.max_bad_share = {max_bad_share:g} allows: {first_names(bad)}"
        )
    good = np.array([isinstance(item, bytes) for item in found])
    if not good.any():
        raise DataError(f"{data.source or 'dataset'}: none of {len(data)} images can be read: {first_names(bad)}")
    digests = np.array([item for item in found if isinstance(item, bytes)], dtype=f"V{DIGEST_SIZE}")
    return Images(data=data.subset(good), digests=digests, bad=bad)
