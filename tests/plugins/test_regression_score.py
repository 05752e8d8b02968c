"""The regression's score orders taps as the regress stage does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import r2_score

from facetask import Params
from facetask.plugins.scores.regression import facetask_scores, regression
from facetask.testing import check_score, toy_score_problems


def test_it_is_r2_against_the_mean() -> None:
    truth = np.random.default_rng(0).normal(size=50)
    predicted = truth + 0.4 * np.random.default_rng(1).normal(size=50)
    rmse, trivial = np.sqrt(np.mean((predicted - truth) ** 2)), truth.std()
    problem = replace(toy_score_problems()[0], rmse=float(rmse), trivial_rmse=float(trivial))
    assert regression(problem, Params()) == pytest.approx(r2_score(truth, predicted))
    assert regression(replace(problem, rmse=problem.rmse * 0.9), Params()) > regression(problem, Params())


def test_labels_without_spread_have_no_score() -> None:
    assert np.isnan(regression(replace(toy_score_problems()[0], trivial_rmse=0.0), Params()))


def test_record() -> None:
    (record,) = facetask_scores()
    assert (record.name, record.params) == ("regression", Params)
    assert check_score(record) == (0.75,) * 5
