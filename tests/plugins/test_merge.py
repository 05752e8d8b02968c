"""The task ``merge``: rules, weights, classes matched by name, and what does not fit together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from facetask import ConfigError, ConfigPath, DataError, FaceData, Labels, Params, PluginError, Task, TaskChoice
from facetask.config import config_from_dict
from facetask.context import run_context
from facetask.plugin_manager import default_manager
from facetask.plugins.tasks.agreement import cohen_kappa
from facetask.plugins.tasks.combining import majority, weighted_mean, weighted_median
from facetask.plugins.tasks.merge import facetask_tasks
from facetask.tasks.satellite import check_labels

(RECORD,) = facetask_tasks()
NAN = float("nan")


class GivenParams(Params):
    """Which of the test's labels, and a path."""

    number: int
    model: ConfigPath | None = None


GIVEN: list[Labels] = []


@pytest.fixture(autouse=True)
def _sources() -> Iterator[None]:
    """Make a task ``given`` known, whose labels a test sets."""
    given = Task(name="given", labels=lambda data, params: GIVEN[params.number], params=GivenParams)
    known = default_manager()
    find = lambda kind, name: given if name == "given" else known.find(kind, name)  # noqa: E731
    with run_context(SimpleNamespace(find=find)):  # type: ignore[arg-type]
        yield
    GIVEN.clear()


def numbers(values: Any, **fields: Any) -> Labels:
    fields = {"name": "age", "kind": "continuous", "unit": "years", "source": "somebody", **fields}
    values = np.array(values, dtype=float)
    return Labels(values=values if values.ndim == 2 else values[:, None], **fields)


def classes(names: list[str | None], known: tuple[str, ...], kind: Any = "nominal", **fields: Any) -> Labels:
    index = [NAN if name is None else known.index(name) for name in names]
    return Labels(name="mood", kind=kind, values=np.array(index, dtype=float)[:, None], classes=known, **fields)


def merge(*given: Labels, sources: list[dict[str, Any]] | None = None, **params: Any) -> Labels:
    """Merge labels; each of ``sources`` adds settings to one."""
    GIVEN[:] = given
    n = len(given[0].values)
    more = sources or [{} for _ in given]
    choices = [{"name": "given", "params": {"number": i}, **more[i]} for i in range(len(given))]
    data = FaceData(paths=tuple(Path(f"{i}.jpg") for i in range(n)), columns={})
    found = RECORD.labels(data, RECORD.params.model_validate_json(json.dumps({"sources": choices, **params})))
    check_labels(found, n, "merge")
    return found


def named(labels: Labels) -> list[str | None]:
    return [None if np.isnan(i) else labels.classes[int(i)] for i in labels.values[:, 0]]


# --- numbers


def test_the_mean_of_those_that_have_a_label() -> None:
    found = merge(numbers([10, 20, NAN, NAN]), numbers([20, NAN, 7, NAN], flip="negate"), rule="mean")
    np.testing.assert_array_equal(found.values[:, 0], [15, 20, 7, NAN])
    assert (found.name, found.kind, found.unit, found.confidence) == ("age", "continuous", "years", None)
    assert found.flip == "never"
    assert found.source == "mean of: somebody; somebody"
    assert found.notes == (
        "source 1, somebody: labels for 2 of 4 images",
        "source 2, somebody: labels for 2 of 4 images",
        "sources 1 and 2: 10 years apart on average over 1 images",
    )


def test_a_mean_weighs_by_source_and_by_confidence() -> None:
    sure = np.array([0.5, 1.0, 0.0])
    given = numbers([10, 10, 10], confidence=sure), numbers([40, 40, 40])
    found = merge(*given, rule="mean", sources=[{"weight": 4}, {}])
    np.testing.assert_allclose(found.values[:, 0], [(10 * 2 + 40) / 3, (10 * 4 + 40) / 5, 40])
    np.testing.assert_allclose(found.confidence, [(4 * 0.5 + 1) / 5, 1, 1])
    found = merge(*given, rule="mean", use_confidence=False)
    np.testing.assert_allclose(found.values[:, 0], 25)
    assert found.confidence is None


