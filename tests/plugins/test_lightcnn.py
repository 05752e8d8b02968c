"""LightCNN: the published layouts, a reference of plain functions, what surgery keeps, and a trained network."""

from __future__ import annotations

import csv
import itertools
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from facetask import Architecture, PluginManager, WeightsError
from facetask.networks.base_network import load_network, load_state
from facetask.plugins.architectures.lightcnn import facetask_architectures
from facetask.surgery import ChannelGraph
from facetask.testing import check_architecture

RECORDS = {record.name: record for record in facetask_architectures()}
NAMES = ["lightcnn-9", "lightcnn-29", "lightcnn-29v2"]
SHAPE = (1, 128, 128)
CLASSES = 7
DISTILLED = "LightCNN_9Layers_distilled.pth.tar"
PUBLISHED = {"lightcnn-9": 79077, "lightcnn-29": 79077, "lightcnn-29v2": 80013}
TRUNKS = [(1, 1, 48, 96), (2, 2, 96, 192), (3, 3, 192, 128), (4, 4, 128, 128)]  # stage, blocks, width, next width

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the published layouts, and what their numbers mean ---------------------------------------------------------------


def published_shapes(name: str, classes: int = CLASSES) -> Shapes:
    """Name and shape of every tensor of a published checkpoint, without ``module.``."""
    weights: Shapes = {}
    if name == "lightcnn-9":
        weights["features.0.filter"] = (96, 1, 5, 5)
        weights |= {"features.2.conv_a.filter": (96, 48, 1, 1), "features.2.conv.filter": (192, 48, 3, 3)}
        weights |= {"features.4.conv_a.filter": (192, 96, 1, 1), "features.4.conv.filter": (384, 96, 3, 3)}
        weights |= {"features.6.conv_a.filter": (384, 192, 1, 1), "features.6.conv.filter": (256, 192, 3, 3)}
        weights |= {"features.7.conv_a.filter": (256, 128, 1, 1), "features.7.conv.filter": (256, 128, 3, 3)}
        weights["fc1.filter"] = (512, 8192)
    else:
        weights["conv1.filter"] = (96, 1, 5, 5)
        for stage, blocks, width, after in TRUNKS:
            for block, conv in itertools.product(range(blocks), ("conv1", "conv2")):
                weights[f"block{stage}.{block}.{conv}.filter"] = (2 * width, width, 3, 3)
            weights[f"group{stage}.conv_a.filter"] = (2 * width, width, 1, 1)
            weights[f"group{stage}.conv.filter"] = (2 * after, width, 3, 3)
        weights |= {"fc": (256, 8192)} if name == "lightcnn-29v2" else {"fc.filter": (512, 8192)}
    weights["fc2"] = (classes, 256)
    shapes: Shapes = {}
    for layer, shape in weights.items():
        shapes[f"{layer}.weight"] = shape
        if layer != "fc2" or name != "lightcnn-29v2":
            shapes[f"{layer}.bias"] = shape[:1]
    return shapes


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors that neither fade nor grow much from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) * (0.8 / shape[1:].numel() ** 0.5 if shape[1:] else 0.2)
        for key, shape in ((key, torch.Size(shape)) for key, shape in shapes.items())
    }


def write(path: Path, state: dict[str, Tensor], **how: Any) -> Path:
    """Save a state dict as the publisher does."""
    prefixed = OrderedDict((f"module.{key}", tensor) for key, tensor in state.items())
    torch.save({"epoch": 80, "arch": "LightCNN", "state_dict": prefixed, "prec1": 96.5}, path, **how)
    return path


