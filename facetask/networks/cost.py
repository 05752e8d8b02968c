"""What a network costs: parameters, multiply–accumulates, bytes; and a saved model's cost beside its base network's.

MACs are counted by torch's own flop counter at batch 1, from shapes alone; thop counts them a second time, on a deep
copy, since it leaves buffers behind in a state dict.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from facetask.errors import ExportError
from facetask.networks.latency import Comparison, Forward, Latency, compare
from facetask.running.results import NetworkCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetask.models.checkpoint import FaceModel
    from facetask.plugin_manager import PluginManager

DISAGREEMENT = 0.05
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def network_cost(network: nn.Module, input_shape: Sequence[int]) -> NetworkCost:
    """Return a network's cost for one image.

    Args:
        network: The network, in evaluation mode; it is moved to the processor, since parts of it may be elsewhere.
        input_shape: Channels, height and width.
    """
    counter = _counted(network.cpu(), input_shape)
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


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> int | None:
    """Return a network's multiply–accumulates for one image; None where torch's counter fails on its code."""
    try:
        return _counted(network, input_shape).get_total_flops() // 2
    except AssertionError:  # the counter follows modules by hooks, which cannot take every kind of argument
        return None


def _counted(network: nn.Module, input_shape: Sequence[int]) -> FlopCounterMode:
    """Return the counter after one image has gone through the network, in shapes only."""
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about the addresses of tensors that have none
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
            network(_zeros(network, input_shape))
    return counter


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


@dataclass(frozen=True)
class ModelCost:
    """What a saved model costs, beside the whole base network that it was carved out of.

    Attributes:
        task: The task's name; of a model of several tasks, all of them.
        architecture: The base network's name.
        base: The base network's cost, with its own head.
        pruned: The saved model's cost, with all its heads.
        file_bytes: Size of the saved model's weights file.
        onnx_bytes: Sizes as ONNX files, of ``base`` and ``pruned``; empty where they cannot be converted.
        threads: Threads that every runtime used.
        latency: For each batch size, for each runtime.
        notes: What the user should know.
    """

    task: str
    architecture: str
    base: NetworkCost
    pruned: NetworkCost
    file_bytes: int
    onnx_bytes: dict[str, int]
    threads: int
    latency: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with each comparison's speed-up."""
        return {
            **asdict(self),
            "base": self.base.model_dump(),
            "pruned": self.pruned.model_dump(),
            "latency": [{**asdict(comparison), "speedup": comparison.speedup} for comparison in self.latency],
        }

    def lines(self) -> list[str]:
        """Return two tables for a reader."""
        rows = [
            ("parameters", "M", self.base.params, self.pruned.params),
            ("  of convolutions", "M", self.base.conv_params, self.pruned.conv_params),
            ("MACs for an image", "M", self.base.macs, self.pruned.macs),
            ("  of convolutions", "M", self.base.conv_macs, self.pruned.conv_macs),
            ("size in memory", "MB", self.base.size_bytes, self.pruned.size_bytes),
            ("safetensors file", "MB", None, self.file_bytes),
            ("ONNX file", "MB", self.onnx_bytes.get("base"), self.onnx_bytes.get("pruned")),
        ]
        lines = [f"{self.task}, carved out of {self.architecture}", "", f"{'':18}{'base':>13}{'pruned':>13}"]
        for what, unit, base, pruned in rows:
            change = f"{100 * (pruned / base - 1):+8.1f} %" if base and pruned else ""
            lines.append(f"{what:18}{_millions(base, unit):>13}{_millions(pruned, unit):>13}{change}")
        lines += ["", f"ms for an image: median (quartiles), images/s; {self.threads} threads, measured in turns"]
        lines.append(f"{'batch':>5}  {'runtime':12}{'base':>34}{'pruned':>34}{'faster':>9}")
        for row in self.latency:
            cells = f"{_shown(row.base):>34}{_shown(row.pruned):>34}"
            lines.append(f"{row.batch:5}  {row.runtime:12}{cells}{row.speedup:8.2f}×")
        return [*lines, *(f"note: {note}" for note in self.notes)]


def model_cost(
    folder: str | os.PathLike[str],
    *,
    batches: Sequence[int] = (1, 32),
    seconds: float = 5.0,
    plugins: PluginManager | None = None,
) -> ModelCost:
    """Count and measure a saved model and the whole base network that it was carved out of.

    The base network is built anew with random weights, on which neither its cost nor its latency depends.

    Args:
        folder: The saved model.
        batches: Batch sizes to measure.
        seconds: About how long to measure each of them.
        plugins: Where the architecture is found; by default the bundled and installed plugins.

    Raises:
        CheckpointError: If the model cannot be read.
        PluginError: If the architecture's plugin is not there.
    """
    from facetask.models.checkpoint import load_model  # which imports this module
    from facetask.models.export import convert, run_onnx
    from facetask.models.model_description import WEIGHTS

    model = load_model(folder, plugins)
    shape = model.preprocessing.input_shape
    base, pruned = base_network(model, plugins), model.network
    runtimes: dict[str, tuple[Forward, Forward]] = {"torch": (_run_torch(base), _run_torch(pruned))}
    sizes, notes = {}, []
    try:
        files = [convert(network, shape, "onnx", what=str(folder)) for network in (base, pruned)]
        runtimes["onnxruntime"] = (run_onnx(files[0]), run_onnx(files[1]))
        sizes = {"base": len(files[0]), "pruned": len(files[1])}
    except ExportError as error:
        notes.append(f"onnxruntime is left out: {error}")
    return ModelCost(
        task=", ".join(task.name for task in model.tasks),
        architecture=model.description.architecture.name,
        base=network_cost(base, shape),
        pruned=network_cost(pruned, shape),
        file_bytes=(Path(folder) / WEIGHTS).stat().st_size,
        onnx_bytes=sizes,
        threads=torch.get_num_threads(),
        latency=tuple(
            found
            for batch in dict.fromkeys(batches)
            for found in compare(runtimes, shape, batch=batch, seconds=seconds)
        ),
        notes=tuple(notes),
    )


def base_network(model: FaceModel, plugins: PluginManager | None = None) -> nn.Module:
    """Return the whole base network of a saved model, in evaluation mode, with random weights.

    The weights are drawn so that activations keep their size from layer to layer: where they fade away, they become
    denormal numbers, which processors compute slowly.

    Source: He et al., "Delving Deep into Rectifiers" (2015), eq. 10.
    """
    from facetask.plugin_manager import default_manager

    saved = model.description.architecture
    architecture: Any = (plugins or default_manager()).find("architecture", saved.name)
    network: nn.Module = architecture.build(architecture.params.model_validate_json(json.dumps(saved.params)))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    return network.eval()


def _run_torch(network: nn.Module) -> Forward:
    """Return a network as a function of images that keeps nothing for training."""
    run: Forward = torch.inference_mode()(network)
    return run


def _millions(count: int | None, unit: str) -> str:
    """Return a count in millions, or a dash."""
    return f"{'–':2} {'':2}" if count is None else f"{count / 1e6:,.2f} {unit:2}"


def _shown(latency: Latency) -> str:
    """Return a latency for a reader."""
    quartiles = f"({latency.q1_ms:.2f}–{latency.q3_ms:.2f})"
    return f"{latency.median_ms:.2f} {quartiles:>15}{latency.images_per_s:8,.0f}/s"


def _zeros(network: nn.Module, input_shape: Sequence[int]) -> torch.Tensor:
    """Return a black image on the network's device and of its type."""
    return next(network.parameters()).new_zeros((1, *input_shape))
