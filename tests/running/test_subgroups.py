"""Metrics on groups of test images: true to the predictions, and a warning where it is due."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, root_mean_squared_error

from facetask import FaceData, Labels
from facetask.config import SplitConfig
from facetask.data.slices import Slicing
from facetask.networks.heads import Predicted
from facetask.running.outcomes import TaskRecord
from facetask.running.results import Subgroup
from facetask.running.subgroups import SMALL, measured_slices
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import Satellite

N = 400
SEED = 5


def make_task(values: np.ndarray, kind: str, **spec: Any) -> Satellite:
    return Satellite(
        spec=TaskSpec("task", kind, **spec),  # type: ignore[arg-type]
        plugin="plugin",
        values=values,
        data=FaceData(paths=tuple(Path(f"{i}.png") for i in range(len(values))), columns={}),
        split_config=SplitConfig(),
        left_out={},
        n_missing=0,
        given=Labels(name="task", kind=kind, values=values, licence=""),  # type: ignore[arg-type]
    )


def make_record(task: Satellite, trials: int, decision: dict[str, float], **steps: np.ndarray) -> TaskRecord:
    """A record whose steps predicted ``(n_images, 1)`` or, for each trial, ``(trials, n_images, 1)``."""
    record = TaskRecord(task, trials)
    for index, outcomes in enumerate(record.trials):
        test = task.split(SEED + index).test
        of = {
            step: Predicted.of((values[index] if values.ndim == 3 else values)[test], decision)
            for step, values in steps.items()
        }
        outcomes.regress = SimpleNamespace(predicted=of["unpruned"])  # type: ignore[assignment]
        pruned = SimpleNamespace(predicted=of["pruned"], predicted_unpruned=of["unpruned"])
        outcomes.prune = pruned  # type: ignore[assignment]
        if "finetuned" in of:
            outcomes.finetune = SimpleNamespace(predicted=of["finetuned"])  # type: ignore[assignment]
    return record


def only(found: list[Any]) -> dict[str, Subgroup]:
    (one,) = found
    return {group.group: group for group in one.groups}


def test_a_group_s_metrics_are_those_of_its_test_images() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(40, 10, (N, 1))
    unpruned, pruned = truth + rng.normal(0, 5, (N, 1)), truth + rng.normal(0, 8, (N, 1))
    groups = rng.integers(0, 2, N)
    task = make_task(truth, "continuous", unit="years")
    record = make_record(task, 3, {}, unpruned=unpruned, pruned=pruned)
    found = only(measured_slices([Slicing("side", ("left", "right"), groups)], record, SEED))
    excesses: dict[str, list[float]] = {"left": [], "right": []}
    for index, name in enumerate(("left", "right")):
        errors: dict[str, list[float]] = {"unpruned": [], "pruned": []}
        for trial in range(3):
            test = task.split(SEED + trial).test
            own = test[groups[test] == index]
            assert found[name].n_test[trial] == len(own)
            for step, values in (("unpruned", unpruned), ("pruned", pruned)):
                errors[step].append(root_mean_squared_error(truth[own], values[own]))
            whole = [root_mean_squared_error(truth[test], values[test]) for values in (unpruned, pruned)]
            excesses[name].append((errors["pruned"][-1] - errors["unpruned"][-1]) - (whole[1] - whole[0]))
        for step in ("unpruned", "pruned"):
            metric = found[name].metrics[step]["rmse"]  # type: ignore[index]
            assert (metric.mean, metric.std) == pytest.approx((np.mean(errors[step]), np.std(errors[step], ddof=1)))
        assert found[name].metrics["regress"] == found[name].metrics["unpruned"]
        beyond = found[name].excess["pruned"]
        assert (beyond.mean, beyond.std) == pytest.approx((np.mean(excesses[name]), np.std(excesses[name], ddof=1)))


def test_thresholds_are_everyone_s() -> None:
    truth = np.tile([[0.0], [1.0]], (N // 2, 1))
    groups = np.repeat([0, 1], N // 2)
    scores = truth + np.where(groups == 0, 0.0, 10.0)[:, None]  # the second group would need another threshold
    task = make_task(truth, "binary", classes=("no", "yes"))
    record = make_record(task, 2, {"threshold": 0.5}, unpruned=scores, pruned=truth)
    found = only(measured_slices([Slicing("side", ("first", "second"), groups)], record, SEED))
    for trial in range(2):
        test = task.split(SEED + trial).test
        second = test[groups[test] == 1]
        expected = accuracy_score(truth[second], scores[second] > 0.5)
        assert expected == pytest.approx(0.5, abs=0.15)
    assert found["first"].metrics["unpruned"]["accuracy"].mean == 1
    assert found["second"].metrics["unpruned"]["accuracy"].mean == pytest.approx(0.5, abs=0.15)
    assert found["second"].metrics["pruned"]["accuracy"].mean == 1
    assert (found["second"].excess["pruned"].mean or 0) < 0 < (found["first"].excess["pruned"].mean or 0)


def worse_for(hurt: np.ndarray, task: Satellite, trials: int) -> TaskRecord:
    """A record in which pruning harms some images only, and finetuning makes that good."""
    rng = np.random.default_rng(1)
    before = task.values + rng.normal(0, 1, task.values.shape)
    after = before + np.where(hurt, 5.0, 0.0)[:, None] * rng.choice([-1, 1], task.values.shape)
    return make_record(task, trials, {}, unpruned=before, pruned=after, finetuned=before)


@pytest.fixture
def task() -> Satellite:
    return make_task(np.random.default_rng(2).normal(40, 10, (N, 1)), "continuous")


def test_a_group_that_pruning_harms_more_is_warned_of(task: Satellite) -> None:
    groups = np.arange(N) % 4
    record = worse_for(groups == 2, task, 3)
    found = only(measured_slices([Slicing("side", ("a", "b", "c", "d"), groups)], record, SEED))
    assert {name: group.grew for name, group in found.items()} == {"a": [], "b": [], "c": ["pruned"], "d": []}
    excess = found["c"].excess
    assert (excess["pruned"].mean or 0) > 2 > (excess["pruned"].std or 9)
    assert (excess["finetuned"].mean, excess["finetuned"].std) == (0, 0)


def test_one_trial_and_few_images_warn_of_nothing(task: Satellite) -> None:
    groups = np.arange(N) % 4
    slicing = Slicing("side", ("a", "b", "c", "d"), groups)
    (once,) = measured_slices([slicing], worse_for(groups == 2, task, 1), SEED)
    assert [group.grew for group in once.groups] == [[]] * 4
    assert once.groups[2].excess["pruned"].std is None
    few = np.where(np.arange(N) < SMALL, 1, 0)
    found = only(measured_slices([Slicing("few", ("many", "few"), few)], worse_for(few == 1, task, 3), SEED))
    assert (found["few"].small, found["few"].grew, found["many"].small) == (True, [], False)
    assert (found["few"].excess["pruned"].mean or 0) > 2


def test_a_group_that_is_missing_from_a_trial_s_test_images(task: Satellite) -> None:
    tests = [task.split(SEED + trial).test for trial in range(2)]
    (once, *_) = np.setdiff1d(tests[0], tests[1])
    (never, *_) = np.setdiff1d(np.arange(N), np.concatenate(tests))
    groups = np.zeros(N, dtype=np.intp)
    groups[[once, never]] = 1, 2
    found = only(
        measured_slices([Slicing("who", ("all", "one", "none"), groups)], worse_for(groups == 1, task, 2), SEED)
    )
    assert list(found) == ["all", "one"]
    assert found["one"].n_test == [1, 0]
    error = abs(Predicted.predictions(worse_for(groups == 1, task, 2).trials[0].prune.predicted, len(tests[0])))  # type: ignore[union-attr]
    row = int(np.flatnonzero(tests[0] == once)[0])
    assert found["one"].metrics["pruned"]["mae"].mean == pytest.approx(abs(error[row, 0] - task.values[once, 0]))


def test_what_stays_the_same_grows_no_more(task: Satellite) -> None:
    same = task.values + 1
    found = only(
        measured_slices(
            [Slicing("side", ("a", "b"), np.arange(N) % 2)], make_record(task, 3, {}, unpruned=same, pruned=same), SEED
        )
    )
    assert [(group.excess["pruned"].mean, group.grew) for group in found.values()] == [(0, [])] * 2


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_predictions_come_back_bit_for_bit(n_outputs: int) -> None:
    values = np.random.default_rng(0).normal(size=(7, n_outputs)) / 3
    stored = Predicted.of(values, {"threshold": 0.1})
    assert (stored.predictions(7) == values).all()
    assert (Predicted.of(values[:, ::-1], {}).predictions(7) == values[:, ::-1]).all()
