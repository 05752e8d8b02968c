from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facetask import CurveError, DataError, FaceData, Preprocessing, RunDirError, cache_folder
from facetask import responses as module
from facetask.data.images import Images, scan_images
from facetask.data.loader import ImageLoader
from facetask.responses import ResponseCache, Responses, collect_responses, forward_responses
from facetask.testing import toy_faces

SPEC = Preprocessing(size=(16, 16), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)
WIDTH = 5


class Counting(nn.Module):
    """A responder that counts images, stops at one, or answers with NaN."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, WIDTH, 3)
        self.images, self.stop_at, self.error, self.poisoned = 0, -1, KeyboardInterrupt, -1

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        if 0 <= self.stop_at < self.images:
            raise self.error
        found = self.conv(x).mean((2, 3))
        if self.images - len(x) <= self.poisoned < self.images:
            found[self.poisoned - self.images + len(x), 2] = torch.nan
        return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "cache"))


@dataclass
class Setting:
    faces: FaceData
    responder: Counting

    def images(self, rows: slice = slice(None)) -> Images:
        return scan_images(self.faces.subset(np.arange(len(self.faces))[rows]), 0.0)

    def collect(self, images: Images, advance: object = lambda done: None) -> np.ndarray:
        """Collect with a cache opened anew, as another run would."""
        self.responder.images = 0
        loader = ImageLoader(images, SPEC, "cpu", 4, 0)
        return collect_responses(self.responder, loader, ResponseCache("network", WIDTH), advance)  # type: ignore[arg-type]

    def expected(self, images: Images) -> np.ndarray:
        inputs = SPEC.normalise(torch.from_numpy(np.stack([SPEC.load(path) for path in images.data.paths])))
        with torch.no_grad():
            return self.responder.conv(inputs).mean((2, 3)).numpy()


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(toy_faces(tmp_path / "faces", n=22), Counting())


def test_many_responses_lie_in_a_memory_map_that_leaves_no_file(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = setting.images()
    expected = setting.collect(images)
    before = sorted(cache_folder("responses").rglob("*"))
    monkeypatch.setattr(module, "MOST_BYTES_IN_MEMORY", expected.nbytes - 1)
    mapped = setting.collect(images)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, expected)
    assert sorted(cache_folder("responses").rglob("*")) == before
    monkeypatch.setattr(module, "MOST_BYTES_IN_MEMORY", expected.nbytes)
    assert not isinstance(setting.collect(images), np.memmap)


def test_no_room_for_the_memory_map_is_an_error(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    images = setting.images()
    setting.collect(images)
    monkeypatch.setattr(module, "MOST_BYTES_IN_MEMORY", 1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(RunDirError, match=r"no room for 22 images' responses, 0.0 GB \(No space left.*FACETASK_CACHE"):
        setting.collect(images)


def test_responses_that_nobody_needs_again_are_not_cached(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    images = setting.images()
    loader, wanted = ImageLoader(images, SPEC, "cpu", 4, 0), np.array([1, 2, 5, 8, 9, 20])
    expected = np.zeros((22, WIDTH), dtype=np.float32)
    expected[wanted] = setting.expected(images)[wanted]
    found = forward_responses(setting.responder, loader, wanted)
    assert setting.responder.images == 6
    monkeypatch.setattr(module, "MOST_BYTES_IN_MEMORY", 1)
    mapped = forward_responses(setting.responder, loader, wanted)
    assert (type(found), type(mapped)) == (np.ndarray, np.memmap)
    for rows in (found, mapped):
        np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert not [path for path in cache_folder("responses").rglob("*") if path.is_file()]


def test_a_second_pass_computes_nothing_and_gives_the_same(setting: Setting) -> None:
    images, counted = setting.images(), []
    first = setting.collect(images, counted.append)
    assert setting.responder.images == 22
    assert sum(counted) == 22
    np.testing.assert_allclose(first, setting.expected(images), atol=1e-6)
    assert first.dtype == np.float32
    counted.clear()
    np.testing.assert_array_equal(setting.collect(images, counted.append), first)
    assert setting.responder.images == 0
    assert sum(counted) == 22


def test_only_new_images_are_computed_and_order_does_not_matter(setting: Setting) -> None:
    half = setting.collect(setting.images(slice(5, 15)))
    images = setting.images(slice(None, None, -1))
    whole = setting.collect(images)
    assert setting.responder.images == 12
    np.testing.assert_allclose(whole, setting.expected(images), atol=1e-6)
    np.testing.assert_array_equal(whole[::-1][5:15], half)


def test_copies_of_an_image_are_computed_once(setting: Setting, tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(setting.faces.paths[3].read_bytes())
    paths = (copy, *setting.faces.paths, copy)
    counted: list[int] = []
    found = setting.collect(scan_images(FaceData(paths=paths, columns={}), 0.0), counted.append)
    assert setting.responder.images == 22
    assert sum(counted) == 24
    np.testing.assert_array_equal(found[0], found[4])
    np.testing.assert_array_equal(found[0], found[23])


def test_another_network_shares_nothing(setting: Setting) -> None:
    setting.collect(setting.images())
    assert len(ResponseCache("network", WIDTH)) == 22
    assert len(ResponseCache("another", WIDTH)) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, DataError])
def test_an_interrupted_pass_goes_on_where_it_stopped(setting: Setting, error: type[BaseException]) -> None:
    images = setting.images()
    setting.responder.stop_at, setting.responder.error = 14, error
    with pytest.raises(error):
        setting.collect(images)
    setting.responder.stop_at = -1
    found = setting.collect(images)
    assert setting.responder.images == 22 - 12  # three whole batches of four had come through
    np.testing.assert_allclose(found, setting.expected(images), atol=1e-6)


def test_long_passes_are_written_shard_by_shard(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 8)
    images = setting.images()
    setting.collect(images)
    assert len(list(cache_folder("responses/network").glob("*.npy"))) == 3
    setting.collect(images)
    assert setting.responder.images == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing", "rows", "width", "type", "no keys"])
def test_a_damaged_shard_is_computed_again(setting: Setting, damage: str) -> None:
    images = setting.images()
    first = setting.collect(images)
    (shard,) = cache_folder("responses/network").glob("*.npy")
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size - 7)
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "garbage":
        shard.write_bytes(bytes(shard.stat().st_size))
    elif damage == "missing":
        shard.unlink()
    elif damage == "rows":
        np.save(shard, first[:-1])
    elif damage == "width":
        np.save(shard, first[:, :-1])
    elif damage == "type":
        np.save(shard, first.astype(np.float64))
    else:
        shard.with_suffix(".keys").unlink()
    np.testing.assert_allclose(setting.collect(images), first, atol=1e-6)
    assert setting.responder.images == 22
    setting.collect(images)
    assert setting.responder.images == 0


def test_half_written_keys_do_not_count(setting: Setting) -> None:
    images = setting.images()
    setting.collect(images)
    (keys,) = cache_folder("responses/network").glob("*.keys")
    keys.rename(keys.with_suffix(".partial"))
    setting.collect(images)
    assert setting.responder.images == 22


def test_a_response_that_is_not_finite_names_its_image(setting: Setting) -> None:
    images = setting.images()
    setting.responder.poisoned = 9
    with pytest.raises(CurveError, match=r"0009.png: filter response 2 is nan"):
        setting.collect(images)
    assert len(ResponseCache("network", WIDTH)) == 8


def test_a_cache_that_cannot_be_written_says_what_to_do(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, rows: np.ndarray) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(RunDirError, match=r"cannot be written \(No space left on device\); make room"):
        setting.collect(setting.images())
    assert list(cache_folder("responses/network").iterdir()) == []


WRITER = """
import sys
import numpy as np
from facetask.responses import ResponseCache

