"""Exported models: other runtimes give the same numbers, knowing nothing but the file."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from toy_runs import ROOT, Finished, Toy

from facetask import CheckpointError, PluginManager, Preprocessing, load_model
from facetask.errors import ExportError
from facetask.models.checkpoint import FaceModel
from facetask.models.export import CHECKED_BATCHES, FORMATS, convert, difference, export_model
from facetask.records import Params

TASKS = ("brightness", "tint", "bins", "level")
KEYS = {
    "facetask.preprocessing",
    "facetask.tasks",
    "facetask.weights_licence",
    "facetask.weights_source",
    "facetask.version",
}


@pytest.fixture(scope="module")
def exported(finished: Finished, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each toy model in both formats."""
    folder = tmp_path_factory.mktemp("exported")
    for task in TASKS:
        for form in FORMATS:
            done = export_model(finished.path / "model" / task, form, folder / f"{task}.{form}", toy.plugins)
            assert done.size_bytes == done.path.stat().st_size
            assert done.difference <= 1e-6
    return folder


def session(content: bytes | Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file as its user would."""
    raw = content if isinstance(content, bytes) else content.read_bytes()
    return onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])


def read_pt2(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Open a .pt2 file as its user would."""
    extra = dict.fromkeys(KEYS, "")
    network = torch.export.load(path, extra_files=extra).module()
    return network, {key: str(value) for key, value in extra.items()}


def random_images(model: FaceModel, batch: int) -> torch.Tensor:
    """Return normalised noise."""
    return torch.randn(batch, *model.preprocessing.input_shape, generator=torch.Generator().manual_seed(batch))


def assert_near(found: np.ndarray, model: FaceModel, images: torch.Tensor) -> None:
    """Assert the torch model's outputs, to 1e-5 of what its head adds up."""
    with torch.inference_mode():
        expected, responses = model(images).numpy(), model.network.backbone(images).double().numpy()
    weight = model.network.heads[0].weight.detach().double().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float((abs(responses) @ abs(weight.T)).max()))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnxruntime_gives_the_same(finished: Finished, toy: Toy, exported: Path, task: str, batch: int) -> None:
    model = load_model(finished.path / "model" / task, toy.plugins)
    images = random_images(model, batch)
    (found,) = session(exported / f"{task}.onnx").run([task], {"images": images.numpy()})
    assert_near(found, model, images)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_loaded_pt2_gives_the_same(finished: Finished, toy: Toy, exported: Path, task: str, batch: int) -> None:
    model = load_model(finished.path / "model" / task, toy.plugins)
    images = random_images(model, batch)
    network, _ = read_pt2(exported / f"{task}.pt2")
    assert_near(network(images).detach().numpy(), model, images)


