"""Readers of VGG-16's weights files: files that are truncated, damaged, of another network or of another kind."""

from __future__ import annotations

import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vgg_files import Torch7Writer, caffe_bytes, field, torch7_bytes, write_keras, write_state_dict

from facetask import WeightsError
from facetask.plugins.architectures.vgg16 import WIDTHS, layer_shapes
from facetask.plugins.architectures.vgg_layouts import caffemodel, torch7
from facetask.plugins.architectures.vgg_layouts.layouts import detect, read_state

SHAPES = layer_shapes(3, widths=dict.fromkeys(WIDTHS, 2), hidden=2)
LAYERS = {
    name: (np.full(shape, 0.5, np.float32), np.arange(shape[0], dtype=np.float32)) for name, shape in SHAPES.items()
}
WITHOUT = {name: arrays for name, arrays in LAYERS.items() if name != "fc7"}
MISSHAPEN = LAYERS | {"conv3_2": (np.zeros((2, 5, 3, 3), np.float32), np.zeros(2, np.float32))}
MORE = LAYERS | {"fc9": (np.zeros((2, 2), np.float32), np.zeros(2, np.float32))}


def as_keras(layers: dict[str, Any]) -> list[tuple[str, tuple[NDArray[np.float32], ...]]]:
    """Kernels in Keras's order."""
    return [(name, (w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T, b)) for name, (w, b) in layers.items()]


def write(path: Path, layers: dict[str, Any]) -> Any:
    """Write layers in the layout that the path's suffix stands for, and return the layout's name."""
    if path.suffix == ".caffemodel":
        path.write_bytes(caffe_bytes(layers))
        return "caffe"
    if path.suffix == ".t7":
        path.write_bytes(torch7_bytes(layers))
        return "torch7"
    if path.suffix == ".h5":
        pytest.importorskip("h5py")
        write_keras(path, as_keras(layers))
        return "keras"
    write_state_dict(path, layers)
    return "dag"


@pytest.mark.parametrize(
    ("file", "missing"),
    [
        ("net.caffemodel", "1 layers are missing: fc7; did you mean 'fc[68]'"),
        ("net.pth", "1 layers are missing: fc7; did you mean 'fc[68]'"),
        ("net.h5", "1 layers are missing: fc7; did you mean 'fc[68]'"),
        ("net.t7", "expected 16 layers with weights, found 15"),
    ],
)
def test_missing_layer(tmp_path: Path, file: str, missing: str) -> None:
    layout = write(tmp_path / file, WITHOUT)
    with pytest.raises(WeightsError, match=rf"net\.\w+: not of layout '{layout}': {missing}"):
        read_state(tmp_path / file, layout, SHAPES)


@pytest.mark.parametrize(
    ("file", "key", "expected", "found"),
    [
        ("net.caffemodel", "conv3_2.blobs[0]", (2, 2, 3, 3), (2, 5, 3, 3)),
        ("net.pth", "conv3_2.weight", (2, 2, 3, 3), (2, 5, 3, 3)),
        ("net.h5", "conv3_2/conv3_2/kernel:0", (3, 3, 2, 2), (3, 3, 5, 2)),
        ("net.t7", "modules[11].weight", (2, 2, 3, 3), (2, 5, 3, 3)),
    ],
)
def test_wrong_shape_names_the_key_as_in_the_file(
    tmp_path: Path, file: str, key: str, expected: Any, found: Any
) -> None:
    layout = write(tmp_path / file, MISSHAPEN)
    with pytest.raises(WeightsError) as error:
        read_state(tmp_path / file, layout, SHAPES)
    assert str(error.value) == f"{tmp_path / file}: {key}: expected shape {expected}, found {found}"


@pytest.mark.parametrize(
    ("file", "extra"),
    [
        ("net.caffemodel", "1 layers are unknown: fc9"),
        ("net.pth", "1 layers are unknown: fc9"),
        ("net.h5", "1 layers are unknown: fc9"),
        ("net.t7", "expected 16 layers with weights, found 17"),
    ],
)
def test_extra_layer(tmp_path: Path, file: str, extra: str) -> None:
    layout = write(tmp_path / file, MORE)
    with pytest.raises(WeightsError, match=rf"not of layout '{layout}': {extra}"):
        read_state(tmp_path / file, layout, SHAPES)


