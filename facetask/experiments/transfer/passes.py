"""One pass of all images through the network, measured: what a method does once, and several tasks can share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.experiments.transfer.clock import Stopwatch, TimedLoader
from facetask.experiments.transfer.results import Pass, Seconds
from facetask.responses import SHARD_ROWS, Responses, forward_responses
from facetask.running.stage_work import StageWork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import RunConfig
    from facetask.progress import Reporter
    from facetask.running.prepare import Materials
    from facetask.running.rundir import RunDir

_TASK = "passes"
_NOTHING = Responses(np.zeros((0, 0), dtype=np.float32), {})


@dataclass(frozen=True)
class Passes:
    """Measured passes.

    Attributes:
        run: The run's configuration.
        materials: Network, images, tasks.
        folder: Where what is measured is stored.
        reporter: Where to report to.
    """

    run: RunConfig
    materials: Materials
    folder: RunDir
    reporter: Reporter

    def seconds(self, which: Pass, images: NDArray[np.intp], trial: int) -> Seconds:
        """Return what one pass of images through the network takes, decoding included; nothing comes from a cache.

        Args:
            which: ``responses``: all taps are read; ``features``: the last one.
            images: Indices of the images.
            trial: Passes are alike; each trial measures its own.
        """
        stage = f"{which}-{hashlib.blake2b(images.tobytes(), digest_size=8).hexdigest()}"
        depends = {**surroundings(self.materials, self.run), "images passed": len(images)}
        stored, _ = self.folder.load_stage(_TASK, trial, stage, depends)
        if stored is not None:
            return Seconds.model_validate(stored["result"])
        clock, graph = Stopwatch(), self.materials.network.graph
        module = graph.responder() if which == "responses" else graph.cut(graph.taps[-1].name).module()
        loader = TimedLoader.of(self.materials.loader, clock)
        with clock.part("forward"):
            found = forward_responses(module, loader, images)
        seconds = clock.take()
        if which == "responses":
            self._remember(images, found)
        self.folder.save_stage(_TASK, trial, stage, depends, seconds.model_dump(), seconds.wall)
        told = "all taps" if which == "responses" else "the last tap"
        self.reporter.line(f"pass of {len(images)} images, {told} read, trial {trial}: {seconds.wall:.1f} s")
        return seconds

    def _remember(self, images: NDArray[np.intp], found: NDArray[np.float32]) -> None:
        """Put responses into the cache, so that nobody computes them again; what is wrong is left to be found then."""
        cache, keys = self.materials.cache, self.materials.images.keys
        fresh = {keys[row].tobytes(): row for row in images if keys[row].tobytes() not in cache}
        rows = np.array([row for row in fresh.values() if np.isfinite(found[row]).all()], dtype=np.intp)
        for start in range(0, len(rows), SHARD_ROWS):
            part = rows[start : start + SHARD_ROWS]
            cache.write(keys[part], found[part])


def of_the_labels(materials: Materials, run: RunConfig, index: int) -> dict[str, Any]:
    """Return everything that what is learned of a task depends on, by the names that a user knows."""
    return StageWork(materials, _NOTHING, run, index, 0).dependencies("regress")


def surroundings(materials: Materials, run: RunConfig) -> dict[str, Any]:
    """Return everything that the time of a pass depends on."""
    depends = of_the_labels(materials, run, 0)
    kept = ("facetask", "base_network", "weights", "images")
    return {**{name: depends[name] for name in kept}, "compute": run.compute.model_dump(mode="json")}
