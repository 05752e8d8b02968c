"""Any network given as an ONNX file.

The operators become torch modules: by onnx2pytorch, and by a table of our own for those that surgery must see through.
What an ONNX file does not tell, unless ``facetask export`` wrote it, is the preprocessing: colours, mean and standard
deviation are therefore params without defaults.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from onnx import ModelProto, TensorProto
from pydantic import Field, model_validator
from torch import fx

from facetask import Architecture, ConfigPath, FacetaskError, Params, Preprocessing, Weights, WeightsError, hookimpl
from facetask.plugins.architectures.onnx_conversion import convert, try_out
from facetask.plugins.architectures.onnx_folding import FLOATS, fold, opset
from facetask.plugins.architectures.onnx_operators import emitter_of, unknown_operators
from facetask.plugins.architectures.onnx_reading import check, metadata, pack, read_model, reduced, unpack

_PREPROCESSING, _LICENCE = "facetask.preprocessing", "facetask.weights_licence"  # keys of facetask export's metadata
_FIELDS = ("size", "colour", "mean", "std", "resize", "interpolation", "keep_aspect", "crop")


class OnnxParams(Params):
    """Settings of a network from an ONNX file.

    What a file of ``facetask export`` says about its preprocessing need not be given; what is given counts.

    Attributes:
        file: The ONNX file; its external data must lie in the same folder or below.
        structure: The network without its weights, in place of the file; saved models have it.
        output: The value that the network ends at, where its end cannot be converted; by default all outputs.
        size: Height and width of the input, needed where the file leaves them open.
        colour: Order of the colours, or ``grey`` for one channel.
        mean: Subtracted from each channel, in pixel values 0-255.
        std: Divides each channel, in pixel values 0-255.
        resize: Height and width before a centre crop to ``size``; by default no crop.
        interpolation: How the image is resized.
        keep_aspect: Whether an image that is not square keeps its shape when it is resized.
        crop: Share of its width and height that an image loses on each side before all else.
    """

    file: ConfigPath | None = None
    structure: str | None = None
    output: str | None = None
    size: tuple[int, int] | None = None
    colour: Literal["rgb", "bgr", "grey"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[int, int] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    keep_aspect: bool | None = None
    crop: float | None = Field(default=None, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        """A network comes from a file or from a structure."""
        if (self.file is None) == (self.structure is None):
            raise ValueError("give the ONNX file as 'file'")
        for name in ("size", "resize"):
            if any(side < 1 for side in getattr(self, name) or ()):
                raise ValueError(f"{name} must be a height and a width of at least one pixel")
        if self.std is not None and 0 in self.std:
            raise ValueError("std must not be zero")
        return self

    @property
    def source(self) -> str:
        """Where the network comes from, for messages."""
        return "structure" if self.file is None else str(self.file)


def _model(params: OnnxParams) -> tuple[ModelProto, dict[str, str]]:
    """Return the reduced model and what the file says about itself."""
    if params.structure is not None:
        return unpack(params.structure), {}
    assert params.file is not None
    model = read_model(params.file)
    return reduced(model, params.source, params.output), metadata(model)


def build(params: OnnxParams) -> fx.GraphModule:
    """Return the network; from a file with its weights, from a structure with zeros.

    Raises:
        WeightsError: If the file cannot be read or converted, or if its preprocessing is not known.
    """
    model, said = _model(params)
    source = params.source
    unknown = unknown_operators(model.graph.node, opset(model))
    if unknown:
        raise WeightsError(f"{source}: {len(unknown)} operators cannot be converted: {', '.join(unknown)}")
    if params.file is not None:
        check(model, source)
    channels, height, width = _preprocessing(params, model, said).input_shape
    last = _has_channels_last(model)
    folded = fold(model, (height, width, channels) if last else (channels, height, width), source)
    network = convert(folded, emitter_of, source, channels_last=last)
    if params.file is not None:
        try_out(network, (channels, height, width), folded, source)
    return network


def weights(params: OnnxParams) -> Weights:
    """Return the file's weights, under the names that the network has for them.

    Raises:
        WeightsError: As :func:`build`; or if there is no file.
    """
    if params.file is None:
        raise WeightsError("architecture 'onnx': these params hold a structure only; weights need the ONNX file")
    said = metadata(read_model(params.file))
    return Weights(
        state=build(params).state_dict(), licence=said.get(_LICENCE) or "not stated", source=params.file.name
    )


def preprocessing(params: OnnxParams) -> Preprocessing:
    """Return what the params, and the file's metadata where they are ours, say about the input.

    Raises:
        WeightsError: If something is not said, or does not fit the network's input.
    """
    return _preprocessing(params, *_model(params))


def portable(params: OnnxParams) -> OnnxParams:
    """Return params with the network's structure in place of its file, and all of its preprocessing."""
    model, said = _model(params)
    fields: dict[str, Any] = {name: getattr(_preprocessing(params, model, said), name) for name in _FIELDS}
    return OnnxParams(structure=pack(model), **fields)