@pytest.mark.parametrize("task", TASKS)
def test_the_metadata_are_enough_to_predict(finished: Finished, toy: Toy, exported: Path, task: str) -> None:
    network = session(exported / f"{task}.onnx")
    notes = network.get_modelmeta().custom_metadata_map
    assert notes.keys() == KEYS
    how, what = json.loads(notes["facetask.preprocessing"]), json.loads(notes["facetask.tasks"])[0]
    pixels = np.stack([Preprocessing.from_json(how).load(path) for path in toy.images[:4]])
    mean, std = (np.array(how[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    (outputs,) = network.run(None, {"images": (pixels - mean) / std})
    for row, expected in zip(
        outputs, load_model(finished.path / "model" / task, toy.plugins).predict(toy.images[:4]), strict=True
    ):
        value: Any = row[0]
        if what["kind"] == "binary":
            value = what["classes"][int(row[0] > what["decision"]["threshold"])]
        elif what["kind"] == "nominal":
            value = what["classes"][int(row.argmax())]
        elif what["kind"] == "binned":
            value = what["classes"][int(np.searchsorted(what["edges"][0], row[0], side="right"))]
        else:
            assert what["unit"] == expected["unit"]
            assert value == pytest.approx(expected["value"], rel=1e-4)
            continue
        assert value == expected["value"]


def test_both_formats_say_the_same_of_themselves(finished: Finished, exported: Path) -> None:
    for task in TASKS:
        _, notes = read_pt2(exported / f"{task}.pt2")
        assert notes == session(exported / f"{task}.onnx").get_modelmeta().custom_metadata_map
        saved = json.loads((finished.path / "model" / task / "model.json").read_text())
        assert json.loads(notes["facetask.preprocessing"]) == saved["preprocessing"]
        (described,), (head,) = json.loads(notes["facetask.tasks"]), saved["heads"]
        assert described["decision"] == head["decision"]
        assert described["labels_licence"] == head["labels_licence"]
        assert (notes["facetask.weights_licence"], notes["facetask.weights_source"]) == ("CC0-1.0", "chance")


def test_the_onnx_graph_is_valid_and_plain(exported: Path) -> None:
    proto = onnx.load(exported / "level.onnx")
    onnx.checker.check_model(proto, full_check=True)
    (given,), (wanted,) = proto.graph.input, proto.graph.output
    assert (given.name, wanted.name) == ("images", "level")
    dims = given.type.tensor_type.shape.dim
    assert (dims[0].dim_param, [dim.dim_value for dim in dims[1:]]) == ("batch", [3, 32, 32])
    assert wanted.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(node.metadata_props for node in proto.graph.node)


def test_sizes_that_dlib_reads_at_run_time_are_constants() -> None:
    architecture: Any = PluginManager().find("architecture", "dlib-face-resnet")
    torch.manual_seed(0)
    network = architecture.build(Params()).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    content = convert(network, (3, 150, 150), "onnx", what="dlib")
    operations = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert not operations & {"Shape", "Gather", "Slice", "ConstantOfShape"}
    for batch in (1, 3):
        images = torch.randn(batch, 3, 150, 150)
        (found,) = session(content).run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = network(images).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_files_name_no_place_of_this_machine(exported: Path, finished: Finished, toy: Toy) -> None:
    with zipfile.ZipFile(exported / "tint.pt2") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    contents.append((exported / "tint.onnx").read_bytes())
    for place in (ROOT, toy.plugins_dir, finished.path, Path(torch.__file__).parent, Path(sys.prefix)):
        assert not any(str(place).encode() in content for content in contents), place


class Named(nn.Module):
    """A network whose graph has a value and a weight with telling names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("age, in years", "age, in years"),
        ("images", "images_"),
        ("relu", "relu_"),
    ],
)
def test_an_output_never_has_the_name_of_something_else(wanted: str, given: str) -> None:
    torch.manual_seed(0)
    network = Named().eval()
    opened = session(convert(network, (3, 8, 8), "onnx", what="it", outputs=[wanted]))
    assert [output.name for output in opened.get_outputs()] == [given]
    images = torch.randn(3, 3, 8, 8)
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(opened.run(None, {"images": images.numpy()})[0], expected, atol=1e-5)


# --- what is refused


def test_an_unknown_format(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="unknown format 'onx'; did you mean 'onnx'"):
        export_model(finished.path / "model/tint", "onx", tmp_path / "out", toy.plugins)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package(
    finished: Finished, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"needs {package}, .*: pip install 'facetask\[onnx\]'"):
        export_model(finished.path / "model/tint", "onnx", tmp_path / "out", toy.plugins)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_model(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved model"):
        export_model(tmp_path, "onnx", plugins=toy.plugins)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "file/model.pt2", tmp_path / "folder"):
        with pytest.raises(ExportError, match=f"{out}: cannot be written"):
            export_model(finished.path / "model/tint", "pt2", out, toy.plugins)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


Wrong = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda outputs: (outputs[0] * 1.01,), "differ from the torch model by"),
        (lambda outputs: (outputs[0] * float("nan"),), "differ from the torch model by nan"),
        (lambda outputs: (outputs[0][:1],), "differ from the torch model by inf"),
        (lambda outputs: outputs[0].tolist()["absent"], "cannot be converted to pt2 .TypeError"),
    ],
)
def test_a_file_that_gives_other_numbers_is_not_written(
    finished: Finished, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Wrong, said: str
) -> None:
    read = FORMATS["pt2"].read
    broken = replace(FORMATS["pt2"], read=lambda content: lambda images: wrong(read(content)(images)))
    monkeypatch.setitem(FORMATS, "pt2", broken)
    (tmp_path / "before.pt2").write_text("kept")
    for out in (tmp_path / "before.pt2", tmp_path / "new.pt2"):
        with pytest.raises(ExportError, match=said):
            export_model(finished.path / "model/tint", "pt2", out, toy.plugins)
    assert [path.name for path in tmp_path.iterdir()] == ["before.pt2"]
    assert (tmp_path / "before.pt2").read_text() == "kept"


def test_the_difference_is_measured_by_what_the_head_adds_up(finished: Finished, toy: Toy) -> None:
    model = load_model(finished.path / "model/brightness", toy.plugins)
    seen: list[int] = []

    def itself(images: torch.Tensor) -> tuple[torch.Tensor]:
        return (model(images),)

    def off_by(images: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(len(images))
        return (model(images) + 0.5,)

    assert difference(model, itself) == 0
    with torch.no_grad():
        model.network.heads[0].weight.zero_()
        model.network.heads[0].bias.fill_(-50.0)
    assert difference(model, off_by) == pytest.approx(0.01)
    assert seen == list(CHECKED_BATCHES) == [1, 3]
    with torch.no_grad():
        model.network.heads[0].bias.zero_()
    assert difference(model, itself) == 0


class OneSize(nn.Module):
    """A network that takes batches of two only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1).mean(1)


@pytest.mark.parametrize("form", FORMATS)
def test_a_network_that_cannot_be_converted(form: str) -> None:
    with pytest.raises(ExportError, match=f"my network: the network cannot be converted to {form} "):
        convert(OneSize(), (3, 4, 4), form, what="my network")


def test_a_pt2_holds_no_images(exported: Path) -> None:
    content = BytesIO((exported / "tint.pt2").read_bytes())
    assert torch.export.load(content).example_inputs is None
