"""No stage holds the responses of many images: they stay where they lie, and one block is read after the other."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facetask import Params, SelectionPath, SelectionProblem, Selector
from facetask.data.splits import Split
from facetask.networks.heads import fit_head
from facetask.responses import Responses
from facetask.stages.curve import Chooser
from facetask.stages.regress import fit_tap

N, WIDTH = 48_000, 128
COLUMNS = {"low": slice(0, 50), "high": slice(60, 128)}
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory) -> Responses:
    matrix = np.memmap(tmp_path_factory.mktemp("map") / "responses", np.float32, "w+", shape=(N, WIDTH))
    matrix[:] = np.random.default_rng(0).standard_normal((N, WIDTH), dtype=np.float32)
    return Responses(matrix, COLUMNS)


@pytest.fixture
def split() -> Split:
    return Split(*(np.sort(part) for part in np.split(np.random.default_rng(1).permutation(N), [N // 2, 3 * N // 4])))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetask.statistics.rows.BLOCK_ENTRIES", 2**16)
    monkeypatch.setattr("facetask.statistics.multinomial.MOST_ENTRIES_IN_MEMORY", 0)
    monkeypatch.setattr("facetask.statistics.multinomial.STEPS", 3)


def labels(responses: Responses, kind: str) -> tuple[np.ndarray, dict[str, Any]]:
    score = responses.matrix[:, [3, 70]] @ np.array([[1.0, 0.5], [1.0, -0.5]])
    if kind == "multilabel":
        values = (score > 0).astype(float)
        values[::3, 0] = np.nan
        return values, {"classes": ("a", "b")}
    if kind == "nominal":
        return np.digitize(score[:, :1], [-1, 1]).astype(float), {"classes": ("a", "b", "c")}
    return score[:, :1], {}


def share_of_training(work: Callable[[Split], object], split: Split) -> float:
    """Return the most memory that some work holds, as a share of the training images' responses in float32."""
    work(split.within(np.arange(N) < 1000))  # imports count for nothing
    tracemalloc.start()
    work(split)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / (N // 2 * 118 * 4)


@pytest.mark.parametrize("kind", ["continuous", "multilabel", "nominal"])
def test_regressions_and_heads_copy_no_responses(
    responses: Responses, split: Split, kind: str, make_task: Make
) -> None:
    values, spec = labels(responses, kind)
    task, x = make_task(values, kind, **spec), responses.taps(["low", "high"])
    assert share_of_training(lambda part: fit_tap("both", x, task, part), split) < 0.6
    assert share_of_training(lambda part: fit_head(x, task, part), split) < 0.6


@pytest.mark.parametrize("needs", ["moments", "gradients"])
@pytest.mark.parametrize("kind", ["continuous", "multilabel"])
def test_curves_copy_no_responses_unless_the_selector_needs_them(
    responses: Responses, split: Split, kind: str, needs: Any, make_task: Make
) -> None:
    values, spec = labels(responses, kind)
    task, component = make_task(values, kind, **spec), np.arange(118)

    def select(problem: SelectionProblem, params: Params) -> SelectionPath:
        return SelectionPath(supports=(np.arange(3), np.arange(30)))

    def curve_of(*needed: Any) -> Callable[[Split], object]:
        chooser = Chooser(Selector(name="s", select=select, needs=frozenset(needed)), Params(), {}, 0, bootstrap=1)
        return lambda part: chooser.curve(responses, ["low", "high"], component, task, part)

    assert share_of_training(curve_of("moments", needs), split) < 0.6
    if needs == "moments":
        assert share_of_training(curve_of("moments", "responses"), split) > 1
