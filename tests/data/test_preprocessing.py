from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facetask import CheckpointError, DataError, Preprocessing
from facetask.data.preprocessing import open_image


def preprocessing(colour: str = "rgb", size: tuple[int, int] = (8, 10), **fields: Any) -> Preprocessing:
    channels = 1 if colour == "grey" else 3
    return Preprocessing(size=size, colour=colour, mean=(0.0,) * channels, std=(1.0,) * channels, **fields)  # type: ignore[arg-type]


def noise(height: int = 8, width: int = 10, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_colours(tmp_path: Path) -> None:
    pixels = noise()
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(preprocessing("rgb").load(path), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(preprocessing("bgr").load(path), pixels.transpose(2, 0, 1)[::-1])
    grey = preprocessing("grey").load(path)
    assert grey.shape == (1, 8, 10)
    assert np.abs(grey[0] - pixels @ [0.299, 0.587, 0.114]).max() <= 1
    for colour in ("rgb", "bgr", "grey"):
        loaded = preprocessing(colour).load(path)
        assert loaded.dtype == np.uint8
        assert loaded.flags.c_contiguous
        assert loaded.shape == preprocessing(colour).input_shape


def test_grey_images_serve_a_colour_network(tmp_path: Path) -> None:
    pixels = noise(channels=1)[..., 0]
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(preprocessing().load(path), np.stack([pixels] * 3))
    np.testing.assert_array_equal(preprocessing("grey").load(path)[0], pixels)


def test_the_image_is_resized_then_cropped_at_its_centre(tmp_path: Path) -> None:
    image = Image.fromarray(noise(30, 50))
    path = saved(tmp_path / "a.png", image)
    found = preprocessing(size=(8, 10), resize=(13, 20), interpolation="bicubic").load(path)
    whole = np.asarray(image.resize((20, 13), Image.Resampling.BICUBIC, reducing_gap=3.0))
    np.testing.assert_array_equal(found, whole[2:10, 5:15].transpose(2, 0, 1))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_height_comes_first(interpolation: Any) -> None:
    columns = np.broadcast_to(np.linspace(0, 255, 60, dtype=np.uint8)[None, :, None], (40, 60, 3))
    found = preprocessing(size=(12, 24), interpolation=interpolation).pixels(Image.fromarray(columns.copy()))
    assert found.shape == (3, 12, 24)
    assert (np.diff(found[0].astype(int), axis=1) > 0).all()
    assert (found[0] == found[0, :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright[:, ::-1], -1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", Image.fromarray(np.ascontiguousarray(stored)), exif=exif, quality=95)
    found = preprocessing(size=(16, 24)).load(path).astype(int)
    assert np.abs(found - upright.transpose(2, 0, 1)).max() < 30


@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, colour: str) -> None:
    wide = np.linspace(0, 65535, 80).astype(np.uint16).reshape(8, 10)
    for path in (
        saved(tmp_path / "a.png", Image.fromarray(wide)),
        saved(tmp_path / "a.tif", Image.fromarray(wide)),
        saved(tmp_path / "b.tif", Image.fromarray(wide.astype(np.int32))),  # how older Pillows read such PNGs
    ):
        np.testing.assert_array_equal(preprocessing(colour).load(path)[0], wide >> 8)


def test_palettes_and_transparency(tmp_path: Path) -> None:
    pixels = noise() // 64 * 64
    palette = Image.fromarray(pixels).quantize(256)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    for path in (
        saved(tmp_path / "a.png", palette),
        saved(tmp_path / "b.png", palette, transparency=3),
        saved(tmp_path / "c.png", palette, transparency=bytes(range(256))),
        saved(tmp_path / "d.gif", palette),
    ):
        np.testing.assert_array_equal(preprocessing().load(path), expected)
    alpha = np.concatenate([pixels, noise(channels=1, seed=1)], axis=2)
    path = saved(tmp_path / "e.png", Image.fromarray(alpha))
    np.testing.assert_array_equal(preprocessing().load(path), pixels.transpose(2, 0, 1))
    path = saved(tmp_path / "f.png", Image.fromarray(alpha[..., 2:]))
    np.testing.assert_array_equal(preprocessing("grey").load(path)[0], alpha[..., 2])


def test_other_modes(tmp_path: Path) -> None:
    mask = noise(channels=1)[..., 0] > 127
    path = saved(tmp_path / "a.png", Image.fromarray(mask))
    np.testing.assert_array_equal(preprocessing().load(path)[0], mask * np.uint8(255))
    smooth = np.asarray(Image.fromarray(noise(2, 2)).resize((10, 8), Image.Resampling.BILINEAR))
    path = saved(tmp_path / "b.jpg", Image.fromarray(smooth).convert("CMYK"), quality=95)
    assert np.abs(preprocessing().load(path).astype(int) - smooth.transpose(2, 0, 1)).mean() < 8


def test_normalise() -> None:
    spec = Preprocessing(size=(2, 2), colour="bgr", mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    pixels = torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8)
    found = spec.normalise(pixels)
    assert found.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
        expected = (pixels[:, channel].numpy() - mean) / std
        np.testing.assert_allclose(found[:, channel].numpy(), expected, rtol=1e-6)


def test_json_and_pickle_keep_every_field() -> None:
    spec = Preprocessing(size=(8, 10), colour="grey", mean=(1.5,), std=(2.0,), resize=(9, 11), interpolation="nearest")
    assert Preprocessing.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    plain = preprocessing()
    assert Preprocessing.from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_json_with_missing_or_unknown_fields_is_refused() -> None:
    fields = preprocessing().to_json()
    with pytest.raises(CheckpointError, match=r"preprocessing: .*'gamma'"):
        Preprocessing.from_json({**fields, "gamma": 2})
    del fields["mean"]
    with pytest.raises(CheckpointError, match=r"preprocessing: .*'mean'"):
        Preprocessing.from_json(fields)


def test_files_that_are_no_images_are_data_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(noise(64, 64)))
    content = whole.read_bytes()
    for name, data in (
        ("empty.jpg", b""),
        ("text.jpg", b"no image at all"),
        ("half.jpg", content[: len(content) // 2]),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: not a readable image"):
            open_image(path)
    with pytest.raises(DataError, match=r"none.jpg: no such image"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="not a readable image"):
        open_image(tmp_path)


def test_damaged_exif_beside_sound_pixels_is_no_reason_to_refuse(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "somebody's camera"
    raw = exif.tobytes()
    image = Image.fromarray(noise(16, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cut in range(8, len(raw), 3):
            path = saved(tmp_path / f"{cut}.jpg", image, exif=raw[:cut])
            assert preprocessing().load(path).shape == (3, 8, 10)


def test_a_margin_is_cut_off_first(tmp_path: Path) -> None:
    pixels = noise(40, 100)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    found = preprocessing(size=(32, 80), crop=0.1).load(path)
    np.testing.assert_array_equal(found, pixels[4:-4, 10:-10].transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(30, 60), (60, 30), (24, 24)])
def test_the_aspect_is_kept_where_the_network_wants_it(height: int, width: int, tmp_path: Path) -> None:
    image = Image.fromarray(noise(height, width))
    path = saved(tmp_path / "a.png", image)
    found = preprocessing(size=(10, 10), resize=(12, 12), keep_aspect=True).load(path)
    scale = 12 / min(height, width)
    resized = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR, reducing_gap=3.0)
    left, top = round((resized.width - 10) / 2), round((resized.height - 10) / 2)
    np.testing.assert_array_equal(found, np.asarray(resized)[top : top + 10, left : left + 10].transpose(2, 0, 1))
