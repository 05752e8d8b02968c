from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from facetask import DataError, FaceData, Labels, PluginError, Task
from facetask.config import SatelliteTask, SplitConfig
from facetask.tasks.satellite import Satellite, load_satellites, seed_of_trial, to_finite


def faces(n: int = 24, **columns: Any) -> FaceData:
    people = np.array([f"person {i // 2}" for i in range(n)], dtype=object)
    return FaceData(
        paths=tuple(Path(f"{i:03d}.jpg") for i in range(n)),
        columns={"person": people, **columns},
        group_column="person",
        source="labels.csv",
    )


def load(*labels: Labels, split: SplitConfig | None = None, data: FaceData | None = None) -> tuple[Satellite, ...]:
    """Satellites of tasks that give these labels."""
    given = {f"plugin-{i}": item for i, item in enumerate(labels)}
    find = lambda kind, name: Task(name=name, labels=lambda data, params: given[name])  # noqa: E731
    choices = tuple(SatelliteTask(name=name) for name in given)
    data = data or faces(len(labels[0].values))
    return load_satellites(choices, split or SplitConfig(), data, SimpleNamespace(find=find))  # type: ignore[arg-type]


def continuous(values: Any, **fields: Any) -> Labels:
    return Labels(name="age", kind="continuous", values=np.array(values, dtype=float)[:, None], **fields)


def nominal(index: Any, classes: tuple[str, ...] = ("a", "b", "c")) -> Labels:
    return Labels(name="emotion", kind="nominal", values=np.array(index, dtype=float)[:, None], classes=classes)


def test_labels_become_a_task_with_its_missing_ones_counted() -> None:
    values = np.arange(24.0)
    values[3] = np.nan
    (task,) = load(continuous(values, unit="years", source="column age", licence="CC0"))
    assert (task.spec.name, task.spec.unit, task.n_missing, task.plugin) == ("age", "years", 1, "plugin-0")
    assert task.labelled.sum() == 23
    assert not task.labelled[3]
    assert np.isnan(task.targets[3]).all()
    summary = task.summary()
    assert (summary.n_labelled, summary.n_missing, summary.counts) == (23, 1, {})
    assert summary.mean == pytest.approx(np.nanmean(values))
    assert summary.std == pytest.approx(np.nanstd(values))
    assert (summary.source, summary.licence) == ("column age", "CC0")


def test_a_row_with_some_of_its_values_is_labelled_and_counted_as_partly_so() -> None:
    values = np.random.default_rng(0).standard_normal((24, 2))
    values[5, 1] = np.nan
    values[7] = np.nan
    (task,) = load(Labels(name="pose", kind="continuous", values=values))
    assert np.flatnonzero(~task.labelled).tolist() == [7]
    assert np.flatnonzero(task.partly).tolist() == [5]
    summary = task.summary()
    assert (summary.n_labelled, summary.n_missing, summary.n_partly) == (23, 1, 1)
    assert (summary.mean, summary.rmse_unit) == (None, "standard deviations")
    split = task.split(0)
    assert 5 in np.concatenate([split.train, split.validation, split.test])


def several(values: Any, names: tuple[str, ...] = ("beard", "hat"), **fields: Any) -> Labels:
    return Labels(name="wear", kind="multilabel", values=np.array(values, dtype=float), classes=names, **fields)


def test_several_labels_are_counted_one_by_one() -> None:
    nan = np.nan
    (task,) = load(several([[0, 1], [1, nan], [nan, nan], [1, 0]] * 6))
    summary = task.summary()
    assert (summary.n_labelled, summary.n_missing, summary.n_partly) == (18, 6, 6)
    assert summary.counts == {"beard": 12, "hat": 6}
    assert summary.known == {"beard": 18, "hat": 12}


