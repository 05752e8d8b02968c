"""The installed plugin keeps its contract and scores as it should."""

import numpy as np
import pytest

from facetask import PluginManager, Score, ScoreProblem
from facetask.testing import check_score


@pytest.fixture
def score() -> Score:
    """The plugin as facetask finds it."""
    record = PluginManager().find("score", "$name")
    assert isinstance(record, Score)
    return record


@pytest.mark.parametrize("filters", [1, 5, 100])
def test_it_keeps_its_contract(score: Score, filters: int) -> None:
    """On facetask's problems: a task of each kind, dead and copied filters, labels that are partly unknown."""
    check_score(score, score.params(filters=filters))


def test_it_is_the_squared_correlation_of_the_best_filter(score: Score) -> None:
    """Of three filters, of which one is dead."""
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 5.0, 0.0]
    y = x[:, [0]] - 0.1 * x[:, [1]]
    problem = ScoreProblem(
        responses=x, targets=y, kind="continuous", classes=(y > 0).astype(int), rmse=1.0, trivial_rmse=1.0
    )
    expected = max(np.corrcoef(x[:, i], y[:, 0])[0, 1] ** 2 for i in (0, 1))
    assert score.score(problem, score.params()) == pytest.approx(expected)
