"""Fixed tiles of noise, for strands, curls and mottled skin."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 256


@lru_cache
def noise(kind: Literal["strands", "curls", "mottle"]) -> NDArray[np.float32]:
    """Return a tile of noise of mean 0 and standard deviation 1, ``(768, 768)``, that repeats every 256.

    Args:
        kind: ``strands`` (long from top to bottom), ``curls`` (round) or ``mottle`` (wide and soft).
    """
    rng = np.random.default_rng(7)
    down, across = np.abs(np.fft.fftfreq(_SIDE))[:, None], np.fft.rfftfreq(_SIDE)[None, :]
    radius = np.hypot(down, across)
    keep = {
        "strands": np.exp(-((down / 0.010) ** 2) - (across / 0.30) ** 2),
        "curls": np.exp(-(((radius - 0.055) / 0.03) ** 2)),
        "mottle": np.exp(-((radius / 0.03) ** 2)),
    }[kind]
    keep[0, 0] = 0
    tile = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_SIDE, _SIDE))) * keep, (_SIDE, _SIDE))
    return np.tile(tile / tile.std(), (3, 3)).astype(np.float32)


def patch(
    kind: Literal["strands", "curls", "mottle"], rows: int, columns: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a piece of a tile from a random place, ``(rows, columns)``, at most 512 rows and columns."""
    row, column = rng.integers(0, _SIDE, 2)
    return noise(kind)[row : row + rows, column : column + columns]
