"""The installed plugin keeps its contract and selects what it should."""

import numpy as np
import pytest

from facetask import Moments, PluginManager, SelectionProblem, Selector
from facetask.testing import check_selector


@pytest.fixture
def selector() -> Selector:
    """The plugin as facetask finds it."""
    record = PluginManager().find("selector", "$name")
    assert isinstance(record, Selector)
    return record


@pytest.mark.parametrize("step", [1, 5, 100])
def test_it_keeps_its_contract(selector: Selector, step: int) -> None:
    """On facetask's problems: dead, duplicate and coupled columns."""
    check_selector(selector, selector.params(step=step))


def test_filters_that_vary_more_come_first(selector: Selector) -> None:
    """Of four columns, of which two belong to one component."""
    x = np.random.default_rng(0).normal(size=(50, 4)) * [1.0, 3.0, 2.0, 2.5]
    problem = SelectionProblem(moments=Moments.from_arrays(x, x[:, :1]), component=np.array([0, 1, 2, 2]))
    path = selector.select(problem, selector.params())
    assert [support.tolist() for support in path.supports] == [[2], [1, 2], [0, 1, 2]]
