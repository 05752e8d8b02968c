from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

from facetask import Architecture, Params, Preprocessing, SelectionPath, SelectionProblem, Selector, SurgeryError
from facetask.config import CutWithin, PruneConfig
from facetask.curves import Curve
from facetask.data import scan_images
from facetask.kinds import TaskSpec
from facetask.loader import ImageLoader
from facetask.network import BaseNetwork
from facetask.responses import Responses
from facetask.stages.curve import Chooser, Curves, curve
from facetask.stages.prune import Pruned, choose_cut, choose_keep_sets, prune
from facetask.stages.regress import Regression, TapFit, regress
from facetask.surgery import ChannelGraph, CoupledGroup
from facetask.testing import tiny_network, toy_faces

Make = Callable[..., Any]
TAPS = ("0", "2.conv", "3")
WIDTHS = (8, 8, 16)


# Where to cut


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return ChannelGraph.trace(tiny_network(), (3, 32, 32))


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("best", "2.conv"),
        ("3", "3"),
        (CutWithin(within=0.0), "2.conv"),
        (CutWithin(within=0.19), "2.conv"),
        (CutWithin(within=0.2), "0"),
        (CutWithin(within=9.0), "0"),
    ],
)
def test_the_cut_is_the_best_tap_a_named_one_or_the_lowest_within_a_tolerance(
    graph: ChannelGraph, cut: str | CutWithin, expected: str
) -> None:
    fits = [TapFit(tap, n, 0.0, rmse, {}) for tap, n, rmse in zip(TAPS, WIDTHS, (12.0, 10.0, 11.0), strict=True)]
    assert choose_cut(Regression(tuple(fits), "2.conv", {}), cut, graph) == expected


def test_an_unknown_cut_is_an_error(graph: ChannelGraph) -> None:
    regression = Regression((TapFit("0", 8, 0.0, 1.0, {}),), "0", {})
    with pytest.raises(SurgeryError, match=r"no tap '2.cnv' in this network; did you mean '2.conv'"):
        choose_cut(regression, "2.cnv", graph)


# What to keep, on groups made up for it


def bent(*supports: list[int], knee: int) -> Curve:
    """A curve through some supports whose knee is at one of them."""
    arrays = tuple(np.array(support) for support in supports)
    rmse = tuple(1.0 if i >= knee else 10.0 for i in range(len(supports)))
    return Curve(n_filters=tuple(map(len, supports)), rmse=rmse, supports=arrays, unpruned_rmse=1.0)


class Picker:
    """A chooser's stand-in: answers with one curve and remembers what it was asked."""

    def __init__(self, answer: Curve | None = None, scope: str = "group") -> None:
        self.selector, self.asked, self._answer = SimpleNamespace(scope=scope), [], answer

    def curve(self, responses: Any, taps: Any, component: np.ndarray, task: Any, split: Any) -> Curve:
        self.asked.append((tuple(taps), component.tolist()))
        assert self._answer is not None, "the taps' own curves were to decide"
        return self._answer


def group(n: int, fixed: tuple[int, ...] = (), **component: list[int]) -> CoupledGroup:
    return CoupledGroup(
        taps=tuple(component),
        component={tap: np.array(own) for tap, own in component.items()},
        n_components=n,
        fixed=np.isin(np.arange(n), fixed),
    )


def keep_sets(groups: list[CoupledGroup], picker: Picker, couple: str = "group", **curves: Curve) -> tuple[Any, Any]:
    """The keep sets as lists, and how they were chosen."""
    keep, choices = choose_keep_sets(
        SimpleNamespace(groups=tuple(groups)),  # type: ignore[arg-type]
        *[None] * 3,  # type: ignore[arg-type]
        Curves(curves),
        picker,  # type: ignore[arg-type]
        PruneConfig(couple=couple),  # type: ignore[arg-type]
    )
    return {tap: kept.tolist() for tap, kept in keep.items()}, choices


