"""A saved model as one file for another runtime: ONNX, or torch's own ``.pt2``.

The exported network takes what :meth:`FaceModel.forward` takes, images normalised as its metadata say, in batches of
any size. It has an output for each of the model's tasks, in their order: ONNX names it after the task, ``.pt2`` gives a
tuple where there are several. The metadata are strings under the same keys in both formats: ONNX's ``metadata_props``,
and the ``extra_files`` of ``torch.export.load``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from facetask.errors import ExportError, did_you_mean
from facetask.models.checkpoint import load_model

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from facetask.models.checkpoint import FaceModel
    from facetask.networks.task_network import TaskNetwork
    from facetask.plugin_manager import PluginManager

INPUT = "images"
OPSET = 18  # the lowest that torch's exporter writes: the more runtimes read it
TOLERANCE = 1e-5
CHECKED_BATCHES = (1, 3)
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OUTPUTS = {
    "continuous": "the value",
    "binary": "one score: the second class where it is above the decision's threshold",
    "multilabel": "one log-odds for each label: yes where its logistic function is above the decision's threshold",
    "binned": "the value, which the edges bin",
    "nominal": "one logit for each class",
}

Forward = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        path: The file.
        size_bytes: Its size.
        difference: The largest difference from the torch model that was found; see :func:`difference`.
    """

    path: Path
    size_bytes: int
    difference: float


@dataclass(frozen=True)
class _Format:
    """A file format: how a program becomes a file's bytes, and how these are run."""

    write: Callable[[ExportedProgram, Mapping[str, str], Sequence[str]], bytes]
    read: Callable[[bytes], Forward]


def export_model(
    folder: str | os.PathLike[str],
    form: str,
    out: str | os.PathLike[str] | None = None,
    plugins: PluginManager | None = None,
) -> Export:
    """Write a saved model as one file, whole or not at all, once it gives what the torch model gives.

    Args:
        folder: The saved model.
        form: ``onnx`` or ``pt2``.
        out: The file; by default ``model.onnx`` or ``model.pt2`` in the folder.
        plugins: Where the architecture is found; by default the bundled and installed plugins.

    Raises:
        ExportError: If the format is unknown, its packages are missing, the network cannot be converted, the file would
            give other numbers or cannot be written.
        CheckpointError: If the model cannot be read.
    """
    model = load_model(folder, plugins)
    path = Path(out) if out is not None else Path(folder) / f"model.{form}"
    shape = model.preprocessing.input_shape
    names = [task.name for task in model.tasks]
    content = convert(_Heads(model.network), shape, form, what=str(folder), notes=metadata(model), outputs=names)
    with _converting(str(folder), form):
        found = difference(model, FORMATS[form].read(content))
    if not found <= TOLERANCE:
        raise ExportError(
            f"{path}: not written, since it would differ from the torch model by {found:.1e} (relative), more than "
            f"{TOLERANCE:.0e}; try another format or another version of torch"
        )
    _write(path, content)
    return Export(path, len(content), found)


def convert(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    form: str,
    *,
    what: str,
    notes: Mapping[str, str] | None = None,
    outputs: Sequence[str] = ("outputs",),
) -> bytes:
    """Return a network as a file's bytes; it takes batches of any size.

    Args:
        network: The network, in evaluation mode on the processor; it gives a tensor, or a tuple of several.
        input_shape: Channels, height and width of its input.
        form: ``onnx`` or ``pt2``.
        what: What an error calls the network.
        notes: The file's metadata.
        outputs: What ONNX calls the outputs; underscores follow where something else in the network has that name.

    Raises:
        ExportError: If the format is unknown, its packages are missing or the network cannot be converted.
    """
    if form not in FORMATS:
        raise ExportError(f"unknown format {form!r}{did_you_mean(form, FORMATS)}")
    with _converting(what, form):
        return FORMATS[form].write(_program(network, input_shape), notes or {}, outputs)


def metadata(model: FaceModel) -> dict[str, str]:
    """Return what an exported file says of itself: plain text, or JSON where there is more than one value."""
    from facetask import __version__

    description = model.description
    tasks = [
        {
            **{key: value for key, value in asdict(spec).items() if key != "flip"},
            "outputs": _OUTPUTS[spec.kind],
            "decision": head.decision,
            "labels_licence": head.labels_licence,
        }
        for spec, head in zip(model.tasks, description.heads, strict=True)
    ]
    return {
        "facetask.preprocessing": json.dumps(model.preprocessing.to_json()),
        "facetask.tasks": json.dumps(tasks),
        "facetask.weights_licence": description.weights_licence,
        "facetask.weights_source": description.weights_source,
        "facetask.version": __version__,
    }