def test_a_label_of_confidence_zero_is_none() -> None:
    found = merge(numbers([1, 2], confidence=np.array([0.0, 0.5])), rule="median")
    np.testing.assert_array_equal(found.values[:, 0], [NAN, 2])
    np.testing.assert_array_equal(found.confidence, [NAN, 0.5])


def test_a_median_leaves_an_outlier_out() -> None:
    found = merge(numbers([30, 30, NAN]), numbers([34, 34, 5]), numbers([90, NAN, NAN]), rule="median")
    np.testing.assert_array_equal(found.values[:, 0], [34, 32, 5])


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_with_equal_weights_mean_and_median_are_numpy_s(n_sources: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (20, n_sources)).astype(float)
    values[rng.random(values.shape) < 0.2] = NAN
    some = ~np.isnan(values).all(axis=1)
    weights = np.full(values.shape, 0.7)
    np.testing.assert_allclose(weighted_median(values, weights)[some], np.nanmedian(values[some], axis=1))
    np.testing.assert_allclose(weighted_mean(values, weights)[some], np.nanmean(values[some], axis=1))
    assert np.isnan(weighted_median(values, weights)[~some]).all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 10_000))
def test_a_whole_weight_counts_like_so_many_sources(repeats: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(5, len(repeats)))
    weights = np.tile(np.array(repeats, dtype=float), (5, 1))
    expected = np.median(np.repeat(values, repeats, axis=1), axis=1)
    np.testing.assert_allclose(weighted_median(values, weights), expected)


def test_bins_and_several_values_are_those_of_the_first_source() -> None:
    binned = numbers([[1.0, 5.0], [3.0, NAN]], kind="binned", edges=((2.0,), (4.0,)), classes=("a", "b", "c", "d"))
    found = merge(binned, numbers([[3.0, 7.0], [5.0, NAN]]), rule="mean")
    assert (found.kind, found.edges, found.classes) == ("binned", binned.edges, binned.classes)
    np.testing.assert_array_equal(found.values, [[2, 6], [4, NAN]])
    assert found.notes[2:] == (
        "sources 1 and 2: 2 years apart on average over 2 images, correlation 1.00, value 1",
        "sources 1 and 2: 2 years apart on average over 1 images, value 2",
    )


# --- classes


def test_a_majority_by_names_in_any_order_with_missing_ones() -> None:
    found = merge(
        classes(["sad", "sad", None, None], ("happy", "sad", "calm"), source="a", licence="MIT"),
        classes(["happy", "sad", "sad", None], ("sad", "happy"), source="b", licence="CC0"),
        classes(["happy", "happy", None, None], ("happy",), source="c", licence="MIT"),
        rule="majority",
    )
    assert found.classes == ("happy", "sad", "calm")
    assert named(found) == ["happy", "sad", "sad", None]
    np.testing.assert_allclose(found.confidence, [2 / 3, 2 / 3, 1, NAN])
    assert (found.kind, found.source, found.licence) == ("nominal", "majority of: a; b; c", "MIT; CC0")
    assert "sources 1 and 2: equal for 50.0% of 2 images, Cohen's κ 0.00" in found.notes


def test_a_tie_goes_to_the_first_source_that_is_part_of_it() -> None:
    votes = [["a", "c"], ["b", "b"], ["b", "a"], ["a", None], ["c", "b"]]
    found = merge(*(classes(names, ("a", "b", "c")) for names in votes), rule="majority")  # type: ignore[arg-type]
    assert named(found) == ["a", "b"]
    np.testing.assert_allclose(found.confidence, [2 / 5, 2 / 4])