def test_a_tap_of_its_own_keeps_its_own_curve_s_knee() -> None:
    drawn = bent([2], [0, 2], [0, 1, 2], knee=1)
    picker = Picker()
    keep, (choice,) = keep_sets([group(3, a=[0, 1, 2])], picker, a=drawn)
    assert keep == {"a": [0, 2]}
    assert (choice.taps, choice.n_components, choice.curve, choice.kept) == (("a",), 3, drawn, 2)
    assert picker.asked == []


def test_a_coupled_group_keeps_the_knee_of_one_curve_over_its_taps() -> None:
    coupled = group(4, a=[0, 1, 2], b=[2, 1, 3])
    picker = Picker(bent([1], [1, 2], [0, 1, 2, 3], knee=1))
    keep, (choice,) = keep_sets([coupled], picker, a=bent([0], knee=0), b=bent([2], knee=0))
    assert picker.asked == [(("a", "b"), [0, 1, 2, 2, 1, 3])]
    assert keep == {"a": [1, 2], "b": [0, 1]}
    assert choice.kept == 2


def test_one_tap_whose_filters_share_components_needs_a_curve_of_components() -> None:
    picker = Picker(bent([1], [0, 1], knee=0))
    keep, _ = keep_sets([group(2, a=[0, 1, 0, 1])], picker, a=bent([0], knee=0))
    assert picker.asked == [(("a",), [0, 1, 0, 1])]
    assert keep == {"a": [1, 3]}


def test_fixed_components_are_kept_and_fixed_groups_left_alone() -> None:
    groups = [group(4, (3,), a=[0, 1, 2, 3]), group(2, (0, 1), b=[0, 1])]
    keep, choices = keep_sets(groups, Picker(), a=bent([1], [0, 1, 2, 3], knee=0), b=bent([0], knee=0))
    assert keep == {"a": [1, 3]}
    assert [choice.taps for choice in choices] == [("a",)]
    assert choices[0].kept == 2


# Component:        0  1  2  3  4
# tap a (filters)   0  1  2  3  –   its knee wants 0, 1
# tap b (filters)   –  0  1  2  3   its knee wants components 1, 4
COUPLED = {"a": [0, 1, 2, 3], "b": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("couple", "expected"),
    [
        ("union", {"a": [0, 1], "b": [0, 3]}),  # components 0, 1, 4
        ("intersection", {"a": [0, 1], "b": [0, 3]}),  # 0 and 4 have no other tap to refuse them
    ],
)
def test_each_tap_s_own_knee_union_or_intersection(couple: str, expected: dict[str, list[int]]) -> None:
    curves = {"a": bent([0, 1], [0, 1, 2, 3], knee=0), "b": bent([0, 3], [0, 1, 2, 3], knee=0)}
    keep, (choice,) = keep_sets([group(5, **COUPLED)], Picker(), couple, **curves)
    assert keep == expected
    assert choice.curve is None
    assert choice.kept == 3


def test_intersection_drops_what_one_tap_refuses_union_keeps_it() -> None:
    curves = {"a": bent([0, 1, 2], knee=0), "b": bent([1, 2], knee=0)}  # components 0, 1, 2 and 2, 3
    groups = [group(5, (4,), **COUPLED)]
    assert keep_sets(groups, Picker(), "union", **curves)[0] == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    assert keep_sets(groups, Picker(), "intersection", **curves)[0] == {"a": [0, 2], "b": [1, 3]}


def test_no_tap_is_left_with_nothing() -> None:
    # The knee keeps component 0 alone, which tap b does not have; of b's own, the path takes 3 first.
    picker = Picker(bent([0], [0, 3], [0, 1, 2, 3], knee=0))
    keep, (choice,) = keep_sets([group(5, **COUPLED)], picker)
    assert keep == {"a": [0, 3], "b": [2]}
    assert choice.kept == 2
    # The path never takes any of b's: its first stays.
    picker = Picker(bent([0], knee=0))
    assert keep_sets([group(5, **COUPLED)], picker)[0] == {"a": [0, 1], "b": [0]}
    # Two taps that refuse each other's only filter.
    curves = {"a": bent([0], [0, 1], knee=0), "b": bent([1], [0, 1], knee=0)}
    both = group(2, a=[0, 1], b=[0, 1])
    assert keep_sets([both], Picker(), "intersection", **curves)[0] == {"a": [0], "b": [0]}