def mfm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Max-feature-map, written down from its definition."""
    weight, bias = state[f"{name}.filter.weight"], state[f"{name}.filter.bias"]
    y = F.linear(x, weight, bias) if weight.dim() == 2 else F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    n = y.shape[1] // 2
    return torch.stack([y[:, :n], y[:, n:]]).amax(0)


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


def both_pools(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2) + F.avg_pool2d(x, 2, 2)


def reference(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The embedding, ``(batch, 256)``, from a checkpoint's raw tensors."""
    pool: Callable[[Tensor], Tensor] = both_pools if name == "lightcnn-29v2" else max_pool
    if name == "lightcnn-9":
        x = pool(mfm(state, "features.0", x))
        for i in (2, 4, 6, 7):
            x = mfm(state, f"features.{i}.conv", mfm(state, f"features.{i}.conv_a", x))
            x = x if i == 6 else pool(x)
        return mfm(state, "fc1", x.flatten(1))
    x = pool(mfm(state, "conv1", x))
    for stage, blocks, _, _ in TRUNKS:
        for block in range(blocks):
            inner = mfm(state, f"block{stage}.{block}.conv1", x)
            x = x + mfm(state, f"block{stage}.{block}.conv2", inner)
        x = mfm(state, f"group{stage}.conv", mfm(state, f"group{stage}.conv_a", x))
        x = x if stage == 3 else pool(x)
    x = x.flatten(1)
    return mfm(state, "fc", x) if name == "lightcnn-29" else F.linear(x, state["fc.weight"], state["fc.bias"])


@pytest.fixture(scope="module", params=NAMES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One of the networks, and a generated checkpoint in its published layout."""
    name = request.param
    state = random_state(published_shapes(name))
    path = write(tmp_path_factory.mktemp(name) / f"{name}.pth.tar", state)
    return SimpleNamespace(name=name, record=RECORDS[name], state=state, path=path)


def loaded(record: Architecture, path: Path, **settings: Any) -> nn.Module:
    """The network with a checkpoint's weights."""
    params = record.params(weights=path, **settings)
    module = record.build(params).eval()
    weights = record.weights(params)
    load_state(module, weights.state, weights.source)
    return module


def faces(batch: int = 2) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    record, expected = RECORDS[name], published_shapes(name, PUBLISHED[name])
    with torch.device("meta"):
        whole = record.build(record.params(weights=None, classes=PUBLISHED[name]))
        embedding = record.build(record.params(weights=None))
    assert {key: tuple(tensor.shape) for key, tensor in whole.state_dict().items()} == expected
    assert list(embedding.state_dict()) == [key for key in expected if not key.startswith("fc2.")]
    assert len(expected) == {"lightcnn-9": 22, "lightcnn-29": 62, "lightcnn-29v2": 61}[name]


@pytest.mark.parametrize(
    ("name", "convolutions", "embedding", "published"),
    [
        ("lightcnn-9", 1_286_048, 5_480_864, 25_803_653),
        ("lightcnn-29", 8_378_464, 12_573_280, 32_896_069),
        ("lightcnn-29v2", 8_378_464, 10_475_872, 30_959_200),
    ],
)
def test_parameter_counts(name: str, convolutions: int, embedding: int, published: int) -> None:
    record = RECORDS[name]
    with torch.device("meta"):
        network = record.build(record.params(weights=None))
        whole = record.build(record.params(weights=None, classes=PUBLISHED[name]))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(tensor.numel() for layer in layers for tensor in layer.parameters()) == convolutions
    assert sum(tensor.numel() for tensor in network.parameters()) == embedding
    assert sum(tensor.numel() for tensor in whole.parameters()) == published
    assert len(layers) == {"lightcnn-9": 9}.get(name, 29)


def test_embeddings_equal_the_reference(published: SimpleNamespace) -> None:
    network = loaded(published.record, published.path).double()
    state = {key: tensor.double() for key, tensor in published.state.items()}
    with torch.no_grad():
        found, expected = network(faces().double()), reference(published.name, state, faces().double())
    assert found.shape == (2, 256)
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_classifier_is_there_where_it_is_asked_for(published: SimpleNamespace) -> None:
    network = loaded(published.record, published.path, classes=CLASSES)
    with torch.no_grad():
        found, embedding = network(faces(1)), loaded(published.record, published.path)(faces(1))
    expected = F.linear(embedding, published.state["fc2.weight"], published.state.get("fc2.bias"))
    torch.testing.assert_close(found, expected)


def test_half_precision_is_cast(published: SimpleNamespace, tmp_path: Path) -> None:
    half = {key: tensor.half() for key, tensor in published.state.items()}
    network = loaded(published.record, write(tmp_path / "half.pth.tar", half))
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, half[key].float())


