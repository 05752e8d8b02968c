"""What a network costs: parameters, multiply–accumulates and bytes.

MACs are counted by torch's own flop counter at batch 1; thop counts them a second time, on a deep copy, since it leaves
buffers behind in a state dict.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facetask.results import NetworkCost

if TYPE_CHECKING:
    from collections.abc import Sequence

DISAGREEMENT = 0.05
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def network_cost(network: nn.Module, input_shape: Sequence[int]) -> NetworkCost:
    """Return a network's cost for one image.

    Args:
        network: The network, in evaluation mode; it is moved to the processor, since parts of it may be elsewhere.
        input_shape: Channels, height and width.
    """
    counter = FlopCounterMode(display=False)
    network.cpu()
    with torch.no_grad(), counter:
        network(_zeros(network, input_shape))
    by_operation = counter.get_flop_counts().get("Global", {})
    conv_flops = sum(flops for operation, flops in by_operation.items() if "convolution" in str(operation))
    tensors = [*network.parameters(), *network.buffers()]
    return NetworkCost(
        params=sum(parameter.numel() for parameter in network.parameters()),
        conv_params=sum(p.numel() for m in network.modules() if isinstance(m, _CONVS) for p in m.parameters()),
        macs=counter.get_total_flops() // 2,
        conv_macs=conv_flops // 2,
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


def second_opinion(network: nn.Module, input_shape: Sequence[int], macs: int) -> str:
    """Return a note where thop's count differs from ours by more than 5 %, an empty text otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thop imports a module that Python has deprecated
        from thop import profile

        clone = copy.deepcopy(network)
        counted, _ = profile(clone, inputs=(_zeros(clone, input_shape),), verbose=False)
    if abs(counted - macs) <= DISAGREEMENT * macs:
        return ""
    return f"thop counts {counted / 1e6:,.1f} M MACs, torch's flop counter {macs / 1e6:,.1f} M"


def _zeros(network: nn.Module, input_shape: Sequence[int]) -> torch.Tensor:
    """Return a black image on the network's device and of its type."""
    return next(network.parameters()).new_zeros((1, *input_shape))
