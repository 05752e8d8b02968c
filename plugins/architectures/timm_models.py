"""Any convolutional network of timm, by name: published weights, or a checkpoint of your own.

Weights come from timm, where there is a network, or from a file with timm's key names: what ``model.state_dict()`` of a
timm model gives, or the ``model.safetensors`` of a timm repository on the Hugging Face Hub.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import timm
from pydantic import Field, field_validator, model_validator
from timm.data import resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from facetask import (
    Architecture,
    ConfigPath,
    Params,
    Preprocessing,
    Weights,
    WeightsError,
    did_you_mean,
    hookimpl,
    read_state_dict,
)


class DataConfig(Params):
    """What a checkpoint of your own was trained with; what is left out is as in timm's data config of the model.

    Attributes:
        input_size: Channels (3, or 1 for grey), height and width.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        interpolation: How images are resized.
        crop_pct: Share of the resized image that the centre crop keeps.
        crop_mode: ``center``: the smaller side is resized; ``squash``: both are.
    """

    input_size: tuple[Literal[1, 3], int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    crop_mode: Literal["center", "squash"] | None = None

    @model_validator(mode="after")
    def _fits_the_channels(self) -> Self:
        """Ask for one mean and one deviation a channel."""
        channels = self.input_size[0] if self.input_size else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if (values is None and channels == 1) or (values is not None and len(values) != channels):
                raise ValueError(f"{channels} channels need {name} with {channels} numbers, found {values}")
        return self


class TimmParams(Params):
    """Which model, and where its weights come from.

    Attributes:
        model: The model's name, with or without the tag of published weights: ``resnet18.a1_in1k``.
        pretrained: Whether to fetch the published weights through timm, which keeps them in a cache of its own.
        checkpoint: A file of weights instead.
        num_classes: How many classes the checkpoint's classifier has, 0 if there is none; by default as published.
        data_config: What the checkpoint was trained with, where that differs from timm's data config.
    """

    model: str
    pretrained: bool = False
    checkpoint: ConfigPath | None = None
    num_classes: int | None = Field(default=None, ge=0)
    data_config: DataConfig = DataConfig()

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        """Refuse what timm has no model of."""
        if not set("/:\\").isdisjoint(model):
            raise ValueError(
                f"expected the name of one of timm's models, found {model!r}; download the weights and give "
                "checkpoint: FILE beside the model's name"
            )
        name, _, tag = model.partition(".")
        if not timm.is_model(name):
            raise ValueError(f"timm {timm.__version__} has no model {name!r}{did_you_mean(name, timm.list_models())}")
        tags = _tags(name)
        if tag and tag not in tags:
            raise ValueError(f"timm's model {name!r} has no weights {tag!r}{did_you_mean(tag, tags)}")
        return model

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        """Refuse two sources of weights, and a checkpoint's settings for published ones."""
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained: true and checkpoint are two sources of weights; give one")
        if self.pretrained and (self.num_classes is not None or self.data_config != DataConfig()):
            raise ValueError("num_classes and data_config are a checkpoint's; the published weights have their own")
        return self


def _tags(name: str) -> list[str]:
    """The tags of a model's published weights."""
    return [found.partition(".")[2] for found in timm.list_pretrained(f"{name}.*")]


def _published(params: TimmParams) -> PretrainedCfg:
    """What timm knows of the model's published weights, or its defaults where there are none."""
    return get_pretrained_cfg(params.model) or PretrainedCfg()


def build(params: TimmParams) -> nn.Module:
    """Return the model with random weights."""
    wanted: dict[str, Any] = {"num_classes": params.num_classes}
    if params.data_config.input_size is not None:
        channels, *size = params.data_config.input_size
        wanted["in_chans"] = channels
        if _published(params).fixed_input_size:
            wanted["img_size"] = tuple(size)
    return timm.create_model(params.model, **wanted)  # type: ignore[no-any-return]


def weights(params: TimmParams) -> Weights:
    """Return the published weights, or those of the checkpoint.

    Raises:
        WeightsError: If neither is asked for, or they cannot be had or read, or the classifier is of another size.
    """
    if params.checkpoint is not None:
        state = read_state_dict(params.checkpoint)
        _check_classifier(params, state)
        return Weights(state=state, licence="not stated", source=params.checkpoint.name)
    ways = (
        "checkpoint: FILE, with timm's key names (model.state_dict(), or a model.safetensors of timm on the Hugging "
        "Face Hub)"
    )
    if not params.pretrained:
        raise WeightsError(
            f"timm's model {params.model!r} would have random weights; set pretrained: true to fetch the published "
            f"ones, or {ways}"
        )
    published = _published(params)
    if not published.has_weights:
        raise WeightsError(f"timm {timm.__version__} has no published weights for {params.model!r}; give {ways}")
    try:
        module = timm.create_model(params.model, pretrained=True)
    except Exception as error:  # without a network, each of timm's ways to fetch a file fails in its own way
        reason = (str(error) or "no message").strip().splitlines()[0]
        place = f"https://huggingface.co/{published.hf_hub_id}" if published.hf_hub_id else published.url
        raise WeightsError(
            f"the weights of {params.model!r} cannot be fetched from {place} ({type(error).__name__}: {reason}); try "
            f"again with a network, or fetch them elsewhere and give {ways}"
        ) from None
    licence = published.license if published.license not in (None, "unknown") else "not stated"
    tag = f"{published.architecture}.{published.tag}" if published.tag else params.model
    return Weights(state=module.state_dict(), licence=licence, source=f"timm {timm.__version__}: {tag}")


def _check_classifier(params: TimmParams, state: dict[str, Tensor]) -> None:
    """Refuse a checkpoint whose classifier has another number of classes, saying what to set.

    Raises:
        WeightsError: If it has.
    """
    published = _published(params)
    expected = published.num_classes if params.num_classes is None else params.num_classes
    names = [published.classifier] if isinstance(published.classifier, str) else published.classifier or ()
    for name in names:
        classifier = state.get(f"{name}.weight")
        found = len(classifier) if classifier is not None else 0
        if found != expected:
            has = f"its classifier {name!r} has {found} classes" if found else f"it has no classifier {name!r}"
            raise WeightsError(
                f"{params.checkpoint}: {has}, but {params.model!r} is to have {expected}; set num_classes: {found}"
            )


def preprocessing(params: TimmParams) -> Preprocessing:
    """Return timm's own evaluation transform of the model.

    An image that is not square loses what its crop mode ``border`` would pad: it is cropped as by ``center``.
    """
    overrides = params.data_config.model_dump(exclude_none=True)
    config = resolve_data_config(overrides, pretrained_cfg=_published(params).to_dict())
    channels, height, width = config["input_size"]
    return Preprocessing(
        size=(height, width),
        colour="grey" if channels == 1 else "rgb",
        mean=tuple(255 * mean for mean in config["mean"]),
        std=tuple(255 * std for std in config["std"]),
        resize=(math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"])),
        interpolation=config["interpolation"],
        keep_aspect=config["crop_mode"] != "squash",
    )


@hookimpl
def facetask_architectures() -> list[Architecture]:
    """Return the models of timm."""
    return [
        Architecture(
            name="timm",
            build=build,
            weights=weights,
            preprocessing=preprocessing,
            params=TimmParams,
            portable=lambda params: params.model_copy(update={"pretrained": False, "checkpoint": None}),
        )
    ]
