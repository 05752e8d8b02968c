"""Some rows and columns of a matrix, read block by block: what works on it needs memory for one block only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix: TypeAlias = "NDArray[Any] | Rows"
    """Responses, ``(n, n_columns)``: an array, or rows of one that are still to be read."""

BLOCK_ENTRIES = 2**21
LEAST_ROWS = 256


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows and columns of a matrix, ``(n, n_columns)``; nothing is read before it is asked for.

    Attributes:
        matrix: ``(n_all, n_all_columns)``, usually a memory map.
        columns: Ranges of its columns, side by side.
        index: Which of its rows, in this order, ``(n,)``; None for all.
    """

    matrix: NDArray[Any]
    columns: tuple[slice, ...]
    index: NDArray[np.intp] | None = None

    @classmethod
    def of(cls, x: Matrix) -> Rows:
        """Return all of an array ``(n, n_columns)``; rows as they are."""
        return x if isinstance(x, Rows) else cls(x, (slice(0, x.shape[1]),))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self), sum(columns.stop - columns.start for columns in self.columns)

    @property
    def part(self) -> NDArray[np.intp] | None:
        """Which range each column lies in, ``(n_columns,)``, counted from 0; None where there is but one."""
        widths = [columns.stop - columns.start for columns in self.columns]
        return np.repeat(np.arange(len(widths)), widths) if len(widths) > 1 else None

    def __len__(self) -> int:
        return len(self.matrix) if self.index is None else len(self.index)

    def __getitem__(self, rows: NDArray[np.intp]) -> Rows:
        """Return some of the rows, ``(len(rows), n_columns)``, still to be read."""
        return Rows(self.matrix, self.columns, rows if self.index is None else self.index[rows])

    def blocks(self, height: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield where each block lies among the rows, and its values, ``(height, n_columns)``, not to be written to.

        Args:
            height: Rows of a block; the last one may have fewer.
        """
        for start in range(0, len(self), height):
            rows = slice(start, min(start + height, len(self)))
            wanted = rows if self.index is None else self.index[rows]
            parts = [self.matrix[:, columns][wanted] for columns in self.columns]
            yield rows, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def array(self) -> NDArray[np.float64]:
        """Return everything at once, for what cannot work by blocks."""
        found = np.empty(self.shape)
        for rows, block in self.blocks(block_height(found.shape[1])):
            found[rows] = block
        return found


def block_height(width: int) -> int:
    """Return how many rows make a block where each needs that many numbers."""
    return max(LEAST_ROWS, BLOCK_ENTRIES // max(width, 1))
