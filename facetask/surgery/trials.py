"""What surgery is tried with: random weights, random keep sets, and tensors whose entries tell their own places."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facetask.surgery.graph import ChannelGraph


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Give weights, scales, shifts and statistics random values, in float64; return the module, in evaluation mode.

    Fresh networks have zeros and ones that hide mistakes. The scale of the values keeps activations in range.
    """
    module = module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1 and tensor.shape[0] > 1 and not name.endswith("var"):
                tensor.normal_(generator=generator).mul_((2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(generator=generator).mul_(0.2)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)
    return module


def random_keep_sets(graph: ChannelGraph, rng: np.random.Generator, share: float = 0.5) -> dict[str, NDArray[np.intp]]:
    """Return keep sets that agree within groups; every group that can drop a component drops at least one."""
    keep: dict[str, NDArray[np.intp]] = {}
    for group in graph.groups:
        free = np.flatnonzero(~group.fixed)
        kept = (rng.random(group.n_components) < share) | group.fixed
        if len(free) > 1 and kept.all():
            kept[rng.choice(free)] = False
        for tap in group.taps:
            if not kept[group.component[tap]].any():
                kept[group.component[tap][0]] = True
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    return keep


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and statistics by name; shared ones under each of their names."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}


def marked(module: nn.Module) -> nn.Module:
    """Return a copy in which every entry of every tensor is its place in it, so that pruning shows what it took."""
    twin = copy.deepcopy(module)
    for tensor in tensors(twin).values():
        tensor.copy_(torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape))
    return twin


def restored(pruned: nn.Module, original: nn.Module) -> nn.Module:
    """Return a copy of a marked module, pruned in whatever way, with the original's values at the places left."""
    values, twin = tensors(original), copy.deepcopy(pruned)
    left = {name: values[name].flatten()[places.long()] for name, places in tensors(twin).items()}
    for name, tensor in tensors(twin).items():
        tensor.copy_(left[name])
    return twin
