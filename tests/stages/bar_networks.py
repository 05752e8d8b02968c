"""A small network that finds bars in images, and trainings that are interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from facetask import FaceData, Preprocessing
from facetask.data.images import scan_images
from facetask.data.loader import ImageLoader
from facetask.networks.task_network import TaskNetwork
from facetask.progress import Silent
from facetask.training.training_file import TrainingFile

SIDE = 12


class Backbone(nn.Sequential):
    """A convolution that sees the whole image, batch norm, ReLU; keeps what it is trained on."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(nn.Conv2d(3, 8, SIDE), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout), nn.Flatten())
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            self.seen.append(x.detach().clone())
        return super().forward(x)


def task_network(n_outputs: int = 1, seed: int = 0, **options: float) -> TaskNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TaskNetwork(Backbone(**options), [(slice(0, 8), n_outputs)])
        network.backbone[1].running_mean.uniform_(-0.1, 0.1)
        network.backbone[1].running_var.uniform_(0.5, 1.5)
    return network.eval()


def loader_of(folder: Path, pixels: np.ndarray, *, raw: bool = False) -> ImageLoader:
    """Save images ``(n, height, width, 3)`` and return how they reach a network, raw or in about −1 … 1."""
    paths = tuple(folder / f"{i:03d}.png" for i in range(len(pixels)))
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    mean, std = (0.0, 1.0) if raw else (127.5, 127.5)
    spec = Preprocessing(size=pixels.shape[1:3], colour="rgb", mean=(mean,) * 3, std=(std,) * 3)
    return ImageLoader(scan_images(FaceData(paths=paths, columns={}), 0.0), spec, "cpu", 64, 0)


def bars(position: np.ndarray) -> np.ndarray:
    """Images with a bright bar, from the left edge (−1) to the right edge (1)."""
    columns = np.linspace(-1, 1, SIDE)
    grey = 255 * np.exp(-((columns - position[:, None]) ** 2) / 0.1)
    return np.broadcast_to(grey[:, None, :, None], (len(position), SIDE, SIDE, 3)).astype(np.uint8)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


class Bars(Silent):
    """Counts what each bar shows as done."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        self.done[what] = 0

        def advance(done: int) -> None:
            self.done[what] += done
            assert self.done[what] <= total

        yield advance


class Interrupted(TrainingFile):
    """A file whose training is interrupted once it is saved for the so-manieth time."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, {"seed": 1})
        self._left = after

    def save(self, state: Any) -> None:
        super().save(state)
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt
