"""Labels that a model gives: cached by content, resumed, shared by processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from toy_runs import Recorder, process_environment

from facetask import FaceData, PluginError, RunDirError, cache_folder, label_images
from facetask.context import run_context
from facetask.plugin_manager import default_manager
from facetask.tasks import label_source as module

SOURCE = "brightness 1.0: mean of 32×32"


def brightness(paths: Sequence[Path]) -> np.ndarray:
    grey = np.array([np.asarray(Image.open(path).convert("L"), dtype=float).mean() for path in paths])
    return np.stack([grey, np.where(grey > 100, np.nan, 0.5)], axis=1)


class Counting:
    """Computes brightness, remembers the batches, and stops before one."""

    def __init__(self, stop_before: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.batches: list[list[str]] = []
        self.stop_before, self.error = stop_before, error

    def __call__(self, paths: Sequence[Path]) -> np.ndarray:
        if len(self.batches) == self.stop_before:
            raise self.error("stopped")
        self.batches.append([path.name for path in paths])
        return brightness(paths)

    @property
    def images(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> FaceData:
    """Ten grey images of brightness 0, 20, …, 180."""
    paths = tuple(tmp_path / f"{i}.png" for i in range(10))
    for i, path in enumerate(paths):
        Image.new("L", (8, 8), 20 * i).save(path)
    return FaceData(paths=paths, columns={})


def label(data: FaceData, compute: Callable[..., Any], source: str = SOURCE, **more: Any) -> dict[str, np.ndarray]:
    return label_images(data, source, compute, **{"columns": ("grey", "sure"), "batch_size": 3, **more})


def files() -> list[Path]:
    return sorted(path for path in cache_folder("labels").rglob("*") if path.is_file())


def test_columns_are_what_was_computed_batch_by_batch(data: FaceData) -> None:
    compute = Counting()
    found = label(data, compute)
    assert list(found) == ["grey", "sure"]
    np.testing.assert_array_equal(found["grey"], np.arange(10) * 20.0)
    np.testing.assert_array_equal(found["sure"], [0.5] * 6 + [np.nan] * 4)
    assert [len(batch) for batch in compute.batches] == [3, 3, 3, 1]


def test_what_is_known_by_content_is_not_computed_again(data: FaceData, tmp_path: Path) -> None:
    first = label(data, Counting())
    moved = tmp_path / "moved.png"
    data.paths[4].rename(moved)
    Image.new("L", (8, 8), 7).save(data.paths[4])
    grown = FaceData(paths=(moved, *data.paths), columns={})
    again = Counting()
    found = label(grown, again)
    assert again.images == ["4.png"]
    np.testing.assert_array_equal(found["grey"], [80, 0, 20, 40, 60, 7, *first["grey"][5:]])


def test_images_of_the_same_content_are_computed_once(data: FaceData) -> None:
    twice = FaceData(paths=data.paths[:2] * 2, columns={})
    compute = Counting()
    np.testing.assert_array_equal(label(twice, compute)["grey"], [0, 20, 0, 20])
    assert len(compute.images) == 2


@pytest.mark.parametrize("changed", [{"source": "brightness 1.1"}, {"columns": ("grey", "certain")}])
def test_another_source_or_other_columns_are_computed_anew(data: FaceData, changed: dict[str, Any]) -> None:
    label(data, Counting())
    again = Counting()
    label(data, again, **changed)
    assert len(again.images) == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_labelling_goes_on_where_it_stopped(data: FaceData, error: type[BaseException]) -> None:
    with pytest.raises(error, match="stopped"):
        label(data, Counting(stop_before=2, error=error))
    again = Counting()
    found = label(data, again)
    assert again.images == ["6.png", "7.png", "8.png", "9.png"]
    np.testing.assert_array_equal(found["grey"], np.arange(10) * 20.0)


def test_labels_are_written_while_others_are_computed(data: FaceData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.0)
    seen = []

    def compute(paths: Sequence[Path]) -> np.ndarray:
        seen.append([parquet.read_table(path).num_rows for path in files()])
        return brightness(paths)

    label(data, compute)
    assert seen == [[], [3], [6], [9]]
    (path,) = files()
    assert parquet.read_table(path).num_rows == 10
    assert parquet.read_schema(path).metadata[b"source"].decode() == SOURCE
    assert path.parent.name.startswith("brightness-1.0-mean-of-32-32-")


def test_unreadable_images_have_no_label_and_are_told(data: FaceData, tmp_path: Path) -> None:
    data.paths[1].write_bytes(data.paths[1].read_bytes()[:40])
    data.paths[5].unlink()
    reporter = Recorder()
    with run_context(default_manager(), reporter):
        found = label(data, Counting())
    np.testing.assert_array_equal(found["grey"], [0, np.nan, 40, 60, 80, np.nan, 120, 140, 160, 180])
    assert reporter.warnings == ["2 images cannot be read and get no grey: 5.png, 1.png"]
    Image.new("L", (8, 8), 20).save(data.paths[1])
    again = Counting()
    assert label(data, again)["grey"][1] == 20
    assert again.images == ["1.png"]


def test_only_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    data = FaceData(paths=(tmp_path / "a.png", tmp_path / "b.png"), columns={})
    assert np.isnan(label(data, Counting())["grey"]).all()
    assert files() == []
    assert label(data.subset(np.array([], dtype=int)), Counting())["grey"].shape == (0,)


def test_a_compute_that_fails_on_sound_images_is_not_hidden(data: FaceData) -> None:
    with pytest.raises(ZeroDivisionError):
        label(data, lambda paths: 1 / 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros, r"expected numbers of shape \(3, 2\), found \(3,\)"),
        (lambda n: np.zeros((n + 1, 2)), r"found \(4, 2\)"),
        (lambda n: np.full((n, 2), np.inf), "a label is infinite; return NaN"),
    ],
)
def test_numbers_that_are_no_labels_are_refused_and_not_kept(data: FaceData, rows: Any, message: str) -> None:
    with pytest.raises(PluginError, match=f"label source 'brightness.*{message}"):
        label(data, lambda paths: rows(len(paths)))
    assert files() == []


def test_a_damaged_file_is_passed_over(data: FaceData) -> None:
    label(data, Counting())
    (path,) = files()
    path.write_bytes(path.read_bytes()[:100])
    again = Counting()
    np.testing.assert_array_equal(label(data, again)["grey"], np.arange(10) * 20.0)
    assert len(again.images) == 10


def test_progress_counts_what_is_computed(data: FaceData) -> None:
    class Bars(Recorder):
        def bar(self, what: str, total: int) -> Any:
            self.lines.append(f"{what} {total}")
            return super().bar(what, total)

    label(data.subset(np.arange(4)), Counting())
    reporter = Bars()
    with run_context(default_manager(), reporter):
        label(data, Counting())
    assert reporter.lines == ["labels grey, sure 6"]


def test_a_cache_that_cannot_be_written_is_told(data: FaceData, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(
        RunDirError, match=r"cannot be kept \(No space left on device\); make room, or set FACETASK_CACHE"
    ):
        label(data, Counting())


def test_two_processes_at_once_do_not_disturb_each_other(data: FaceData) -> None:
    code = """
import sys, time
from pathlib import Path
import numpy as np
from facetask import FaceData, label_images
from facetask.tasks import label_source
label_source.WRITE_EVERY_S = 0.0
paths = sorted(Path(sys.argv[1]).glob("*.png"))[::int(sys.argv[2])]
def compute(some):
    time.sleep(0.02)
    return np.array([[int(path.stem) * 20.0, 0.5] for path in some])
found = label_images(FaceData(paths=tuple(paths), columns={}), "both", compute, columns=("grey", "sure"), batch_size=1)
assert found["grey"].tolist() == [int(path.stem) * 20.0 for path in paths], found
"""
    folder = str(data.paths[0].parent)
    command = [sys.executable, "-W", "error", "-c", code, folder]
    both = [
        subprocess.Popen([*command, step], env=process_environment(), stderr=subprocess.PIPE) for step in ("1", "-1")
    ]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    again = Counting()
    np.testing.assert_array_equal(label(data, again, source="both")["grey"], np.arange(10) * 20.0)
    assert again.images == []
    assert not [path for path in files() if path.suffix != ".parquet"]
