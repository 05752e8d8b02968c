"""The images of a run, each read once to find the ones that cannot be used."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facetask.context import run_context
from facetask.data.preprocessing import open_image
from facetask.errors import DataError, first_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import DataConfig
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Advance, Reporter
    from facetask.records import Dataset, FaceData

DIGEST_SIZE = 16
SCAN_BATCH = 256


@dataclass(frozen=True)
class Images:
    """The usable images of a dataset.

    Attributes:
        data: The dataset without the images that cannot be read.
        digests: Content digest of each image file, ``(n,)`` of 16 bytes.
        bad: Message for each image that was left out.
        points: Five points of each image's face, ``(n, 5, 2)`` in its pixels, NaN where unknown; None where faces are
            not aligned.
    """

    data: FaceData
    digests: NDArray[np.void]
    bad: tuple[str, ...]
    points: NDArray[np.float64] | None = None

    @cached_property
    def keys(self) -> NDArray[np.void]:
        """Digest of all that an image's pixels depend on besides the preprocessing, ``(n,)`` of 16 bytes."""
        if self.points is None:
            return self.digests
        both = zip(self.digests, self.points, strict=True)
        keys = [
            hashlib.blake2b(digest.tobytes() + own.tobytes(), digest_size=DIGEST_SIZE).digest() for digest, own in both
        ]
        return np.array(keys, dtype=self.digests.dtype)

    def fingerprint(self) -> str:
        """Return a digest of all images in their order."""
        return hashlib.blake2b(self.keys.tobytes(), digest_size=DIGEST_SIZE).hexdigest()


def content_digest(path: Path) -> bytes:
    """Return a digest of a file's content, by which results computed from it are cached.

    Raises:
        OSError: If the file cannot be read.
    """
    return hashlib.blake2b(path.read_bytes(), digest_size=DIGEST_SIZE).digest()


def load_images(
    config: DataConfig,
    plugins: PluginManager,
    reporter: Reporter,
    known_good: Callable[[bytes], bool] = lambda digest: False,
) -> Images:
    """Return the usable images of the dataset that a configuration names; the others are reported.

    Raises:
        PluginError: If the dataset plugin is unknown or cannot be imported.
        DataError: If the dataset cannot be read, or too many of its images.
    """
    dataset: Dataset = plugins.find("dataset", config.name)  # type: ignore[assignment]
    with run_context(plugins, reporter):
        data = dataset.load(config.params)
    with reporter.bar("images", len(data)) as advance:
        images = scan_images(data, config.max_bad_share, known_good=known_good, advance=advance)
    if images.bad:
        reporter.warn(
            f"{len(images.bad)} of {len(data)} images cannot be read and are left out: {first_names(images.bad)}"
        )
    return images


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
