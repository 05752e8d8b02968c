"""From an image file to the tensor that a base network expects."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from facetask.data.alignment import aligned, is_known
from facetask.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

Colour = Literal["rgb", "bgr", "grey"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to an image before the base network sees it.

    The image loses ``crop`` of each side, is resized to ``resize`` (or straight to ``size``), centre-cropped to
    ``size`` and normalised as ``(pixel - mean) / std`` with pixels in 0–255. Where its face's points are given it is
    turned, scaled and shifted instead, so that they lie at ``face``.

    Attributes:
        size: Height and width of the network's input, in pixels.
        colour: Channel order; ``grey`` is 0.299 R + 0.587 G + 0.114 B, one channel.
        mean: Subtracted from each channel, in pixel values 0–255.
        std: Divides each channel, in pixel values 0–255.
        resize: Height and width before the centre crop; ``None`` means ``size``.
        interpolation: How the image is resized.
        keep_aspect: Whether an image that is not square keeps its shape: then its smaller side is resized to the
            smaller of ``resize``, and the centre crop takes the rest away. Otherwise both sides are resized.
        crop: Share of its width and height that an image loses on each side before all else.
        face: Where the network expects a face's left eye, right eye (as the viewer sees them), nose tip and corners of
            the mouth: five ``(x, y)`` in pixels of its input, whose centres are whole numbers; ``None`` where that is
            not known. A run keeps it only if its configuration asks for aligned faces.
    """

    size: tuple[int, int]
    colour: Colour
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    keep_aspect: bool = False
    crop: float = 0.0
    face: tuple[tuple[float, float], ...] | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        return (1 if self.colour == "grey" else 3, *self.size)

    def load(self, path: Path, points: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Return the file's pixels as the network's colours and size, ``(channels, height, width)``, uint8.

        Args:
            path: The image.
            points: As for :meth:`pixels`.

        Raises:
            DataError: If the file is missing, empty, truncated or no image.
        """
        return self.pixels(open_image(path), points)

    def pixels(self, image: Image.Image, points: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Return an image's pixels as the network's colours and size, ``(channels, height, width)``, uint8.

        Transparency is ignored.

        Args:
            image: The image, upright.
            points: Its face's five points, ``(5, 2)`` in its pixels, to align it by where ``face`` is known; an image
                without both eyes (NaN) is resized and cropped as without alignment.
        """
        import PIL.Image

        image = eight_bits(image).convert("L" if self.colour == "grey" else "RGB")
        if self.face is not None and points is not None and is_known(points):
            resample = PIL.Image.Resampling[self.interpolation.upper()]
            return self._ordered(aligned(image, points, self.face, self.size, resample))
        return self._ordered(self._framed(image))

    def _framed(self, image: Image.Image) -> Image.Image:
        """Return an image at the network's size, cropped and resized."""
        import PIL.Image

        image = _without_margin(image, self.crop)
        height, width = self.resize or self.size
        if self.keep_aspect:
            scale = max(height / image.height, width / image.width)
            whole = int if height == width else round  # as torchvision and timm do
            height, width = max(height, whole(image.height * scale)), max(width, whole(image.width * scale))
        if image.size != (width, height):
            image = image.resize((width, height), PIL.Image.Resampling[self.interpolation.upper()], reducing_gap=3.0)
        top, left = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        return image.crop((left, top, left + self.size[1], top + self.size[0]))

    def _ordered(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an image's pixels in the network's order, ``(channels, height, width)``."""
        array = np.array(image, dtype=np.uint8)  # a copy: Pillow's own cannot be written to
        if self.colour == "grey":
            return np.ascontiguousarray(array[None])
        if self.colour == "bgr":
            array = array[:, :, ::-1]
        return np.ascontiguousarray(array.transpose(2, 0, 1))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return ``(batch, channels, height, width)`` uint8 pixels as the network's float32 input."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.float() - mean) / std

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``face`` only where faces are aligned."""
        fields = asdict(self)
        return fields if self.face is not None else {name: value for name, value in fields.items() if name != "face"}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Preprocessing:
        """Return the preprocessing that :meth:`to_json` described.

        Raises:
            CheckpointError: If a field is missing or unknown.
        """
        try:
            return cls(**{name: _as_tuple(value) for name, value in fields.items()})
        except TypeError as error:
            raise CheckpointError(f"preprocessing: {error}") from None


def _as_tuple(value: Any) -> Any:
    """Return JSON's lists, and those in them, as tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _without_margin(image: Image.Image, share: float) -> Image.Image:
    """Return an image without a share of its width and height on each side."""
    left, top = round(image.width * share), round(image.height * share)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image that Pillow converts without loss of meaning and without a warning."""
    import PIL.Image

    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255; older ones call them I
        return PIL.Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def open_image(path: Path) -> Image.Image:
    """Return the image at a path, decoded in full and turned upright as its EXIF data say.

    Raises:
        DataError: If the file is missing, empty, truncated or no image.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with PIL.Image.open(path) as image:
            image.load()
            upright: Image.Image = PIL.ImageOps.exif_transpose(image)
            return upright
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        raise DataError(f"{path}: not a readable image ({type(error).__name__}: {error})") from None
