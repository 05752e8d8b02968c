"""What `prune: {round_to: n}` is worth: latency of one pruned network at widths as they come and at rounded ones.

    python benchmarks/odd_widths.py [--share 0.4] [--seconds 10] [--threads 1]

dlib's face ResNet (its structure only: no weights are needed) is pruned to about a share of every coupled group's
filters, to odd widths, and to these rounded to multiples of 4, 8 and 16; all are measured in turns in one run. Time per
multiply-accumulate is what tells: rounding changes the work a little too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from facetask import PluginManager
from facetask.models.export import convert, run_onnx
from facetask.networks.cost import network_cost
from facetask.networks.latency import measure
from facetask.stages.prune import build_pruned
from facetask.surgery import ChannelGraph

MULTIPLES = (1, 4, 8, 16)


def pruned(graph: ChannelGraph, share: float, multiple: int) -> nn.Module:
    """Return the network with a share of each group's components, to an odd count or rounded to a multiple."""
    keep = {}
    for group in graph.groups:
        count = round(share * group.n_components) // 2 * 2 + 1
        if multiple > 1:
            count = max(multiple, int(count / multiple + 0.5) * multiple)
        kept = np.zeros(group.n_components, dtype=bool)
        for tap in group.taps:  # a tap that has few of the group's components keeps its share of them
            own = np.unique(group.component[tap])
            kept[own[: min(count, len(own))]] = True
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    last = graph.taps[-1].name
    return build_pruned(graph, [(last, 1)], graph.cut(last).resolve(keep)).eval()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    record = PluginManager().find("architecture", "dlib-face-resnet")
    params = record.params()
    shape = record.preprocessing(params).input_shape
    graph = ChannelGraph.trace(record.build(params).eval(), shape)
    networks = {multiple: pruned(graph, given.share, multiple) for multiple in MULTIPLES}
    macs = {multiple: network_cost(network, shape).macs for multiple, network in networks.items()}
    runs = {("torch", multiple): torch.inference_mode()(network) for multiple, network in networks.items()}
    runs |= {
        ("onnxruntime", multiple): run_onnx(convert(network, shape, "onnx", what="the network"))
        for multiple, network in networks.items()
    }
    print("| batch | runtime | round_to | M MACs | ms an image | ns for 1000 MACs | odd widths take, same work |")
    print("|---|---|---|---|---|---|---|")
    for batch in (1, 32):
        images = torch.randn(batch, *shape)
        runners: dict[str, Callable[[], object]] = {str(key): partial(run, images) for key, run in runs.items()}
        found = measure(runners, batch=batch, seconds=given.seconds)
        for (runtime, multiple), latency in zip(runs, found.values(), strict=True):
            price = {m: found[str((runtime, m))].median_ms / macs[m] for m in MULTIPLES}
            print(
                f"| {batch} | {runtime} | {multiple} | {macs[multiple] / 1e6:.1f} | {latency.median_ms:.2f} | "
                f"{1e9 * price[multiple]:.1f} | {price[1] / price[multiple]:.2f}× |"
            )


if __name__ == "__main__":
    main()
