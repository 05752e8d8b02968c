"""Convolutions and linear layers that compute their weight (weight standardisation, weight norm, parametrisations).

Slicing what such a weight is computed from would change it. They are replaced by plain layers that hold the computed
weight, which are sliced exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_KINDS: Mapping[type[nn.Module], tuple[Callable[..., Any], tuple[str, ...]]] = {
    nn.Conv1d: (F.conv1d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    nn.Conv2d: (F.conv2d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    nn.Linear: (F.linear, ("input", "weight", "bias")),
}


def fold(network: nn.Module) -> set[nn.Module]:
    """Replace, in a network, layers that compute their weight; return the layers that can be sliced as they are."""
    exact: set[nn.Module] = set()
    replaced: dict[nn.Module, nn.Module] = {}
    for parent in list(network.modules()):
        for name, module in list(parent._modules.items()):
            kind = next((kind for kind in _KINDS if isinstance(module, kind)), None)
            if module is None or kind is None:
                continue
            if module not in replaced:
                replaced[module] = module if _is_plain(module, kind) else _folded(module, kind, exact)
            parent._modules[name] = replaced[module]
            if _is_plain(replaced[module], kind):
                exact.add(replaced[module])
    return exact


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is one of torch's own, with its weight as a parameter."""
    return type(module).forward is kind.forward and "weight" in module._parameters


def _folded(module: nn.Module, kind: type[nn.Module], exact: set[nn.Module]) -> nn.Module:
    """Return a plain layer with the weight that a layer computes, or the layer itself if that cannot be told."""
    call = _Recorder(*_KINDS[kind])
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return module
    size = [2] if kind is nn.Linear else [weight.shape[1] * getattr(module, "groups", 1)]
    given = torch.zeros(1, *size, *[8 * n for n in weight.shape[2:]], dtype=weight.dtype, device=weight.device)
    if kind is nn.Linear:
        given = given.new_zeros(2, weight.shape[1])
    try:
        with call, torch.no_grad():
            result = module(given)
    except Exception:  # a layer of some other kind; it is traced into instead
        return module
    found = call.arguments
    if found is None or result is not call.result:
        return module
    if found["weight"] is weight and "weight" in module._parameters:
        exact.add(module)  # what it does before (as padding its input) does not mix channels
        return module
    if found["input"].shape != given.shape:
        return module
    bias = found.get("bias")
    options: dict[str, Any] = {"bias": bias is not None, "dtype": weight.dtype, "device": weight.device}
    if kind is nn.Linear:
        plain: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], **options)
    else:
        options |= {name: found[name] for name in ("stride", "padding", "dilation", "groups") if name in found}
        shape = weight.shape
        plain = kind(given.shape[1], shape[0], tuple(shape[2:]), **options)
    plain.weight = nn.Parameter(found["weight"].detach().clone())
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().clone())
    return plain.train(module.training)


class _Recorder(TorchFunctionMode):
    """Records the arguments and the result of the one call of a function."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        super().__init__()
        self._function, self._names = function, names
        self.arguments: dict[str, Any] | None = None
        self.result: Any = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, and take note if it is the one."""
        result = func(*args, **(kwargs or {}))
        if func is self._function:
            self.arguments = {**dict(zip(self._names, args, strict=False)), **(kwargs or {})}
            self.result = result
        return result