def _preprocessing(params: OnnxParams, model: ModelProto, said: dict[str, str]) -> Preprocessing:
    """Return the preprocessing by the params, then by the metadata, then by the input's own size."""
    fields: dict[str, Any] = {}
    if _PREPROCESSING in said:
        try:
            fields = Preprocessing.from_json(json.loads(said[_PREPROCESSING])).to_json()
        except (ValueError, AttributeError, FacetaskError) as error:
            raise WeightsError(f"{params.source}: its metadata {_PREPROCESSING!r} cannot be read ({error})") from None
    given = {name: getattr(params, name) for name in _FIELDS}
    fields |= {name: value for name, value in given.items() if value is not None}
    channels, *sides = _input_sizes(model, params.source)
    if "size" not in fields and all(sides):
        fields["size"] = tuple(sides)
    needed = {"colour": "rgb, bgr or grey", "mean": "for each channel, in 0-255", "std": "for each channel, in 0-255"}
    needed["size"] = "height and width, which the file leaves open"
    absent = [f"{name} ({what})" for name, what in needed.items() if name not in fields]
    if absent:
        raise WeightsError(
            f"{params.source}: an ONNX file does not tell its preprocessing, and a wrong one gives wrong numbers; "
            f"give in the params: {', '.join(absent)}"
        )
    found = Preprocessing(**fields)
    for side, fixed in zip(found.size, sides, strict=True):
        if fixed and side != fixed:
            raise WeightsError(f"{params.source}: size is {found.size}, but the file's input is {sides[0]}×{sides[1]}")
    expected = found.input_shape[0]
    if channels and channels != expected:
        raise WeightsError(f"{params.source}: colour is {found.colour!r}, but the file's input has {channels} channels")
    for name in ("mean", "std"):
        count = len(getattr(found, name))
        if count != expected:
            raise WeightsError(
                f"{params.source}: {name} has {count} values for {expected} channels of {found.colour!r}"
            )
    return found


def _has_channels_last(model: ModelProto) -> bool:
    """Whether the input is (batch, height, width, channels), as TensorFlow has it."""
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return len(sizes) == 4 and sizes[1] not in (1, 3) and sizes[3] in (1, 3)


def _input_sizes(model: ModelProto, source: str) -> tuple[int, int, int]:
    """Return channels, height and width of the input; zero for what the file leaves open."""
    image = model.graph.input[0]
    sizes = [max(dim.dim_value, 0) for dim in image.type.tensor_type.shape.dim]
    if len(sizes) != 4 or image.type.tensor_type.elem_type not in FLOATS:
        raise WeightsError(
            f"{source}: the input {image.name!r} must be images (batch, channels, height, width) of floating-point "
            f"numbers, found {len(sizes)} dimensions of {TensorProto.DataType.Name(image.type.tensor_type.elem_type)}"
        )
    channels, height, width = (sizes[3], *sizes[1:3]) if _has_channels_last(model) else sizes[1:]
    if channels not in (0, 1, 3):
        raise WeightsError(f"{source}: the input has {channels} channels; images have 3 or, in grey, 1")
    return channels, height, width


@hookimpl
def facetask_architectures() -> list[Architecture]:
    """Return the architecture that an ONNX file defines."""
    return [
        Architecture(
            name="onnx",
            build=build,
            weights=weights,
            preprocessing=preprocessing,
            params=OnnxParams,
            portable=portable,
        )
    ]