def test_a_majority_weighs_by_source_and_by_confidence() -> None:
    sure = np.array([0.2, 0.9])
    given = classes(["a", "a"], ("a", "b"), confidence=sure), classes(["b", "b"], ("a", "b"))
    found = merge(*given, rule="majority", sources=[{"weight": 2}, {}])
    assert named(found) == ["b", "a"]
    np.testing.assert_allclose(found.confidence, [1 / 3, 1.8 / 3])
    assert named(merge(*given, rule="majority", use_confidence=False)) == ["a", "a"]


def test_binary_stays_binary_where_both_classes_are_meant() -> None:
    first = classes(["f", "m"], ("f", "m"), kind="binary")
    other = classes(["1", "1"], ("0", "1"), kind="binary")
    found = merge(first, other, rule="majority", sources=[{}, {"rename": {"0": "m", "1": "f"}}])
    assert (found.kind, found.classes) == ("binary", ("f", "m"))
    assert named(found) == ["f", "m"]
    assert merge(first, classes(["f", "m"], ("f", "m")), rule="majority").kind == "nominal"


def test_classes_that_do_not_match_are_named_and_can_be_renamed_or_left_out() -> None:
    first = classes(["happy", "sad"], ("happy", "sad"), source="one")
    other = classes(["joy", "contempt"], ("joy", "sad", "contempt"), source="two")
    with pytest.raises(
        DataError, match=r"source 2 \(two\) has .*'joy', 'contempt'; those are 'happy', 'sad'.*sources\.1"
    ):
        merge(first, other, rule="majority")
    renamed = merge(first, other, rule="majority", sources=[{}, {"rename": {"joy": "happy", "contempt": None}}])
    assert named(renamed) == ["happy", "sad"]
    np.testing.assert_allclose(renamed.confidence, [1, 1])
    listed = merge(first, other, rule="majority", classes=["sad", "happy", "joy", "contempt"])
    assert listed.classes == ("sad", "happy", "joy", "contempt")
    assert named(listed) == ["happy", "sad"]
    with pytest.raises(DataError, match=r"sources\.1\.rename: source 2 has no class 'jo'; did you mean 'joy'"):
        merge(first, other, rule="majority", sources=[{}, {"rename": {"jo": "happy"}}])


def test_the_notes_count_the_labels_that_are_really_merged() -> None:
    first = classes(["happy", "sad", "sad", None], ("happy", "sad"), source="a")
    other = classes(["joy", "contempt", "contempt", "sad"], ("joy", "sad", "contempt"), source="b")
    sources = [{}, {"rename": {"joy": "happy", "contempt": None}}]
    assert merge(first, other, rule="majority", sources=sources).notes[:2] == (
        "source 1, a: labels for 3 of 4 images",
        "source 2, b: labels for 2 of 4 images; 2 more are not merged",
    )
    unsure = numbers([1, 2, 3], confidence=np.array([0.5, 0.0, 1.0]))
    assert merge(unsure, numbers([1, 2, 3]), rule="median").notes[0].endswith("2 of 3 images; 1 more are not merged")
    several = Labels(name="x", kind="multilabel", values=np.array([[1.0, NAN], [NAN, 0], [NAN, 1]]), classes=("a", "b"))
    found = merge(several, several, rule="majority", sources=[{}, {"rename": {"b": None}}])
    assert [note.partition(": ")[2] for note in found.notes[:2]] == [
        "labels for 3 of 3 images",
        "labels for 1 of 3 images; 2 more are not merged",
    ]


@pytest.mark.parametrize(
    ("flips", "merged"),
    [
        (["negate", ("negate", "negate")], "negate"),
        ([("keep", "negate"), ("keep", "negate")], ("keep", "negate")),
        ([("keep", "negate"), "negate"], "never"),
    ],
)
def test_rules_for_mirrored_images_are_kept_where_they_agree(flips: list[Any], merged: Any) -> None:
    given = (numbers([[1, 2], [3, 4]], flip=flip) for flip in flips)
    assert merge(*given, rule="mean").flip == merged


