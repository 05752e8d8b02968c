"""Moments: the sufficient statistics from which every regression, curve and moment-based selector is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.errors import CurveError
from facetask.statistics.rows import Rows, block_height

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.statistics.rows import Matrix

DEAD_SPREAD = 1e-10
DEAD_SHARE = 1e-3
"""Of the spread of its tap's widest: a filter whose responses spread less than that fires on a few training images,
faintly; what is learned of these multiplies its response to the next image on which it really fires by thousands."""
DUPLICATE_GAP = 1e-10


@dataclass(frozen=True, kw_only=True)
class Screening:
    """Which components there is anything to choose from, and why the others are out.

    Attributes:
        components: Sorted components that are neither dead nor duplicates.
        columns: Live columns of those components, sorted by component.
        dead: Components whose columns are all dead.
        duplicates: Pairs (component left out, the first component that carries the same responses).
    """

    components: NDArray[np.intp]
    columns: NDArray[np.intp]
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, one line for each kind of component left out."""
        notes = []
        if self.dead:
            notes.append(f"{len(self.dead)} dead, left out: {_listed([str(index) for index in self.dead])}")
        if self.duplicates:
            pairs = [f"{index} (same as {first})" for index, first in self.duplicates]
            notes.append(f"{len(pairs)} duplicate, left out: {_listed(pairs)}")
        return tuple(notes)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Centred moments of responses X ``(n, n_columns)`` and targets Y ``(n, n_outputs)``, in float64.

    Memory and all later computation depend on the number of columns, not on the number of images.

    Attributes:
        n: Number of images.
        mean_x: ``(n_columns,)``.
        mean_y: ``(n_outputs,)``.
        xx: Centred sums of products of responses, ``(n_columns, n_columns)``.
        xy: Centred sums of products of responses and targets, ``(n_columns, n_outputs)``.
        yy: Centred sums of products of targets, ``(n_outputs, n_outputs)``.
        tap: Which tap each column belongs to, ``(n_columns,)``, counted from 0; None where all belong to one.

    Raises:
        CurveError: If there is no image, or the shapes do not fit each other.
    """

    n: int
    mean_x: NDArray[np.float64]
    mean_y: NDArray[np.float64]
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: NDArray[np.float64]
    tap: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        p, m = self.mean_x.size, self.mean_y.size
        found = [array.shape for array in (self.mean_x, self.mean_y, self.xx, self.xy, self.yy)]
        if self.n < 1 or found != [(p,), (m,), (p, p), (p, m), (m, m)]:
            raise CurveError(
                f"moments: {self.n} images with shapes {found}; at least one image and (p,), (m,), (p, p), (p, m), "
                "(m, m) are needed"
            )

    @classmethod
    def from_arrays(cls, x: Matrix, y: NDArray[Any], times: NDArray[np.intp] | None = None) -> Moments:
        """Return the moments of responses ``(n, n_columns)`` and targets ``(n, n_outputs)`` of any float type.

        Responses are read in blocks of rows, so a memory-mapped array needs memory for one block only.

        Args:
            x: Responses; the parts that :class:`Rows` lay side by side are taps.
            y: Targets.
            times: How often each row counts, ``(n,)``, as in a bootstrap resample; by default once.

        Raises:
            CurveError: If the arrays are empty or of different lengths, or a value is not finite.

        Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
        """
        if len(x.shape) != 2 or y.ndim != 2 or len(x) != len(y) or len(x) == 0:
            raise CurveError(
                f"moments: responses of shape {x.shape} and targets of shape {y.shape}; "
                "(n, n_columns) and (n, n_outputs) with the same n ≥ 1 are needed"
            )
        if times is not None:
            if times.shape != (len(x),) or times.min() < 0 or not times.any():
                raise CurveError(
                    f"moments: times of shape {times.shape} for {len(x)} rows; counts are needed, not all 0"
                )
            drawn = np.flatnonzero(times)
            x, y, times = Rows.of(x)[drawn], y[drawn], times[drawn]
        p, width = x.shape[1], x.shape[1] + y.shape[1]
        height = block_height(width)
        n, mean, scatter = 0, np.zeros(width), np.zeros((width, width))
        # The last row of a block holds Chan's correction, so that one product adds both.
        block = np.empty((min(height, len(x)) + 1, width))
        for rows, values in Rows.of(x).blocks(height):
            length = len(values)
            part = block[: length + 1]
            part[:length, :p] = values
            part[:length, p:] = y[rows]
            if not np.isfinite(part[:length]).all():
                raise CurveError(_non_finite(x, y))
            if times is None:
                count = length
                part_mean = part[:length].mean(axis=0)
                part[:length] -= part_mean
            else:
                weight = times[rows].astype(np.float64)
                count = int(times[rows].sum())
                part_mean = weight @ part[:length] / count
                part[:length] -= part_mean
                part[:length] *= np.sqrt(weight)[:, None]
            gap = part_mean - mean
            part[length] = gap * np.sqrt(n * count / (n + count))
            scatter += part.T @ part
            mean += gap * (count / (n + count))
            n += count
        if not np.isfinite(scatter).all():
            raise CurveError("moments: responses or targets are so large that their products overflow; rescale them")
        return cls(
            n=n,
            mean_x=mean[:p],
            mean_y=mean[p:],
            xx=scatter[:p, :p],
            xy=scatter[:p, p:],
            yy=scatter[p:, p:],
            tap=Rows.of(x).part,
        )

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of images together; the order of merging does not matter (to 1e-12).

        Raises:
            CurveError: If the numbers of columns or outputs differ.

        Source: Chan, Golub and LeVeque 1983.
        """
        if (self.n_columns, self.n_outputs) != (other.n_columns, other.n_outputs):
            raise CurveError(
                f"moments of {self.n_columns} columns and {self.n_outputs} outputs cannot be merged with "
                f"{other.n_columns} columns and {other.n_outputs} outputs"
            )
        n = self.n + other.n
        gap_x, gap_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        share, weight = other.n / n, self.n * other.n / n
        return Moments(
            n=n,
            mean_x=self.mean_x + share * gap_x,
            mean_y=self.mean_y + share * gap_y,
            xx=self.xx + other.xx + weight * np.outer(gap_x, gap_x),
            xy=self.xy + other.xy + weight * np.outer(gap_x, gap_y),
            yy=self.yy + other.yy + weight * np.outer(gap_y, gap_y),
            tap=self.tap,
        )

    def columns(self, indices: NDArray[np.intp]) -> Moments:
        """Return the moments of some response columns, in the order of ``indices``."""
        return Moments(
            n=self.n,
            mean_x=self.mean_x[indices],
            mean_y=self.mean_y,
            xx=self.xx[np.ix_(indices, indices)],
            xy=self.xy[indices],
            yy=self.yy,
            tap=None if self.tap is None else self.tap[indices],
        )

    @property
    def n_columns(self) -> int:
        """How many response columns there are."""
        return self.mean_x.size

    @property
    def n_outputs(self) -> int:
        """How many targets there are."""
        return self.mean_y.size

    @property
    def std_x(self) -> NDArray[np.float64]:
        """Population standard deviation of each response column, ``(n_columns,)``."""
        return np.asarray(np.sqrt(np.diagonal(self.xx) / self.n))

    @property
    def std_y(self) -> NDArray[np.float64]:
        """Population standard deviation of each target, ``(n_outputs,)``."""
        return np.asarray(np.sqrt(np.diagonal(self.yy) / self.n))

    @property
    def dead_columns(self) -> NDArray[np.bool_]:
        """Which response columns are constant, up to rounding or beside their tap's widest, ``(n_columns,)``."""
        spread = self.std_x
        tap = np.zeros(self.n_columns, dtype=np.intp) if self.tap is None else self.tap
        widest = np.zeros(tap.max(initial=0) + 1)
        np.maximum.at(widest, tap, spread)
        return np.asarray(_constant(self.mean_x, spread) | (spread <= DEAD_SHARE * widest[tap]))

    @property
    def constant_outputs(self) -> NDArray[np.bool_]:
        """Which targets are constant up to rounding, ``(n_outputs,)``."""
        return _constant(self.mean_y, self.std_y)

    def standardised(self, columns: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the correlations ``(k, k)`` of live columns and their covariances with the targets ``(k, n_outputs)``.

        Columns are divided by their standard deviation, targets are taken as they are.
        """
        unit = 1 / self.std_x[columns]
        everything = np.array_equal(columns, np.arange(self.n_columns))  # gathering costs more than comparing
        gram = (self.xx if everything else self.xx[np.ix_(columns, columns)]) * (unit[:, None] * (unit / self.n))
        return gram, self.xy[columns] * (unit / self.n)[:, None]

    def screen(self, component: NDArray[np.intp]) -> Screening:
        """Return which components are worth choosing from: neither dead nor a copy of an earlier one.

        A copy's responses equal the first one's up to a factor and an offset (correlation ±1 beyond float32 rounding).

        Args:
            component: Component of each column, ``(n_columns,)``.

        Raises:
            CurveError: If every column is dead or every target is constant.
        """
        if component.shape != (self.n_columns,):
            raise CurveError(
                f"{component.shape} components for {self.n_columns} columns; one for each column is needed"
            )
        if self.constant_outputs.all():
            raise CurveError(
                f"all {self.n_outputs} targets are constant over the {self.n} training images: there is nothing to "
                "select for; check the labels and the split"
            )
        live = np.flatnonzero(~self.dead_columns)
        if not len(live):
            raise CurveError(
                f"all {self.n_columns} filters are dead (constant over the {self.n} training images): "
                "choose another tap or other images"
            )
        live = live[np.argsort(component[live], kind="stable")]
        everyone = np.unique(component)
        dead = tuple(int(index) for index in np.setdiff1d(everyone, component[live]))
        duplicates = self._duplicates(live, component)
        left_out = [index for index, _ in duplicates]
        columns = live[~np.isin(component[live], left_out)]
        return Screening(components=np.unique(component[columns]), columns=columns, dead=dead, duplicates=duplicates)

    def _duplicates(self, live: NDArray[np.intp], component: NDArray[np.intp]) -> tuple[tuple[int, int], ...]:
        """Return pairs (component, earlier component that has a copy of each of its live columns)."""
        gram, _ = self.standardised(live)
        alike = np.abs(gram, out=gram) >= 1 - DUPLICATE_GAP
        if np.count_nonzero(alike) == np.count_nonzero(alike.diagonal()):
            return ()
        later, earlier = np.nonzero(np.tril(alike, -1))
        owner = component[live]
        copied: dict[int, dict[int, set[int]]] = {}
        for row, column in zip(later, earlier, strict=True):
            if owner[row] != owner[column]:
                firsts = copied.setdefault(int(owner[row]), {})
                firsts.setdefault(int(owner[column]), set()).add(int(row))
        pairs: list[tuple[int, int]] = []
        for index in sorted(copied):
            size = int((owner == index).sum())
            whole = [first for first, rows in copied[index].items() if len(rows) == size]
            if whole:
                pairs.append((index, min(whole)))
        return tuple(pairs)


def _constant(mean: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where a spread is nothing but rounding of its mean."""
    return np.asarray(std <= np.maximum(DEAD_SPREAD * np.abs(mean), np.finfo(np.float64).tiny ** 0.5))


def _listed(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names, with an ellipsis where there are more."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _non_finite(x: Matrix, y: NDArray[Any]) -> str:
    """Return a message that counts the values that are not finite and names the first column that holds one."""
    messages = []
    for name, rows in (("responses", Rows.of(x)), ("targets", Rows.of(y))):
        n, width = rows.shape
        bad = np.zeros(width, dtype=np.int64)
        for _, block in rows.blocks(block_height(width)):
            bad += (~np.isfinite(block)).sum(axis=0)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            messages.append(
                f"{int(bad.sum())} of {n * width} {name} are NaN or infinite, first in column {first} "
                f"({int(bad[first])} of {n} images)"
            )
    return "; ".join(messages) + ": drop these images or repair the network that made them"
