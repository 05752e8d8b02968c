"""Random partitions into train, validation and test that never leak a group and keep strata balanced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
N_QUANTILES = 10


@dataclass(frozen=True)
class Split:
    """One partition: sorted row indices of each part."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]

    @classmethod
    def of_any(cls, splits: Sequence[Split]) -> Split:
        """Return the rows that any of some partitions has in each part; one partition as it is."""
        return cls(*(reduce(np.union1d, [getattr(split, part) for split in splits]) for part in PARTS))

    def within(self, usable: NDArray[np.bool_]) -> Split:
        """Return the split's usable rows.

        Raises:
            DataError: If a part would be empty.
        """
        parts = [part[usable[part]] for part in (self.train, self.validation, self.test)]
        for name, part in zip(PARTS, parts, strict=True):
            if not len(part):
                raise DataError(f"the {name} split has no labelled image; label more images or change split.fractions")
        return Split(*parts)


def make_split(
    n: int,
    fractions: Sequence[float],
    seed: int,
    *,
    groups: NDArray[Any] | None = None,
    strata: NDArray[Any] | None = None,
) -> Split:
    """Return a random partition of ``n`` rows.

    Args:
        n: Number of rows.
        fractions: Shares of train, validation and test, summing to 1.
        seed: Equal seeds give equal partitions.
        groups: Group of each row, ``(n,)``: rows of one group stay on one side, so a part is off its share by up to
            4/3 of the largest group. A missing group (None or NaN) is a group of its own.
        strata: Stratum of each row, ``(n,)``: its shares are kept in every part. Numbers with many values are cut at
            their deciles. With groups, a group counts for its most frequent stratum.

    Raises:
        DataError: If there are fewer than three rows or groups.
    """
    rng = np.random.default_rng(seed)
    unit_of_row = np.arange(n) if groups is None else group_codes(groups)
    n_units = int(unit_of_row.max()) + 1 if n else 0
    if n_units < len(PARTS):
        what = "images" if groups is None else "groups"
        raise DataError(f"cannot split {n_units} {what} into train, validation and test; at least 3 are needed")
    size = np.bincount(unit_of_row, minlength=n_units)
    stratum = np.zeros(n_units, dtype=np.intp) if strata is None else _unit_strata(strata, unit_of_row, n_units)
    part_of_unit = np.empty(n_units, dtype=np.intp)
    debt = np.zeros(len(PARTS))  # rows that each part is owed, carried over so that small strata do not all round alike
    empty = np.ones(len(PARTS), dtype=bool)
    for left, unit in zip(range(n_units, 0, -1), _in_random_order(stratum, rng), strict=True):
        debt += np.asarray(fractions) * size[unit]
        owed = np.where(empty, debt, -np.inf) if left <= empty.sum() else debt  # the last units fill what is empty yet
        part_of_unit[unit] = part = int(owed.argmax())
        empty[part] = False
        debt[part] -= size[unit]
    part_of_row = part_of_unit[unit_of_row]
    return Split(*(np.flatnonzero(part_of_row == part) for part in range(len(PARTS))))


def _in_random_order(stratum: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return all units, stratum by stratum; the strata's order is random too, lest small ones meet the same part."""
    return np.concatenate([rng.permutation(np.flatnonzero(stratum == s)) for s in rng.permutation(np.unique(stratum))])


def group_codes(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the number of each row's group, ``(n,)``; every missing value is a group of its own."""
    missing = missing_values(values)
    codes = np.empty(len(values), dtype=np.intp)
    distinct, codes[~missing] = np.unique(values[~missing].astype(str), return_inverse=True)
    codes[missing] = len(distinct) + np.arange(missing.sum())
    return codes


def missing_values(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a column has None or NaN, ``(n,)``."""
    if values.dtype == object:
        return np.array([value is None or value != value for value in values], dtype=bool)
    return np.asarray(np.isnan(values))


def _unit_strata(strata: NDArray[Any], unit_of_row: NDArray[np.intp], n_units: int) -> NDArray[np.intp]:
    """Return each unit's most frequent stratum."""
    if strata.dtype != object and len(np.unique(strata[~np.isnan(strata)])) > 2 * N_QUANTILES:
        inner = np.nanquantile(strata, np.linspace(0, 1, N_QUANTILES + 1)[1:-1])
        codes = np.where(np.isnan(strata), N_QUANTILES, np.searchsorted(inner, strata, side="right"))
    else:
        missing = missing_values(strata)
        codes = np.zeros(len(strata), dtype=np.intp)
        _, inverse = np.unique(strata[~missing].astype(str), return_inverse=True)
        codes[~missing] = inverse + 1
    counts = np.zeros((n_units, int(codes.max()) + 1), dtype=np.intp)
    np.add.at(counts, (unit_of_row, codes), 1)
    return np.asarray(counts.argmax(axis=1))