def test_several_labels_an_image_are_merged_each_by_its_name() -> None:
    fields: dict[str, Any] = {"name": "wear", "kind": "multilabel"}
    first = Labels(values=np.array([[1, 0], [1, NAN], [NAN, NAN]]), classes=("hat", "tie"), **fields)
    second = Labels(values=np.array([[1, 1], [0, 1], [NAN, NAN]]), classes=("tie", "hat"), **fields)
    third = Labels(values=np.array([[1.0], [0.0], [NAN]]), classes=("tie",), **fields)
    found = merge(first, second, third, rule="majority")
    np.testing.assert_array_equal(found.values, [[1, 1], [1, 0], [NAN, NAN]])
    np.testing.assert_allclose(found.confidence, [2 / 3, 1, NAN])
    truth = merge(first, second, third, rule="latent-truth")
    np.testing.assert_array_equal(np.isnan(truth.values), np.isnan(found.values))
    assert any(note.startswith("tie: source 3: right for") for note in truth.notes)


def test_latent_truth_trusts_the_sources_that_agree() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c"], dtype=object)
    truth = rng.integers(0, 3, 600)
    index = [
        np.where(rng.random(600) < right, truth, (truth + shift) % 3)
        for right, shift in ((0.9, 1), (0.85, 2), (0.3, 1))
    ]
    given = [classes(list(names[i]), ("a", "b", "c"), source=f"s{k}") for k, i in enumerate(index)]
    found = merge(*given, rule="latent-truth")
    voted = merge(*given, rule="majority")
    right = found.values[:, 0] == truth
    assert right.mean() > (voted.values[:, 0] == truth).mean()
    assert found.confidence is not None
    assert found.confidence.mean() == pytest.approx(right.mean(), abs=0.05)
    accuracy = [float(note.split("right for ")[1].split("%")[0]) for note in found.notes if "right for" in note]
    assert accuracy == pytest.approx([90, 85, 30], abs=6)


def test_one_source_gives_back_its_labels() -> None:
    names: list[str | None] = ["a", None, "b", "a"]
    for rule in ("majority", "latent-truth"):
        assert named(merge(classes(names, ("a", "b")), rule=rule)) == names
    np.testing.assert_array_equal(merge(numbers([1, NAN]), rule="median").values[:, 0], [1, NAN])


def test_all_labels_missing_stay_missing() -> None:
    for rule in ("majority", "latent-truth"):
        found = merge(*[classes([None, None], ("a", "b"))] * 2, rule=rule)
        assert named(found) == [None, None]
        assert "sources 1 and 2: no images in common" in found.notes
    assert np.isnan(merge(*[numbers([NAN, NAN])] * 2, rule="mean").values).all()


def test_cohen_kappa_on_a_published_example() -> None:
    a = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])  # yes-yes, yes-no, no-yes, no-no
    b = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert np.isnan(cohen_kappa(np.zeros(3, dtype=int), np.zeros(3, dtype=int)))


def test_a_majority_s_ties_do_not_hang_on_rounding() -> None:
    found, share = majority(np.array([[1, 0, 0]]), np.array([[0.3, 0.1, 0.2]]), np.ones(3))
    assert found.tolist() == [1]
    assert share == pytest.approx([0.1])


# --- what does not fit


