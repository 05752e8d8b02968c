"""How long networks take, measured side by side.

Repeats are interleaved (A B A B …), so that whatever else the machine does meanwhile hits all of them alike: compare
what one call of :func:`measure` gives, not what two give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

MIN_ROUNDS = 5

Forward = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Latency:
    """How long one thing takes for each image.

    Attributes:
        median_ms: Median over the rounds, in milliseconds for one image.
        q1_ms: Lower quartile.
        q3_ms: Upper quartile.
        images_per_s: Images a second, by the median.
        rounds: How often it was timed.
    """

    median_ms: float
    q1_ms: float
    q3_ms: float
    images_per_s: float
    rounds: int

    @classmethod
    def of(cls, times_s: Sequence[float], batch: int) -> Latency:
        """Return the latency that the times of some batches tell of, in seconds for a batch."""
        q1, median, q3 = (float(value) / batch for value in np.percentile(times_s, [25, 50, 75]))
        return cls(1e3 * median, 1e3 * q1, 1e3 * q3, 1 / median, len(times_s))


def measure(
    runners: Mapping[str, Callable[[], object]],
    *,
    batch: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Return each runner's latency, timed in rounds that call each of them once, in their order.

    Args:
        runners: What to time, by name; each call does the same work on one batch.
        batch: Images in the batch.
        seconds: About how long to go on; one untimed round and five timed ones are always made.
        clock: Tells the time, in seconds.
    """
    for run in runners.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runners}
    begin, rounds = clock(), 0
    while rounds < MIN_ROUNDS or clock() - begin < seconds:
        for name, run in runners.items():
            start = clock()
            run()
            times[name].append(clock() - start)
        rounds += 1
    return {name: Latency.of(taken, batch) for name, taken in times.items()}


@dataclass(frozen=True)
class Comparison:
    """The latency of a base network and of the pruned one in one runtime, measured in turns.

    Attributes:
        batch: Images at a time.
        runtime: The runtime's name.
        base: The base network's.
        pruned: The pruned network's.
    """

    batch: int
    runtime: str
    base: Latency
    pruned: Latency

    @property
    def speedup(self) -> float:
        """How many times faster the pruned network is, by the medians."""
        return self.base.median_ms / self.pruned.median_ms


def compare(
    runtimes: Mapping[str, tuple[Forward, Forward]],
    input_shape: Sequence[int],
    *,
    batch: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Comparison]:
    """Measure a base network and the pruned one in each runtime, all of them in turns.

    Args:
        runtimes: The base and the pruned network, by the name of the runtime that they run in.
        input_shape: Channels, height and width of the images.
        batch: Images at a time.
        seconds: See :func:`measure`.
        clock: Tells the time, in seconds.
    """
    images = torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(0))
    runners: dict[str, Callable[[], object]] = {}
    for runtime, (base, pruned) in runtimes.items():
        runners |= {f"{runtime} base": partial(base, images), f"{runtime} pruned": partial(pruned, images)}
    found = measure(runners, batch=batch, seconds=seconds, clock=clock)
    return [Comparison(batch, runtime, found[f"{runtime} base"], found[f"{runtime} pruned"]) for runtime in runtimes]
