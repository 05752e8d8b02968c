"""What label sources share that read weights: a file's fingerprint, and running classifiers on faces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facetask import Preprocessing, WeightsError, sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn

_DLIB_MEAN = (122.782, 117.001, 104.298)  # dlib's input layer for RGB images, which also divides by 256


def fingerprint(path: Path) -> str:
    """Return a file's name and the first digits of its SHA-256, on which cached labels depend.

    Raises:
        WeightsError: If the file cannot be read.
    """
    return f"{path.name} {sha256_file(path)[:16]}"


def likeliest(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the likeliest class and its probability, ``(n, 2)``, from probabilities ``(n, n_classes)``."""
    best = probabilities.max(axis=1)
    return np.stack([probabilities.argmax(axis=1), np.clip(best, 0, 1)], axis=1)


def softmax_of(network: nn.Module, preprocessing: Preprocessing, paths: Sequence[Path]) -> NDArray[np.float64]:
    """Return the softmax of a network's scores for some images, ``(n, n_classes)``.

    Raises:
        DataError: If an image cannot be read.
    """
    import torch

    with torch.inference_mode():
        return np.asarray(network(_inputs(preprocessing, paths)).double().softmax(dim=1).numpy())


def _inputs(preprocessing: Preprocessing, paths: Sequence[Path]) -> Tensor:
    """Return images as a network's input, ``(n, channels, height, width)``."""
    import torch

    return preprocessing.normalise(torch.from_numpy(np.stack([preprocessing.load(path) for path in paths])))


class DlibOnnxClassifier:
    """A classifier that was trained with dlib, from an ONNX file: images in, probabilities out.

    Args:
        path: The file. It is read when the first image is classified.
        side: Height and width of its input, in pixels.
        n_classes: How many probabilities it must give.
        crop: Share of its width and height that an image loses on each side first.
    """

    def __init__(self, path: Path, *, side: int, n_classes: int, crop: float) -> None:
        self._path, self._n_classes = path, n_classes
        self._preprocessing = Preprocessing(
            size=(side, side), colour="rgb", mean=_DLIB_MEAN, std=(256.0,) * 3, crop=crop
        )

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float64]:
        """Return the probabilities of some images' classes, ``(n, n_classes)``.

        Raises:
            DataError: If an image cannot be read.
            WeightsError: If the file is none of this network, or onnxruntime is not installed.
        """
        images = _inputs(self._preprocessing, paths).numpy()
        session = self._session
        try:
            found = session.run(None, {session.get_inputs()[0].name: images})[0]
        except Exception as error:  # onnxruntime's errors share no class of their own
            side = self._preprocessing.size[0]
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{self._path}: expected a network of {side}×{side} RGB images ({reason})") from None
        if found.shape != (len(paths), self._n_classes):
            raise WeightsError(
                f"{self._path}: expected {self._n_classes} probabilities for each image, found {found.shape[1:]}"
            )
        return np.asarray(found, dtype=np.float64)

    @cached_property
    def _session(self) -> Any:
        """The file, loaded; it runs on as many threads as torch."""
        import torch

        try:
            import onnxruntime
        except ImportError:
            raise WeightsError(
                f"{self._path}: onnxruntime, which runs it, is not installed; install it with: pip install onnxruntime"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            return onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{self._path}: not a readable ONNX file ({reason}); fetch it again") from None