@pytest.mark.parametrize("couple", ["group", "union", "intersection"])
def test_a_selector_for_everything_is_asked_once(couple: str) -> None:
    groups = [group(3, (2,), a=[0, 1, 2]), group(2, b=[0, 1], c=[1, 0]), group(2, (0, 1), d=[0, 1])]
    picker = Picker(bent([1, 3], [0, 1, 2, 3, 4, 5, 6], knee=0), scope="all")
    keep, (choice,) = keep_sets(groups, picker, couple)
    assert picker.asked == [(("a", "b", "c", "d"), [0, 1, 2, 3, 4, 4, 3, 5, 6])]
    assert keep == {"a": [1, 2], "b": [0], "c": [1], "d": [0, 1]}
    assert (choice.n_components, choice.kept) == (7, 5)


# The whole stage on a tiny network


@pytest.fixture(scope="module")
def base() -> BaseNetwork:
    spec = Preprocessing(size=(32, 32), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)
    module = tiny_network()
    architecture = Architecture(
        name="tiny",
        build=lambda params: tiny_network(),
        weights=lambda params: None,  # type: ignore[arg-type,return-value]
        preprocessing=lambda params: spec,
    )
    return BaseNetwork(
        architecture=architecture,
        params=Params(),
        module=module,
        graph=ChannelGraph.trace(module, spec.input_shape),
        preprocessing=spec,
        licence="CC0-1.0",
        source="random",
    )


class Stage:
    """The prune stage with everything that comes before it."""

    def __init__(self, base: BaseNetwork, folder: Path, make_task: Make, halves: Make) -> None:
        faces = toy_faces(folder, n=80)
        self.base, self.split = base, halves(80)
        self.task = make_task(faces.column("brightness")[:, None], data=faces)
        self.loader = ImageLoader(scan_images(faces, 0.0), base.preprocessing, "cpu", 32, 0)
        matrix = self.forward(base.graph.responder())
        ends = np.cumsum(WIDTHS)
        columns = {tap: slice(end - n, end) for tap, n, end in zip(TAPS, WIDTHS, ends.tolist(), strict=True)}
        self.responses = Responses(matrix, columns)

    def forward(self, backbone: nn.Module) -> np.ndarray:
        return self.loader.all_outputs(backbone, np.arange(80))

    def run(self, kind: str = "continuous", scope: str = "group", size: int = 3, **settings: Any) -> Pruned:
        """Prune with a selector that takes the components in turn, and a knee at ``size``."""

        def select(problem: SelectionProblem, params: Params) -> SelectionPath:
            return SelectionPath(supports=(np.arange(min(size, problem.n_components)),))

        task = self.task
        if kind != "continuous":
            values = np.searchsorted(np.quantile(task.values, [1 / 3, 2 / 3]), task.values).astype(float)
            values = values if kind == "nominal" else np.minimum(values, 1)
            classes = ("dark", "mid", "light") if kind == "nominal" else ("dark", "light")
            task = replace(task, values=values, spec=TaskSpec("task", kind, classes=classes))  # type: ignore[arg-type]
        chooser = Chooser(Selector(name="first", select=select, scope=scope), Params(), {}, 0)  # type: ignore[arg-type]
        regression = regress(self.responses, task, self.split)
        curves = curve(self.responses, task, self.split, chooser)
        config = PruneConfig(**{"cut": "3", **settings})
        return prune(self.base, self.responses, task, self.split, regression, curves, chooser, config, self.forward)


@pytest.fixture
def stage(base: BaseNetwork, tmp_path: Path, make_task: Make, halves: Make) -> Stage:
    return Stage(base, tmp_path, make_task, halves)


