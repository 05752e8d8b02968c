"""The curve stage on input that is degenerate in one way each: a clear result or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facetask import CurveError, Params, Selector
from facetask.data.splits import Split
from facetask.plugins.selectors import (
    correlation,
    greedy,
    head2toe,
    l1_norm,
    lasso,
    mutual_information,
    random_order,
    taylor,
)
from facetask.stages.curve import Chooser, Curves, curve

Make = Callable[..., Any]
MODULES = (correlation, greedy, head2toe, l1_norm, lasso, mutual_information, random_order, taylor)
SELECTORS = {module.facetask_selectors()[0].name: module.facetask_selectors()[0] for module in MODULES}
BLIND = {"l1-norm", "random"}
N = 80


@pytest.fixture(params=SELECTORS)
def selector(request: pytest.FixtureRequest) -> Selector:
    return SELECTORS[request.param]


@pytest.fixture
def draw(selector: Selector, make_task: Make, make_responses: Make, halves: Make) -> Callable[..., Curves]:
    """Draw the curves of one tap's responses, of all coupled in pairs where there are twice as many."""

    def drawn(x: np.ndarray, y: np.ndarray, split: Split | None = None, kind: str = "continuous", **spec: Any) -> Any:
        task, responses = make_task(y, kind, **spec), make_responses({"tap": x})
        params = selector.params() if selector.params is not Params else Params()
        weights = {"tap": np.random.default_rng(1).standard_normal((x.shape[1], 9))}
        chooser = Chooser(selector, params, weights, 0, bootstrap=2)
        return curve(responses, task, split or halves(len(x)), chooser).taps["tap"]

    return drawn


def data(p: int = 6, n: int = N, m: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p))
    return x, x[:, :1] * 3 + x[:, 1 : 1 + m] + 0.1 * rng.standard_normal((n, m))


def test_constant_training_labels(draw: Callable[..., Any]) -> None:
    x, y = data()
    y[: N // 2] = 4.0
    with pytest.raises(CurveError, match=r"task 'task', tap, selector '.*': all 1 targets are constant over the 40"):
        draw(x, y)


def test_one_training_image(draw: Callable[..., Any]) -> None:
    split = Split(np.array([0]), np.arange(1, 40), np.arange(40, N))
    with pytest.raises(CurveError, match=r"task 'task', tap, selector .* constant over the 1 training images"):
        draw(*data(), split)


def test_one_validation_image(draw: Callable[..., Any]) -> None:
    found = draw(*data(), Split(np.arange(60), np.array([60]), np.arange(61, N)))
    assert np.isfinite(found.rmse).all()


def test_two_training_images(draw: Callable[..., Any]) -> None:
    found = draw(*data(), Split(np.array([0, 1]), np.arange(2, 40), np.arange(40, N)))
    # With two images every filter is a copy of the first.
    assert [support.tolist() for support in found.supports] == [[0]] * len(found.supports)
    assert np.isfinite(found.rmse).all()
    assert any("duplicate" in note for note in found.notes)


def test_fewer_images_than_filters(draw: Callable[..., Any], selector: Selector) -> None:
    x, y = data(p=100)
    found = draw(x, y)
    assert np.isfinite(found.rmse).all()
    assert max(found.n_filters) <= 100
    assert selector.name in BLIND or {0, 1} <= set(found.supports[np.argmin(found.rmse)].tolist())
    assert any("ridge refit" in note for note in found.notes)


def test_all_filters_dead(draw: Callable[..., Any]) -> None:
    x, y = data()
    mean = np.sqrt(np.mean((y[40:60] - y[:40].mean()) ** 2))
    for dead in (np.zeros_like(x), np.full_like(x, 0.3)):
        found = draw(dead, y)
        assert (found.n_filters, [support.tolist() for support in found.supports]) == ((1,), [[0]])
        assert [*found.rmse, found.unpruned_rmse] == pytest.approx([mean, mean])
        assert found.notes == ("all 6 filters are dead: constant over the training images",)
    y[: N // 2] = 4.0
    with pytest.raises(CurveError, match="all 1 targets are constant"):
        draw(np.zeros_like(x), y)


def test_some_filters_dead_in_training_only(draw: Callable[..., Any]) -> None:
    x, y = data()
    x[: N // 2, [2, 5]] = 0
    found = draw(x, y)
    assert np.isfinite([*found.rmse, found.unpruned_rmse]).all()
    assert not {2, 5} & {int(index) for support in found.supports for index in support}
    assert any("2 dead, left out: 2, 5" in note for note in found.notes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [3, 45], ids=["training", "validation"])
def test_a_response_that_is_no_number(draw: Callable[..., Any], value: float, row: int) -> None:
    x, y = data()
    x[row, 2] = value
    with pytest.raises(CurveError, match=r"task 'task', tap, .*: 1 of 240|task 'task', tap, .*: 1 of 120"):
        draw(x, y)


def test_perfectly_collinear_filters(draw: Callable[..., Any], selector: Selector) -> None:
    x, y = data()
    x = np.hstack([x, x[:, :1] + x[:, 1:2], 2 * x[:, :1] - 1])  # a sum of two, and a copy
    found = draw(x, y)
    assert np.isfinite([*found.rmse, found.unpruned_rmse]).all()
    assert all(7 not in support for support in found.supports)  # a copy is never chosen
    assert min(found.rmse) < 0.15
    if selector.name == "greedy":  # nor is what follows from those chosen
        assert max(found.n_filters) == 6


def test_one_output_constant_among_several(draw: Callable[..., Any]) -> None:
    x, y = data(m=2)
    alone = draw(x, y)
    found = draw(x, np.hstack([y, np.full((N, 1), 7.0)]))
    # It is neither selected for nor in error: the mean over outputs has one more zero.
    assert [support.tolist() for support in found.supports] == [support.tolist() for support in alone.supports]
    np.testing.assert_allclose(found.rmse, np.array(alone.rmse) * np.sqrt(2 / 3), rtol=1e-6)


def test_a_class_without_a_training_image(draw: Callable[..., Any], selector: Selector) -> None:
    x, y = data()
    labels = (y > 0).astype(float)
    labels[60:70] = 2
    found = draw(x, labels, kind="nominal", classes=("a", "b", "never trained"))
    assert np.isfinite(found.rmse).all()
    assert selector.name in BLIND or {0, 1} & set(found.supports[0].tolist())


def test_one_filter(draw: Callable[..., Any]) -> None:
    x, y = data()
    found = draw(x[:, :1], y)
    assert set(found.n_filters) == {1}
    assert [order.tolist() for order in found.resampled] == [[0], [0]]