def test_missing_bias_names_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "net.pth", LAYERS)
    state = torch.load(tmp_path / "net.pth")
    del state["conv4_1.bias"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(
        WeightsError, match=r"layer 'conv4_1': expected weights and biases, found \['conv4_1\.weight'\]"
    ):
        read_state(tmp_path / "net.pth", "dag", SHAPES)


@pytest.mark.parametrize("file", ["net.caffemodel", "net.t7", "net.pth", "net.h5"])
def test_every_truncation_says_so(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    layout = write(path, LAYERS)
    content, draw = path.read_bytes(), random.Random(0)
    read_state(path, layout, SHAPES)
    for size in [0, 1, 2, 8, 9, len(content) - 1, *(draw.randrange(len(content)) for _ in range(40))]:
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError, match=rf"{file}: "):
            read_state(path, layout, SHAPES)


@pytest.mark.parametrize("file", ["net.caffemodel", "net.t7", "net.h5"])
def test_every_changed_byte_is_an_error_or_numbers(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    layout = write(path, LAYERS)
    content, draw, refused = path.read_bytes(), random.Random(1), 0
    for _ in range(80):
        broken = bytearray(content)
        broken[draw.randrange(len(content))] ^= draw.choice((0x01, 0x08, 0x40, 0x80, 0xFF))
        path.write_bytes(broken)
        try:
            state = read_state(path, layout, SHAPES)
        except WeightsError:
            refused += 1  # any other error fails the test
            continue
        assert {name: tuple(tensor.shape) for name, tensor in state.items() if name.endswith("weight")} == {
            f"{name}.weight": shape for name, shape in SHAPES.items()
        }
    assert 0 < refused < 80


@settings(max_examples=200, deadline=500)
@given(st.binary(max_size=300), st.integers(0, 900), st.sampled_from(["net.t7", "net.caffemodel"]))
def test_garbage_after_a_good_beginning(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, file: str
) -> None:
    path = tmp_path_factory.getbasetemp() / file
    good = torch7_bytes(LAYERS) if file == "net.t7" else caffe_bytes(LAYERS)
    path.write_bytes(good[:at] + noise)
    with pytest.raises(WeightsError):
        read_state(path, "torch7" if file == "net.t7" else "caffe", SHAPES)


class Harmful:
    """Its pickle would run code."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def test_pickles_that_are_no_state_dict_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pth"
    for harmful in (pickle.dumps(Harmful()), None):
        if harmful is None:
            torch.save({"conv1_1.weight": Harmful()}, path)
        else:
            path.write_bytes(harmful)
        for read in (lambda: read_state(path, "dag", SHAPES), lambda: detect(path)):
            with pytest.raises(WeightsError, match=r"net\.pth: not a .*checkpoint"):
                read()
    assert not (tmp_path / "ran").exists()
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="expected a state dict"):
        detect(path)


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    for file in ("a.caffemodel", "b.t7", "c.pth", "d.bin", "e.h5"):
        layout = write(tmp_path / file, LAYERS)
        assert detect(tmp_path / file) == layout
    torch.save({"body.0.weight": torch.zeros(2)}, tmp_path / "f.pth")
    with pytest.raises(WeightsError, match=r"f\.pth: none of the layouts known for VGG-16; its layers .* are body\.0"):
        detect(tmp_path / "f.pth")


def test_file_replaced_by_another_is_told_anew(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    write_state_dict(path, LAYERS)
    assert detect(path) == "dag"
    write_state_dict(path, {f"features.conv_{name[4:]}": a for name, a in LAYERS.items() if name.startswith("conv")})
    assert detect(path) == "pyvggface"


def test_a_file_of_another_layout_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path / "net.pth", LAYERS)
    with pytest.raises(WeightsError, match=r"fc6\.weight: expected shape \(2, 2, 7, 7\), found \(2, 98\)"):
        read_state(tmp_path / "net.pth", "deepface", SHAPES)
    with pytest.raises(WeightsError, match=r"16 layers are missing: features\.conv_1_1"):
        read_state(tmp_path / "net.pth", "pyvggface", SHAPES)
    write(tmp_path / "net.h5", LAYERS)
    convolutions = {name: shape for name, shape in SHAPES.items() if name.startswith("conv")}
    with pytest.raises(WeightsError, match=r"not of layout 'keras-notop': 3 layers are unknown: fc6, fc7, fc8"):
        read_state(tmp_path / "net.h5", "keras-notop", convolutions)


def test_no_file_a_folder_and_archives(tmp_path: Path) -> None:
    for read in (detect, caffemodel.read_layers, torch7.read_layers):
        with pytest.raises(WeightsError, match=r"absent\.bin: expected a weights file, no such file"):
            read(tmp_path / "absent.bin")
        with pytest.raises(WeightsError, match="found a folder or device"):
            read(tmp_path)
    (tmp_path / "vgg_face_caffe.tar.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(WeightsError, match="a gzip archive; unpack it first"):
        detect(tmp_path / "vgg_face_caffe.tar.gz")


def test_hdf5_that_is_no_keras_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file["conv1_1"] = np.zeros(3)
    with pytest.raises(
        WeightsError, match=r"not a Keras 1 or 2 weights file: no attribute 'layer_names', found \['conv"
    ):
        detect(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv1_1"]
    with pytest.raises(WeightsError, match="layer 'conv1_1' is listed but missing"):
        detect(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv1_1"]
        file.create_group("conv1_1").attrs["weight_names"] = [b"kernel"]
    with pytest.raises(WeightsError, match="conv1_1/kernel: expected numbers, found NoneType"):
        detect(tmp_path / "net.h5")
    (tmp_path / "net.h5").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match="not a readable HDF5 file"):
        read_state(tmp_path / "net.h5", "keras", SHAPES)


# --- the formats themselves -------------------------------------------------------------------------------------------


def test_caffemodel_agrees_with_protocol_buffers(tmp_path: Path) -> None:
    """The official library writes what the reader reads, in legacy and in newer form."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    described = {
        "Shape": [("dim", 1, kinds.TYPE_INT64, True, "")],
        "Blob": [
            *(
                (name, i, kinds.TYPE_INT32, False, "")
                for i, name in enumerate(("num", "channels", "height", "width"), 1)
            ),
            ("data", 5, kinds.TYPE_FLOAT, True, ""),
            ("diff", 6, kinds.TYPE_FLOAT, True, ""),
            ("shape", 7, kinds.TYPE_MESSAGE, False, ".Shape"),
        ],
        "V1Layer": [
            ("name", 4, kinds.TYPE_STRING, False, ""),
            ("blobs", 6, kinds.TYPE_MESSAGE, True, ".Blob"),
            ("blobs_lr", 7, kinds.TYPE_FLOAT, True, ""),
        ],
        "Layer": [("name", 1, kinds.TYPE_STRING, False, ""), ("blobs", 7, kinds.TYPE_MESSAGE, True, ".Blob")],
        "Net": [
            ("name", 1, kinds.TYPE_STRING, False, ""),
            ("layers", 2, kinds.TYPE_MESSAGE, True, ".V1Layer"),
            ("layer", 100, kinds.TYPE_MESSAGE, True, ".Layer"),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", syntax="proto2")
    for message_name, fields in described.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, many, of in fields:
            label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            entry = message.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)
            entry.options.packed = many and kind in (kinds.TYPE_FLOAT, kinds.TYPE_INT64)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("Net"))(name="net")
    rng = np.random.default_rng(0)
    expected = {"conv1_1": rng.normal(size=(4, 3, 3, 3)), "fc-new": rng.normal(size=(5, 300))}
    old = net.layers.add(name="conv1_1", blobs_lr=[1, 2])
    old.blobs.add(num=4, channels=3, height=3, width=3, data=expected["conv1_1"].ravel(), diff=[1.0])
    old.blobs.add(num=1, channels=1, height=1, width=4, data=[1, 2, 3, 4])
    net.layers.add(name="relu")
    new = net.layer.add(name="fc-new")
    new.blobs.add(data=expected["fc-new"].ravel()).shape.dim.extend([5, 300])

    path = tmp_path / "net.caffemodel"
    path.write_bytes(net.SerializeToString())
    layers = caffemodel.read_layers(path)
    assert [(stored.key, stored.values.shape) for layer in layers.values() for stored in layer] == [
        ("conv1_1.blobs[0]", (4, 3, 3, 3)),
        ("conv1_1.blobs[1]", (4,)),
        ("fc-new.blobs[0]", (5, 300)),
    ]
    for name, values in expected.items():
        assert np.array_equal(layers[name][0].values, values.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"name: 'VGG_FACE_16_layers'\n", "at byte 0: expected a field, found wire type 6"),
        (field(1, b"net"), "no layer with parameters"),
        (
            field(2, field(4, b"a") + field(6, field(5, b"12345"))),
            r"expected a\.blobs\[0\]'s numbers as packed float32",
        ),
        (
            field(2, field(4, b"a") + field(6, field(1, 2) + field(5, b"1234"))),
            r"a\.blobs\[0\] of shape \(2, 0, 0, 0\)",
        ),
        (field(2, b"x" * 9)[:-1], "at byte 2: expected 9 bytes, found 8 up to the end"),
        (b"\xff" * 11, "expected a number of at most ten bytes"),
        (b"\x00\x00", "expected a field, found the number 0"),
    ],
)
def test_caffemodel_messages(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        caffemodel.read_layers(path)


def test_torch7_objects_are_read_as_written(tmp_path: Path) -> None:
    writer, path = Torch7Writer(), tmp_path / "any.t7"
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    content = writer.table(
        {
            "number": writer.number(2.5),
            "text": writer.text("face"),
            "flag": writer.boolean(True),
            "none": struct.pack("<i", 0),
            "function": writer.function(),
            "slanted": writer.tensor(values.T, skip=2)[: -12 * 4] + values.astype("<f4").tobytes(),
            1: writer.module("ReLU", {"inplace": writer.boolean(False)}),
        }
    )
    path.write_bytes(content)
    items = torch7.read_object(path).items
    assert (items["number"], items["text"], items["flag"], items["none"]) == (2.5, "face", True, None)
    assert np.array_equal(items["slanted"], values.T)
    assert (items[1].kind, items[1].items) == ("nn.ReLU", {"inplace": False})


def test_torch7_objects_may_be_shared_and_mention_themselves(tmp_path: Path) -> None:
    path = tmp_path / "any.t7"
    again = struct.pack("<ii", 3, 1)  # the first table, mentioned in itself
    shared = Torch7Writer()
    shared.index = 1
    tensor = shared.tensor(np.ones(3, np.float32))
    second = struct.pack("<ii", 4, 3)
    items = [(b"self", again), (b"a", tensor), (b"b", second)]
    body = b"".join(struct.pack("<ii", 2, len(key)) + key + value for key, value in items)
    path.write_bytes(struct.pack("<iii", 3, 1, len(items)) + body)
    table = torch7.read_object(path)
    assert table.items["self"] is table
    assert table.items["b"] is table.items["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04", "at byte 0: expected an object's type, 0 to 8, found 67324752"),
        (struct.pack("<i", 0), "expected a Torch7 network with modules, found NoneType"),
        (Torch7Writer().table({}), "expected a Torch7 network with modules, found a table"),
        (Torch7Writer().module("Linear", {}), r"expected a Torch7 network with modules, found nn\.Linear"),
        (
            Torch7Writer().torch_object("torch.HalfTensor", b""),
            r"a class that can be read here, found 'torch\.HalfTensor'",
        ),
        (
            struct.pack("<iii", 3, 1, 2**31 - 1),
            "at byte 12: expected an integer of 4 bytes, found the file's end after 0",
        ),
        (struct.pack("<iii", 3, 1, 1) + bytes(8), "expected a table's key, found nil"),
        (b"".join(struct.pack("<iii", 3, i, 1) for i in range(99)), "at most 64 objects in each other"),
        (struct.pack("<ii", 2, -5), "a text of -5 bytes"),
    ],
)
def test_torch7_messages(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.t7"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        torch7.read_layers(path)


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [
        ((3, 4), (4, 1), 3),
        ((3, 4), (5, 1), 1),
        ((-1, 4), (4, 1), 1),
        ((3, 4), (4, -1), 1),
        ((3, 4), (4, 1), 0),
        ((2**40, 2**40), (0, 0), 1),
    ],
)
def test_torch7_tensor_stays_within_its_storage(
    tmp_path: Path, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    writer, path = Torch7Writer(), tmp_path / "net.t7"
    whole = writer.tensor(np.ones((3, 4), np.float32))
    head = struct.pack("<i5q", 2, 3, 4, 4, 1, 1)
    assert head in whole
    path.write_bytes(whole.replace(head, struct.pack("<i5q", 2, *sizes, *strides, offset)))
    with pytest.raises(WeightsError, match="expected a tensor within its 12 numbers"):
        torch7.read_object(path)
