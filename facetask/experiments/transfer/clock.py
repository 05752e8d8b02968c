"""What time goes into: decoding images, passing them through the network, fitting, training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetask.data.loader import ImageLoader
from facetask.experiments.transfer.results import PARTS, Part, Seconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Stopwatch:
    """Counts the main thread's seconds by part, so that all parts together are the wall time.

    A part within another one is not counted there once more. What goes on beside the main thread shows where it waits
    for it.
    """

    def __init__(self) -> None:
        self._wall: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._cpu = 0.0
        self._within: list[Part] = []
        self._since = (0.0, 0.0)

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count what is done within as this part."""
        self._lap()
        self._within.append(name)
        try:
            yield
        finally:
            self._lap()
            self._within.pop()

    def take(self) -> Seconds:
        """Return what was counted since the beginning, or since the last time that it was taken."""
        self._lap()
        taken = Seconds(**self._wall, cpu=self._cpu)
        self._wall, self._cpu = dict.fromkeys(PARTS, 0.0), 0.0
        return taken

    def _lap(self) -> None:
        """Count the time since the last change for the part that is on."""
        now, cpu = time.perf_counter(), _cpu_seconds()
        if self._within:
            self._wall[self._within[-1]] += now - self._since[0]
            self._cpu += cpu - self._since[1]
        self._since = (now, cpu)


def _cpu_seconds() -> float:
    """Return the processor's seconds of this process, and of the workers that it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


@dataclass(frozen=True)
class TimedLoader(ImageLoader):
    """A loader that counts the time for which the network waits for images.

    Attributes:
        clock: Counts it.
        change: Augments images in every pass, also in those that train nothing.
    """

    clock: Stopwatch
    change: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, loader: ImageLoader, clock: Stopwatch, batch_size: int | None = None) -> TimedLoader:
        """Return a loader's timed twin."""
        size = loader.batch_size if batch_size is None else batch_size
        return cls(loader.images, loader.preprocessing, loader.device, size, loader.workers, clock)

    def batches(
        self,
        rows: NDArray[np.intp],
        batches: Sequence[NDArray[np.intp]],
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Yield what :meth:`ImageLoader.batches` yields."""
        loaded = super().batches(rows, batches, change or self.change)
        while True:
            with self.clock.part("decode"):
                batch = next(loaded, None)
            if batch is None:
                return
            yield batch
