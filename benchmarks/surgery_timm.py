"""Prune one network of each timm family at random and compare it with the masked original, in float64.

    python benchmarks/surgery_timm.py [MODEL ...] [--more] [--rival] [--size 64] [--seed 0]

Needs no data and no pretrained weights. A row says whether the pruned network equals the masked one (1e-10
relative), the share of the taps' filters that must always be kept, the error, the share of parameters left, and the
seconds that tracing and pruning took. ``part frozen`` names the operations that the engine did not know; ``refused``
is an error that says why; ``WRONG`` must never appear.

``--more`` takes families beyond the usual list. ``--rival`` sets Torch-Pruning's own pruner beside it: half of every
group at random, the classifier's outputs left alone; its network is compared with the original that reads nothing from
what it dropped.
"""

from __future__ import annotations

import argparse
import copy
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import timm
import torch
from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from facetask.errors import SurgeryError
from facetask.surgery import ChannelGraph
from facetask.surgery.trials import marked, random_keep_sets, randomise, restored

FAMILIES = """
resnet18 resnext50_32x4d res2net50_26w_4s resnest14d ecaresnet26t seresnext26t_32x4d regnetx_002 regnety_002
regnetz_b16 densenet121 dpn68 dla34 vgg11 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small_050
efficientnet_b0 efficientnetv2_rw_t mnasnet_small fbnetc_100 tinynet_e ghostnet_050 hardcorenas_a rexnet_100
hgnetv2_b0 cspresnet50 convnext_atto convnextv2_atto convmixer_768_32 inception_v3 inception_v4 xception41
hrnet_w18_small selecsls42 vovnet39a tresnet_m nf_regnet_b0 repvgg_a0 mobileone_s0 repvit_m1 edgenext_xx_small
mambaout_femto starnet_s1 lcnet_050 gernet_s resnetv2_50
"""
MORE = """
skresnet18 legacy_seresnet18 legacy_xception nfnet_l0 dm_nfnet_f0 efficientvit_b0 efficientvit_m0 fastvit_t8
mobilevit_xxs mobilevitv2_050 poolformer_s12 focalnet_tiny_srf rdnet_tiny hgnet_tiny cspdarknet53 ese_vovnet19b_dw
gcresnext26ts convnext_zepto_rms ghostnetv2_100 ghostnetv3_050 mixnet_s tf_efficientnet_lite0 semnasnet_050
spnasnet_100 visformer_tiny inception_resnet_v2 inception_next_atto shvit_s1 pnasnet5large repghostnet_050
fasternet_t0 mobilenetv1_100 cs3darknet_focus_s botnet26t_256 csatv2 levit_128s nextvit_small
"""
NEEDS_MORE_PIXELS = {
    **dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2", "pnasnet5large"), 96),
    **dict.fromkeys(("efficientvit_m0", "visformer_tiny", "levit_128s"), 224),
    "botnet26t_256": 256,
}
NORMS = (nn.LayerNorm, nn.GroupNorm, GlobalResponseNorm, RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d)
TOLERANCE = 1e-10
PATIENCE = 120  # seconds for one network


def ours(module: nn.Module, size: int, seed: int, images: Tensor) -> tuple[str, str, float]:
    """Return the verdict on our surgery, the cells of the table, and the seconds it took."""
    start = time.perf_counter()
    try:
        graph = ChannelGraph.trace(module, (3, size, size))
        traced = time.perf_counter()
        keep = random_keep_sets(graph, np.random.default_rng(seed))
        pruned = graph.prune(keep)
    except SurgeryError as error:
        return "refused", f"refused: {error} | | | | | |", time.perf_counter() - start
    done = time.perf_counter()
    with torch.no_grad():
        error_found = relative_error(graph.masked(keep)(images), pruned(images))
    filters = sum(tap.n_filters for tap in graph.taps)
    always = sum(int(group.fixed[group.component[tap]].sum()) for group in graph.groups for tap in group.taps)
    left = share_left(pruned, module)
    right = error_found <= TOLERANCE and (left < 1 or always == filters)
    verdict = "WRONG" if not right else "part frozen" if graph.frozen else "exact"
    operations = ", ".join(f"{name} ×{times}" for name, times in Counter(f.operation for f in graph.frozen).items())
    cells = (
        f"{verdict}{': ' if operations else ''}{operations} | {always / filters:.2f} | {error_found:.1e} | "
        f"{left:.2f} | {traced - start:.2f} | {done - traced:.2f} |"
    )
    return verdict, cells, done - start


