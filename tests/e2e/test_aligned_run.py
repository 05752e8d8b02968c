"""A run on aligned faces: the same pixels in responses, finetuning and predictions, and what is said of them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from toy_runs import Recorder, Toy
from typer.testing import CliRunner

from facetask import ConfigError, DataError, PluginError, cli, load_model
from facetask.config import config_from_dict
from facetask.data.images import scan_images
from facetask.running.prepare import Materials, prepare, respond

TO = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
WANTED = np.array(TO) * 32 - 0.5
ALIGN = {"landmarks": "columns", "to": TO}
FACELESS = (4, 11)


@dataclass(frozen=True)
class Faces:
    """Toy faces whose table has the places of eyes, noses and mouths; two of them have none."""

    toy: Toy
    root: Path
    points: NDArray[np.float64]

    @property
    def paths(self) -> list[Path]:
        return sorted((self.root / "images").iterdir())

    def config(self, align: Any = None, **changes: Any) -> dict[str, Any]:
        data = {"name": "table", "params": {"root": str(self.root), "group_column": "person"}, "align": align or ALIGN}
        tasks = [{"name": "column", "params": {"column": "brightness", "kind": "continuous"}}]
        return {**self.toy.values, "data": data, "satellite_tasks": tasks, "trials": 1, **changes}

    def prepared(self, **changes: Any) -> tuple[Materials, Recorder]:
        recorder = Recorder()
        config = config_from_dict(self.config(**changes), base=Path.cwd(), plugins=self.toy.plugins)
        return prepare(config, self.toy.plugins, recorder), recorder


def make_faces(toy: Toy, root: Path, seed: int) -> Faces:
    """Write the toy faces' table again, with points."""
    given = Path(toy.values["data"]["params"]["root"])
    root.mkdir()
    (root / "images").symlink_to(given / "images")
    rng = np.random.default_rng(seed)
    with (given / "labels.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    angle, scale = rng.normal(0, 0.3, len(rows)), rng.uniform(0.7, 1.4, len(rows))
    turn = scale[:, None, None] * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).T
    points = (WANTED - 16) @ turn + 16 + rng.normal(0, 1, (len(rows), 5, 2))
    points[list(FACELESS)] = np.nan
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, *(f"{axis}{i}" for i in range(5) for axis in "xy")])
        for row, own in zip(rows, points, strict=True):
            writer.writerow([*row, *("" if np.isnan(value) else repr(float(value)) for value in own.ravel())])
    return Faces(toy, root, points)


