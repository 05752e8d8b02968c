from __future__ import annotations

import warnings
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from facetask import CurveError, Kind, Labels
from facetask.statistics.known import spread_of_known
from facetask.statistics.multinomial import PENALTIES
from facetask.tasks.kinds import KINDS, TaskSpec
from facetask.tasks.metrics import accuracy

ARRAY = np.ndarray


def behaviour(kind: str, **fields: object) -> object:
    return TaskSpec(name="task", kind=kind, **fields).behaviour()  # type: ignore[arg-type]


def blobs(seed: int, n: int, classes: int, p: int = 8, apart: float = 0.6) -> tuple[ARRAY, ARRAY]:
    world, rng = np.random.default_rng(seed), np.random.default_rng((seed, n))
    centres, unit = apart * world.standard_normal((classes, p)), world.uniform(0.1, 10, p)
    truth = rng.integers(0, classes, n)
    return 5 + unit * (centres[truth] + rng.standard_normal((n, p))), truth.astype(float)[:, None]


def test_every_kind_of_the_contract_has_a_behaviour() -> None:
    assert set(KINDS) == set(get_args(Kind))
    labels = Labels(name="a", kind="binned", values=np.zeros((2, 1)), unit="years", classes=("x", "y"), edges=((1.0,),))
    assert TaskSpec.of(labels, "age") == TaskSpec("age", "binned", "years", ("x", "y"), ((1.0,),), "keep")


@pytest.mark.parametrize(
    ("flip", "signs"),
    [("keep", [1]), ("negate", [-1]), ("never", None), (("keep", "negate"), [1, -1]), (("keep", "never"), None)],
)
def test_a_mirrored_image_s_targets(flip: Any, signs: list[float] | None) -> None:
    found = TaskSpec("pose", "continuous", flip=flip).mirror_signs()
    assert (None if found is None else found.tolist()) == signs


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
    np.testing.assert_array_equal(spread_of_known(np.full((3, 1), 1e9 + 0.1)), [1])


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


def labelled(seed: int, n: int = 80, missing: float = 0.3) -> tuple[ARRAY, ARRAY]:
    """Scores of three labels, of which each is missing here and there."""
    rng = np.random.default_rng(seed)
    values = (rng.random((n, 3)) < [0.5, 0.2, 0.8]).astype(float)
    values[:2] = [[0, 0, 0], [1, 1, 1]]
    scores = values + rng.standard_normal((n, 3))
    values[2:][rng.random((n - 2, 3)) < missing] = np.nan
    return scores, values


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_multilabel_metrics_are_scikit_learn_s_where_each_label_is_known(seed: int) -> None:
    kind = behaviour("multilabel", classes=("beard", "hat", "smile"))
    scores, values = labelled(seed)
    test_scores, truth = labelled(seed + 1)
    decision = kind.learn(scores, values)
    found = kind.metrics(test_scores, truth, decision, np.ones(3))
    each = []
    for j, name in enumerate(("beard", "hat", "smile")):
        known, rows = ~np.isnan(values[:, j]), ~np.isnan(truth[:, j])
        alone = behaviour("binary", classes=("no", "yes")).learn(scores[known, j : j + 1], values[known, j : j + 1])
        assert decision[f"threshold[{name}]"] == alone["threshold"]
        positive, score = truth[rows, j] > 0.5, test_scores[rows, j]
        decided = score > alone["threshold"]
        each.append(
            {
                "accuracy": reference.accuracy_score(positive, decided),
                "balanced_accuracy": reference.balanced_accuracy_score(positive, decided),
                "auc": reference.roc_auc_score(positive, score),
                "f1": reference.f1_score(positive, decided, zero_division=0.0),
            }
        )
        for metric, value in each[-1].items():
            assert found[f"{metric}[{name}]"] == pytest.approx(value)
    for metric in each[0]:
        assert found[metric] == pytest.approx(np.mean([values[metric] for values in each]))
    squares = [np.mean((test_scores[~np.isnan(v), j] - v[~np.isnan(v)]) ** 2) for j, v in enumerate(truth.T)]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(squares)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_masking_a_label_of_some_rows_is_dropping_these_rows_for_it_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = behaviour("multilabel", classes=("beard", "hat"))
    x, x_validation = rng.standard_normal((2, 90, 4))
    weights = rng.standard_normal((4, 2))
    y, y_validation = ((part @ weights + rng.standard_normal((90, 2)) > 0) * 1.0 for part in (x, x_validation))
    for part in (y, y_validation):
        part[:2] = [[0, 0], [1, 1]]
    whole = kind.fit_head(x, y, x_validation, y_validation)
    masked, masked_validation = y.copy(), y_validation.copy()
    dropped = np.flatnonzero(rng.random(88) < 0.4) + 2
    masked[dropped, 0] = masked_validation[dropped, 0] = np.nan
    found = kind.fit_head(x, masked, x_validation, masked_validation)
    keep = np.delete(np.arange(90), dropped)
    alone = behaviour("multilabel", classes=("beard",)).fit_head(
        x[keep], y[keep, :1], x_validation[keep], y_validation[keep, :1]
    )
    np.testing.assert_allclose(found.predict(x)[:, 0], alone.predict(x)[:, 0], atol=1e-8)
    np.testing.assert_allclose(found.predict(x)[:, 1], whole.predict(x)[:, 1], atol=1e-8)
    test_values = np.where(rng.random((90, 2)) < 0.5, y, np.nan)
    test_values[:2] = y[:2]
    predictions = kind.activate(found.predict(x))
    decision = kind.learn(kind.activate(found.predict(x_validation)), masked_validation)
    rows = ~np.isnan(test_values[:, 0])
    measured = kind.metrics(predictions, test_values, decision, np.ones(2))
    binary = behaviour("binary", classes=("no", "yes")).metrics(
        predictions[rows, :1], test_values[rows, :1], {"threshold": decision["threshold[beard]"]}, np.ones(1)
    )
    assert {name: measured[f"{name}[beard]"] for name in ("accuracy", "balanced_accuracy", "auc", "f1")} == {
        name: binary[name] for name in ("accuracy", "balanced_accuracy", "auc", "f1")
    }


