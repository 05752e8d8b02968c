"""A base network: two convolutions, with the weights of a checkpoint or random ones."""

import torch
from pydantic import Field
from torch import nn

from facetask import Architecture, ConfigPath, Params, Preprocessing, Weights, hookimpl, read_state_dict


class TwoConvsParams(Params):
    """The network's size and weights.

    Attributes:
        width: Filters of the first convolution; the second has twice as many.
        checkpoint: A state dict, .safetensors or what ``torch.save`` wrote; by default the weights are random.
    """

    width: int = Field(default=16, ge=1)
    checkpoint: ConfigPath | None = None


class TwoConvs(nn.Sequential):
    """Features of RGB images, ``(batch, 2 * width, 15, 15)``."""

    def __init__(self, width: int) -> None:
        first, second = nn.Conv2d(3, width, 3, stride=2), nn.Conv2d(width, 2 * width, 3, stride=2)
        super().__init__(first, nn.ReLU(), second, nn.ReLU())


def weights(params: TwoConvsParams) -> Weights:
    """Return the checkpoint's weights, or the same random ones each time."""
    if params.checkpoint is not None:
        return Weights(state=read_state_dict(params.checkpoint), licence="not stated", source=params.checkpoint.name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Weights(state=TwoConvs(params.width).state_dict(), licence="CC0-1.0", source="random numbers")


def preprocessing(params: TwoConvsParams) -> Preprocessing:
    """Return what the network expects of an image: RGB, 64×64, in [−1, 1]."""
    return Preprocessing(size=(64, 64), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)


@hookimpl
def facetask_architectures() -> list[Architecture]:
    """Return the architecture."""
    return [
        Architecture(
            name="$name",
            build=lambda params: TwoConvs(params.width),
            weights=weights,
            preprocessing=preprocessing,
            params=TwoConvsParams,
            portable=lambda params: params.model_copy(update={"checkpoint": None}),
        )
    ]
