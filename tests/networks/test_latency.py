from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch

from facetask.networks.latency import MIN_ROUNDS, Comparison, Latency, compare, measure


class Stopwatch:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def worker(self, name: str, *seconds: float) -> Callable[..., None]:
        """Return work that takes these times in turn, the last of them from then on."""
        left = list(seconds)

        def work(*images: torch.Tensor) -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


def test_repeats_are_interleaved_after_a_round_to_warm_up() -> None:
    clock = Stopwatch()
    found = measure({"a": clock.worker("a", 1.0), "b": clock.worker("b", 2.0)}, batch=1, seconds=0, clock=clock)
    assert clock.calls == ["a", "b"] * (1 + MIN_ROUNDS)
    assert list(found) == ["a", "b"]
    assert {name: latency.rounds for name, latency in found.items()} == {"a": MIN_ROUNDS, "b": MIN_ROUNDS}


def test_the_first_round_is_not_counted() -> None:
    clock = Stopwatch()
    found = measure({"a": clock.worker("a", 50.0, 1.0)}, batch=1, seconds=0, clock=clock)
    assert (found["a"].median_ms, found["a"].q3_ms) == (1000, 1000)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 5), (14.9, 5), (15.1, 6), (60.0, 20)])
def test_rounds_go_on_until_the_time_is_up(seconds: float, rounds: int) -> None:
    clock = Stopwatch()
    found = measure({"a": clock.worker("a", 1.0), "b": clock.worker("b", 2.0)}, batch=1, seconds=seconds, clock=clock)
    assert found["a"].rounds == found["b"].rounds == rounds


def test_times_are_for_one_image() -> None:
    times = [0.3, 0.1, 0.5, 0.2, 0.4, 0.8, 0.6]
    latency = Latency.of(times, batch=10)
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    assert latency.median_ms == pytest.approx(100 * middle)
    assert latency.q1_ms == pytest.approx(100 * low)
    assert latency.q3_ms == pytest.approx(100 * high)
    assert latency.images_per_s == pytest.approx(10 / middle)
    assert latency.rounds == 7
    clock = Stopwatch()
    measured = measure({"a": clock.worker("a", 0, *times)}, batch=10, seconds=sum(times) - 0.1, clock=clock)["a"]
    assert asdict(measured) == pytest.approx(asdict(latency))


def test_both_networks_take_turns_in_all_runtimes() -> None:
    clock = Stopwatch()
    shapes = []

    def seen(work: Callable[..., None]) -> Callable[[torch.Tensor], None]:
        def forward(images: torch.Tensor) -> None:
            shapes.append(images.shape)
            work()

        return forward

    times = {"slow base": 6.0, "slow pruned": 2.0, "quick base": 3.0, "quick pruned": 0.5}
    work = {name: seen(clock.worker(name, taken)) for name, taken in times.items()}
    runtimes = {name: (work[f"{name} base"], work[f"{name} pruned"]) for name in ("slow", "quick")}
    slow, quick = compare(runtimes, (3, 4, 6), batch=2, seconds=0, clock=clock)
    assert clock.calls == list(times) * (1 + MIN_ROUNDS)
    assert set(shapes) == {(2, 3, 4, 6)}
    assert (slow.runtime, slow.batch, quick.runtime, quick.batch) == ("slow", 2, "quick", 2)
    assert (slow.base.median_ms, slow.pruned.median_ms) == pytest.approx((3000, 1000))
    assert (slow.speedup, quick.speedup) == pytest.approx((3, 6))


def test_a_slower_network_has_a_speedup_below_one() -> None:
    base, pruned = Latency.of([1.0], 1), Latency.of([4.0], 1)
    assert Comparison(1, "torch", base, pruned).speedup == 0.25