cache, start = ResponseCache("shared", 5), int(sys.argv[1])
for first in range(start, start + 60, 3):
    digests = np.array([b"%016d" % i for i in range(first, first + 3)], dtype="V16")
    cache.write(digests, np.arange(first, first + 3, dtype=np.float32)[:, None].repeat(5, axis=1))
    ResponseCache("shared", 5)  # reading while the other writes
"""


def test_two_processes_may_write_at_once() -> None:
    # Half of the images are in both.
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(start)]) for start in (0, 30)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    cache = ResponseCache("shared", WIDTH)
    assert len(cache) == 90
    order = np.random.default_rng(0).permutation(90)
    found = cache.read(np.array([b"%016d" % i for i in order], dtype="V16"))
    np.testing.assert_array_equal(found, np.repeat(order[:, None], WIDTH, axis=1))


def test_taps_are_column_ranges() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(2, 6)
    responses = Responses(matrix, {"a": slice(0, 1), "b": slice(1, 4), "c": slice(4, 6)})
    np.testing.assert_array_equal(responses.tap("b"), matrix[:, 1:4])
    np.testing.assert_array_equal(responses.taps(["c", "a"]).array(), matrix[:, [4, 5, 0]])
    assert np.shares_memory(responses.tap("b"), matrix)


def test_worker_processes_change_nothing(setting: Setting) -> None:
    images = setting.images()
    first = setting.collect(images)
    loader = ImageLoader(images, SPEC, "cpu", 4, 2)
    found = collect_responses(setting.responder, loader, ResponseCache("again", WIDTH))
    np.testing.assert_array_equal(found, first)
