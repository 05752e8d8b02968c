"""Small networks for the tests of surgery, and the check that they are pruned exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from facetask.surgery import ChannelGraph
from facetask.surgery.trials import random_keep_sets, randomise


def images(shape: tuple[int, int, int], seed: int = 0, batch: int = 3) -> Tensor:
    """Return random images in float64, ``(batch, channels, height, width)``."""
    return torch.randn(batch, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def parameters(module: nn.Module) -> int:
    """Return how many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def assert_exact(
    module: nn.Module, shape: tuple[int, int, int], seed: int = 0, cut: str | None = None, may_be_whole: bool = False
) -> ChannelGraph:
    """Prune a randomised module at random, compare it with the masked one to 1e-10; return its channel graph."""
    graph = ChannelGraph.trace(randomise(module, seed), shape)
    if cut is not None:
        graph = graph.cut(cut)
    keep = random_keep_sets(graph, np.random.default_rng(seed))
    pruned, masked, resolved = graph.prune(keep), graph.masked(keep), graph.resolve(keep)
    with torch.no_grad():
        found, expected = pruned(images(shape)), masked(images(shape))
    if cut is not None:
        dropped = np.setdiff1d(np.arange(expected.shape[1]), resolved[cut])
        assert not expected[:, dropped].any()
        expected = expected[:, torch.from_numpy(resolved[cut])]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert may_be_whole or expected.std() > 0
    n_kept = sum(len(kept) for kept in resolved.values())
    assert may_be_whole or n_kept < sum(tap.n_filters for tap in graph.taps)
    assert may_be_whole or parameters(pruned) < parameters(graph.prune({}))
    return graph


