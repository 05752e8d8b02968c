from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from facetask.stages.regress import Regression, regress, scaled_targets

N = 400
Make = Callable[..., object]


def signal(seed: int = 0, n: int = N, p: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((n, p)), 0).astype(np.float32)
    return x, 30 + x @ rng.uniform(-5, 5, (p, 1)) + 0.5 * rng.standard_normal((n, 1))


def test_metrics_equal_scikit_learn_s_regression(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, y = signal()
    split = halves(N)
    found = regress(make_responses({"tap": x}), make_task(y, unit="years"), split)
    (fit,) = found.taps
    train = x[split.train].astype(float)
    reference = Ridge(alpha=fit.strengths[0] * len(train)).fit((train - train.mean(0)) / train.std(0), y[split.train])

    def predict(x: np.ndarray) -> np.ndarray:
        return reference.predict((x - train.mean(0)) / train.std(0)).reshape(-1, 1)

    for rows, rmse in ((split.validation, fit.validation_rmse), (split.test, fit.metrics["rmse"])):
        assert rmse == pytest.approx(np.sqrt(np.mean((predict(x[rows]) - y[rows]) ** 2)), rel=1e-6)
    assert fit.metrics["mae"] == pytest.approx(np.abs(predict(x[split.test]) - y[split.test]).mean(), rel=1e-6)
    assert (fit.tap, fit.n_filters) == ("tap", 6)
    assert found.baseline["rmse"] == pytest.approx(np.sqrt(np.mean((y[split.train].mean() - y[split.test]) ** 2)))
    assert found.baseline["r2"] <= 0


def test_without_noise_it_is_least_squares(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, _ = signal()
    y = x.astype(float) @ np.arange(6.0)[:, None] - 2
    (fit,) = regress(make_responses({"tap": x}), make_task(y), halves(N)).taps
    assert fit.strengths == (0.0,)
    split = halves(N)
    reference = LinearRegression().fit(x[split.train].astype(float), y[split.train])
    residual = reference.predict(x[split.test].astype(float)) - y[split.test]
    assert fit.metrics["rmse"] == pytest.approx(np.sqrt(np.mean(residual**2)), abs=1e-9)
    assert fit.metrics["r2"] == pytest.approx(1, abs=1e-10)


def test_the_best_tap_is_chosen_on_validation_not_on_test(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, y = signal()
    split = halves(N)
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(x.shape)
    good_on_validation, good_on_test = x.copy(), x.copy()
    good_on_validation[split.test] += 5 * noise[split.test]
    good_on_test[split.validation] += 0.5 * noise[split.validation]
    taps = {"test": good_on_test, "validation": good_on_validation, "neither": noise}
    found = regress(make_responses(taps), make_task(y), split)
    assert found.best_tap == "validation"
    assert found.fit_of("test").metrics["rmse"] < found.fit_of("validation").metrics["rmse"]
    assert [fit.tap for fit in found.taps] == ["test", "validation", "neither"]


def test_a_dead_tap_predicts_the_mean_and_is_best_only_among_dead_ones(
    make_task: Make, make_responses: Make, halves: Make
) -> None:
    _, y = signal()
    split = halves(N)
    noise = np.random.default_rng(5).standard_normal((N, 150))  # overfits: worse than the mean
    noise[split.validation] *= 10
    noise[split.validation[0]] = 1e4
    dead = np.full((N, 6), 0.3)
    found = regress(make_responses({"dead": dead, "noise": noise}), make_task(y), split)
    expected = np.sqrt(np.mean((y[split.train].mean() - y[split.validation]) ** 2))
    assert found.fit_of("dead").validation_rmse == pytest.approx(expected)
    assert found.fit_of("dead").metrics["rmse"] == pytest.approx(found.baseline["rmse"])
    assert found.fit_of("noise").validation_rmse > expected
    assert (found.best_tap, [fit.dead for fit in found.taps]) == ("noise", [True, False])
    alone = regress(make_responses({"dead": dead, "zero": 0 * dead}), make_task(y), split)
    assert alone.best_tap == "dead"


@pytest.mark.parametrize("kind", ["binary", "nominal"])
def test_a_network_of_dead_taps_guesses(make_task: Make, make_responses: Make, halves: Make, kind: str) -> None:
    _, y = signal()
    task = make_task((y > np.quantile(y, 0.3)) * 1.0, kind, classes=("low", "high"))
    found = regress(make_responses({"dead": np.zeros((N, 6))}), task, halves(N))
    assert found.taps[0].metrics["accuracy"] == pytest.approx(found.baseline["accuracy"])
    assert np.isfinite(list((found.classifier or {}).values())).all()


def test_the_test_split_decides_nothing(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, y = signal()
    split = halves(N)
    positive = (y > np.median(y)).astype(float)
    one = regress(make_responses({"a": x, "b": x[:, :3]}), make_task(positive, "binary", classes=("n", "y")), split)
    flipped = positive.copy()
    flipped[split.test] = 1 - flipped[split.test]
    other = regress(make_responses({"a": x, "b": x[:, :3]}), make_task(flipped, "binary", classes=("n", "y")), split)
    assert one.best_tap == other.best_tap
    for before, after in zip(one.taps, other.taps, strict=True):
        assert (before.strengths, before.validation_rmse) == (after.strengths, after.validation_rmse)
        assert before.metrics["accuracy"] == pytest.approx(1 - after.metrics["accuracy"])


def test_images_without_a_label_take_no_part(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, y = signal()
    split = halves(N)
    expected = regress(make_responses({"tap": x}), make_task(y), split)
    x = np.vstack([x, np.full((10, 6), 1e6)])
    y = np.vstack([y, np.full((10, 1), np.nan)])
    assert regress(make_responses({"tap": x}), make_task(y), split) == expected


def test_several_outputs_are_measured_in_their_spread(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, y = signal()
    pair = np.hstack([y, 1000 * y])
    split = halves(N)
    task = make_task(pair, unit="degrees")
    _, scale = scaled_targets(task, split)
    np.testing.assert_allclose(scale, pair[split.train].std(axis=0))
    (fit,) = regress(make_responses({"tap": x}), task, split).taps
    (alone,) = regress(make_responses({"tap": x}), make_task(y), split).taps
    assert fit.validation_rmse == pytest.approx(alone.validation_rmse / scale[0])
    assert fit.metrics["rmse"] == pytest.approx(alone.metrics["rmse"] / scale[0])
    assert fit.metrics["r2"] == pytest.approx(alone.metrics["r2"])


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("binary", {"classes": ("no", "yes")}),
        ("nominal", {"classes": ("low", "mid", "high")}),
        ("binned", {"classes": ("low", "mid", "high"), "edges": ((21.0, 25.0),)}),
    ],
)
def test_other_kinds_beat_their_baseline(
    make_task: Make, make_responses: Make, halves: Make, kind: str, spec: dict[str, object]
) -> None:
    x, y = signal()
    y = 23 + (y - y.mean()) / y.std() * 4
    bins = np.searchsorted([21.0, 25.0], y)
    values = {"binary": (y > 23) * 1.0, "nominal": bins * 1.0, "binned": y}[kind]
    found = regress(make_responses({"tap": x}), make_task(values, kind, **spec), halves(N))
    assert found.taps[0].metrics["accuracy"] > found.baseline["accuracy"] + 0.2
    assert found.taps[0].metrics["rmse"] < found.baseline["rmse"]


@pytest.mark.parametrize(
    ("kind", "spec"), [("continuous", {}), ("binary", {"classes": ("n", "y")}), ("nominal", {"classes": ("n", "y")})]
)
def test_the_best_tap_s_predictions_give_its_metrics_again(
    make_task: Make, make_responses: Make, halves: Make, kind: str, spec: dict[str, object]
) -> None:
    x, y = signal()
    values = y if kind == "continuous" else (y > np.median(y)) * 1.0
    task, split = make_task(values, kind, **spec), halves(N)
    taps = {"one": x[:, :1], "all": x, "two": x[:, :2]}
    found = regress(make_responses(taps), task, split)
    predicted = found.predicted.predictions(len(split.test))
    _, scale = scaled_targets(task, split)
    again = task.kind.metrics(predicted, values[split.test], found.predicted.decision, scale)
    expected = found.classifier or found.fit_of("all").metrics
    assert found.best_tap == "all"
    assert again == {name: expected[name] for name in again}


def test_json_keeps_every_field(make_task: Make, make_responses: Make, halves: Make) -> None:
    x, y = signal()
    found = regress(make_responses({"a": x, "b": x[:, :2]}), make_task(y), halves(N))
    assert Regression.from_json(json.loads(json.dumps(asdict(found)))) == found


NAMES = ("beard", "hat", "smile")


def partly_labelled(x: np.ndarray, seed: int = 3) -> np.ndarray:
    """Three labels, each missing for a third of the images; the first rows of each quarter have all of them."""
    rng = np.random.default_rng(seed)
    score = x @ rng.standard_normal((x.shape[1], 3)) + 0.5 * rng.standard_normal((len(x), 3))
    values = (score > np.quantile(score, [0.5, 0.7, 0.3], axis=0).diagonal()).astype(float)
    missing = rng.random(values.shape) < 1 / 3
    missing[:: len(x) // 16] = False
    values[missing] = np.nan
    return values


def test_each_of_several_labels_is_regressed_as_if_it_were_alone(
    make_task: Make, make_responses: Make, halves: Make
) -> None:
    x, _ = signal()
    values, split = partly_labelled(x), halves(N)
    responses = make_responses({"tap": x})
    task = make_task(values, "multilabel", classes=NAMES)
    found = regress(responses, task, split.within(task.labelled))
    (fit,) = found.taps
    squares = []
    for j, name in enumerate(NAMES):
        alone = make_task(values[:, j : j + 1], "binary", classes=("no", "yes"))
        expected = regress(responses, alone, split.within(alone.labelled))
        assert fit.strengths[j] == expected.taps[0].strengths[0]
        for metric in ("accuracy", "balanced_accuracy", "auc", "f1"):
            assert fit.metrics[f"{metric}[{name}]"] == pytest.approx(expected.taps[0].metrics[metric])
            assert found.baseline[f"{metric}[{name}]"] == pytest.approx(expected.baseline[metric])
        train = values[split.train, j]
        squares.append((expected.taps[0].validation_rmse / train[~np.isnan(train)].std()) ** 2)
    assert fit.validation_rmse == pytest.approx(np.sqrt(np.mean(squares)))
    assert found.confusion is None
    assert found.classifier is None


def test_nominal_tasks_report_the_classifier_beside_least_squares(
    make_task: Make, make_responses: Make, halves: Make
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, N)
    # In a row: least squares masks the middle class, a multinomial classifier does not.
    x = np.stack([truth - 1 + 0.2 * rng.standard_normal(N), rng.standard_normal(N)], axis=1)
    task = make_task(truth[:, None].astype(float), "nominal", classes=("left", "mid", "right"))
    found = regress(make_responses({"tap": x, "noise": rng.standard_normal((N, 4))}), task, halves(N))
    assert found.classifier is not None
    assert found.classifier["accuracy"] > found.classifier["accuracy_least_squares"] + 0.1
    for metric in ("accuracy", "balanced_accuracy"):
        assert found.classifier[f"{metric}_least_squares"] == pytest.approx(found.fit_of("tap").metrics[metric])
    assert found.confusion is not None
    assert np.sum(found.confusion) == N // 4
    assert np.trace(found.confusion) / (N // 4) == pytest.approx(found.classifier["accuracy"])
    assert Regression.from_json(json.loads(json.dumps(asdict(found)))) == found