def theirs(module: nn.Module, size: int, seed: int, images: Tensor) -> tuple[str, str, float]:
    """Return the verdict on Torch-Pruning's surgery, the cells of the table, and the seconds it took."""
    import torch_pruning as tp

    smaller = marked(module)
    classifier = smaller.get_classifier()
    torch.manual_seed(seed)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), at_most(PATIENCE):
            warnings.simplefilter("ignore")
            example = torch.zeros(1, 3, size, size, dtype=torch.float64)
            importance = tp.importance.RandomImportance()
            tp.BasePruner(smaller, example, importance, pruning_ratio=0.5, ignored_layers=[classifier]).step()
    except TimeoutError:
        return "gave up", f"gave up after {PATIENCE} s | | |", float("nan")
    except Exception as error:  # whatever it meets
        return "refused", f"refused: {one_line(error)} | | |", float("nan")
    seconds = time.perf_counter() - start
    left = share_left(smaller, module)
    if left == 1:
        return "nothing pruned", "nothing pruned | | 1.00 |", float("nan")
    pruned = restored(smaller, module)
    try:
        with torch.no_grad():
            found = pruned(images)
    except Exception as error:
        return "does not run", f"does not run: {one_line(error)} | | {left:.2f} |", float("nan")
    with torch.no_grad():
        error_found = relative_error(reading_nothing_dropped(module, smaller, pruned)(images), found)
    verdict = "exact" if error_found <= TOLERANCE else "WRONG"
    return verdict, f"{verdict} | {error_found:.1e} | {left:.2f} |", seconds


def reading_nothing_dropped(original: nn.Module, places: nn.Module, pruned: nn.Module) -> nn.Module:
    """Return a copy of a network whose layers read zero where a pruned one, ``places`` in its tensors, has no channel.

    Norms over channels are computed by the pruned network's own, over the channels that it kept.
    """
    masked, left, smaller = copy.deepcopy(original), dict(places.named_modules()), dict(pruned.named_modules())
    for name, module in masked.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            columns, groups = weight.shape[1], getattr(module, "groups", 1)
            if columns == 1 and groups > 1:
                continue
            per_column = weight[0, 0].numel()
            kept = left[name].weight[0].reshape(left[name].weight.shape[1], -1)[:, 0].long()
            mask = torch.zeros(groups, columns, dtype=weight.dtype)
            mask[:, kept // per_column % columns] = 1
            shape = [-1] if isinstance(module, nn.Linear) else [-1, *[1] * (weight.dim() - 2)]
            mask = mask.view(shape)
            module.register_forward_pre_hook(lambda _, inputs, mask=mask: inputs[0] * mask)
        elif isinstance(module, NORMS) and weight is not None:
            kept = left[name].weight.long()
            first = isinstance(module, nn.GroupNorm) or type(module).__name__.endswith("2d")
            dim = getattr(module, "channel_dim", 1 if first else -1)
            module.register_forward_hook(
                lambda _, inputs, result, kept=kept, norm=smaller[name], dim=dim: torch.zeros_like(result).index_copy_(
                    dim, kept, norm(inputs[0].index_select(dim, kept))
                )
            )
    return masked


def relative_error(expected: Tensor, found: Tensor) -> float:
    """Return the greatest difference relative to the greatest value."""
    return float((expected - found).abs().max() / expected.abs().max())


def share_left(pruned: nn.Module, original: nn.Module) -> float:
    """Return the share of parameters that is left."""
    return sum(p.numel() for p in pruned.parameters()) / sum(p.numel() for p in original.parameters())


def one_line(error: Exception) -> str:
    """Return an error's first words, fit for a table."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + text[0][:60].replace('|', '/') if text else ''}"


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise a timeout where something takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--more", action="store_true", help="the families beyond the usual list")
    parser.add_argument("--rival", action="store_true", help="set Torch-Pruning beside it")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    header = "| model | px | result | always kept | error | parameters left | trace s | prune s |"
    if given.rival:
        header += " Torch-Pruning | error | parameters left | s | time, ours / theirs |"
    print(header, "|---" * (header.count("|") - 1) + "|", sep="\n")
    verdicts: dict[str, Counter[str]] = {"ours": Counter(), "Torch-Pruning": Counter()}
    for name in given.models or (MORE if given.more else FAMILIES).split():
        size = max(given.size, NEEDS_MORE_PIXELS.get(name, 0))
        module = randomise(timm.create_model(name), given.seed)
        images = torch.randn(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(given.seed))
        verdict, cells, seconds = ours(module, size, given.seed, images)
        verdicts["ours"][verdict] += 1
        line = f"| {name} | {size} | {cells}"
        if given.rival:
            verdict, cells, their_seconds = theirs(module, size, given.seed, images)
            verdicts["Torch-Pruning"][verdict] += 1
            line += f" {cells} {their_seconds:.2f} | {seconds / their_seconds:.2f} |".replace("nan", "")
        print(line, flush=True)
    for engine, counts in verdicts.items():
        if counts:
            print(f"{engine}: " + ", ".join(f"{times} {verdict}" for verdict, times in counts.items()))


if __name__ == "__main__":
    main()
