from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from facetask import CurveError, Labels
from facetask.kinds import KINDS, PENALTIES, TaskSpec, spread
from facetask.metrics import accuracy

ARRAY = np.ndarray


def behaviour(kind: str, **fields: object) -> object:
    return TaskSpec(name="task", kind=kind, **fields).behaviour()  # type: ignore[arg-type]


def blobs(seed: int, n: int, classes: int, p: int = 8, apart: float = 0.6) -> tuple[ARRAY, ARRAY]:
    world, rng = np.random.default_rng(seed), np.random.default_rng((seed, n))
    centres, unit = apart * world.standard_normal((classes, p)), world.uniform(0.1, 10, p)
    truth = rng.integers(0, classes, n)
    return 5 + unit * (centres[truth] + rng.standard_normal((n, p))), truth.astype(float)[:, None]


def test_every_kind_of_the_contract_has_a_behaviour() -> None:
    assert set(KINDS) == {"continuous", "binary", "binned", "nominal"}
    labels = Labels(name="a", kind="binned", values=np.zeros((2, 1)), unit="years", classes=("x", "y"), edges=((1.0,),))
    assert TaskSpec.of(labels, "age") == TaskSpec("age", "binned", "years", ("x", "y"), ((1.0,),), "keep")


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(-6, 16), st.booleans()), min_size=1, max_size=30),
    step=st.sampled_from([0.1, 0.037, 3.0]),
)
def test_the_threshold_is_as_accurate_as_any(pairs: list[tuple[int, bool]], step: float) -> None:
    score = np.array([[step * value] for value, _ in pairs])
    positive = np.array([[float(flag)] for _, flag in pairs])
    kind = behaviour("binary", classes=("no", "yes"))
    threshold = kind.learn(score, positive)["threshold"]
    values = np.unique(score)
    cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    rates = [accuracy(score > cut, positive > 0.5) for cut in cuts]
    assert accuracy(score > threshold, positive > 0.5) == max(rates)


def test_of_equally_accurate_thresholds_the_one_nearest_to_the_middle_is_learned() -> None:
    kind = behaviour("binary", classes=("no", "yes"))
    score, positive = np.array([[0.0], [0.2], [0.9]]), np.array([[0.0], [0.0], [1.0]])
    assert kind.learn(score, positive)["threshold"] == pytest.approx(0.55)
    # One error whether the cut is at 0.35 or at 0.7.
    score, positive = np.array([[0.2], [0.5], [0.6], [0.8]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    assert kind.learn(score, positive)["threshold"] == pytest.approx(0.35)


def test_binary_metrics_and_descriptions_use_the_threshold() -> None:
    kind = behaviour("binary", classes=("female", "male"))
    predictions, values = np.array([[0.2], [0.4], [0.3], [0.9]]), np.array([[0.0], [1.0], [1.0], [1.0]])
    found = kind.metrics(predictions, values, {"threshold": 0.35}, np.ones(1))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["auc"] == 1
    assert found["f1"] == pytest.approx(0.8)
    assert found["rmse"] == pytest.approx(np.sqrt((0.04 + 0.36 + 0.49 + 0.01) / 4))
    assert kind.describe(np.array([0.36]), {"threshold": 0.35}) == {"value": "male", "score": 0.36}
    assert kind.describe(np.array([0.35]), {"threshold": 0.35})["value"] == "female"


def test_continuous_values_are_measured_in_their_unit() -> None:
    kind = behaviour("continuous", unit="degrees")
    predictions, values = np.array([[10.0], [-4.0]]), np.array([[7.0], [0.0]])
    found = kind.metrics(predictions, values, {}, kind.scale(values))
    assert found["rmse"] == pytest.approx(np.sqrt(12.5))
    assert found["mae"] == 3.5
    assert kind.unit(1) == "degrees"
    assert kind.describe(np.array([12.5]), {}) == {"value": 12.5, "unit": "degrees"}
    np.testing.assert_array_equal(kind.baseline(values, 3), np.full((3, 1), 3.5))


def test_several_outputs_are_divided_by_their_spread_and_constants_left_alone() -> None:
    rng = np.random.default_rng(0)
    train = np.stack([100 * rng.standard_normal(50), np.full(50, 0.1)], axis=1)
    kind = behaviour("continuous", unit="degrees")
    np.testing.assert_allclose(kind.scale(train), [train[:, 0].std(), 1])
    assert kind.unit(2) == "standard deviations"
    assert kind.describe(np.array([1.0, 2.0]), {})["value"] == [1.0, 2.0]
    np.testing.assert_array_equal(spread(np.full((3, 1), 1e9 + 0.1)), [1])


def test_two_binned_outputs_give_one_bin() -> None:
    names = tuple(f"{yaw}-{pitch}" for yaw in ("left", "ahead", "right") for pitch in ("up", "down"))
    kind = behaviour("binned", classes=names, edges=((-10.0, 10.0), (0.0,)), unit="degrees")
    values = np.array([[-20.0, -1.0], [-10.0, 1.0], [0.0, 1.0], [30.0, 5.0]])
    np.testing.assert_array_equal(kind.bins(values), [[0, 0], [1, 1], [1, 1], [2, 1]])  # an edge belongs above
    predictions = np.array([[-20.0, 1.0], [-9.0, 1.0], [40.0, 1.0], [-30.0, 5.0]])
    found = kind.metrics(predictions, values, {}, np.array([2.0, 4.0]))
    assert found["accuracy"] == 0.25
    assert found["within_one"] == 0.75
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(((predictions - values) / [2, 4]) ** 2)))
    assert kind.describe(np.array([30.0, -5.0]), {}) == {
        "value": "right-up",
        "regressed": [30.0, -5.0],
        "unit": "degrees",
    }


