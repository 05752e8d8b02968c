"""The strip of images that drive a filter most and least."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from facetask import FaceData
from facetask.filters.image_strip import GAP, LINE, SIDE, extremes, write_strip


def test_extremes_hold_one_image_of_each_group() -> None:
    x = np.array([5.0, 9.0, 8.0, 1.0, 2.0, 7.0])
    assert extremes(x, None, 2) == ([1, 2], [3, 4])
    people = np.array(["a", "b", "b", "c", "c", None], dtype=object)
    assert extremes(x, people, 3) == ([1, 5, 0], [3, 0, 5])
    assert extremes(x, None, 99) == ([1, 2, 5, 0, 4, 3], [3, 4, 0, 5, 2, 1])


def test_the_strip_shows_the_brightest_and_the_darkest_in_their_order(tmp_path: Path) -> None:
    brightness = np.random.default_rng(0).permutation(np.arange(10, 230, 10))
    paths = tuple(tmp_path / f"{i}.png" for i in range(len(brightness)))
    for image_path, value in zip(paths, brightness, strict=True):
        Image.new("L", (40, 60), int(value)).save(image_path)
    faces = FaceData(paths=paths, columns={})
    path = tmp_path / "strip.png"
    write_strip(path, faces, brightness, [f"{value:.4g}" for value in brightness], None)
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("L"), dtype=float)
    lefts = GAP + np.arange(8) * (SIDE + GAP)
    tops = [GAP + LINE, GAP + 3 * LINE + SIDE + GAP + LINE]
    means = [[sheet[top : top + SIDE, left : left + SIDE].mean() for left in lefts] for top in tops]
    assert means == [list(range(220, 140, -10)), list(range(10, 90, 10))]
