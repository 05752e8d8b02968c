"""A network's parameters drawn anew, whatever layers it is made of."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from facetask.errors import SurgeryError

SCALES = ("weight", "gamma", "scale")
SHIFTS = ("bias", "beta", "shift")


@torch.no_grad()
def start_afresh(backbone: nn.Module, inputs: Tensor) -> None:
    """Draw all parameters of a backbone anew, in place, by torch's global random numbers.

    Weights are normally distributed with He's variance; scales start at one, shifts at zero, batch norm's statistics at
    those of nothing seen. Then every convolution's and linear layer's weights are scaled so that its outputs for the
    inputs have unit variance: without batch norm, the sums of a deep residual network would grow from block to block.

    Args:
        backbone: The network, on the inputs' device.
        inputs: Some normalised images, ``(n, channels, height, width)``.

    Raises:
        SurgeryError: If a parameter is neither weights nor, by its name, a scale or a shift.

    Source: He et al. 2015, "Delving deep into rectifiers"; Mishkin and Matas 2016, "All you need is a good init".
    """
    for where, module in backbone.named_modules():
        _draw(where, module)
    layers = [module for module in backbone.modules() if isinstance(module, _ConvNd | nn.Linear)]
    scaled: set[nn.Module] = set()

    def to_unit_variance(layer: Any, _: Any, outputs: Tensor) -> Tensor | None:
        spread = outputs.std()
        if layer in scaled or not spread > 0 or not spread.isfinite():
            return None
        scaled.add(layer)
        layer.weight.div_(spread)  # the bias is zero
        return outputs / spread

    hooks = [layer.register_forward_hook(to_unit_variance) for layer in layers]
    try:
        backbone.eval()(inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _draw(where: str, module: nn.Module) -> None:
    """Draw the parameters that a module owns itself."""
    is_layer = isinstance(module, _ConvNd | nn.Linear)
    reset: Any = getattr(module, "reset_parameters", None)
    if reset is not None and not is_layer:
        reset()
        return
    for name, parameter in module.named_parameters(recurse=False):
        word = name.rpartition("_")[2]
        if (is_layer and name == "weight") or sum(size > 1 for size in parameter.shape) > 1:
            parameter.normal_(0.0, math.sqrt(2 / parameter[0].numel()))
        elif word in SHIFTS:
            parameter.zero_()
        elif word in SCALES:
            parameter.fill_(1.0)
        else:
            raise SurgeryError(
                f"finetune.start: scratch does not know how {where + '.' if where else ''}{name} of shape "
                f"{tuple(parameter.shape)} starts: it is neither weights nor named as a scale ({', '.join(SCALES)}) or "
                f"a shift ({', '.join(SHIFTS)})"
            )