def test_the_multilabel_head_keeps_each_regression_s_order_and_gives_probabilities() -> None:
    rng = np.random.default_rng(0)
    x, x_validation = rng.standard_normal((2, 400, 5))
    y, y_validation = ((part[:, :2] + rng.standard_normal((400, 2)) > [0, 1.5]) * 1.0 for part in (x, x_validation))
    kind = behaviour("multilabel", classes=("often", "seldom"))
    plain = kind.regression(x, y, x_validation, y_validation).predict(x_validation)
    head = kind.fit_head(x, y, x_validation, y_validation)
    for model in (head, kind.gentle_head(x, y, head)):
        found = kind.activate(model.predict(x_validation))
        np.testing.assert_allclose(found.mean(axis=0), y_validation.mean(axis=0), atol=0.04)
    found = kind.activate(head.predict(x_validation))
    for j in range(2):
        np.testing.assert_array_equal(np.argsort(found[:, j]), np.argsort(plain[:, j]))
    described = kind.describe(found[0], {"threshold[often]": 0.0, "threshold[seldom]": 1.0})
    assert described == {
        "value": {"often": 1, "seldom": 0},
        "score": {"often": pytest.approx(found[0, 0]), "seldom": pytest.approx(found[0, 1])},
    }


def test_a_label_of_one_class_on_test_has_no_auc_and_leaves_the_mean_to_the_others() -> None:
    kind = behaviour("multilabel", classes=("a", "b"))
    values = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, np.nan]])
    found = kind.metrics(
        values - 0.1 * values[::-1, :1], values, {"threshold[a]": 0.5, "threshold[b]": 0.5}, np.ones(2)
    )
    assert np.isnan(found["auc[b]"])
    assert found["auc"] == found["auc[a]"] == 1
    np.testing.assert_allclose(kind.baseline(values, 2), [[1 / 3, 1], [1 / 3, 1]])


def test_several_outputs_are_also_measured_one_by_one() -> None:
    kind = behaviour("continuous", unit="degrees")
    values = np.array([[1.0, 10.0], [np.nan, 30.0], [5.0, np.nan]])
    predictions = values + np.array([[1.0, -4.0], [7.0, 0.0], [-2.0, 7.0]])
    predictions[np.isnan(predictions)] = 99
    found = kind.metrics(predictions, values, {}, np.array([2.0, 4.0]))
    assert (found["mae[1]"], found["mae[2]"], found["mae"]) == (1.5, 2, 1.75)
    assert found["rmse[1]"] == pytest.approx(np.sqrt(2.5))
    assert found["rmse[2]"] == pytest.approx(np.sqrt(8))
    assert found["rmse"] == pytest.approx(np.sqrt((2.5 / 4 + 8 / 16) / 2))
    binned = behaviour("binned", classes=("a", "b", "c", "d"), edges=((3.0,), (20.0,)))
    assert binned.metrics(predictions, values, {}, np.ones(2))["accuracy"] == 1  # the one image whose bin is known
    assert np.isnan(binned.metrics(predictions[1:], values[1:], {}, np.ones(2))["accuracy"])


def test_confusion_matrices_equal_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    values, predictions = rng.integers(0, 4, (60, 1)).astype(float), rng.random((60, 5))
    found = behaviour("nominal", classes=tuple("abcde")).confusion(predictions, values, {})
    expected = reference.confusion_matrix(values[:, 0], predictions.argmax(axis=1), labels=range(5))
    assert found == expected.tolist()
    pose = behaviour("binned", classes=tuple("abcdef"), edges=((-1.0, 1.0), (0.0,)))
    values, predictions = rng.normal(0, 2, (2, 60, 2))
    values[0, 1] = np.nan
    true, taken = (np.digitize(v[1:, 0], [-1, 1]) * 2 + (v[1:, 1] >= 0) for v in (values, predictions))
    assert pose.confusion(predictions, values, {}) == reference.confusion_matrix(true, taken, labels=range(6)).tolist()
    many = behaviour("nominal", classes=tuple(map(str, range(51))))
    assert many.confusion(rng.random((60, 51)), np.zeros((60, 1)), {}) is None
    assert behaviour("continuous").confusion(values, values, {}) is None
    scores, male = rng.random((60, 1)), rng.integers(0, 2, (60, 1)).astype(float)
    two = behaviour("binary", classes=("female", "male")).confusion(scores, male, {"threshold": 0.3})
    assert two == reference.confusion_matrix(male[:, 0] == 1, scores[:, 0] > 0.3).tolist()


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
    monkeypatch.setattr("facetask.statistics.multinomial.STEPS", 1)
    x, values = blobs(3, 60, 3)
    kind = behaviour("nominal", classes=("a", "b", "c"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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