def test_a_label_that_a_part_lacks_or_that_is_constant_is_named() -> None:
    values = np.full((24, 2), np.nan)
    values[:, 0] = np.arange(24) % 2
    values[[0, 9], 1] = [0, 1]
    (task,) = load(several(values))
    with pytest.raises(DataError, match=r"task 'wear': label 'hat' is known for no image of the \w+ split \(2 images"):
        task.split(0)
    values[:, 1] = np.where(np.arange(24) == 3, np.nan, 1.0)
    with pytest.raises(DataError, match="task 'wear': hat: the same for every image"):
        load(several(values))
    with pytest.raises(DataError, match="every label is the same"):
        load(several(np.ones((24, 2))))


def test_a_split_keeps_groups_whole_and_leaves_unlabelled_images_out() -> None:
    values = np.arange(24.0)
    values[[3, 20]] = np.nan
    (task,) = load(continuous(values))
    split = task.split(5)
    rows = np.concatenate([split.train, split.validation, split.test])
    assert sorted(rows) == [i for i in range(24) if i not in (3, 20)]
    people = task.data.column("person")
    assert not set(people[split.train]) & set(people[split.test])


def test_tasks_that_are_split_alike_share_the_partition() -> None:
    half = np.where(np.arange(24) % 3 == 0, np.nan, np.arange(24.0))
    one, other = load(continuous(np.arange(24.0)), Labels(name="b", kind="continuous", values=half[:, None]))
    assert set(other.split(1).test) <= set(one.split(1).test)


def test_the_configured_group_column_goes_before_the_dataset_s_own() -> None:
    clips = np.array([f"clip {i // 8}" for i in range(24)], dtype=object)
    data = faces(24, clip=clips)
    (task,) = load(continuous(np.arange(24.0)), split=SplitConfig(group_by="clip"), data=data)
    assert task.group_by == "clip"
    split = task.split(0)
    assert [len(set(clips[part])) for part in (split.train, split.validation, split.test)] == [1, 1, 1]
    (task,) = load(continuous(np.arange(24.0)), data=data)
    assert task.group_by == "person"


def test_an_unknown_column_to_split_by_is_named_at_once() -> None:
    for split in (SplitConfig(group_by="persn"), SplitConfig(stratify_by="persn")):
        with pytest.raises(DataError, match="no column 'persn'; did you mean 'person'"):
            load(continuous(np.arange(24.0)), split=split)


def test_an_empty_part_names_the_task() -> None:
    values = np.full(24, np.nan)
    values[:2] = [1, 2]  # one person
    (task,) = load(continuous(values))
    with pytest.raises(DataError, match=r"task 'age': the .* split has no labelled image"):
        task.split(0)


def test_classes_too_small_to_split_are_left_out_and_the_others_renumbered() -> None:
    index = [0] * 12 + [1] * 2 + [2] * 9 + [np.nan]
    (task,) = load(nominal(index, ("angry", "disgust", "happy", "sad")))
    assert task.spec.classes == ("angry", "happy")
    assert task.left_out == {"disgust": 2, "sad": 0}
    np.testing.assert_array_equal(task.values[:, 0], [0] * 12 + [np.nan] * 2 + [1] * 9 + [np.nan])
    assert task.n_missing == 1
    assert task.summary().counts == {"angry": 12, "happy": 9}
    assert task.targets.shape == (24, 2)


