"""How much faster the paper's pruned networks are than their base network (its Fig. 10).

    python benchmarks/inference_time.py [--seconds 20] [--threads 2] [--batches 1 32]

VGG-Face is pruned to the filters that the paper kept for each of its four classifiers, and measured beside the base
network, in turns, in torch and in onnxruntime. Speed depends on the shapes alone, so no weights are needed; these are
drawn so that responses keep their size from layer to layer, for processors are slow with numbers that are all but zero.
``MACs`` says what the operations alone would give.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import nn

from facetask import PluginManager
from facetask.models.export import convert, run_onnx
from facetask.networks.cost import network_cost
from facetask.networks.latency import compare
from facetask.surgery import ChannelGraph

KEPT = {
    "gender": (58, 54, 109, 114, 216, 223, 232, 373, 373, 379, 302, 309),
    "age": (60, 58, 79, 105, 201, 220, 240, 396, 449, 387, 332, 350, 275),
    "head pose": (23, 12, 121, 110, 234, 230, 227, 370, 348, 390, 362, 395, 409),
    "emotion": (53, 44, 80, 102, 181, 170, 203, 193, 286, 314, 218, 237, 225),
}
"""Filters kept in each convolution; the head on them costs next to nothing."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    record = PluginManager().find("architecture", "vgg-face")
    params = record.params(weights=None)
    shape = record.preprocessing(params).input_shape
    base = record.build(params).eval()
    for module in base.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    graph = ChannelGraph.trace(base, shape)
    macs = network_cost(base, shape).macs
    base_onnx = run_onnx(convert(base, shape, "onnx", what="the base network"))
    print(f"{given.threads} threads, milliseconds an image; median of rounds that take all in turns")
    print(f"{'task':<10} {'MACs':>7} {'batch':>6} {'runtime':<12} {'base':>8} {'pruned':>8} {'faster':>8}")
    for task, widths in KEPT.items():
        taps = [tap.name for tap in graph.taps][: len(widths)]
        keep = {tap: np.arange(width) for tap, width in zip(taps, widths, strict=True)}
        pruned = graph.cut(taps[-1]).prune(keep)
        fewer = macs / network_cost(pruned, shape).macs
        runtimes = {
            "torch": (torch.inference_mode()(base), torch.inference_mode()(pruned)),
            "onnxruntime": (base_onnx, run_onnx(convert(pruned, shape, "onnx", what=task))),
        }
        for batch in given.batches:
            for one in compare(runtimes, shape, batch=batch, seconds=given.seconds):
                print(
                    f"{task:<10} {f'÷{fewer:.2f}':>7} {batch:>6} {one.runtime:<12} {one.base.median_ms:>8.1f} "
                    f"{one.pruned.median_ms:>8.1f} {f'{one.speedup:.2f}×':>8}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
