"""Random changes of training images: mirroring, shifting, brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig


class Augment:
    """Random mirroring, shifting and brightness of a batch of uint8 pixels; remembers which images it mirrored.

    Args:
        settings: How far images are shifted and their brightness changed.
        mirror: Whether images are mirrored.
        rng: Where chance comes from.
    """

    def __init__(self, settings: FinetuneConfig, mirror: bool, rng: np.random.Generator) -> None:
        self._settings, self._mirror, self._rng = settings, mirror, rng
        self.mirrored: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return a batch ``(batch, channels, height, width)``, changed."""
        n, _, height, width = pixels.shape
        self.mirrored = self._rng.random(n) < 0.5 if self._mirror else np.zeros(n, dtype=bool)
        flipped = torch.from_numpy(self.mirrored)
        pixels = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        if self._settings.shift > 0:
            reach = [int(self._settings.shift * side) for side in (height, width)]
            padded = F.pad(pixels.float(), (reach[1], reach[1], reach[0], reach[0]), mode="replicate").to(pixels.dtype)
            corners = [self._rng.integers(0, 2 * side + 1, n) for side in reach]
            pixels = torch.stack(
                [
                    padded[i, :, top : top + height, left : left + width]
                    for i, (top, left) in enumerate(zip(*corners, strict=True))
                ]
            )
        if self._settings.brightness > 0:
            spread = self._settings.brightness
            factor = torch.from_numpy(self._rng.uniform(1 - spread, 1 + spread, n)).float().view(-1, 1, 1, 1)
            pixels = (pixels.float() * factor).round().clamp(0, 255).to(pixels.dtype)
        return pixels
