"""Stability: how often each component is chosen when the selector sees other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.records import SelectionPath


def order_of_appearance(path: SelectionPath, component: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the components of all supports as they first appear along a path.

    Of those that appear at the same point, the one with the larger coefficients comes first, where there are any; else
    the one with the smaller index.

    Args:
        path: At least one support.
        component: Component of each column, ``(n_columns,)``.
    """
    everyone, first = np.unique(np.concatenate(path.supports), return_index=True)
    point = np.repeat(np.arange(len(path.supports)), [len(support) for support in path.supports])[first]
    size = np.zeros(len(everyone))
    if path.coefficients is not None:
        squares = np.zeros((int(component.max()) + 1, len(path.supports)))
        np.add.at(squares, component, np.einsum("kpm,kpm->pk", path.coefficients, path.coefficients))
        size = squares[everyone, point]
    return np.asarray(everyone[np.lexsort((everyone, -size, point))], dtype=np.intp)


def resample(groups: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return how often each image counts in one bootstrap resample, ``(n,)``.

    Whole groups (people, clips) are drawn with replacement, as many as there are: the images of one person are not
    independent, so that drawing images would make the choice look more certain than it is.

    Args:
        groups: Group of each image, ``(n,)``; all different where images are independent.
        rng: Where random numbers come from.
    """
    distinct, number = np.unique(groups, return_inverse=True)
    drawn = rng.integers(len(distinct), size=len(distinct))
    return np.asarray(np.bincount(drawn, minlength=len(distinct))[number.ravel()], dtype=np.intp)


def selection_probability(orders: Sequence[NDArray[np.intp]], n_components: int, k: int) -> NDArray[np.float64]:
    """Return the share of draws in which each component is among the first k, ``(n_components,)``.

    Args:
        orders: The components as they first appeared in each draw, at least one.
        n_components: How many components there are.
        k: Number of components kept.

    Source: Meinshausen and Bühlmann 2010, "Stability selection", for supports of equal size instead of equal λ.
    """
    chosen = np.concatenate([order[:k] for order in orders])
    return np.asarray(np.bincount(chosen, minlength=n_components) / len(orders), dtype=np.float64)


def stable_components(probability: NDArray[np.float64], least: float) -> NDArray[np.intp]:
    """Return the components that are chosen at least so often; the likeliest alone where there is none.

    Args:
        probability: Of each component, ``(n_components,)``.
        least: The smallest probability that is enough.
    """
    stable = np.flatnonzero(probability >= least)
    return stable if len(stable) else np.array([probability.argmax()], dtype=np.intp)
