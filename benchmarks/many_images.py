"""Regressions and curves of a million images: time in proportion to their number, memory that hardly grows with it.

    python benchmarks/many_images.py [--images 100000 300000 1000000] [--widths 64 128 256 512] [--limit 200]

For each number of images, a response cache is filled with generated responses of some taps; then a process of its own
reads it as a run does, always as a file that is mapped into memory, and runs the regress and the curve stage (lasso).
Printed are seconds, those of the processor, and how much memory of its own (RssAnon) the process held at most; pages
of the mapped file (RssFile) are the system's, which takes them back when it wants them. The limit, in megabytes, is how
much more than before the stages may allocate, and the kernel's (RLIMIT_DATA): beyond it they fail. The cache needs
twice the responses' size on disk, where --folder says.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from facetask import FaceData, Labels, responses
from facetask.config import SplitConfig
from facetask.plugin_manager import default_manager
from facetask.responses import ResponseCache, Responses
from facetask.stages.curve import Chooser, curve
from facetask.stages.regress import regress
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import Satellite

SHARD = 8192
FIELDS = ("RssAnon", "RssFile", "VmData")


def memory() -> dict[str, float]:
    """Return what the process holds, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split() for line in lines}
    return {field: int(found[field][1]) / 1024 for field in FIELDS}


@contextmanager
def watched(found: dict[str, Any], name: str) -> Iterator[None]:
    """Note a block's seconds and the most memory that it held beyond what was there before."""
    peak, done = memory(), threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for field, value in memory().items():
                peak[field] = max(peak[field], value)

    thread = threading.Thread(target=watch)
    thread.start()
    start, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        done.set()
        thread.join()
    found[name] = {"seconds": seconds, "cpu": cpu, "anon": peak["RssAnon"], "file": peak["RssFile"]}


def digests_of(images: int) -> np.ndarray[Any, Any]:
    """Return what stands for the contents of generated images."""
    return np.array([b"%016d" % image for image in range(images)], dtype="V16")


def fill(images: int, width: int, folder: str) -> None:
    """Fill a cache with generated responses, and a file with a label that depends on all of them."""
    os.environ["FACETASK_CACHE"] = folder
    rng = np.random.default_rng(0)
    slope = rng.standard_normal((width, 1)) / np.sqrt(width)
    cache, digests, labels = ResponseCache("generated", width), digests_of(images), []
    for start in range(0, images, SHARD):
        x = np.maximum(rng.standard_normal((min(SHARD, images - start), width), dtype=np.float32), 0)
        labels.append(x @ slope + rng.standard_normal((len(x), 1)))
        cache.write(digests[start : start + len(x)], x)
    np.save(Path(folder, "labels.npy"), np.concatenate(labels))


def task_of(values: np.ndarray[Any, Any], kind: Any) -> Satellite:
    """Return a task whose labels are the values, cut into three classes where the kind wants classes."""
    classes: tuple[str, ...] = ()
    if kind == "nominal":
        values = np.digitize(values, np.quantile(values, [0.3, 0.7])).astype(np.float64)
        classes = ("low", "middle", "high")
    return Satellite(
        spec=TaskSpec("label", kind, classes=classes),
        plugin="generated",
        values=values,
        data=FaceData(paths=(Path("image"),) * len(values), columns={}),
        split_config=SplitConfig(),
        left_out={},
        n_missing=0,
        given=Labels(name="label", kind=kind, values=values, classes=classes),
    )


def measure(images: int, widths: list[int], kind: str, bootstrap: int, limit: float) -> dict[str, Any]:
    """Read the cache, run both stages under the limit, and return what they took."""
    found: dict[str, Any] = {}
    with watched(found, "start"):
        pass
    responses.MOST_BYTES_IN_MEMORY = 0
    ends = np.cumsum(widths).tolist()
    columns = {f"tap {width}": slice(end - width, end) for width, end in zip(widths, ends, strict=True)}
    with watched(found, "reading"):
        matrix = Responses(ResponseCache("generated", sum(widths)).read(digests_of(images)), columns)
    task = task_of(np.load(Path(os.environ["FACETASK_CACHE"], "labels.npy")), kind)
    selector = default_manager().find("selector", "lasso")
    chooser = Chooser(selector, selector.params(), {}, 0, bootstrap=bootstrap)  # type: ignore[arg-type]
    with watched(found, "split"):
        split = task.split(0)
    stages: dict[str, Callable[[], Any]] = {
        "regress": lambda: regress(matrix, task, split),
        "curve": lambda: curve(matrix, task, split, chooser),
    }
    with threadpool_limits(1):
        most = int((memory()["VmData"] + limit) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        for name, stage in stages.items():
            with watched(found, name):
                stage()
    return found


def main() -> None:
    """Print one line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--kind", choices=["continuous", "nominal"], default="continuous")
    parser.add_argument("--bootstrap", type=int, default=0)
    parser.add_argument("--limit", type=float, default=200)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.images[0], given.widths, given.kind, given.bootstrap, given.limit)))
        return
    width = sum(given.widths)
    print(f"{len(given.widths)} taps, {width} filters, {given.kind}; at most {given.limit:.0f} MB more than before")
    for images in given.images:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            fill(images, width, folder)
            done = subprocess.run(
                [sys.executable, __file__, "--alone", *sys.argv[1:], "--images", str(images)],
                env=os.environ | {"FACETASK_CACHE": folder},
                stdout=subprocess.PIPE,
                check=True,
            )
        found = json.loads(done.stdout)
        print(f"{images:,} images, {images * width * 4 / 1e6:,.0f} MB of responses", flush=True)
        for name, of in found.items():
            print(
                f"  {name:8} {of['seconds']:6.1f} s; of the processor {of['cpu']:6.1f} s, "
                f"{of['cpu'] / images * 1e5:5.2f} s per 100,000; at most {of['anon']:5.0f} MB of its own, "
                f"{of['file']:5.0f} MB of mapped files",
                flush=True,
            )


if __name__ == "__main__":
    main()