def test_min_per_class_counts_for_each_split() -> None:
    index = [0] * 9 + [1] * 7 + [2] * 8
    (task,) = load(nominal(index), split=SplitConfig(min_per_class=2))
    assert task.left_out == {}
    with pytest.raises(DataError, match="every label is the same"):
        load(nominal(index), split=SplitConfig(min_per_class=3))
    with pytest.raises(DataError, match=r"no class has 30 images, split.min_per_class = 10"):
        load(nominal(index), split=SplitConfig(min_per_class=10))


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        (
            Labels(name="g", kind="binary", values=np.array([[0.0], [1.0]] * 12), classes=("female", "male")),
            {"female": 12, "male": 12},
        ),
        (
            Labels(
                name="pose",
                kind="binned",
                values=np.array([[-9.0, 0.0], [9.0, 5.0], [9.0, 4.9]] * 8),
                classes=("ll", "lh", "hl", "hh"),
                edges=((0.0,), (5.0,)),
            ),
            {"ll": 8, "lh": 0, "hl": 8, "hh": 8},
        ),
    ],
)
def test_counts_of_classes_and_bins(labels: Labels, counts: dict[str, int]) -> None:
    (task,) = load(labels)
    assert task.summary().counts == counts


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(PluginError, match=r"with n = 24, found float64 \(23, 1\)"):
        load(continuous(np.arange(23.0)), data=faces(24))
    with pytest.raises(DataError, match=r"'age': the label of 005.jpg is infinite"):
        load(continuous([0.0, 1, 2, 3, 4, np.inf]))
    with pytest.raises(DataError, match="'age': no image has a label"):
        load(continuous([np.nan] * 6))
    with pytest.raises(DataError, match="'age': every label is the same"):
        load(continuous([3.0, 3.0, np.nan, 3.0]))
    with pytest.raises(DataError, match="2 tasks are named 'age'; give each a `label:`"):
        load(continuous(np.arange(6.0)), continuous(np.arange(6.0)))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "binary", "classes": ("no", "yes"), "values": [[0.0], [2.0]]},
        {"kind": "binary", "values": [[0.0], [1.0]]},
        {"kind": "nominal", "classes": ("a", "b"), "values": [[0.0], [2.0]]},
        {"kind": "nominal", "classes": ("a", "b"), "values": [[0.5], [1.0]]},
        {"kind": "nominal", "classes": ("a", "b"), "values": [[0.0], [1.0]], "flip": "negate"},
        {"kind": "multilabel", "classes": ("a",), "values": [[0.0, 1.0], [1.0, 0.0]]},
        {"kind": "multilabel", "classes": ("a", "a"), "values": [[0.0, 1.0], [1.0, 0.0]]},
        {"kind": "multilabel", "classes": ("a", "b"), "values": [[0.0, 2.0], [1.0, 0.0]]},
        {"kind": "multilabel", "classes": ("a", "b"), "values": [[0.0, 1.0], [1.0, 0.0]], "flip": "negate"},
        {"kind": "multilabel", "classes": ("a", "b"), "values": [[0.0, 1.0], [1.0, 0.0]], "flip": ("keep", "negate")},
        {"kind": "continuous", "values": [[0.0, 1.0], [1.0, 0.0]], "flip": ("keep",)},
        {"kind": "binned", "classes": ("a", "b"), "values": [[0.5], [1.0]]},
        {"kind": "binned", "classes": ("a", "b"), "values": [[0.5], [1.0]], "edges": ((0.5, 0.7),)},
    ],
)
def test_labels_that_do_not_fit_their_kind_are_the_plugin_s_fault(fields: dict[str, Any]) -> None:
    labels = Labels(name="x", **{**fields, "values": np.array(fields["values"] * 3)})
    with pytest.raises(PluginError, match="task 'plugin-0': labels do not fit their kind"):
        load(labels)


def test_the_fingerprint_follows_labels_and_what_splits_them() -> None:
    prints = [load(continuous(np.arange(24.0)))[0].fingerprint() for _ in range(2)]
    prints.append(load(continuous(np.arange(24.0) + (np.arange(24) == 3)))[0].fingerprint())
    prints.append(load(continuous(np.arange(24.0), unit="years"))[0].fingerprint())
    other = faces(24, person=np.array([f"person {i // 3}" for i in range(24)], dtype=object))
    prints.append(load(continuous(np.arange(24.0)), data=other)[0].fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_trials_have_seeds_of_their_own() -> None:
    assert len({seed_of_trial(3, trial) for trial in range(5)}) == 5


def test_what_is_not_finite_is_null_in_json() -> None:
    assert to_finite({"r2": float("nan"), "rmse": np.float64(2.0), "x": -np.inf}) == {
        "r2": None,
        "rmse": 2.0,
        "x": None,
    }