def conv(c_in: int, c_out: int, size: int = 3, **options: int) -> nn.Conv2d:
    """Return a convolution that keeps the maps' size."""
    return nn.Conv2d(c_in, c_out, size, padding=size // 2, **options)


class Function(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def plain(c: int, n: int) -> nn.Module:
    return nn.Sequential(conv(c, n, bias=False), nn.BatchNorm2d(n), nn.ReLU(inplace=True))


def residual(c: int, n: int) -> nn.Module:
    """Conv, add, activation; with a projection where the widths differ."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        short = m.short(x) if c != n else x
        return F.relu(m.norm2(m.second(F.relu(m.norm1(m.first(x))))) + short)

    layers = {"short": conv(c, n, 1)} if c != n else {}
    return Function(
        forward, first=conv(c, n), norm1=nn.BatchNorm2d(n), second=conv(n, n), norm2=nn.BatchNorm2d(n), **layers
    )


def zero_padded(c: int, n: int) -> nn.Module:
    """A strided block whose pooled shortcut is padded with channels, rows and columns of zeros."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.second(F.relu(m.first(x)))
        x = F.avg_pool2d(x, 2)
        rows, columns = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
        channels = max(x.shape[1], y.shape[1])
        x = F.pad(x, (0, columns - x.shape[3], 0, rows - x.shape[2], 0, channels - x.shape[1]))
        y = F.pad(y, (0, columns - y.shape[3], 0, rows - y.shape[2], 0, channels - y.shape[1]))
        return F.relu(x + y)[:, :n] if n < c else F.relu(x + y)

    return Function(forward, first=nn.Conv2d(c, n, 3, stride=2), second=conv(n, n))


def fixed_pad(c: int, n: int) -> nn.Module:
    """A shortcut padded by a number written into the code, on both sides, and one joined with constants."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = F.relu(m.first(x))
        short = F.pad(y, (0, 0, 0, 0, 2, n - 2))
        zeros = torch.zeros(x.shape[0], n, x.shape[2], x.shape[3], dtype=x.dtype)
        return F.relu(m.second(y) + short + torch.cat([y, zeros], 1))

    return Function(forward, first=conv(c, n), second=conv(n, 2 * n), last=conv(n, n))


def maxout(kind: str) -> Callable[[int, int], nn.Module]:
    """Max-feature-map: the maximum of a convolution's two halves."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.filter(x)
        n = m.filter.out_channels // 2
        if kind == "split":
            first, second = torch.split(x, n, 1)
        elif kind == "chunk":
            first, second = x.chunk(2, dim=1)
        elif kind == "slice":
            first, second = x[:, :n], x[:, n:]
        elif kind == "narrow":
            first, second = x.narrow(1, 0, n), torch.narrow(x, dim=1, start=n, length=n)
        elif kind == "amax":
            return x.view(x.shape[0], 2, n, x.shape[2], x.shape[3]).amax(1)
        else:
            return x.view(-1, 2, n, x.shape[2], x.shape[3]).max(dim=1)[0]
        return torch.max(first, second)

    return lambda c, n: Function(forward, filter=conv(c, 2 * n))


def squeeze_excite(c: int, n: int) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.silu(m.norm(m.body(x)))
        gate = m.expand(F.relu(m.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate

    return Function(forward, body=conv(c, n), norm=nn.BatchNorm2d(n), squeeze=conv(n, 4, 1), expand=conv(4, n, 1))


def squeeze_excite_linear(c: int, n: int) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.body(x))
        b, width = x.shape[:2]
        gate = m.expand(F.relu(m.squeeze(F.adaptive_avg_pool2d(x, 1).view(b, width)))).sigmoid().view(b, width, 1, 1)
        return x * gate.expand_as(x)

    return Function(forward, body=conv(c, n), squeeze=nn.Linear(n, 4), expand=nn.Linear(4, n))


def depthwise(c: int, n: int) -> nn.Module:
    return nn.Sequential(conv(c, c, groups=c), nn.BatchNorm2d(c), nn.ReLU6(), conv(c, n, 1), nn.Hardswish())


def depthwise_wide(c: int, n: int) -> nn.Module:
    return nn.Sequential(conv(c, 2 * c, groups=c), nn.PReLU(2 * c), conv(2 * c, n, 1), nn.LeakyReLU())


def few_groups(c: int, n: int) -> nn.Module:
    return nn.Sequential(conv(c, 16), nn.ReLU(), conv(16, 8, groups=2), nn.BatchNorm2d(8), nn.ReLU(), conv(8, n))


def many_groups(c: int, n: int) -> nn.Module:
    return nn.Sequential(conv(c, 16), nn.ReLU(), conv(16, 24, groups=8), nn.BatchNorm2d(24), nn.ReLU(), conv(24, n))


def dense(c: int, n: int) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = torch.cat([x, m.first(F.relu(x))], 1)
        x = torch.cat([m.second(F.relu(m.norm(x))), x], dim=1)
        return m.last(x)

    return Function(forward, first=conv(c, 4), norm=nn.BatchNorm2d(c + 4), second=conv(c + 4, 4), last=conv(c + 8, n))


def preactivated(c: int, n: int) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.second(F.relu(m.norm2(m.first(F.relu(m.norm1(x))))))
        return x + m.third(F.relu(m.norm3(x)))

    norms = {f"norm{i}": nn.BatchNorm2d(n) for i in (1, 2, 3)}
    return Function(forward, stem=conv(c, n), first=conv(n, n), second=conv(n, n), third=conv(n, n), **norms)


def affine(kind: str) -> Callable[[int, int], nn.Module]:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.body(x)
        if kind == "addcmul":
            return F.relu(torch.addcmul(m.shift, x, m.scale))
        if kind == "view":
            return F.relu(x * m.scale.view(1, -1, 1, 1) + m.shift.view(1, m.shift.shape[1], 1, 1))
        return F.relu(x * m.scale + m.shift)

    return lambda c, n: Function(
        forward,
        body=conv(c, n, bias=False),
        scale=nn.Parameter(torch.ones(1, n, 1, 1)),
        shift=nn.Parameter(torch.zeros(1, n, 1, 1)),
    )


def split_paths(c: int, n: int) -> nn.Module:
    """Res2Net's hierarchical split, with sizes written into the code."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        a, b, rest = torch.split(F.relu(m.body(x)), [n, n, 2 * n], 1)
        b = F.relu(m.middle(a + b))
        return F.relu(m.last(torch.cat([a, b, rest], 1)))

    return Function(forward, body=conv(c, 4 * n), middle=conv(n, n), last=conv(4 * n, n))


def shuffled(c: int, n: int) -> nn.Module:
    """ShuffleNet's channel shuffle with sizes written into the code."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.body(x))
        b, _, h, w = x.size()
        x = x.view(b, 2, n, h, w).transpose(1, 2).contiguous().view(b, 2 * n, h, w)
        left, right = x[:, :n], x[:, n:]
        return m.last(torch.cat([left, F.relu(m.right(right))], 1))

    return Function(forward, body=conv(c, 2 * n), right=conv(n, n), last=conv(2 * n, n))


def norms(kind: str) -> Callable[[int, int], nn.Module]:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.body(x)
        if kind == "last":
            x = m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        elif kind == "functional":
            x = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), m.scale, m.shift).permute(0, 3, 1, 2)
        elif kind == "by hand":
            mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
            x = (x - mean) / torch.sqrt(var + 1e-6) * m.scale[:, None, None]
        elif kind == "length":
            x = F.normalize(x, dim=1)
        else:
            x = m.norm(x)
        return F.gelu(x)

    def build(c: int, n: int) -> nn.Module:
        norm = {
            "last": nn.LayerNorm(n),
            "group": nn.GroupNorm(2, n),
            "one group": nn.GroupNorm(1, n),
            "instance": nn.GroupNorm(n, n),
            "instance norm": nn.InstanceNorm2d(n, affine=True),
        }.get(kind, nn.Identity())
        scale, shift = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        return Function(forward, body=conv(c, n), norm=norm, scale=scale, shift=shift)

    return build


def used_twice(c: int, n: int) -> nn.Module:
    return Function(lambda m, x: F.relu(m.again(F.relu(m.again(F.relu(m.stem(x)))))), stem=conv(c, n), again=conv(n, n))


def tied(c: int, n: int) -> nn.Module:
    first, second = conv(n, n), conv(n, n)
    second.weight = first.weight
    return nn.Sequential(conv(c, n), nn.ReLU(), first, nn.ReLU(), second, nn.ReLU())


def in_place(c: int, n: int) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.first(x)
        x.relu_()
        y = m.second(x)
        y += x
        y.mul_(0.5)
        return F.relu_(y)

    return Function(forward, first=conv(c, n), second=conv(n, n))


class StandardisedConv(nn.Conv2d):
    """A convolution whose weight is standardised over its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class SameConv(nn.Conv2d):
    """A convolution that pads its input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


def computed_weight(c: int, n: int) -> nn.Module:
    return nn.Sequential(
        StandardisedConv(c, n, 3, padding=1), nn.ReLU(), weight_norm(conv(n, n)), nn.ReLU(), SameConv(n, n, 3)
    )


def written_sizes(c: int, n: int) -> nn.Module:
    """Numbers of channels written into views, expansions and slices, and used as factors."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.body(x))
        x = x.reshape(x.shape[0], n, -1).view(-1, n, *x.shape[2:]) / x.shape[1]
        ones = x.new_ones(1, n, 1, 1) * x.mean((0, 2, 3), keepdim=True).expand(1, n, 1, 1)
        return m.last((x * ones)[:, 1 : n - 1])

    return Function(forward, body=conv(c, n), last=conv(n - 2, n))


def mixed_sizes(c: int, n: int) -> nn.Module:
    """Views whose sizes are computed from images and channels together, and crops computed from sizes."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.body(x))
        b, width, rows, columns = x.shape
        x = x.reshape(b * width, rows // 2, 2, columns).flip(2).reshape(b, width, rows, columns)
        return m.last(x[:, :, : rows // 2 * 2].unflatten(1, (width // 2, 2)).flatten(1, 2))

    return Function(forward, body=conv(c, n), last=conv(n, n))


def indexed(c: int, n: int) -> nn.Module:
    """A table of numbers read at positions that a buffer holds, in full precision, as attention does."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.body(x))
        with torch.autocast(x.device.type, enabled=False):
            scale = m.table[:, m.places].mean()
        return m.last(x * scale)

    network = Function(forward, body=conv(c, n), last=conv(n, n), table=nn.Parameter(torch.ones(2, 5)))
    network.register_buffer("places", torch.tensor([0, 3, 1]))
    return network


def rearranged(c: int, n: int) -> nn.Module:
    """Pixel shuffle there and back, flips, stacking and interpolation."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(m.down(F.relu(m.up(x))), 2)
        x = torch.stack([x, x.flip(1)], 0).sum(0)
        return F.avg_pool2d(F.interpolate(m.last(x), scale_factor=2), 2)

    return Function(forward, up=conv(c, 4 * n), down=nn.PixelShuffle(2), last=conv(4 * n, n))


def transposed(c: int, n: int) -> nn.Module:
    return nn.Sequential(
        conv(c, n), nn.ReLU(), nn.ConvTranspose2d(n, n, 2, stride=2), nn.BatchNorm2d(n), nn.ReLU(), nn.AvgPool2d(2)
    )


BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": plain,
    "residual": residual,
    "zero-padded": zero_padded,
    **{f"max-feature-map by {kind}": maxout(kind) for kind in ("split", "chunk", "slice", "narrow", "amax", "max")},
    "squeeze-excite": squeeze_excite,
    "squeeze-excite by linear layers": squeeze_excite_linear,
    "depthwise": depthwise,
    "depthwise, two filters a channel": depthwise_wide,
    "few groups": few_groups,
    "many groups": many_groups,
    "dense": dense,
    "pre-activated": preactivated,
    **{f"affine by {kind}": affine(kind) for kind in ("mul and add", "addcmul", "view")},
    "split paths": split_paths,
    "shuffled": shuffled,
    **{
        f"norm: {kind}": norms(kind)
        for kind in ("last", "group", "one group", "instance", "instance norm", "functional", "by hand", "length")
    },
    "used twice": used_twice,
    "tied": tied,
    "in place": in_place,
    "computed weight": computed_weight,
    "written sizes": written_sizes,
    "sizes of images and channels": mixed_sizes,
    "indexed by a tensor": indexed,
    "rearranged": rearranged,
    "transposed": transposed,
}


class Network(nn.Module):
    """Blocks in a row between a stem and a head."""

    def __init__(self, blocks: list[tuple[str, int]], head: str = "pool", size: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU())
        widths = [8, *(width for _, width in blocks)]
        self.blocks = nn.ModuleList(BLOCKS[name](c, n) for (name, n), c in zip(blocks, widths[:-1], strict=True))
        self.head_kind = head
        for name, _ in blocks:
            size = size // 2 if name == "zero-padded" else size
        features = widths[-1] * (size * size if head == "flatten" else 1)
        self.head = nn.Sequential(nn.Linear(features, 12), nn.ReLU(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = torch.flatten(x, 1) if self.head_kind == "flatten" else x.mean((2, 3))
        return self.head(x)
