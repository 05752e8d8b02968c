"""From a module to an fx graph that knows the shape of every value in it."""

from __future__ import annotations

import copy
import inspect
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from facetask.errors import SurgeryError
from facetask.surgery import computed_weights

BATCH = 2  # not 1, or a batch would be mistaken for a dimension that broadcasts
_MODE = FakeTensorMode(allow_non_fake_inputs=True)  # operations compute shapes only, also with real parameters
VALUE = "facetask_value"  # key of a node's fake tensor, size or number in its ``meta``


def trace(module: nn.Module, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Return the module as a graph in evaluation mode; it shares the module's tensors, and nothing else.

    Control flow that depends on shapes follows the given input shape; control flow that depends on pixels cannot be
    followed.

    Args:
        module: The network.
        input_shape: Channels, height and width of its input.

    Raises:
        SurgeryError: If the module cannot be traced; names the source line and the operation.
    """
    owned = share(module).eval()
    tracer = _Tracer(input_shape, exact=computed_weights.fold(owned))
    try:
        graph = tracer.trace(owned, concrete_args=_defaults(owned))
    except SurgeryError:
        raise
    except Exception as error:  # tracing runs the user's code, which may fail in any way
        raise SurgeryError(_not_traceable(module, input_shape, error)) from error
    _drop_extra_inputs(graph)
    _name_inplace_results(graph)
    return fx.GraphModule(owned, graph, type(module).__name__)


def share(module: nn.Module) -> Any:
    """Return a copy of a module's structure whose parameters, buffers and tensors are the original's own."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        held = [*part._parameters.values(), *part._buffers.values(), *part.__dict__.values()]
        memo |= {id(tensor): tensor for tensor in held if isinstance(tensor, torch.Tensor)}
    return copy.deepcopy(module, memo)


class _Proxy(fx.Proxy):
    """Stands for a value of known shape while the module's code runs."""

    def __getattr__(self, k: str) -> Any:
        """Return rank and device type themselves, shape and device as values of their own, all else as fx does."""
        value = self.node.meta.get(VALUE)
        if k == "ndim" and isinstance(value, torch.Tensor):
            return value.ndim
        if k == "type" and isinstance(value, torch.device):
            return value.type
        if k in ("shape", "device") and isinstance(value, torch.Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        return super().__getattr__(k)

    def __len__(self) -> int:
        """Return the length of a sequence; that of a tensor is its batch and must not be fixed."""
        value = self.node.meta.get(VALUE)
        if isinstance(value, tuple | list):
            return len(value)
        length: int = super().__len__()
        return length


class _Tracer(fx.Tracer):
    """Computes every value's shape while tracing, so that control flow on shapes can be followed."""

    def __init__(self, input_shape: tuple[int, int, int], exact: set[nn.Module]) -> None:
        super().__init__()
        self._exact = exact
        self._input_shape = input_shape
        self._evaluating = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep torch's own modules whole, and subclasses of its layers that can be sliced as they are."""
        if m in self._exact or isinstance(m, nn.modules.batchnorm._BatchNorm):
            return True
        return not isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear) and super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for a node's value."""
        return _Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> fx.Proxy:
        """Add a node and compute its value's shape."""
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        node = proxy.node
        if kind == "placeholder":
            value: Any = node.args[0] if node.args else fake_input(self.root, self._input_shape)
        elif kind == "output":
            return proxy
        else:
            value = self._evaluate(node)
        node.meta[VALUE] = value
        return proxy

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Add a node for a leaf, or go into the module."""
        if self._evaluating:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a parameter as a node, or as itself while a leaf computes."""
        if self._evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Decide control flow on sizes; refuse it on pixels."""
        value = obj.node.meta.get(VALUE)
        if isinstance(value, torch.Tensor):
            return super().to_bool(obj)
        return bool(value)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over the items of a sequence of known length."""
        value = obj.node.meta.get(VALUE)
        if isinstance(value, tuple | list):
            items: Any = obj
            return iter([items[index] for index in range(len(value))])
        return super().iter(obj)

    def _value(self, node: fx.Node) -> Any:
        """Return a node's value; parameters given as arguments have none yet."""
        if VALUE not in node.meta:
            node.meta[VALUE] = _run(self.root, node, (), {})
        return node.meta[VALUE]

    def _evaluate(self, node: fx.Node) -> Any:
        """Return a node's value, tensors being fake."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._value)
        self._evaluating = True
        try:
            with _shapes_only():
                return _run(self.root, node, args, kwargs)
        finally:
            self._evaluating = False


@contextmanager
def _shapes_only() -> Iterator[None]:
    """Compute shapes only; torch's log of shapes that do not fit is left out, for we raise an error about them."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        with _MODE, torch.no_grad():
            yield
    finally:
        log.disabled = before


def _run(root: Any, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Execute one node."""
    if node.op == "get_attr":
        value = root
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value
    if node.op == "call_module":
        return root.get_submodule(node.target).forward(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]  # a call_function's target is the function


def evaluate(
    network: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any], input_shape: tuple[int, int, int]
) -> Any:
    """Return a node's value for an input shape, tensors being fake, from the values of the nodes before it."""
    if node.op == "placeholder":
        return fake_input(network, input_shape)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    with _shapes_only():
        return _run(network, node, args, kwargs)


def fake_input(network: nn.Module, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """Return a fake batch of a network's input, of the type of its parameters."""
    types = [p.dtype for p in network.parameters() if p.is_floating_point()]
    with _MODE:
        return torch.empty(BATCH, *input_shape, dtype=types[0] if types else torch.float32)


def _defaults(module: nn.Module) -> dict[str, Any] | None:
    """Return the default values of the inputs after the first."""
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    named = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return named or None


def _drop_extra_inputs(graph: fx.Graph) -> None:
    """Remove the inputs that were given their defaults, and the checks that tracing adds for them."""
    for extra in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        doomed = [extra]
        for node in doomed:
            doomed.extend(user for user in node.users if user not in doomed)
        for node in reversed(sorted(doomed)):
            graph.erase_node(node)


def _name_inplace_results(graph: fx.Graph) -> None:
    """Let everything after an in-place operation use its result, so that the data flow is in the graph."""
    for node in graph.nodes:
        target = node.target
        method = node.op == "call_method" and str(target).endswith("_") and not str(target).endswith("__")
        if not method or not isinstance(node.args[0], fx.Node):
            continue
        for user in [user for user in node.args[0].users if user > node]:
            user.replace_input_with(node.args[0], node)


def _not_traceable(module: nn.Module, input_shape: tuple[int, int, int], error: Exception) -> str:
    """Say where tracing stopped: the last line of code that is not torch's own."""
    own = str(Path(torch.__file__).parent)
    here = str(Path(__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((own, here, "<"))]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}: `{frames[-1].line}`" if frames else ""
    return (
        f"{type(module).__name__} is not traceable with an input of {input_shape}{where} "
        f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}); "
        "control flow that depends on pixel values, and code that leaves torch, must be moved out of forward"
    )
