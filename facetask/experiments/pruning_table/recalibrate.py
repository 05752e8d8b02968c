"""Batch norm recalibrated: its statistics taken anew, of what the pruned network gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH = 64


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether there is anything to recalibrate."""
    return bool(_layers(module))


@torch.no_grad()
def recalibrate(backbone: nn.Module, images: Tensor) -> None:
    """Put the mean over some batches' statistics in place of batch norm's own; nothing else is changed.

    Args:
        backbone: The network; it is left in evaluation mode.
        images: Normalised images, ``(n, channels, height, width)``.
    """
    layers = _layers(backbone)
    momenta = [layer.momentum for layer in layers]
    backbone.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over all batches
        layer.train()
    for batch in images.tensor_split(max(1, len(images) // _BATCH)):
        backbone(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    backbone.eval()


def _layers(module: nn.Module) -> list[_BatchNorm]:
    """Return the layers that keep statistics."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
