"""Coupled groups of taps, and what a request for keep sets comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from facetask.errors import SurgeryError, did_you_mean


@dataclass(frozen=True)
class CoupledGroup:
    """Taps whose channels share components, and are selected together.

    Attributes:
        taps: Their names, input side first.
        component: For each tap the component of each filter, ``(n_filters,)``, in 0 … ``n_components`` − 1.
        n_components: How many components the group has.
        fixed: Whether a component is always kept, ``(n_components,)``.
    """

    taps: tuple[str, ...]
    component: Mapping[str, NDArray[np.intp]]
    n_components: int
    fixed: NDArray[np.bool_]


def coupled_groups(components: Mapping[str, NDArray[np.intp]], fixed: NDArray[np.bool_]) -> tuple[CoupledGroup, ...]:
    """Return the groups of taps that share a component which can be dropped, input side first.

    Args:
        components: For each tap, the network's component of each filter.
        fixed: Whether a component of the network is always kept.
    """
    names = list(components)
    pairs = [
        (tap, component)
        for tap, name in enumerate(names)
        for component in np.unique(components[name][~fixed[components[name]]]).tolist()
    ]
    rows = np.array([tap for tap, _ in pairs], dtype=np.intp)
    columns = np.array([component for _, component in pairs], dtype=np.intp)
    size = len(names) + len(fixed)
    links = coo_matrix((np.ones(len(pairs), dtype=np.int8), (rows, columns + len(names))), shape=(size, size))
    _, of = connected_components(links, directed=False)
    groups: dict[int, list[str]] = {}
    for tap, name in enumerate(names):
        groups.setdefault(int(of[tap]), []).append(name)
    return tuple(_group(members, components, fixed) for members in groups.values())


def _group(taps: Sequence[str], components: Mapping[str, NDArray[np.intp]], fixed: NDArray[np.bool_]) -> CoupledGroup:
    """Return the group of some taps, its components numbered from 0 in the order of the network's."""
    used, position = np.unique(np.concatenate([components[tap] for tap in taps]), return_inverse=True)
    parts = np.split(position.astype(np.intp), np.cumsum([len(components[tap]) for tap in taps])[:-1])
    return CoupledGroup(tuple(taps), dict(zip(taps, parts, strict=True)), len(used), fixed[used])


def requested(
    keep: Mapping[str, Sequence[int] | NDArray[np.integer]],
    components: Mapping[str, NDArray[np.intp]],
    fixed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return which of the network's components are kept, ``(n_components,)``.

    Args:
        keep: The keep set of each tap; a tap that is absent asks for nothing.
        components: For each tap, the network's component of each filter.
        fixed: Whether a component is always kept.

    Raises:
        SurgeryError: If a tap is unknown, a keep set is empty, out of range, or has an index twice, or if coupled taps
            do not agree.
    """
    kept = np.ones(len(fixed), dtype=np.bool_)
    asked_by = np.full(len(fixed), -1, dtype=np.intp)
    asked_at = np.zeros(len(fixed), dtype=np.intp)
    names = list(components)
    for name, given in keep.items():
        wanted = _checked(name, given, components)
        own = components[name]
        for channel in np.flatnonzero(~fixed[own]).tolist():
            component = own[channel]
            if asked_by[component] >= 0 and kept[component] != wanted[channel]:
                other, verb = names[asked_by[component]], ("dropped", "kept")
                raise SurgeryError(
                    f"taps {other!r} and {name!r} are coupled and must agree: filter {channel} of {name!r} is "
                    f"{verb[int(wanted[channel])]}, but filter {asked_at[component]} of {other!r}, which lives or dies "
                    f"with it, is {verb[int(kept[component])]}; give both the same keep set, or leave one out"
                )
            if asked_by[component] < 0:
                kept[component], asked_by[component], asked_at[component] = wanted[channel], names.index(name), channel
    return kept


def requested_of(
    name: str, filters: Sequence[int] | NDArray[np.integer], components: Mapping[str, NDArray[np.intp]]
) -> NDArray[np.intp]:
    """Return the network's components of some filters of a tap.

    Raises:
        SurgeryError: If the tap is unknown, or the filters are none, out of range or have an index twice.
    """
    chosen = _checked(name, filters, components)
    return components[name][chosen]


def _checked(
    name: str, given: Sequence[int] | NDArray[np.integer], components: Mapping[str, NDArray[np.intp]]
) -> NDArray[np.bool_]:
    """Return a tap's keep set as a mask, ``(n_filters,)``."""
    if name not in components:
        raise SurgeryError(f"keep set for an unknown tap {name!r}{did_you_mean(name, components)}")
    indices, count = np.asarray(given), len(components[name])
    if indices.size == 0:
        raise SurgeryError(f"tap {name!r}: the keep set is empty; keep at least one of its {count} filters")
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise SurgeryError(
            f"tap {name!r}: the keep set must be a list of filter indices, found {indices.dtype} of shape "
            f"{indices.shape}"
        )
    outside = indices[(indices < 0) | (indices >= count)]
    if len(outside):
        raise SurgeryError(f"tap {name!r}: filter {outside[0]} is out of range; it has the filters 0 to {count - 1}")
    values, times = np.unique(indices, return_counts=True)
    if len(values) != len(indices):
        raise SurgeryError(f"tap {name!r}: filter {values[times > 1][0]} is in the keep set more than once")
    mask = np.zeros(count, dtype=np.bool_)
    mask[indices] = True
    return mask
