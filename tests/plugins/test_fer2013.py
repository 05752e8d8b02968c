"""The dataset ``fer2013``: class folders, and the csv whose numbers become images."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import load, refusal, unusable, write_image
from PIL import Image

from facetask import cache_folder

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path_factory.mktemp("cache")))


def row(code: object = 3, usage: str = "Training", seed: int = 0) -> tuple[object, str, str]:
    pixels = np.random.default_rng(seed).integers(0, 256, 48 * 48)
    return code, " ".join(map(str, pixels)), usage


def table(root: Path, *rows: tuple[object, str, str], header: str = "emotion,pixels,Usage") -> Path:
    root.mkdir(exist_ok=True)
    (root / "fer2013.csv").write_text("\n".join([header, *(",".join(map(str, cells)) for cells in rows)]) + "\n")
    return root


def test_rows_of_the_csv_become_images(tmp_path: Path) -> None:
    usages = ("Training", "PublicTest", "PrivateTest")
    data = load("fer2013", table(tmp_path, *(row(code, usages[code % 3], code) for code in range(7)), row(0)))
    assert data.columns["emotion"].tolist() == [*EMOTIONS, "angry"]
    assert data.columns["usage"].tolist() == [*(usages[code % 3] for code in range(7)), "Training"]
    assert len(set(data.paths)) == 8
    for seed, path in enumerate(data.paths[:7]):
        with Image.open(path) as image:
            assert image.mode == "L"
            expected = np.random.default_rng(seed).integers(0, 256, (48, 48))
            np.testing.assert_array_equal(np.asarray(image), expected)
    assert data.group_column is None
    assert unusable(data) == ()


def test_images_are_written_once_and_again_only_where_rows_differ(tmp_path: Path) -> None:
    first = load("fer2013", table(tmp_path, row(seed=1), row(seed=2)))
    times = [os.stat(path).st_mtime_ns for path in first.paths]
    first.paths[1].unlink()
    second = load("fer2013", table(tmp_path, row(seed=1), row(seed=2), row(seed=3)))
    assert second.paths[:2] == first.paths
    assert os.stat(second.paths[0]).st_mtime_ns == times[0]
    changed = load("fer2013", table(tmp_path, row(seed=9), row(seed=2)))
    assert changed.paths[0] != first.paths[0]
    assert changed.paths[1] == first.paths[1]
    assert sorted(os.listdir(cache_folder("face-images") / "fer2013")) == sorted(
        {path.name for path in (*second.paths, *changed.paths)}
    )


def test_class_folders(tmp_path: Path) -> None:
    for place in ("Happy/1.png", "sad/2.png"):
        write_image(tmp_path / place)
    data = load("fer2013", tmp_path)
    assert list(data.columns) == ["emotion"]
    assert data.columns["emotion"].tolist() == ["happy", "sad"]


def test_class_folders_of_train_and_test(tmp_path: Path) -> None:
    for place in ("train/happy/1.png", "test/angry/2.png"):
        write_image(tmp_path / place)
    data = load("fer2013", tmp_path)
    assert data.columns["emotion"].tolist() == ["angry", "happy"]
    assert data.columns["usage"].tolist() == ["test", "train"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (row(7), "line 3: expected an emotion 0 … 6, found '7'"),
        (row("happy"), "line 3: expected an emotion 0 … 6, found 'happy'"),
        (row(usage="Trainning"), "line 3: unknown Usage 'Trainning'; did you mean 'Training'?"),
        ((3, row()[1] + " 5", "Training"), "line 3: expected 2304 pixels, found 2305"),
        ((3, row()[1].rpartition(" ")[0] + " 256", "Training"), "line 3: expected pixels of 0 to 255"),
        ((3, "1,2", "Training"), "line 3: expected 3 cells, found 4"),
    ],
)
def test_malformed_rows(tmp_path: Path, cells: tuple[object, str, str], message: str) -> None:
    assert f"{tmp_path / 'fer2013.csv'}: {message}" in refusal("fer2013", table(tmp_path, row(), cells))


def test_other_tables(tmp_path: Path) -> None:
    message = refusal("fer2013", table(tmp_path, header="pixels,emotion"))
    assert "line 1: expected emotion,pixels,Usage, found 'pixels,emotion'" in message
    assert "a header and no rows" in refusal("fer2013", table(tmp_path))


def test_refusals(tmp_path: Path) -> None:
    assert "expected fer2013.csv, or images in folders named angry, disgust" in refusal("fer2013", tmp_path / "none")
    (tmp_path / "fer.csv").touch()
    assert refusal("fer2013", tmp_path).endswith("found fer.csv")
    (tmp_path / "happy").mkdir()
    assert "found no image there (fer.csv, happy)" in refusal("fer2013", tmp_path)
    write_image(tmp_path / "happy" / "1.png")
    write_image(tmp_path / "surprised" / "1.png")
    assert "the folder 'surprised' is no emotion; did you mean 'surprise'?" in refusal("fer2013", tmp_path)


def test_real_images_as_a_csv(data_root: Path, tmp_path: Path) -> None:
    with (data_root / "fer2013" / "labels.csv").open() as file:
        labels = list(csv.DictReader(file))[:60]
    pixels = []
    for label in labels:
        with Image.open(data_root / "fer2013" / "images" / label["image"]) as image:
            pixels.append(np.asarray(image.convert("L")))
    rows = (
        (EMOTIONS.index(label["emotion"]), " ".join(map(str, face.ravel())), "Training")
        for label, face in zip(labels, pixels, strict=True)
    )
    data = load("fer2013", table(tmp_path, *rows))
    assert data.columns["emotion"].tolist() == [label["emotion"] for label in labels]
    for path, face in zip(data.paths, pixels, strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), face)