@pytest.mark.parametrize(
    ("given", "rule", "message"),
    [
        (
            (numbers([1]), classes(["a"], ("a",))),
            "mean",
            "all binned or continuous; source 1 is continuous, 2 is nominal",
        ),
        ((numbers([1]),), "majority", "all binary or nominal or all multilabel; source 1 is continuous"),
        ((numbers([1]), numbers([1], unit="degrees")), "mean", r"units differ \(years, degrees\)"),
        ((numbers([1]), numbers([[1, 2]])), "mean", "have 1 and 2 values an image"),
    ],
)
def test_sources_that_cannot_be_merged(given: tuple[Labels, ...], rule: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        merge(*given, rule=rule)


def test_too_many_classes_for_confusion_matrices() -> None:
    people = tuple(f"person {i}" for i in range(201))
    with pytest.raises(DataError, match=r"for 200 classes, found 201; use rule: majority"):
        merge(classes(list(people), people), rule="latent-truth")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rule": "mean", "classes": ["a"]}, "classes and rename are for rules of classes"),
        ({"rule": "latent-truth", "sources": [{"weight": 2}]}, "leave weight out"),
        ({"rule": "majority", "classes": ["a", "a"]}, "classes must differ"),
        ({"rule": "majority", "sources": [{"weight": 0}]}, "greater than 0"),
        ({"rule": "vote"}, "'mean', 'median', 'majority' or 'latent-truth'"),
    ],
)
def test_params_that_do_not_fit_together(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        merge(classes(["a"], ("a",)), **params)
    assert message in str(caught.value)


# --- sources as plugins


def test_sources_may_be_merged_themselves() -> None:
    GIVEN[:] = [numbers([1, 5]), numbers([3, NAN]), numbers([10, 10])]
    inner = {"name": "merge", "params": {"rule": "mean", "sources": [given_choice(0), given_choice(1)]}}
    params = RECORD.params.model_validate_json(json.dumps({"rule": "mean", "sources": [inner, given_choice(2)]}))
    found = RECORD.labels(FaceData(paths=(Path("0"), Path("1")), columns={}), params)
    np.testing.assert_array_equal(found.values[:, 0], [6, 7.5])
    assert "source 1: source 2, somebody: labels for 1 of 2 images" in found.notes
    assert RECORD.params.model_validate_json(params.model_dump_json()) == params


def given_choice(number: int) -> dict[str, Any]:
    return {"name": "given", "params": {"number": number}}


def test_a_source_s_wrong_labels_are_blamed_on_it() -> None:
    with pytest.raises(PluginError, match=r"task 'given': .* with n = 2"):
        merge(numbers([1, 2]), numbers([1]), rule="mean")


def test_paths_in_a_source_s_params_count_from_the_file(tmp_path: Path) -> None:
    choice = {"name": "given", "params": {"number": 0, "model": "sub/model.bin"}}
    found = TaskChoice.model_validate_json(json.dumps(choice), context={"base": tmp_path})
    assert found.params.model == tmp_path / "sub/model.bin"  # type: ignore[attr-defined]
    assert TaskChoice(name="given", params=found.params) == found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"name": "colum"}, "sources.1.name: unknown task 'colum'; did you mean 'column'?"),
        ({"name": "given"}, "sources.1: task 'given' needs params: number"),
        ({"name": "column", "params": 3}, "sources.1.params: expected a mapping, found 3"),
        (
            {"name": "column", "params": {"column": "a", "knd": "nominal"}},
            "sources.1.params.kind: required, but missing",
        ),
        (
            {"name": "column", "params": {"column": "a", "kind": "nominal", "colunm": "b"}},
            "sources.1.params.colunm: unknown key; did you mean 'column'?",
        ),
        (
            {"name": "column", "params": {"column": 7, "kind": "binned", "edges": ["x"]}},
            "sources.1.params.edges.0: expected a number or a list, found 'x'",
        ),
        ({"name": "column", "wieght": 2}, "sources.1.wieght: unknown key; did you mean 'weight'?"),
    ],
)
def test_a_wrong_source_is_told_with_its_place_in_the_file(source: dict[str, Any], expected: str) -> None:
    good = {"name": "column", "params": {"column": "a", "kind": "nominal"}}
    config = {
        "base_network": {"name": "dlib-face-resnet"},
        "data": {"name": "rendered-faces"},
        "satellite_tasks": [{"name": "merge", "params": {"rule": "majority", "sources": [good, source]}}],
    }
    with pytest.raises(ConfigError) as caught:
        config_from_dict(config, base=Path.cwd())
    assert f"satellite_tasks.0.params.{expected}" in str(caught.value)
