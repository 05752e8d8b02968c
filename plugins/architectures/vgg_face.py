"""VGG-Face: VGG-16 trained to tell 2,622 people apart, 224×224; read from any of its published weights files.

The files hold the same network, but each publisher feeds it in another way, so a file's layout also decides the order
of colours and the means. The publishers of VGG_FACE.t7 subtract the means of R, G and B from B, G and R, in that order;
PyVGGFace, whose weights are converted from that file, does the same.

Source: O. M. Parkhi, A. Vedaldi and A. Zisserman, "Deep Face Recognition" (BMVC 2015), and the publishers' own loaders.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from facetask import Architecture, ConfigPath, Params, Preprocessing, Weights, WeightsError, hookimpl
from facetask.plugins.architectures.mean_face import chip
from facetask.plugins.architectures.vgg16 import INPUT_SIZE, layer_shapes, uninitialised
from facetask.plugins.architectures.vgg_layouts.layouts import LayoutName, detect, read_state

_N_PEOPLE = 2622
_LICENCE = "CC-BY-NC-4.0"
_SIZE = (INPUT_SIZE, INPUT_SIZE)
# The publishers enlarge a detector's box by a tenth and do not say where eyes come to lie: this framing, looser than
# dlib's chips, is such a box as general knowledge has it.
_FACE = chip(INPUT_SIZE, 0.4)


def _input(colour: Literal["rgb", "bgr"], mean: tuple[float, float, float], std: float = 1.0) -> Preprocessing:
    """Return the preprocessing by what differs between the files."""
    return Preprocessing(size=_SIZE, colour=colour, mean=mean, std=(std,) * 3, face=_FACE)


_CAFFE = _input("bgr", (93.5940, 104.7624, 129.1863))
_TORCH7 = _input("bgr", (129.1863, 104.7624, 93.5940))
_PREPROCESSING: dict[LayoutName, Preprocessing] = {
    "dag": _input("rgb", (129.186279, 104.762382, 93.593964)),
    "pyvggface": _TORCH7,
    "torch7": _TORCH7,
    "caffe": _CAFFE,
    "keras": _CAFFE,
    "keras-notop": _CAFFE,
    "deepface": _input("bgr", (0.0, 0.0, 0.0), 255.0),
}
_SOURCES = """\
VGG_FACE.caffemodel, VGG_FACE.t7 (Visual Geometry Group, https://www.robots.ox.ac.uk/~vgg/software/vgg_face/); \
vgg_face_dag.pth (S. Albanie, https://www.robots.ox.ac.uk/~albanie/pytorch-models.html); \
vggface.pth (PyVGGFace, https://github.com/chi0tzp/PyVGGFace, converts VGG_FACE.t7); \
rcmalli_vggface_tf_vgg16.h5, rcmalli_vggface_tf_notop_vgg16.h5 (https://github.com/rcmalli/keras-vggface/releases); \
vgg_face_weights.h5, vgg_face_weights.pth (deepface, https://github.com/serengil/deepface_models/releases)"""


class VggFaceParams(Params):
    """Settings of VGG-Face.

    Attributes:
        weights: The published file, in any of its layouts. It has no default, for none may be shipped with facetask;
            null builds the structure only.
        layout: The file's layout, which also decides colours and means: ``dag`` (vgg_face_dag.pth), ``pyvggface``
            (vggface.pth), ``torch7`` (VGG_FACE.t7), ``caffe`` (VGG_FACE.caffemodel), ``keras`` and ``keras-notop``
            (keras-vggface's .h5; without its top the network is the convolutions only) or ``deepface`` (its .h5 and
            .pth). ``auto`` tells it from the file: .t7 and .caffemodel by suffix, others by contents.
    """

    weights: ConfigPath | None
    layout: Literal["auto"] | LayoutName = "auto"


def layout_of(params: VggFaceParams) -> LayoutName:
    """Return the layout, told from the file where it is ``auto``; without a file that is ``dag``.

    Raises:
        WeightsError: If the file is missing, damaged or of no known layout.
    """
    if params.layout != "auto":
        return params.layout
    return "dag" if params.weights is None else detect(params.weights)


def _shapes(layout: LayoutName) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the layers that files of a layout hold."""
    return layer_shapes(None if layout == "keras-notop" else _N_PEOPLE)


def build(params: VggFaceParams) -> nn.Module:
    """Return the network; its parameters have memory but no values yet."""
    return uninitialised(_shapes(layout_of(params)))


def weights(params: VggFaceParams) -> Weights:
    """Return the weights that the file holds.

    Raises:
        WeightsError: If no file is given, or it is missing, damaged or of another layout.
    """
    if params.weights is None:
        raise WeightsError(
            f"vgg-face: no weights given. Fetch one of the published files ({_LICENCE}: not for commercial use) and "
            f"name it as base_network.params.weights: {_SOURCES}"
        )
    layout = layout_of(params)
    state = read_state(params.weights, layout, _shapes(layout))
    return Weights(state=state, licence=_LICENCE, source=f"VGG-Face: {params.weights.name}")


@hookimpl
def facetask_architectures() -> list[Architecture]:
    """Return VGG-Face."""
    return [
        Architecture(
            name="vgg-face",
            build=build,
            weights=weights,
            preprocessing=lambda params: _PREPROCESSING[layout_of(params)],
            params=VggFaceParams,
            portable=lambda params: VggFaceParams(weights=None, layout=layout_of(params)),
        )
    ]