@pytest.fixture(scope="module")
def faces(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return make_faces(toy, tmp_path_factory.mktemp("aligned") / "faces", seed=0)


@pytest.fixture(scope="module")
def model(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result, _ = faces.toy.run(tmp_path_factory.mktemp("runs") / "aligned", faces.config())
    return result.models["brightness"]


def expected_pixels(faces: Faces, materials: Materials) -> torch.Tensor:
    preprocessing = materials.network.preprocessing
    pairs = zip(faces.paths, faces.points, strict=True)
    return torch.from_numpy(np.stack([preprocessing.load(path, own) for path, own in pairs]))


def test_every_image_reaches_the_network_aligned(faces: Faces) -> None:
    materials, recorder = faces.prepared()
    np.testing.assert_allclose(materials.network.preprocessing.face, WANTED)
    np.testing.assert_array_equal(materials.images.points, faces.points)
    assert (
        "align: no face is known on 2 of 60 images, which are used as they are: 0004.png, 0011.png" in recorder.warnings
    )
    pixels = expected_pixels(faces, materials)
    plain = materials.network.preprocessing
    unaligned = np.stack([plain.load(path) for path in faces.paths])
    same = (pixels.numpy() == unaligned).all(axis=(1, 2, 3))
    assert np.flatnonzero(same).tolist() == list(FACELESS)
    rows = np.array([7, 3, 59, 4])
    (_, inputs), *_ = materials.loader.batches(rows, [np.arange(4)])
    assert torch.equal(inputs, plain.normalise(pixels[rows]))
    network = materials.network.module
    with torch.inference_mode():
        first = torch.relu(network[0](plain.normalise(pixels))).mean((2, 3))  # type: ignore[index]
    np.testing.assert_allclose(respond(materials, recorder).tap("0"), first.numpy(), atol=1e-4)


def test_results_say_what_faces_were_aligned_by(faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = faces.toy.run(tmp_path / "run", faces.config(), until="regress")
    align = result.results.data.align
    assert align is not None
    assert (align.landmarks, align.n_without_face) == ("columns", len(FACELESS))
    assert align.licence == result.results.data.licence
    monkeypatch.setattr("facetask.running.prepare.face_points", lambda data, align: faces.points)
    found, _ = faces.toy.run(tmp_path / "found", faces.config(align={**ALIGN, "landmarks": "detect"}), until="regress")
    assert found.results.data.align is not None
    assert (found.results.data.align.landmarks, found.results.data.align.n_without_face) == ("detect", len(FACELESS))
    assert "excludes commercial use" in found.results.data.align.licence
    assert "excludes commercial use" in (tmp_path / "found/report.html").read_text(encoding="utf-8")
    plain, _ = faces.toy.run(tmp_path / "plain", faces.toy.config(trials=1), until="regress")
    assert plain.results.data.align is None


def test_responses_are_kept_for_an_image_and_its_landmarks(
    faces: Faces, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "cache"))
    again = []
    others = [faces, make_faces(toy, tmp_path / "others", seed=1), faces]
    for given in others:
        materials, recorder = given.prepared()
        again.append((respond(materials, recorder).matrix, recorder))
    assert again[0][1].said("0 from the cache")
    assert again[1][1].said("2 from the cache")  # those without a face
    assert again[2][1].said("all from the cache")
    np.testing.assert_array_equal(again[0][0], again[2][0])
    assert (again[0][0] != again[1][0]).any()
    first, second = (given.prepared()[0].images for given in others[:2])
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() != scan_images(first.data, 0.0).fingerprint()


def test_where_faces_shall_lie_changes_the_networks_fingerprint(faces: Faces) -> None:
    margin, _ = faces.prepared(align={**ALIGN, "margin": 0.2})
    plain, _ = faces.prepared()
    assert margin.network.fingerprint() != plain.network.fingerprint()
    eyes = np.array(margin.network.preprocessing.face)[:2]
    assert np.ptp(eyes[:, 0]) == pytest.approx(np.ptp(WANTED[:2, 0]) / 1.4)


def test_a_saved_model_predicts_as_the_run_did(faces: Faces, model: Path) -> None:
    loaded = load_model(model, faces.toy.plugins)
    np.testing.assert_allclose(loaded.preprocessing.face, WANTED)
    inputs = loaded.preprocessing.normalise(expected_pixels(faces, faces.prepared()[0]))
    with torch.inference_mode():
        expected = loaded(inputs)[:, 0].double().numpy()
    found = list(loaded.predict(faces.paths, batch_size=7, landmarks=faces.points))
    np.testing.assert_allclose([row["value"] for row in found], expected, rtol=1e-5)
    assert [i for i, row in enumerate(found) if not row["face_found"]] == list(FACELESS)


def test_predict_finds_the_landmarks_itself(faces: Faces, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = dict(zip(faces.paths, faces.points, strict=True))

    def finder(paths: list[Path]) -> NDArray[np.float64]:
        rows = np.full((len(paths), 68, 2), np.nan)
        for row, path in zip(rows, paths, strict=True):
            row[:] = by_path[path][0]
            row[36:42], row[42:48] = by_path[path][0], by_path[path][1]
        return rows.reshape(len(paths), -1)

    monkeypatch.setattr("facetask.models.checkpoint.landmark_finder", lambda: finder)
    command = ["predict", str(model), *map(str, faces.paths[3:5]), "--plugins-dir", str(faces.toy.plugins_dir)]
    text = CliRunner().invoke(cli.app, command).stdout.splitlines()
    assert ["no face found: taken as it is" in line for line in text] == [False, True]
    rows = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert [row["face_found"] for row in rows] == [True, False]
    landmarks = finder(faces.paths[3:5]).reshape(2, 68, 2)
    given = load_model(model, faces.toy.plugins).predict(faces.paths[3:5], 1, landmarks)
    assert [row["value"] for row in rows] == [row["value"] for row in given]
    as_csv = CliRunner().invoke(cli.app, [*command, "--csv"]).stdout.splitlines()
    assert as_csv[0].split(",")[-1] == "face_found"


def test_an_exported_file_says_where_faces_lie(faces: Faces, model: Path, tmp_path: Path) -> None:
    command = ["export", str(model), "--out", str(tmp_path / "m.onnx"), "--plugins-dir", str(faces.toy.plugins_dir)]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    notes = {prop.key: prop.value for prop in onnx.load(tmp_path / "m.onnx").metadata_props}
    np.testing.assert_allclose(json.loads(notes["facetask.preprocessing"])["face"], WANTED)


def test_a_pruned_model_is_pruned_further_as_the_configuration_says(faces: Faces, model: Path) -> None:
    again, _ = faces.prepared(base_network={"model": str(model)})
    np.testing.assert_allclose(again.network.preprocessing.face, WANTED)
    config = faces.config(base_network={"model": str(model)})
    config["data"]["align"] = None
    plain = prepare(config_from_dict(config, base=Path.cwd(), plugins=faces.toy.plugins), faces.toy.plugins, Recorder())
    assert plain.network.preprocessing.face is None
    assert plain.images.points is None


def test_alignment_that_cannot_be(faces: Faces) -> None:
    with pytest.raises(ConfigError, match=r"data\.align: base network tiny does not say where .* give data\.align\.to"):
        faces.prepared(align={"landmarks": "columns"})
    with pytest.raises(DataError, match=r"data\.align: .*labels\.csv: 0 columns named u0, u1 …"):
        faces.prepared(align={**ALIGN, "x": "u{}"})
    for align, message in (
        (
            {"landmarks": "guess", "to": TO},
            "data.align.landmarks: expected 'columns' or 'detect', found 'guess'",
        ),
        ({}, "data.align.landmarks: required, but missing"),
        ({**ALIGN, "margin": -0.5}, "data.align.margin: expected more than -0.5"),
        ({**ALIGN, "x": "x"}, "expected a column's name with {} in place of the landmark's index, found 'x'"),
        ({**ALIGN, "to": TO[:4]}, "data.align.to"),
        ({**ALIGN, "to": [TO[1], TO[0], *TO[2:]]}, "the first place is that of the eye on the left"),
    ):
        with pytest.raises(ConfigError) as caught:
            config_from_dict(
                {**faces.config(), "data": {**faces.config()["data"], "align": align}},
                base=Path.cwd(),
                plugins=faces.toy.plugins,
            )
        assert message in str(caught.value)


def test_an_architecture_with_places_that_are_none_is_blamed(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    find = faces.toy.plugins.find

    def broken(kind: str, name: str) -> Any:
        record: Any = find(kind, name)
        if kind != "architecture":
            return record
        wrong = replace(record.preprocessing(None), face=((1.0, 2.0), (3.0, 4.0)))
        return replace(record, preprocessing=lambda params: wrong)

    monkeypatch.setattr(faces.toy.plugins, "find", broken)
    with pytest.raises(PluginError, match=r"base network tiny: preprocessing\.face must be five \(x, y\)"):
        faces.prepared(align={"landmarks": "columns"})
