"""Tasks and responses made of numbers, for stages that need no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facetask import FaceData, Labels
from facetask.config import SplitConfig
from facetask.data.splits import Split
from facetask.responses import Responses
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import Satellite


@pytest.fixture
def make_task() -> Callable[..., Satellite]:
    """Make a satellite task of some values, ``(n, n_values)``."""

    def make(values: np.ndarray, kind: str = "continuous", data: FaceData | None = None, **spec: Any) -> Satellite:
        paths = tuple(Path(f"{i:04d}.png") for i in range(len(values)))
        return Satellite(
            spec=TaskSpec("task", kind, **spec),  # type: ignore[arg-type]
            plugin="plugin",
            values=values,
            data=data or FaceData(paths=paths, columns={}),
            split_config=SplitConfig(),
            left_out={},
            n_missing=0,
            given=Labels(name="task", kind=kind, values=values, licence=""),  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def make_responses() -> Callable[[Mapping[str, np.ndarray]], Responses]:
    """Lay taps' responses side by side."""

    def make(taps: Mapping[str, np.ndarray]) -> Responses:
        ends = np.cumsum([x.shape[1] for x in taps.values()])
        columns = {
            tap: slice(int(end) - x.shape[1], int(end)) for (tap, x), end in zip(taps.items(), ends, strict=True)
        }
        return Responses(np.concatenate(list(taps.values()), axis=1).astype(np.float32), columns)

    return make


@pytest.fixture
def halves() -> Callable[[int], Split]:
    """Half of the rows for training, a quarter each for validation and test."""

    def make(n: int) -> Split:
        return Split(np.arange(0, n // 2), np.arange(n // 2, 3 * n // 4), np.arange(3 * n // 4, n))

    return make
