"""From a folded ONNX model to a torch module: names, tensors, and the graph that operators are added to.

Learned tensors get the names that they have in the file where the file has readable ones, else their node's.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from facetask import WeightsError
from facetask.plugins.architectures.onnx_folding import BATCH, Folded, Step

_PROBE = 2  # images that a new network is tried on


class UnsupportedError(Exception):
    """An operator that cannot be converted; the message says why."""


Emitter = Callable[["Building", Step], Any]


class Building:
    """A torch network in the making.

    Attributes:
        folded: What it is made from.
        graph: Its operations so far.
        values: The graph's node of every ONNX value so far.
    """

    def __init__(self, folded: Folded) -> None:
        self.folded = folded
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self._root = nn.Module()
        self._empty = nn.Module()
        self._names: set[str] = set()
        self._tensors: dict[str, fx.Node] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value."""
        shapes = self.folded.shapes
        return shapes[name] if name in shapes else tuple(self.folded.constants[name].shape)

    def constant(self, step: Step, position: int, default: Any = None) -> Any:
        """Return an input that must not depend on the image, as an array; the default where it is left out."""
        name = step.inputs[position] if position < len(step.inputs) else ""
        if not name:
            return default
        if name not in self.folded.constants:
            raise UnsupportedError("its weights or settings are computed from the image")
        return self.folded.constants[name]

    def integers(self, step: Step, position: int, attribute: str) -> list[int] | None:
        """Return a list of integers that newer files give as an input and older ones as an attribute."""
        value = self.constant(step, position)
        value = step.attributes.get(attribute) if value is None else value
        return None if value is None else [int(item) for item in np.atleast_1d(np.asarray(value))]

    def value(self, name: str, *, scalar: bool = True) -> Any:
        """Return an input for the graph: a node, or a number where a constant is a single one."""
        if name in self.values:
            return self.values[name]
        constant = self.folded.constants[name]
        if scalar and constant.size == 1:
            return constant.item()
        if name not in self._tensors:
            self._tensors[name] = self._attached(name, constant)
        return self._tensors[name]

    def _attached(self, name: str, constant: NDArray[Any]) -> fx.Node:
        """Add a tensor of the file to the network; one of floating-point numbers can be trained."""
        path = self._unique(_clean(self.folded.origins.get(name, name)))
        parent, last = self._parent(path)
        tensor = torch.from_numpy(np.array(constant))
        if tensor.is_floating_point():
            parent.register_parameter(last, nn.Parameter(tensor))
        else:
            parent.register_buffer(last, tensor)
        return self.graph.get_attr(path)

    def call(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        """Add a function of torch."""
        return self.graph.call_function(function, args)

    def module(self, step: Step, module: nn.Module, *args: Any, weight: str = "") -> fx.Node:
        """Add a module, named after its weight in the file or after the step's node."""
        path = self._unique(self._title(step, weight))
        parent, last = self._parent(path)
        parent.add_module(last, module)
        return self.graph.call_module(path, args)

    def layer(self, step: Step, module: nn.Module, x: fx.Node, **tensors: NDArray[Any] | None) -> fx.Node:
        """Add a layer of torch with its learned tensors."""
        with torch.no_grad():
            for name, values in tensors.items():
                if values is not None:
                    getattr(module, name).copy_(torch.from_numpy(np.array(values)))
        return self.module(step, module, x, weight=step.inputs[1])

    def _title(self, step: Step, weight: str) -> str:
        """Return a readable name of a step."""
        origin = self.folded.origins.get(weight, "")
        if origin.endswith(".weight"):
            return _clean(origin.removesuffix(".weight"))
        parts = [part for part in step.proto.name.split("/") if part]
        if len(parts) > 1 and parts[-1].startswith(step.operator):
            parts.pop()
        scope: list[str] = []  # torch writes layer1/layer1.0/layer1.0.conv1: each part may begin with the one before
        for part in parts:
            if scope and part.startswith(scope[-1] + "."):
                scope.pop()
            scope.append(part)
        return _clean(".".join(scope) or origin or step.proto.output[0])

    def _unique(self, name: str) -> str:
        """Return a name that nothing in the network has yet, and that lies inside no layer."""
        parts = [part + "_" * hasattr(self._empty, part) for part in name.split(".")]  # no module is called "type"
        name = ".".join(parts)
        inside = any(".".join(parts[:n]) in self._names for n in range(1, len(parts)))
        if inside or any(other.startswith(name + ".") for other in self._names):
            name = name.replace(".", "_") + "_" * ("." not in name)
        unique, count = name, 1
        while unique in self._names or any(other.startswith(unique + ".") for other in self._names):
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique

    def _parent(self, path: str) -> tuple[nn.Module, str]:
        """Return the module that a dotted name lies in, and the name's last part."""
        module, *rest = self._root, *path.split(".")
        for part in rest[:-1]:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module, rest[-1]

    def finish(self) -> fx.GraphModule:
        """Return the network."""
        outputs = tuple(self.values[name] for name in self.folded.outputs)
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        return fx.GraphModule(self._root, self.graph, "OnnxNetwork").eval()


def convert(
    folded: Folded, emitter_of: Callable[[Step], Emitter], source: str, *, channels_last: bool
) -> fx.GraphModule:
    """Return a folded model as a torch module in evaluation mode, all batches welcome.

    Args:
        folded: The model.
        emitter_of: Returns what adds an operator to a network.
        source: Where the model comes from, for messages.
        channels_last: Whether the model takes (batch, height, width, channels); the network never does.

    Raises:
        WeightsError: If operators cannot be converted; names all of them.
    """
    building, problems = Building(folded), list[str]()
    image = building.graph.placeholder("image")
    building.values[folded.input] = building.call(torch.permute, image, (0, 2, 3, 1)) if channels_last else image
    for step in folded.steps:
        names = [name for name in step.proto.output if name]
        try:
            found = emitter_of(step)(building, step)
        except UnsupportedError as error:
            problems.append(f"{step.title}: {error}")
            found = building.values[folded.input]  # whatever stands for it: the network is not going to be built
        if len(names) == 1:
            building.values[names[0]] = found
            continue
        parts = (
            found
            if isinstance(found, tuple)
            else (building.call(operator.getitem, found, i) for i in range(len(names)))
        )
        building.values |= dict(zip(names, parts, strict=False))
    if problems:
        raise WeightsError(f"{source}: {len(problems)} operators cannot be converted: {'; '.join(problems)}")
    return building.finish()


def try_out(network: fx.GraphModule, input_shape: tuple[int, int, int], folded: Folded, source: str) -> None:
    """Run a network once and compare the shape of its results with the file's.

    Raises:
        WeightsError: If it does not run, or gives results of other shapes.
    """
    try:
        with torch.inference_mode():
            results = network(torch.zeros(_PROBE, *input_shape))
    except Exception as error:
        raise WeightsError(
            f"{source}: the converted network does not run ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    results = [results] if isinstance(results, Tensor) else list(results)
    expected = [_of_probe(folded.shapes[name]) for name in folded.outputs]
    if [tuple(result.shape) for result in results] != expected:
        raise WeightsError(
            f"{source}: the converted network gives results of shape {[tuple(r.shape) for r in results]} instead of "
            f"{expected}"
        )


def _of_probe(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape for the probe's batch."""
    return tuple(size // BATCH * _PROBE if size % BATCH == 0 else size for size in shape)


def _clean(name: str) -> str:
    """Return a name of letters, digits, underscores and dots between them."""
    parts = [re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in name.split(".")]
    return ".".join(part for part in parts if part) or "value"