def test_one_binned_output() -> None:
    kind = behaviour("binned", classes=("<20", "20–40", "≥40"), edges=((20.0, 40.0),), unit="years")
    assert kind.describe(np.array([40.0]), {}) == {"value": "≥40", "regressed": 40.0, "unit": "years"}
    found = kind.metrics(np.array([[19.0], [60.0]]), np.array([[10.0], [10.0]]), {}, np.ones(1))
    assert (found["accuracy"], found["within_one"], found["mae"]) == (0.5, 0.5, 29.5)


def test_one_hot_targets_leave_missing_rows_missing() -> None:
    kind = behaviour("nominal", classes=("a", "b", "c"))
    targets = kind.targets(np.array([[2.0], [np.nan], [0.0]]))
    np.testing.assert_array_equal(targets[[0, 2]], [[0, 0, 1], [1, 0, 0]])
    assert np.isnan(targets[1]).all()
    np.testing.assert_array_equal(kind.scale(targets[[0, 2]]), [1, 1, 1])


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_nominal_head_predicts_like_scikit_learn(classes: int) -> None:
    x, values = blobs(classes, 300, classes)
    x_validation, validation = blobs(classes, 150, classes)
    kind = behaviour("nominal", classes=tuple("abcde"[:classes]))
    head = kind.fit_head(x, kind.targets(values), x_validation, kind.targets(validation))
    found = kind.activate(head.predict(x_validation))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    centre, unit = x.mean(axis=0), x.std(axis=0)
    references = []
    for penalty in PENALTIES:
        fitted = LogisticRegression(C=1 / (penalty * 300), max_iter=300, tol=1e-3).fit(
            (x - centre) / unit, values[:, 0]
        )
        references.append(fitted.predict_proba((x_validation - centre) / unit))
    truth = validation[:, 0].astype(int)
    loss = [-np.log(reference[np.arange(150), truth]).mean() for reference in references]
    np.testing.assert_allclose(found, references[int(np.argmin(loss))], rtol=1e-6)


@pytest.mark.parametrize("present", [[0, 2], [0, 2, 3]])
def test_a_class_that_training_lacks_is_never_chosen(present: list[int]) -> None:
    x, values = blobs(1, 200, len(present))
    values = np.array(present, dtype=float)[values.astype(int)]
    x_validation, validation = blobs(1, 100, len(present))
    validation = np.array(present, dtype=float)[validation.astype(int)]
    validation[:5] = 1
    kind = behaviour("nominal", classes=("a", "b", "c", "d"))
    head = kind.fit_head(x, kind.targets(values), x_validation, kind.targets(validation))
    far = 1000 * np.random.default_rng(2).standard_normal((500, x.shape[1]))
    for responses in (x_validation, far):
        outputs = kind.activate(head.predict(responses))
        assert set(outputs.argmax(axis=1).tolist()) <= set(present)
        np.testing.assert_allclose(outputs.sum(axis=1), 1)
    decided = kind.metrics(kind.activate(head.predict(x_validation)), validation, {}, np.ones(4))
    assert 0.5 < decided["accuracy"] <= 0.95


def test_the_nominal_head_warns_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x = np.hstack([1e6 * rng.standard_normal((40, 30)), np.full((40, 1), 0.1)])  # separable, and a dead filter
    values = rng.integers(0, 4, (40, 1)).astype(float)
    kind = behaviour("nominal", classes=tuple("abcd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = kind.fit_head(x, kind.targets(values), x[:10], kind.targets(values[:10]))
    assert np.isfinite(head.coef).all()
    assert capfd.readouterr() == ("", "")


def test_an_unfinished_fit_is_used_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.linear_model

    class Hasty(LogisticRegression):
        def __init__(self, C: float, max_iter: int, tol: float) -> None:
            super().__init__(C=C, max_iter=1, tol=tol)

    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", Hasty)
    x, values = blobs(3, 60, 3)
    kind = behaviour("nominal", classes=("a", "b", "c"))
    head = kind.fit_head(x, kind.targets(values), x, kind.targets(values))
    assert kind.metrics(kind.activate(head.predict(x)), values, {}, np.ones(3))["accuracy"] > 0.5


def test_one_class_in_training_cannot_be_learned() -> None:
    kind = behaviour("nominal", classes=("a", "b"))
    x, values = np.arange(12.0).reshape(6, 2), np.zeros((6, 1))
    with pytest.raises(CurveError, match="'task': the training split has one class only"):
        kind.fit_head(x, kind.targets(values), x, kind.targets(values))


def test_probabilities_do_not_overflow() -> None:
    kind = behaviour("nominal", classes=("a", "b"))
    np.testing.assert_allclose(kind.activate(np.array([[1e5, -1e5], [0.0, np.log(3)]])), [[1, 0], [0.25, 0.75]])
    assert kind.describe(np.array([0.25, 0.75]), {}) == {"value": "b", "score": 0.75}


def test_the_nominal_baseline_is_the_most_frequent_class() -> None:
    kind = behaviour("nominal", classes=("a", "b"))
    train = kind.targets(np.array([[1.0], [1.0], [0.0]]))
    values = np.array([[0.0], [1.0]])
    found = kind.metrics(kind.baseline(train, 2), values, {}, kind.scale(train))
    assert found["accuracy"] == 0.5
    assert found["rmse"] == pytest.approx(np.sqrt((4 / 9 + 1 / 9) / 2))


def test_other_heads_are_tuned_ridge_regressions() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    y = x @ rng.standard_normal((4, 1)) + 3
    head = behaviour("continuous").fit_head(x[:100], y[:100], x[100:], y[100:])
    np.testing.assert_allclose(head.predict(x), y, atol=1e-8)