def test_the_head_is_refitted_on_the_pruned_network_s_own_responses(stage: Stage) -> None:
    done = stage.run(cut="2.conv")
    assert {tap: kept.tolist() for tap, kept in done.keep.items()} == {"0": [0, 1, 2], "2.conv": [0, 1, 2]}
    assert done.full == {"0": 8, "2.conv": 8}
    network = done.network(stage.base.graph).eval()
    x, y, split = stage.forward(network.backbone), stage.task.values, stage.split
    assert x.shape == (80, 3)
    masked = stage.forward(stage.base.graph.cut("2.conv").masked(done.keep))
    np.testing.assert_allclose(x, masked[:, :3], atol=1e-5)
    assert np.abs(x - stage.responses.tap("2.conv")[:, :3]).max() > 1e-3  # filters are gone below, too
    outputs = stage.forward(network)
    np.testing.assert_allclose(outputs, done.head.predict(x), rtol=1e-4)
    rmse = np.sqrt(np.mean((outputs[split.test] - y[split.test]) ** 2))
    assert done.metrics_pruned["rmse"] == pytest.approx(rmse, rel=1e-4)
    reference = LinearRegression().fit(x[split.train].astype(float), y[split.train])
    worse = np.sqrt(np.mean((reference.predict(x[split.test].astype(float)) - y[split.test]) ** 2))
    assert rmse < 1.2 * worse


def test_unpruned_metrics_are_the_regression_s_at_the_cut(stage: Stage) -> None:
    done = stage.run(cut="2.conv")
    fit = regress(stage.responses, stage.task, stage.split).fit_of("2.conv")
    assert done.metrics_unpruned == pytest.approx(fit.metrics)


def test_costs_fall_from_the_base_to_the_cut_to_the_pruned_network(stage: Stage) -> None:
    done = stage.run(cut="2.conv")
    # 32×32 → stride 2 → 16×16 → 16×16 → stride 2 → 7×7
    assert done.cost_base.macs == 256 * 8 * 27 + 256 * 8 * 72 + 49 * 16 * 72
    assert done.cost_at_cut.macs == 256 * 8 * 27 + 256 * 8 * 72 + 8
    assert done.cost.macs == 256 * 3 * 27 + 256 * 3 * 27 + 3
    assert done.cost.params == (3 * 27 + 3) + 3 * 27 + 6 + (3 + 1)
    assert done.cost.params == sum(p.numel() for p in done.network(stage.base.graph).parameters())


@pytest.mark.parametrize(("kind", "n_outputs"), [("binary", 1), ("nominal", 3)])
def test_other_kinds(stage: Stage, kind: str, n_outputs: int) -> None:
    done = stage.run(kind, size=6)
    assert len(done.head.intercept) == n_outputs
    assert ("threshold" in done.decision) == (kind == "binary")
    assert done.metrics_pruned["accuracy"] > 0.75
    assert done.network(stage.base.graph).head.out_features == n_outputs


@pytest.mark.parametrize("settings", [{"couple": "union"}, {"couple": "intersection"}, {"scope": "all"}, {"size": 100}])
def test_every_way_of_choosing_gives_a_network_that_equals_the_masked_one(stage: Stage, settings: Any) -> None:
    done = stage.run(**settings)
    assert set(done.keep) == set(TAPS)
    np.testing.assert_array_equal(done.keep["0"], done.keep["2.conv"])
    x = stage.forward(done.network(stage.base.graph).backbone)
    masked = stage.forward(stage.base.graph.cut("3").masked(done.keep))
    np.testing.assert_allclose(x, masked[:, done.keep["3"]], atol=1e-5)


def test_the_base_network_is_untouched_even_by_training_what_was_carved_out(stage: Stage) -> None:
    before = {key: value.clone() for key, value in stage.base.module.state_dict().items()}
    for size in (3, 100):  # 100: nothing is pruned, and still nothing is shared
        network = stage.run(size=size).network(stage.base.graph)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
    assert all(torch.equal(value, before[key]) for key, value in stage.base.module.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_json_rebuilds_the_same_network(stage: Stage) -> None:
    for settings in ({}, {"couple": "union"}):
        done = stage.run(**settings)
        again = Pruned.from_json(json.loads(json.dumps(done.to_json())))
        one, other = done.network(stage.base.graph), again.network(stage.base.graph)
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
        assert again.to_json() == done.to_json()
        assert (again.cost, again.cost_base, again.metrics_pruned) == (done.cost, done.cost_base, done.metrics_pruned)
        assert again.groups[0].taps == done.groups[0].taps
