"""A Gram matrix from which symmetric products are taken one by one, for the selectors that go step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FOLD = 32


class FoldedGram:
    """A symmetric matrix that is read by the column while ± r rᵀ are subtracted from it.

    The rows r wait beside the matrix and are folded into it a few at a time, by one matrix product: that is many times
    as fast as updating the whole of it for each.
    """

    def __init__(self, gram: Array) -> None:
        self._matrix = np.array(gram, order="F")
        self._rows, self._signed = np.empty((2, FOLD, len(gram)))
        self._held = 0

    def column(self, index: int) -> Array:
        """Return a column ``(p,)``."""
        held = self._held
        column: Array = self._matrix[:, index] - np.dot(self._signed[:held, index], self._rows[:held])
        return column

    def take(self, index: int, pivot: float) -> Array:
        """Subtract the product that zeroes a column, and return its r, ``(p,)``: a row of the Cholesky factor."""
        row = self.column(index)
        row /= pivot**0.5
        self.subtract(row)
        return row

    def subtract(self, row: Array, sign: float = 1.0) -> None:
        """Subtract ``sign · r rᵀ``, r being ``(p,)`` and the sign 1 or −1."""
        self._rows[self._held] = row
        np.multiply(row, sign, out=self._signed[self._held])
        self._held += 1
        if self._held == FOLD:
            blas.dgemm(-1.0, self._signed.T, self._rows.T, 1.0, self._matrix, trans_b=1, overwrite_c=1)
            self._held = 0

    def subtract_at(self, index: int, value: float) -> None:
        """Subtract a value at one place of the diagonal."""
        self._matrix[index, index] -= value
