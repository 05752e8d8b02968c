"""The contract checks for plugin authors: each broken contract is found and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import nn

from facetask import (
    Architecture,
    DataError,
    Dataset,
    FaceData,
    Labels,
    Params,
    PluginError,
    Preprocessing,
    Score,
    ScoreProblem,
    SelectionPath,
    SelectionProblem,
    Selector,
    Task,
    Weights,
)
from facetask.testing import (
    check_architecture,
    check_dataset,
    check_record,
    check_score,
    check_selector,
    check_task,
    tiny_network,
    toy_faces,
    toy_problems,
    toy_score_problems,
)


def tiny(**changes: Any) -> Architecture:
    def weights(params: Params) -> Weights:
        return Weights(state=tiny_network().state_dict(), licence="MIT", source="chance")

    def preprocessing(params: Params) -> Preprocessing:
        return Preprocessing(size=(32, 32), colour="rgb", mean=(0.0,) * 3, std=(255.0,) * 3)

    fields = {
        "name": "tiny",
        "build": lambda params: tiny_network(1),
        "weights": weights,
        "preprocessing": preprocessing,
    }
    return Architecture(**{**fields, **changes})


def first_k(problem: SelectionProblem, params: Any) -> SelectionPath:
    return SelectionPath(supports=tuple(np.arange(k) for k in range(1, problem.n_components + 1)))


# --- any record


class Loose(BaseModel):
    depth: int = 1


class Unwritable(Params):
    depth: Any = object()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, "a name must be one word"),
        ({"name": "two words"}, "a name must be one word"),
        ({"params": dict}, "params must be a pydantic model class"),
        ({"params": Loose}, "must forbid unknown keys; derive it from facetask.Params"),
        ({"params": Unwritable}, "selector 'x': "),
        ({"needs": frozenset({"hessian"})}, r"needs \['hessian'\], known are"),
        ({"scope": "some"}, "scope 'some' is neither 'group' nor 'all'"),
    ],
)
def test_the_form_of_a_record(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        check_record(replace(Selector(name="x", select=first_k), **changes))


def test_records_whose_params_are_required_are_checked_in_form_only() -> None:
    class Required(Params):
        k: int

    check_record(Selector(name="x", select=lambda problem, params: 1 / 0, params=Required))  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="its params have no defaults; give some"):
        check_selector(Selector(name="x", select=first_k, params=Required))
    assert check_selector(Selector(name="x", select=first_k, params=Required), Required(k=1)).supports


# --- architectures


def test_a_sound_architecture_passes() -> None:
    check_architecture(tiny())


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.sum() > 0 else x


def state_of(module: nn.Module, **changes: Any) -> Callable[[Any], Weights]:
    fields = {"state": module.state_dict(), "licence": "MIT", "source": "chance", **changes}
    return lambda params: Weights(**fields)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"build": lambda params: 1 / 0}, "architecture 'tiny': ZeroDivisionError"),
        ({"weights": state_of(nn.Linear(2, 2))}, "architecture 'tiny': .*keys are missing"),
        ({"weights": state_of(tiny_network(), licence="")}, "weights without a licence"),
        ({"build": lambda params: Untraceable(), "weights": state_of(Untraceable())}, "architecture 'tiny': "),
        ({"build": lambda params: nn.Flatten(), "weights": state_of(nn.Flatten())}, "no tap found"),
        (
            {
                "weights": state_of(
                    tiny_network(), state={k: v * np.nan for k, v in tiny_network().state_dict().items()}
                )
            },
            "not finite",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_broken_architecture_is_told(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        check_architecture(tiny(**changes))


def test_an_architecture_that_is_built_differently_each_time() -> None:
    widths = iter((8, 6))

    def build(params: Params) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, next(widths), 3), nn.ReLU())

    first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.raises(PluginError, match="architecture 'tiny': tap '0': filter 6 is out of range"):
        check_architecture(tiny(build=build, weights=state_of(first)))


# --- tasks


@pytest.fixture
def faces(tmp_path: Path) -> FaceData:
    return toy_faces(tmp_path, 6)


GOOD = Labels(name="a", kind="continuous", values=np.arange(6.0)[:, None])


def task_of(labels: Any) -> Task:
    return Task(name="mine", labels=lambda data, params: labels)


def test_sound_tasks_pass(faces: FaceData) -> None:
    missing = GOOD.values.copy()
    missing[2] = np.nan
    nominal = replace(GOOD, kind="nominal", values=np.array([[0, 1, 2, 0, 1, np.nan]]).T, classes=("a", "b", "c"))
    binary = replace(GOOD, kind="binary", values=np.array([[0.0, 1, 0, 0, 1, np.nan]]).T, classes=("no", "yes"))
    binned = replace(GOOD, kind="binned", values=np.zeros((6, 2)), edges=((1.0,), (2.0, 3.0)), classes=tuple("abcdef"))
    sure = replace(
        GOOD, values=missing, confidence=np.where(np.isnan(missing[:, 0]), np.nan, [0, 0.1, 0.2, 0.3, 0.9, 1])
    )
    mirrored = replace(binned, flip=("keep", "negate"))
    for labels in (GOOD, replace(GOOD, values=missing), sure, nominal, binary, binned, mirrored):
        assert check_task(task_of(labels), faces) is labels


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([1, 2], "must return Labels, found list"),
        (replace(GOOD, kind="ordinal"), "the kind is none of continuous, binary, multilabel, binned, nominal"),  # type: ignore[arg-type]
        (replace(GOOD, flip="mirror"), "flip 'mirror' is none of keep, negate, never"),  # type: ignore[arg-type]
        (replace(GOOD, flip=("keep", "mirror")), "is none of keep, negate, never, nor a tuple of them"),  # type: ignore[arg-type]
        (replace(GOOD, flip=("keep", "negate")), "flip has 2 rules for 1 outputs; give one for each, or one for all"),
        (replace(GOOD, values=GOOD.values[:5]), r"with n = 6, found float64 \(5, 1\)"),
        (replace(GOOD, values=GOOD.values.astype(np.float32)), "found float32"),
        (replace(GOOD, values=[1.0] * 6), "found list"),  # type: ignore[arg-type]
        (replace(GOOD, values=GOOD.values[:, 0]), r"values must be \(n, n_outputs\)"),
        (replace(GOOD, values=np.full((6, 1), np.inf)), "must be finite, or NaN where missing"),
        (replace(GOOD, kind="binary", classes=("no", "yes")), "one column of 0 or 1 and two classes"),
        (replace(GOOD, kind="nominal", classes=("a", "b")), "indices of its 2 classes"),
        (replace(GOOD, kind="binned", edges=((1.0,),), classes=("a",)), "a class for each of their 2 bins"),
        (replace(GOOD, kind="nominal", classes=tuple("abcdef"), flip="negate"), "flip 'negate' needs numbers"),
        (replace(GOOD, confidence=np.ones(5)), r"confidence must be a float64 array \(6,\), found float64 \(5,\)"),
        (replace(GOOD, confidence=[1.0] * 6), r"confidence must be a float64 array \(6,\), found list"),  # type: ignore[arg-type]
        (replace(GOOD, confidence=np.full(6, 1.5)), r"confidence must lie in \[0, 1\], found 1.5"),
        (replace(GOOD, confidence=np.full(6, np.nan)), "confidence must be a number where there is a label"),
        (replace(GOOD, values=np.full((6, 1), np.nan), confidence=np.ones(6)), "and NaN where there is none"),
    ],
)
def test_broken_labels_are_told(faces: FaceData, labels: Any, reason: str) -> None:
    with pytest.raises(PluginError, match=f"task 'mine': .*{reason}"):
        check_task(task_of(labels), faces)


def test_a_task_that_draws_lots_or_raises(faces: FaceData) -> None:
    rng = np.random.default_rng(0)
    lots = Task(name="mine", labels=lambda data, params: replace(GOOD, values=rng.normal(size=(6, 1))))
    unsure = Task(name="mine", labels=lambda data, params: replace(GOOD, confidence=rng.random(6)))
    for task in (lots, unsure):
        with pytest.raises(PluginError, match="asked twice, it gives other labels"):
            check_task(task, faces)
    with pytest.raises(PluginError, match="task 'mine': ZeroDivisionError"):
        check_task(Task(name="mine", labels=lambda data, params: 1 / 0), faces)  # type: ignore[arg-type,return-value]


# --- datasets


def test_datasets(faces: FaceData) -> None:
    def check(data: Any) -> FaceData:
        return check_dataset(Dataset(name="mine", load=lambda params: data))

    assert check(faces) is faces
    for broken, reason in (
        ([], "must return FaceData, found list"),
        (replace(faces, columns={"age": np.arange(6)}), "column 'age' must be float64 or object"),
        (replace(faces, columns={"age": np.arange(5.0)}), "column 'age' must be"),
        (replace(faces, group_column="clip"), "its group column 'clip' is no column"),
    ):
        with pytest.raises(PluginError, match=f"dataset 'mine': .*{reason}"):
            check(broken)
    orders = iter((faces, faces.subset(np.arange(6)[::-1])))
    with pytest.raises(PluginError, match="two loads give different images or another order"):
        check_dataset(Dataset(name="mine", load=lambda params: next(orders)))

    def absent(params: Params) -> FaceData:
        raise DataError("/faces: no such folder")

    with pytest.raises(PluginError, match="dataset 'mine': /faces: no such folder"):
        check_dataset(Dataset(name="mine", load=absent))


# --- selectors


def test_a_sound_selector_passes_and_its_path_comes_back() -> None:
    path = check_selector(Selector(name="first-k", select=first_k))
    assert [len(support) for support in path.supports] == [1, 2, 3, 4, 5, 6]  # of the coupled problem


def test_a_selector_gets_what_it_needs_and_no_more() -> None:
    seen: list[SelectionProblem] = []

    def look(problem: SelectionProblem, params: Params) -> SelectionPath:
        seen.append(problem)
        return first_k(problem, params)

    check_selector(Selector(name="look", select=look))
    assert all(p.responses is p.targets is p.weights is p.gradients is None for p in seen)
    seen.clear()
    needs = frozenset({"responses", "weights", "gradients"})
    check_selector(Selector(name="look", select=look, needs=needs))  # type: ignore[arg-type]
    assert all(len(p.gradients) == len(p.weights) == p.responses.shape[1] == 12 for p in seen)  # type: ignore


def path_of(*supports: Any, **fields: Any) -> Callable[[Any, Any], Any]:
    return lambda problem, params: SelectionPath(supports=supports, **fields)


@pytest.mark.parametrize(
    ("select", "reason"),
    [
        (lambda problem, params: [np.arange(2)], "must return a SelectionPath, found list"),
        (path_of(), "its path is empty"),
        (path_of(np.array([], dtype=int)), "a support must be"),
        (path_of(np.array([2, 1])), "a support must be"),
        (path_of(np.array([1, 1])), "a support must be"),
        (path_of(np.array([-1, 1])), "a support must be"),
        (path_of(np.array([6])), "within 0 … 5"),
        (path_of(np.array([0.0, 1.0])), "integer array"),
        (path_of([0, 1]), "integer array"),
        (path_of(np.array([True, False])), "integer array"),
        (path_of(np.array([[0, 1]])), "one-dimensional"),
        (path_of(np.arange(2), strengths=np.ones(3)), "3 strengths for 1 supports"),
        (path_of(np.arange(2), coefficients=np.ones((1, 3, 1))), r"coefficients have the shape \(1, 3, 1\)"),
        (lambda problem, params: problem.weights[0], "TypeError"),
    ],
)
def test_a_broken_selector_is_told(select: Any, reason: str) -> None:
    with pytest.raises(PluginError, match=f"selector 'mine': .*{reason}"):
        check_selector(Selector(name="mine", select=select))


def test_a_selector_must_draw_from_the_seed() -> None:
    rng = np.random.default_rng(0)

    def lots(problem: SelectionProblem, params: Params) -> SelectionPath:
        return SelectionPath(supports=(np.sort(rng.choice(problem.n_components, 3, replace=False)),))

    with pytest.raises(
        PluginError, match=r"asked twice, it gives another path; draw random numbers from problem\.seed"
    ):
        check_selector(Selector(name="lots", select=lots))


# --- scores


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (lambda problem, params: None, "must return a number, found NoneType"),
        (lambda problem, params: True, "must return a number, found bool"),
        (lambda problem, params: np.inf, "gives inf for a continuous task; NaN says that it does not apply"),
        (lambda problem, params: np.nan, "gives NaN for every kind of task"),
        (lambda problem, params: float(np.random.default_rng().normal()), "asked twice, it gives another number"),
        (lambda problem, params: problem.moments, "AttributeError"),
    ],
)
def test_a_broken_score_is_told(score: Any, reason: str) -> None:
    with pytest.raises(PluginError, match=f"score 'mine': .*{reason}"):
        check_score(Score(name="mine", score=score))


def test_a_score_need_not_apply_to_every_kind() -> None:
    def wide(problem: ScoreProblem, params: Params) -> float:
        return float(problem.responses.shape[1]) if problem.kind == "continuous" else float("nan")

    assert check_score(Score(name="wide", score=wide))[0] == 12
    check_record(Score(name="wide", score=wide))


# --- toys


def test_toy_score_problems_are_one_of_each_kind() -> None:
    problems = toy_score_problems()
    assert [problem.kind for problem in problems] == ["continuous", "binary", "multilabel", "binned", "nominal"]
    for problem in problems:
        assert len(problem.responses) == len(problem.targets) == len(problem.classes) == 90
        assert (np.isnan(problem.targets).any()) == (problem.kind == "multilabel") == bool((problem.classes < 0).any())


def test_toys_are_the_same_each_time(tmp_path: Path) -> None:
    one, two = toy_faces(tmp_path / "one", 4), toy_faces(tmp_path / "two", 4)
    assert [path.read_bytes() for path in one.paths] == [path.read_bytes() for path in two.paths]
    assert one.columns["brightness"].tolist() == two.columns["brightness"].tolist()
    states = [tiny_network(seed).state_dict()["0.weight"] for seed in (0, 0, 1)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_toy_labels_are_in_the_images(tmp_path: Path) -> None:
    faces = toy_faces(tmp_path, 12)
    spec = Preprocessing(size=(32, 32), colour="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    centres = np.array([spec.load(path)[:, 12:20, 12:20].mean(axis=(1, 2)) for path in faces.paths])
    assert np.corrcoef(centres.mean(axis=1), faces.columns["brightness"])[0, 1] > 0.9
    assert ((centres[:, 0] > centres[:, 2]) == (faces.columns["tint"] == "warm")).all()


def test_toy_problems_hold_everything_that_can_be_needed() -> None:
    one, two = toy_problems()
    assert (one.n_components, two.n_components) == (12, 6)
    for problem, n_outputs in ((one, 1), (two, 2)):
        assert problem.targets is not None
        assert problem.targets.shape == (80, n_outputs)
        assert problem.responses is not None
        assert (problem.responses[:, 3] == 0).all()
        assert (problem.responses[:, 4] == problem.responses[:, 5]).all()
