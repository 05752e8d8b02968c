"""Moments of a million images in bounded memory: generated responses are streamed in chunks and thrown away.

    python benchmarks/streaming_moments.py [--images 1000000] [--filters 512] [--chunk 10000]

Each chunk's moments are merged into the sum so far, as a run over any source of responses can do it. Printed are the
seconds for each tenth of the images, generating them left out, and the peak of the process's memory. What a run does
with a cache of so many images, benchmarks/many_images.py shows.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from facetask import Moments


def chunks(images: int, filters: int, chunk: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Yield generated responses and a label that depends on them."""
    rng = np.random.default_rng(0)
    slope = rng.standard_normal((filters, 1)).astype(np.float32)
    for start in range(0, images, chunk):
        x = np.maximum(rng.standard_normal((min(chunk, images - start), filters), dtype=np.float32), 0)
        yield x, (x @ slope + rng.standard_normal((len(x), 1))).astype(np.float64)


def peak_mb() -> float:
    """Return the most memory that the process has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stream(images: int, filters: int, chunk: int) -> None:
    """Print the time of each tenth."""
    print(f"before: {peak_mb():.0f} MB; {images} × {filters} float32 would take {images * filters * 4 / 1e6:.0f} MB")
    total: Moments | None = None
    done, seconds, reported = 0, 0.0, 0
    for x, y in chunks(images, filters, chunk):
        start = time.perf_counter()
        part = Moments.from_arrays(x, y)
        total = part if total is None else total.merge(part)
        seconds += time.perf_counter() - start
        done += len(x)
        if done * 10 // images > reported:
            reported = done * 10 // images
            print(
                f"  {done} images: {seconds:.1f} s, {seconds / done * 1e5:.2f} s per 100,000; peak {peak_mb():.0f} MB"
            )


def main() -> None:
    """Stream the images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--filters", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=10_000)
    given = parser.parse_args()
    with threadpool_limits(1):
        stream(given.images, given.filters, given.chunk)


if __name__ == "__main__":
    main()
