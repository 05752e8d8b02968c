"""How a filter responds to a label: bins against numpy, few images never shown alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facetask import FaceData, Labels
from facetask.config import SplitConfig
from facetask.filters.filter_response import LEAST_IMAGES, closest_filter, responses_to
from facetask.responses import Responses
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import Satellite


def task(values: np.ndarray, kind: str = "continuous", **spec: Any) -> Satellite:
    paths = tuple(Path(f"{i}.png") for i in range(len(values)))
    given = Labels(name="task", kind=kind, values=values)  # type: ignore[arg-type]
    spec = TaskSpec("task", kind, **spec)  # type: ignore[arg-type,assignment]
    return Satellite(spec, "plugin", values, FaceData(paths=paths, columns={}), SplitConfig(), {}, 0, given)  # type: ignore[arg-type]


def responses(x: np.ndarray) -> Responses:
    return Responses(x.astype(np.float32), {"tap": slice(0, x.shape[1])})


def test_bins_are_means_and_percentiles_of_the_labelled_images() -> None:
    rng = np.random.default_rng(0)
    y = rng.uniform(-40, 40, (1000, 1))
    y[:10] = np.nan
    x = np.hstack([rng.random((1000, 1)), np.maximum(y, 0) + rng.random((1000, 1))])
    (found,) = responses_to(task(y), responses(x), "tap", 1)
    assert (found.tap, found.filter, found.output, found.n_images) == ("tap", 1, 0, 990)
    known, shown = y[10:, 0], x[10:, 1].astype(np.float32).astype(float)
    assert found.correlation == pytest.approx(np.corrcoef(shown, known)[0, 1])
    edges = np.linspace(known.min(), known.max(), len(found.bins) + 1)
    assert len(found.bins) == 24
    for shown_bin, low, high in zip(found.bins[:-1], edges[:-2], edges[1:-1], strict=True):
        inside = (known >= low) & (known < high)
        assert shown_bin.n_images == inside.sum()
        assert shown_bin.label == pytest.approx(known[inside].mean())
        assert shown_bin.response == pytest.approx(shown[inside].mean())
        assert (shown_bin.low, shown_bin.high) == pytest.approx(tuple(np.percentile(shown[inside], [10, 90])))


def test_few_images_are_no_bin() -> None:
    y = np.concatenate([np.linspace(0, 1, 100), [50.0], np.linspace(99, 100, 100)])[:, None]
    (found,) = responses_to(task(y), responses(y), "tap", 0)
    assert [shown.n_images for shown in found.bins] == [100, 100]
    assert min(shown.n_images for shown in found.bins) >= LEAST_IMAGES


def test_each_output_has_a_response_and_other_kinds_none() -> None:
    y = np.random.default_rng(1).standard_normal((80, 2))
    assert [found.output for found in responses_to(task(y), responses(y), "tap", 0)] == [0, 1]
    assert responses_to(task((y[:, :1] > 0) * 1.0, "binary", classes=("a", "b")), responses(y), "tap", 0) == []


def test_a_dead_filter_has_no_correlation() -> None:
    y = np.arange(80.0)[:, None]
    (found,) = responses_to(task(y), responses(np.full((80, 2), 0.3)), "tap", 0)
    assert found.correlation is None
    assert [shown.response for shown in found.bins] == pytest.approx([0.3] * len(found.bins))


def test_the_closest_filter_is_that_of_the_largest_correlation_in_training() -> None:
    rng = np.random.default_rng(2)
    y = rng.standard_normal((200, 1))
    x = np.hstack([y + rng.standard_normal((200, 1)) * noise for noise in (0.1, 3.0, 1.0, 2.0)])
    x[100:, 3] = y[100:, 0]  # perfect, but not on the images that decide
    rows = np.arange(100)
    assert closest_filter(task(y), responses(x), "tap", [1, 2, 3], rows) == 2
    assert closest_filter(task(y), responses(-x), "tap", range(4), rows) == 0
    y[:50] = np.nan
    assert closest_filter(task(y), responses(x), "tap", [1, 2], rows) == 2
    assert closest_filter(task(np.nan_to_num(y)), responses(0 * x), "tap", [2, 3], rows) == 2
