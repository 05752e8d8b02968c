"""Prune one network of each timm family at random and compare it with the masked original, in float64.

    python benchmarks/surgery_timm.py [MODEL ...] [--size 64] [--seed 0]

Needs no data and no pretrained weights. A row says whether the pruned network equals the masked one (1e-10
relative), the share of the taps' filters that must always be kept, the error, the share of parameters left, and the
seconds that tracing and pruning took. ``part frozen`` names the operations that the engine did not know; ``refused``
is an error that says why; ``WRONG`` must never appear.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
import timm
import torch
from torch import nn

from facetask.errors import SurgeryError
from facetask.surgery import ChannelGraph

FAMILIES = """
resnet18 resnext50_32x4d res2net50_26w_4s resnest14d ecaresnet26t seresnext26t_32x4d regnetx_002 regnety_002
regnetz_b16 densenet121 dpn68 dla34 vgg11 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small_050
efficientnet_b0 efficientnetv2_rw_t mnasnet_small fbnetc_100 tinynet_e ghostnet_050 hardcorenas_a rexnet_100
hgnetv2_b0 cspresnet50 convnext_atto convnextv2_atto convmixer_768_32 inception_v3 inception_v4 xception41
hrnet_w18_small selecsls42 vovnet39a tresnet_m nf_regnet_b0 repvgg_a0 mobileone_s0 repvit_m1 edgenext_xx_small
mambaout_femto starnet_s1 lcnet_050 gernet_s resnetv2_50
"""
NEEDS_MORE_PIXELS = {"inception_v3": 96, "inception_v4": 96}
TOLERANCE = 1e-10


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Give every weight, scale, shift and statistic a random value that keeps activations in range."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1 and tensor.shape[0] > 1:
                tensor.normal_(generator=generator).mul_((2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(generator=generator).mul_(0.2)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)


def random_keep_sets(graph: ChannelGraph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return keep sets of about half of every coupled group's components, at least one for each tap."""
    keep = {}
    for group in graph.groups:
        kept = (rng.random(group.n_components) < 0.5) | group.fixed
        for tap in group.taps:
            if not kept[group.component[tap]].any():
                kept[group.component[tap][0]] = True
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    return keep


def row(name: str, size: int, seed: int) -> tuple[str, str]:
    """Return a model's verdict and its row of the table."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    module = timm.create_model(name).double().eval()
    randomise(module, generator)
    start = time.perf_counter()
    try:
        graph = ChannelGraph.trace(module, (3, size, size))
        traced = time.perf_counter()
        keep = random_keep_sets(graph, rng)
        pruned = graph.prune(keep)
    except SurgeryError as error:
        return "refused", f"| {name} | {size} | refused: {error} | | | | | |"
    done = time.perf_counter()
    images = torch.randn(1, 3, size, size, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        expected, found = graph.masked(keep)(images), pruned(images)
    error_found = ((expected - found).abs().max() / expected.abs().max()).item()
    filters = sum(tap.n_filters for tap in graph.taps)
    always = sum(int(group.fixed[group.component[tap]].sum()) for group in graph.groups for tap in group.taps)
    left = sum(p.numel() for p in pruned.parameters()) / sum(p.numel() for p in module.parameters())
    operations = ", ".join(f"{name} ×{times}" for name, times in Counter(f.operation for f in graph.frozen).items())
    right = error_found <= TOLERANCE and left < 1
    verdict = "WRONG" if not right else "part frozen" if graph.frozen else "exact"
    shown = f"{verdict}: {operations}" if operations else verdict
    return verdict, (
        f"| {name} | {size} | {shown} | {always / filters:.2f} | {error_found:.1e} | {left:.2f} | "
        f"{traced - start:.2f} | {done - traced:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=FAMILIES.split())
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | px | result | always kept | error | parameters left | trace s | prune s |")
    print("|---|---|---|---|---|---|---|---|")
    verdicts: Counter[str] = Counter()
    for name in given.models:
        verdict, line = row(name, max(given.size, NEEDS_MORE_PIXELS.get(name, 0)), given.seed)
        verdicts[verdict] += 1
        print(line, flush=True)
    print(", ".join(f"{times} {verdict}" for verdict, times in verdicts.items()))


if __name__ == "__main__":
    main()
