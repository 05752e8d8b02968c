"""Somebody's network, written without a thought of facetask: a small CNN of depthwise-separable residual blocks."""

from torch import Tensor, nn
from torch.nn import functional as F


class SeparableBlock(nn.Module):
    """A depthwise and a pointwise convolution, with a shortcut where the sizes allow it."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activation."""
        out = self.norm2(self.pointwise(F.relu(self.norm1(self.depthwise(x)))))
        return F.relu(out + x if self.residual else out)


class SeparableNet(nn.Module):
    """Class scores, ``(batch, classes)``, for RGB images of 64×64."""

    def __init__(self, classes: int = 2, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            SeparableBlock(width, width, 1),
            SeparableBlock(width, 2 * width, 2),
            SeparableBlock(2 * width, 2 * width, 1),
            SeparableBlock(2 * width, 4 * width, 2),
            SeparableBlock(4 * width, 4 * width, 1),
        )
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