class PythonTwo(pickle._Pickler):  # type: ignore[misc, name-defined]
    """Writes byte strings and ordered dicts as Python 2 did, with which the publisher's files were made."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: str) -> None:
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode())
        self.memoize(text)

    def save_ordered(self, mapping: OrderedDict[str, Any]) -> None:
        self.save_reduce(OrderedDict, ([list(item) for item in mapping.items()],), obj=mapping)

    dispatch[str] = save_text
    dispatch[OrderedDict] = save_ordered


def test_file_of_an_old_torch_and_python_is_read(tmp_path: Path) -> None:
    def dump(value: Any, file: Any, protocol: int) -> None:
        PythonTwo(file, protocol).dump(value)

    old = SimpleNamespace(Pickler=PythonTwo, dump=dump, __name__="old")
    state = random_state(published_shapes("lightcnn-9"))
    how = {"pickle_module": old, "pickle_protocol": 2, "_use_new_zipfile_serialization": False}
    path = write(tmp_path / "old.pth.tar", state, **how)
    assert b"U\x1fmodule.features.0.filter.weight" in path.read_bytes()  # a byte string of length 31
    network = loaded(RECORDS["lightcnn-9"], path)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


def test_any_number_of_classes_loads_as_an_embedding(tmp_path: Path) -> None:
    record, state = RECORDS["lightcnn-9"], random_state(published_shapes("lightcnn-9", 128))
    del state["fc2.bias"]
    with_classifier = loaded(record, write(tmp_path / "a.pth.tar", state))
    del state["fc2.weight"]
    without = loaded(record, write(tmp_path / "b.pth.tar", state))
    assert with_classifier.state_dict().keys() == without.state_dict().keys() == state.keys()


# --- files that are not what they should be ---------------------------------------------------------------------------


def error_of(record: Architecture, path: Path | None, **settings: Any) -> str:
    """The message with which loading a file ends."""
    params = record.params(weights=path, **settings)
    with torch.device("meta"):
        module = record.build(params)
    try:
        weights = record.weights(params)
        load_state(module, weights.state, weights.source)
    except WeightsError as error:
        return str(error)
    pytest.fail("the file was loaded")


def changed(state: dict[str, Tensor], drop: str = "", **new: Tensor) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != drop} | new


def test_missing_extra_and_misshapen_keys_are_named(published: SimpleNamespace, tmp_path: Path) -> None:
    state, path = published.state, tmp_path / "net.pth.tar"
    first = next(iter(state))
    message = error_of(published.record, write(path, changed(state, drop=first)))
    assert f"net.pth.tar: does not fit the network: 1 keys are missing: {first}" in message
    message = error_of(published.record, write(path, state | {"conv9.filter.weight": torch.zeros(1)}))
    assert "1 keys are unknown: conv9.filter.weight" in message
    message = error_of(published.record, write(path, state | {first: torch.zeros(96, 3, 5, 5)}))
    assert f"{first} has shape (96, 3, 5, 5) instead of (96, 1, 5, 5)" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc2.weight": torch.zeros(7, 512)}, "fc2.weight has shape (7, 512) instead of (classes, 256)"),
        ({"fc2.weight": torch.zeros(256)}, "fc2.weight has shape (256,) instead of (classes, 256)"),
        ({"fc2.bias": torch.zeros(8)}, "fc2.bias of shape (8,) instead of (7,)"),
        ({"fc2.gamma": torch.zeros(7)}, "1 keys are unknown: fc2.gamma"),
    ],
)
def test_a_classifier_that_is_left_out_must_still_fit(change: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    state = random_state(published_shapes("lightcnn-9"))
    assert message in error_of(RECORDS["lightcnn-9"], write(tmp_path / "net.pth.tar", state | change))


def test_a_bias_without_its_classifier(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pth.tar", changed(random_state(published_shapes("lightcnn-9")), drop="fc2.weight"))
    assert "fc2.bias of shape (7,) is there without fc2.weight" in error_of(RECORDS["lightcnn-9"], path)


def test_a_classifier_of_another_size_than_asked_for(published: SimpleNamespace) -> None:
    message = error_of(published.record, published.path, classes=CLASSES + 1)
    assert "fc2.weight has shape (7, 256) instead of (8, 256)" in message


def test_another_of_the_three_networks(tmp_path: Path) -> None:
    state = random_state(published_shapes("lightcnn-29v2"))
    message = error_of(RECORDS["lightcnn-29"], write(tmp_path / "v2.pth.tar", state))
    assert "2 keys are missing: fc.filter.weight, fc.filter.bias" in message


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    record = RECORDS["lightcnn-9"]
    path = tmp_path / "module.pth"
    torch.save(record.build(record.params(weights=None)), path)
    assert "not a checkpoint of tensors only; facetask runs no code of a file" in error_of(record, path)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_file_the_message_says_which_and_where(name: str) -> None:
    file = {"lightcnn-9": "9Layers", "lightcnn-29": "29Layers", "lightcnn-29v2": "29Layers_V2"}[name]
    message = error_of(RECORDS[name], None)
    assert "set base_network.params.weights" in message
    assert f"the publisher's LightCNN_{file}_checkpoint.pth.tar or" in message
    assert "https://github.com/AlfredXiangWu/LightCNN" in message


# --- params and preprocessing -----------------------------------------------------------------------------------------


def test_portable_params_hold_no_path_and_build_the_same(published: SimpleNamespace) -> None:
    record = published.record
    params = record.params(weights=published.path, classes=3, resize=144)
    portable = record.portable(params)
    assert portable.model_dump(mode="json") == {"weights": None, "classes": 3, "resize": 144}
    assert record.params.model_validate_json(portable.model_dump_json()) == portable
    with torch.device("meta"):
        shapes = [{key: value.shape for key, value in record.build(p).state_dict().items()} for p in (params, portable)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("wrong", [{}, {"weights": None, "classes": 0}, {"weights": None, "resize": 127}])
def test_wrong_params(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RECORDS["lightcnn-9"].params(**wrong)


def test_weights_carry_licence_and_file_name(published: SimpleNamespace) -> None:
    weights = published.record.weights(published.record.params(weights=published.path))
    assert (weights.licence, weights.source) == ("not stated", published.path.name)


def test_input_is_the_grey_centre_in_0_to_1() -> None:
    record = RECORDS["lightcnn-9"]
    preprocessing = record.preprocessing(record.params(weights=None))
    assert preprocessing.input_shape == SHAPE
    assert preprocessing.resize == (136, 136)
    pixels = preprocessing.pixels(Image.new("RGB", (200, 200), (250, 100, 50)))
    found = preprocessing.normalise(torch.from_numpy(np.stack([pixels])))
    assert (
        float(found.min())
        == float(found.max())
        == pytest.approx((0.299 * 250 + 0.587 * 100 + 0.114 * 50) / 255, abs=1 / 255)
    )
    image = np.random.default_rng(0).integers(0, 256, (144, 144), dtype=np.uint8)
    aligned = record.preprocessing(record.params(weights=None, resize=144))
    assert np.array_equal(aligned.pixels(Image.fromarray(image)), image[None, 8:136, 8:136])


# --- surgery ----------------------------------------------------------------------------------------------------------


def traced(record: Architecture, path: Path) -> ChannelGraph:
    module = loaded(record, path).double()
    return ChannelGraph.trace(module, SHAPE, record.taps(record.params(weights=path)))


def random_keep_sets(graph: ChannelGraph, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """Half of every coupled group's components."""
    keep = {}
    for group in graph.groups:
        kept = np.sort(rng.permutation(group.n_components)[: group.n_components // 2])
        keep |= {tap: np.flatnonzero(np.isin(group.component[tap], kept)) for tap in group.taps}
    return keep


def test_taps_are_every_mfm_and_the_trunks_sums(published: SimpleNamespace) -> None:
    graph = traced(published.record, published.path)
    if published.name == "lightcnn-9":
        layers = ["features.0", *(f"features.{i}.{conv}" for i in (2, 4, 6, 7) for conv in ("conv_a", "conv"))]
        sums: list[str] = []
    else:
        layers = ["conv1"]
        for stage, blocks, _, _ in TRUNKS:
            layers += [f"block{stage}.{block}.{conv}" for block in range(blocks) for conv in ("conv1", "conv2")]
            layers += [f"group{stage}.conv_a", f"group{stage}.conv"]
        sums = [layer for layer in layers if layer.endswith("conv2")]
    names = [layer.removesuffix(".conv2") if layer in sums else layer for layer in layers]
    assert [tap.name for tap in graph.taps] == names
    assert [tap.convolution for tap in graph.taps] == [f"{layer}.filter" for layer in layers]
    widths = [published.state[f"{layer}.filter.weight"].shape[0] // 2 for layer in layers]
    assert [tap.n_filters for tap in graph.taps] == widths
    assert graph.frozen == ()

    by_rule = ChannelGraph.trace(graph.module(), SHAPE)
    assert [(tap.convolution, tap.n_filters) for tap in by_rule.taps] == [
        (tap.convolution, tap.n_filters) for tap in graph.taps
    ]


def test_responses_are_the_pooled_outputs_of_the_taps(published: SimpleNamespace) -> None:
    graph = traced(published.record, published.path)
    state = {key: tensor.double() for key, tensor in published.state.items()}
    image = faces(1).double()
    if published.name == "lightcnn-9":
        first = mfm(state, "features.0", image)
        known = {"features.0": first, "features.2.conv_a": mfm(state, "features.2.conv_a", max_pool(first))}
    else:
        first = mfm(state, "conv1", image)
        pooled = (both_pools if published.name == "lightcnn-29v2" else max_pool)(first)
        inner = mfm(state, "block1.0.conv1", pooled)
        known = {"conv1": first, "block1.0.conv1": inner, "block1.0": pooled + mfm(state, "block1.0.conv2", inner)}
    last = list(known)[-1]
    with torch.no_grad():
        responses = graph.cut(last).responder()(image)
    torch.testing.assert_close(responses, torch.cat([value.mean((2, 3)) for value in known.values()], 1))


def test_pruned_equals_masked(published: SimpleNamespace) -> None:
    graph = traced(published.record, published.path)
    keep = random_keep_sets(graph, np.random.default_rng(1))
    pruned, masked = graph.prune(keep), graph.masked(keep)
    with torch.no_grad():
        found, expected = pruned(faces().double()), masked(faces().double())
    assert found.shape == expected.shape == (2, 256)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert expected.std() > 0
    before, after = (sum(tensor.numel() for tensor in net.parameters()) for net in (graph.prune({}), pruned))
    assert after < 0.6 * before
    assert {tap: len(kept) for tap, kept in graph.resolve(keep).items()} == {
        tap.name: tap.n_filters // 2 for tap in graph.taps
    }


def test_pruned_equals_masked_after_a_cut(published: SimpleNamespace) -> None:
    cut = {"lightcnn-9": "features.7.conv_a"}.get(published.name, "block3.1")
    graph = traced(published.record, published.path).cut(cut)
    keep = random_keep_sets(graph, np.random.default_rng(2))
    with torch.no_grad():
        found, expected = graph.prune(keep)(faces(1).double()), graph.masked(keep)(faces(1).double())
    expected = expected[:, torch.from_numpy(graph.resolve(keep)[cut])]
    assert found.shape == expected.shape == (1, len(keep[cut]))
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert found.abs().max() > 0


def test_filter_k_keeps_rows_k_and_k_plus_n_and_the_next_layers_column_k() -> None:
    record = RECORDS["lightcnn-9"]
    module = record.build(record.params(weights=None))
    graph = ChannelGraph.trace(module, SHAPE, record.taps(record.params(weights=None)))
    keep = random_keep_sets(graph, np.random.default_rng(3))
    before, after = module.state_dict(), graph.prune(keep).state_dict()
    columns = np.array([0])
    for tap, kept in keep.items():
        n = before[f"{tap}.filter.bias"].shape[0] // 2
        rows = np.concatenate([kept, kept + n])
        assert torch.equal(after[f"{tap}.filter.weight"], before[f"{tap}.filter.weight"][rows][:, columns])
        assert torch.equal(after[f"{tap}.filter.bias"], before[f"{tap}.filter.bias"][rows])
        columns = kept
    flattened = before["fc1.filter.weight"].view(512, 128, 8, 8)[:, columns].flatten(1)
    assert torch.equal(after["fc1.filter.weight"], flattened)
    assert torch.equal(after["fc1.filter.bias"], before["fc1.filter.bias"])


def test_first_mfm_of_a_group_follows_its_input(published: SimpleNamespace) -> None:
    record, params = published.record, published.record.params(weights=published.path)
    graph, follows = traced(record, published.path), record.follows(params)
    taps = [tap.name for tap in graph.taps]
    assert list(follows) == [tap for tap in taps if tap.endswith("conv_a")]
    group_of = {tap: group.taps for group in graph.groups for tap in group.taps}
    for tap, leader in follows.items():
        assert taps.index(leader) == taps.index(tap) - 1
        assert group_of[tap] == (tap,)
        kept = np.arange(0, graph.tap(leader).n_filters, 3)
        after = graph.cut(tap).prune({name: kept for name in group_of[leader]}).state_dict()
        before = graph.module().state_dict()
        assert torch.equal(after[f"{tap}.filter.weight"], before[f"{tap}.filter.weight"][:, kept])


def test_trunks_are_coupled() -> None:
    record = RECORDS["lightcnn-29"]
    params = record.params(weights=None)
    graph = ChannelGraph.trace(record.build(params), SHAPE, record.taps(params))
    trunks = [("conv1", "block1.0")]
    for stage, blocks, _, _ in TRUNKS[1:]:
        trunks.append((f"group{stage - 1}.conv", *(f"block{stage}.{block}" for block in range(blocks))))
    assert [tuple(group.taps) for group in graph.groups if len(group.taps) > 1] == trunks


def test_network_keeps_its_contract(published: SimpleNamespace) -> None:
    check_architecture(published.record, published.record.params(weights=published.path))


def test_network_is_found_by_name_with_its_taps(published: SimpleNamespace) -> None:
    params = published.record.params(weights=published.path)
    network = load_network(published.name, params, PluginManager())
    assert [tap.name for tap in network.graph.taps] == list(published.record.taps(params))
    assert network.follows == published.record.follows(params)


# --- a trained network ------------------------------------------------------------------------------------------------


def turned(row: dict[str, str]) -> float:
    """How far the nose's tip lies from the middle of the face's outline, as a share of its width."""
    left, tip, right = (float(row[f"x{i}"]) for i in (0, 30, 16))
    return (tip - (left + right) / 2) / (right - left)


def test_trained_network_reads_how_far_a_head_is_turned(data_root: Path) -> None:
    path, table = data_root / "weights" / DISTILLED, data_root / "ytf" / "labels.csv"
    if not path.is_file() or not table.is_file():
        pytest.skip(f"no trained LightCNN-9 or no ytf in {data_root}")
    record = RECORDS["lightcnn-9"]
    params = record.params(weights=path)
    cut = ChannelGraph.trace(loaded(record, path), SHAPE, record.taps(params)).cut("features.7.conv_a").module()
    preprocessing = replace(record.preprocessing(params), crop=0.08)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))[::12]
    pixels = np.stack([preprocessing.load(table.parent / "images" / row["image"]) for row in rows])
    with torch.inference_mode():
        batches = torch.from_numpy(pixels).split(32)
        responses = torch.cat([cut(preprocessing.normalise(batch)) for batch in batches]).double().numpy()
    assert responses.shape == (len(rows), 128)
    assert np.isfinite(responses).all()
    assert (responses.std(0) > 0).all()

    values = np.array([turned(row) for row in rows])
    people = {person: i for i, person in enumerate(dict.fromkeys(row["person"] for row in rows))}
    learns = np.array([people[row["person"]] % 2 == 0 for row in rows])
    x = (responses - responses[learns].mean(0)) / responses[learns].std(0)
    y = values - values[learns].mean()
    beta = np.linalg.solve(x[learns].T @ x[learns] + 0.1 * learns.sum() * np.eye(128), x[learns].T @ y[learns])
    error = np.sqrt(np.mean((y[~learns] - x[~learns] @ beta) ** 2)) / y[~learns].std()
    assert error < 0.75  # 0.63; with random weights 0.90
