"""From scores to orders: networks by each score, and how far a score's orders agree with what is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from facetask.experiments.rank import results as shape
from facetask.experiments.rank.agreement import chance_of, compare_orders


def ranking_of(score: str, networks: Sequence[shape.NetworkTaps]) -> shape.Ranking:
    """Return one score's order of the networks, each at its best tap."""
    places = []
    for network in networks:
        judged = [(value, tap) for tap in network.taps if (value := _number(tap.scores[score].mean)) is not None]
        if judged:
            _, best = max(judged, key=lambda pair: pair[0])
            places.append(
                shape.Place(network=network.network, tap=best.tap, score=best.scores[score], metrics=best.metrics)
            )
    places.sort(key=lambda place: -(place.score.mean or 0.0))
    return shape.Ranking(score=score, places=places)


def over_taps(
    scores: Iterable[str], networks: Sequence[shape.NetworkTaps], metric: str, sign: float
) -> Iterator[shape.Agreement]:
    """Yield how far each score orders each network's taps, and all networks' together, as the test metric does."""
    for score in scores:
        groups = [(network.network, list(network.taps)) for network in networks]
        every = [(None, [tap for network in networks for tap in network.taps])] if len(networks) > 1 else []
        for name, taps in (*groups, *every):
            orders = compare_orders(
                [tap.scores[score].mean for tap in taps], [_signed(tap.metrics[metric].mean, sign) for tap in taps]
            )
            yield shape.Agreement(
                score=score, network=name, n=orders.n, weighted_tau=orders.weighted_tau, spearman=orders.spearman
            )


def over_networks(
    rankings: Sequence[shape.Ranking], reached: dict[str, float | None], sign: float
) -> Iterator[shape.Agreement]:
    """Yield how far each score orders the networks as their finetuned metrics do."""
    for ranking in rankings:
        places = [place for place in ranking.places if place.network in reached]
        told = [place.score.mean for place in places]
        found = [_signed(reached[place.network], sign) for place in places]
        orders = compare_orders(told, found)
        yield shape.Agreement(
            score=ranking.score,
            network=None,
            n=orders.n,
            weighted_tau=orders.weighted_tau,
            spearman=orders.spearman,
            chance=chance_of(told, found),
        )


def _number(value: float | None) -> float | None:
    """Return a finite number or nothing."""
    return value if value is not None and math.isfinite(value) else None


def _signed(value: float | None, sign: float) -> float | None:
    """Return a metric so that higher is better."""
    return None if value is None else sign * value
