from __future__ import annotations

import gc
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facetask import DataError, Preprocessing
from facetask.data.images import scan_images
from facetask.data.loader import ImageLoader
from facetask.testing import tiny_network, toy_faces

SPEC = Preprocessing(size=(32, 32), colour="rgb", mean=(100.0, 110.0, 120.0), std=(50.0,) * 3)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> ImageLoader:
    faces = toy_faces(tmp_path_factory.mktemp("faces"), n=22)
    return ImageLoader(scan_images(faces, 0.0), SPEC, "cpu", 8, 0)


def in_batches(n: int, size: int) -> list[np.ndarray]:
    return np.array_split(np.arange(n), range(size, n, size))


def no_child_is_left() -> bool:
    gc.collect()
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_normalised_images_in_order(loader: ImageLoader, workers: int) -> None:
    rows = np.random.default_rng(0).permutation(22)[:19]
    expected = torch.stack([torch.from_numpy(SPEC.load(loader.images.data.paths[row])) for row in rows])
    found = list(replace(loader, workers=workers).batches(rows, in_batches(19, 8)))
    assert [len(batch) for batch, _ in found] == [8, 8, 3]
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in found]), rows)
    assert torch.equal(torch.cat([inputs for _, inputs in found]), SPEC.normalise(expected))
    assert no_child_is_left()


def test_any_order_and_a_change_of_pixels(loader: ImageLoader) -> None:
    rows, seen = np.arange(5, 17), []

    def invert(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.dtype)
        return 255 - pixels

    order = [np.array([11, 0]), np.array([3])]
    plain = [inputs for _, inputs in loader.batches(np.arange(22), [np.array([16, 5]), np.array([8])])]
    for (batch, inputs), base, positions in zip(loader.batches(rows, order, invert), plain, order, strict=True):
        np.testing.assert_array_equal(batch, rows[positions])
        back = inputs * 50 + torch.tensor(SPEC.mean).view(1, 3, 1, 1)
        was = base * 50 + torch.tensor(SPEC.mean).view(1, 3, 1, 1)
        torch.testing.assert_close(back, 255 - was, atol=1e-3, rtol=0)
    assert seen == [torch.uint8, torch.uint8]


@pytest.mark.parametrize("workers", [0, 2])
def test_outputs_equal_the_network_applied_by_hand(loader: ImageLoader, workers: int) -> None:
    network = nn.Sequential(tiny_network(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    rows = np.array([3, 21, 0, 7, 7, 8, 9, 10, 11])
    found = replace(loader, workers=workers).all_outputs(network, rows)
    assert not network.training
    inputs = torch.cat([inputs for _, inputs in loader.batches(rows, [np.arange(9)])])
    with torch.no_grad():
        expected = network(inputs).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert no_child_is_left()


def test_nothing_of_inference_reaches_the_caller(loader: ImageLoader) -> None:
    outputs = loader.outputs(tiny_network(), np.arange(22))
    next(outputs)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    outputs.close()


def test_nothing_to_do_starts_no_process(loader: ImageLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data, "DataLoader", None)
    assert list(replace(loader, workers=2).outputs(tiny_network(), np.array([], dtype=np.intp))) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_goes_away_is_named_and_no_process_left(tmp_path: Path, workers: int) -> None:
    faces = toy_faces(tmp_path, n=20)
    loader = ImageLoader(scan_images(faces, 0.0), SPEC, "cpu", 4, workers)
    faces.paths[9].unlink()
    outputs = loader.outputs(tiny_network(), np.arange(20))
    assert [len(next(outputs)[0]) for _ in range(2)] == [4, 4]
    with pytest.raises(DataError, match=r"became unreadable during the run: .*0009.png: no such image"):
        next(outputs)
    assert no_child_is_left()


def test_a_loop_left_early_leaves_no_process(loader: ImageLoader) -> None:
    for _ in replace(loader, workers=2).batches(np.arange(22), in_batches(22, 2)):
        break
    assert no_child_is_left()


def test_auto_starts_no_process_for_a_handful_and_few_for_many(loader: ImageLoader) -> None:
    auto = replace(loader, workers="auto")
    assert auto._n_workers(10) == 0
    assert 1 <= auto._n_workers(10_000) <= max(1, (os.cpu_count() or 1) - 1)
    assert replace(loader, workers=3)._n_workers(10) == 3