def difference(model: FaceModel, exported: Forward) -> float:
    """Return how far an exported model's outputs are from the torch model's, on random pixels in batches of 1 and 3.

    It is, over all heads, the largest absolute difference as a share of the largest sum of absolute terms that the head
    adds up, which is what floating-point numbers can promise: where a head's large terms cancel, rounding alone,
    torch's own included, changes the small outputs by much more.
    """
    generator = torch.Generator().manual_seed(0)
    network, shares = model.network, []
    for batch in CHECKED_BATCHES:
        shape = (batch, *model.preprocessing.input_shape)
        images = model.preprocessing.normalise(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        with torch.inference_mode():
            responses, found = network.backbone(images), exported(images)
            expected, read = network.read(responses), network.read_by(responses)
            if [each.shape for each in found] != [each.shape for each in expected]:
                return float("inf")
            for head, own, theirs, x in zip(network.linear, expected, found, read, strict=True):
                terms = x.abs() @ head.weight.abs().T + head.bias.abs()
                shares.append((theirs - own).abs().max() / terms.max().clamp(min=torch.finfo(terms.dtype).tiny))
    return float(torch.stack(shares).max())


def run_onnx(content: bytes) -> Forward:
    """Return an ONNX file's network, run by onnxruntime on the processor with as many threads as torch has.

    It gives a tuple of all outputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(map(torch.from_numpy, session.run(None, {INPUT: images.numpy()})))


def run_pt2(content: bytes) -> Forward:
    """Return a ``.pt2`` file's network, run by torch; it gives a tuple of all outputs."""
    network = torch.export.load(BytesIO(content)).module()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        found = network(images)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    return run


def _program(network: nn.Module, input_shape: tuple[int, int, int]) -> ExportedProgram:
    """Return a network as torch's graph for batches of any size, without traces of this machine."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        _OneInput(network).eval(), (torch.zeros(2, *input_shape),), dynamic_shapes={INPUT: {0: batch}}, strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the source files' places
    program.example_inputs = None  # which would otherwise be saved with it
    return program


def _to_onnx(program: ExportedProgram, notes: Mapping[str, str], outputs: Sequence[str]) -> bytes:
    """Return a program as an ONNX file."""
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}, not installed here: pip install 'facetask[onnx]'")
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        dynamic_shapes={INPUT: {0: "batch"}},
        opset_version=OPSET,
        external_data=False,
    )
    proto = exported.model_proto  # type: ignore[union-attr]
    graph = proto.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del item.metadata_props[:]  # the exporter's notes on every node
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=value)
    _name_outputs(graph, outputs)
    content: bytes = proto.SerializeToString()
    return content


def _to_pt2(program: ExportedProgram, notes: Mapping[str, str], outputs: Sequence[str]) -> bytes:
    """Return a program as a ``.pt2`` file, whose outputs have no names."""
    file = BytesIO()
    torch.export.save(program, file, extra_files=dict(notes))
    return file.getvalue()


FORMATS = {"onnx": _Format(_to_onnx, run_onnx), "pt2": _Format(_to_pt2, run_pt2)}


class _OneInput(nn.Module):
    """A network whose input has the name that the exported file gives it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the network's outputs."""
        outputs: Tensor | tuple[Tensor, ...] = self.network(images)
        return outputs


class _Heads(nn.Module):
    """A task network with an output for each head; one head's output alone is no tuple."""

    def __init__(self, network: TaskNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the heads' outputs."""
        outputs: tuple[Tensor, ...] = self.network.read(self.network.backbone(images))
        return outputs[0] if len(outputs) == 1 else outputs


@contextlib.contextmanager
def _converting(what: str, form: str) -> Iterator[None]:
    """Tell of a conversion that fails, in whichever of the exporter's ways; keep its warnings to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ExportError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise ExportError(
            f"{what}: the network cannot be converted to {form} ({type(error).__name__}: {reason})"
        ) from error


def _name_outputs(graph: Any, names: Sequence[str]) -> None:
    """Name an ONNX graph's outputs, with underscores after each where something else has that name."""
    made = {value for node in graph.node for value in node.output}
    taken = (made | {item.name for item in (*graph.input, *graph.initializer)}) - {item.name for item in graph.output}
    renamed: dict[str, str] = {}
    for output, wanted in zip(graph.output, names, strict=True):
        name = wanted
        while name in taken:
            name += "_"
        taken.add(name)
        renamed[output.name] = name
        output.name = name
    for node in graph.node:
        for values in (node.input, node.output):
            for i, value in enumerate(values):
                values[i] = renamed.get(value, value)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise ExportError(f"{path}: cannot be written ({error.strerror})") from None
