from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

from facetask import Architecture, Params, Preprocessing, SelectionPath, SelectionProblem, Selector, SurgeryError
from facetask.config import CutWithin, PruneConfig
from facetask.data.images import scan_images
from facetask.data.loader import ImageLoader
from facetask.keep_sets.by_curve import TrialCurves
from facetask.networks.base_network import BaseNetwork
from facetask.networks.heads import Predicted
from facetask.responses import Responses
from facetask.stages.curve import Chooser, curve
from facetask.stages.prune import Pruned, TaskCurves, choose_cut, prune, rebuild_pruned
from facetask.stages.regress import Regression, TapFit, regress
from facetask.surgery import ChannelGraph
from facetask.tasks.kinds import TaskSpec
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
    assert choose_cut(Regression(tuple(fits), "2.conv", {}, Predicted({}, "")), cut, graph) == expected


def test_a_dead_tap_is_not_cut_at(graph: ChannelGraph) -> None:
    fits = [TapFit(tap, 8, (0.0,), 10.0, {}, dead=tap == "0") for tap in TAPS]
    assert choose_cut(Regression(tuple(fits), "3", {}, Predicted({}, "")), CutWithin(within=9.0), graph) == "2.conv"


def test_an_unknown_cut_is_an_error(graph: ChannelGraph) -> None:
    regression = Regression((TapFit("0", 8, 0.0, 1.0, {}),), "0", {}, Predicted({}, ""))
    with pytest.raises(SurgeryError, match=r"no tap '2.cnv' in this network; did you mean '2.conv'"):
        choose_cut(regression, "2.cnv", graph)


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

    def run(
        self,
        kind: str = "continuous",
        scope: str = "group",
        n_kept: int = 3,
        images: torch.Tensor | None = None,
        **settings: Any,
    ) -> Pruned:
        """Prune with a selector that takes the components in turn, and a knee at ``n_kept``."""

        def select(problem: SelectionProblem, params: Params) -> SelectionPath:
            return SelectionPath(supports=(np.arange(min(n_kept, problem.n_components)),))

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
        tasks = [TaskCurves(task, regression, [TrialCurves(self.split, curves, chooser)])]
        ((done,), _) = prune(self.base, self.responses, tasks, config, images, self.forward)
        return done


@pytest.fixture
def stage(base: BaseNetwork, tmp_path: Path, make_task: Make, halves: Make) -> Stage:
    return Stage(base, tmp_path, make_task, halves)


def test_the_head_is_refitted_on_the_pruned_network_s_own_responses(stage: Stage) -> None:
    done = stage.run(cut="2.conv")
    assert {tap: kept.tolist() for tap, kept in done.keep.items()} == {"0": [0, 1, 2], "2.conv": [0, 1, 2]}
    assert done.full == {"0": 8, "2.conv": 8}
    network = rebuild_pruned(stage.base.graph, [done], None).eval()
    x, y, split = stage.forward(network.backbone), stage.task.values, stage.split
    assert x.shape == (80, 3)
    masked = stage.forward(stage.base.graph.cut("2.conv").masked(done.keep))
    np.testing.assert_allclose(x, masked[:, :3], atol=1e-5)
    assert np.abs(x - stage.responses.tap("2.conv")[:, :3]).max() > 1e-3  # filters are gone below, too
    outputs = stage.forward(network)
    np.testing.assert_allclose(outputs, done.head.predict(x), rtol=1e-4)
    rmse = np.sqrt(np.mean((outputs[split.test] - y[split.test]) ** 2))
    assert done.metrics_pruned["rmse"] == pytest.approx(rmse, rel=1e-4)
    np.testing.assert_allclose(done.predicted.predictions(len(split.test)), outputs[split.test], rtol=1e-4)
    held_out = np.sqrt(np.mean((outputs[split.validation] - y[split.validation]) ** 2))
    assert done.metrics_validation["rmse"] == pytest.approx(held_out, rel=1e-4)
    reference = LinearRegression().fit(x[split.train].astype(float), y[split.train])
    worse = np.sqrt(np.mean((reference.predict(x[split.test].astype(float)) - y[split.test]) ** 2))
    assert rmse < 1.2 * worse


def test_unpruned_metrics_are_the_regression_s_at_the_cut(stage: Stage) -> None:
    done = stage.run(cut="2.conv")
    fit = regress(stage.responses, stage.task, stage.split).fit_of("2.conv")
    assert done.metrics_unpruned == pytest.approx(fit.metrics)
    test = stage.split.test
    error = done.predicted_unpruned.predictions(len(test)) - stage.task.values[test]
    assert np.sqrt(np.mean(error**2)) == pytest.approx(fit.metrics["rmse"])


def test_costs_fall_from_the_base_to_the_cut_to_the_pruned_network(stage: Stage) -> None:
    done = stage.run(cut="2.conv")
    # 32×32 → stride 2 → 16×16 → 16×16 → stride 2 → 7×7
    assert done.cost_base.macs == 256 * 8 * 27 + 256 * 8 * 72 + 49 * 16 * 72
    assert done.cost_at_cut.macs == 256 * 8 * 27 + 256 * 8 * 72 + 8
    assert done.cost.macs == 256 * 3 * 27 + 256 * 3 * 27 + 3
    assert done.cost.params == (3 * 27 + 3) + 3 * 27 + 6 + (3 + 1)
    assert done.cost.params == sum(p.numel() for p in rebuild_pruned(stage.base.graph, [done], None).parameters())


@pytest.mark.parametrize(("kind", "n_outputs"), [("binary", 1), ("nominal", 3)])
def test_other_kinds(stage: Stage, kind: str, n_outputs: int) -> None:
    done = stage.run(kind, n_kept=6)
    assert len(done.head.intercept) == n_outputs
    assert ("threshold" in done.decision) == (kind == "binary")
    assert done.metrics_pruned["accuracy"] > 0.75
    assert rebuild_pruned(stage.base.graph, [done], None).heads[0].out_features == n_outputs


@pytest.mark.parametrize(
    "settings", [{"couple": "union"}, {"couple": "intersection"}, {"scope": "all"}, {"n_kept": 100}]
)
def test_every_way_of_choosing_gives_a_network_that_equals_the_masked_one(stage: Stage, settings: Any) -> None:
    done = stage.run(**settings)
    assert set(done.keep) == set(TAPS)
    np.testing.assert_array_equal(done.keep["0"], done.keep["2.conv"])
    x = stage.forward(rebuild_pruned(stage.base.graph, [done], None).backbone)
    masked = stage.forward(stage.base.graph.cut("3").masked(done.keep))
    np.testing.assert_allclose(x, masked[:, done.keep["3"]], atol=1e-5)


def test_the_base_network_is_untouched_even_by_training_what_was_carved_out(stage: Stage) -> None:
    before = {key: value.clone() for key, value in stage.base.module.state_dict().items()}
    for size in (3, 100):  # 100: nothing is pruned, and still nothing is shared
        network = rebuild_pruned(stage.base.graph, [stage.run(n_kept=size)], None)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
    assert all(torch.equal(value, before[key]) for key, value in stage.base.module.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_json_rebuilds_the_same_network(stage: Stage) -> None:
    for settings in ({}, {"couple": "union"}):
        done = stage.run(**settings)
        again = Pruned.from_json(json.loads(json.dumps(done.to_json())))
        one, other = rebuild_pruned(stage.base.graph, [done], None), rebuild_pruned(stage.base.graph, [again], None)
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
        assert again.to_json() == done.to_json()
        assert (again.cost, again.cost_base, again.metrics_pruned) == (done.cost, done.cost_base, done.metrics_pruned)
        assert again.groups[0].taps == done.groups[0].taps


def test_reconstruction_brings_the_responses_back(stage: Stage) -> None:
    ((_, images),) = stage.loader.batches(stage.split.train, [np.arange(len(stage.split.train))])
    before = images.clone()
    plain, done = stage.run(cut="3", n_kept=5), stage.run(cut="3", n_kept=5, images=images)
    assert {tap: kept.tolist() for tap, kept in done.keep.items()} == {
        "0": [*range(5)],
        "2.conv": [*range(5)],
        "3": [*range(5)],
    }
    unpruned = stage.responses.tap("3")[:, :5]
    error, plain_error = (
        np.square(stage.forward(rebuild_pruned(stage.base.graph, [each], given).backbone) - unpruned).mean()
        for each, given in ((done, images), (plain, None))
    )
    assert error < 0.5 * plain_error
    assert done.cost == plain.cost
    assert torch.equal(images, before)
    again = rebuild_pruned(stage.base.graph, [Pruned.from_json(json.loads(json.dumps(done.to_json())))], images)
    first = rebuild_pruned(stage.base.graph, [done], images)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_below_the_cut_need_decides_within_the_budget(stage: Stage) -> None:
    ((_, images),) = stage.loader.batches(stage.split.train, [np.arange(len(stage.split.train))])
    whole = stage.run(n_kept=4, images=images, below_cut="need", macs=1.0)
    assert whole.keep["3"].tolist() == [0, 1, 2, 3]  # at the cut the label decides
    for macs in (0.6, 0.3):
        done = stage.run(n_kept=4, images=images, below_cut="need", macs=macs)
        assert done.keep["3"].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(done.keep["0"], done.keep["2.conv"])
        assert done.cost.macs - done.cost.params <= macs * done.cost_base.macs  # the head is not in the budget
        cut, below = done.groups[-1], done.groups[0]
        assert (cut.knee, cut.kept) == (4, 4)
        assert cut.curve is not None
        assert (below.curve, below.knee, below.kept) == (None, None, len(done.keep["0"]))
        assert below.notes == (f"what the layers above need, at {macs:.0%} of the base network's MACs",)
    by_default = stage.run(n_kept=4, images=images, below_cut="need")
    assert (
        by_default.keep["0"].tolist()
        == stage.run(n_kept=4, images=images, below_cut="need", macs=0.25).keep["0"].tolist()
    )
    assert len(by_default.keep["0"]) < len(whole.keep["0"])


def test_a_size_is_a_second_budget_heads_included(stage: Stage) -> None:
    ((_, images),) = stage.loader.batches(stage.split.train, [np.arange(len(stage.split.train))])
    unlimited = stage.run(n_kept=4, images=images, below_cut="need", macs=0.6)
    share = 0.8 * unlimited.cost.size_bytes / unlimited.cost_base.size_bytes
    done = stage.run(n_kept=4, images=images, below_cut="need", macs=0.6, size=share)
    assert 0.6 * share < done.cost.size_bytes / done.cost_base.size_bytes <= share
    assert done.cost.macs < unlimited.cost.macs
    assert done.groups[0].notes == (
        f"what the layers above need, at 60% of the base network's MACs and {100 * share:.3g}% of its size",
    )


@pytest.mark.parametrize("kind", ["continuous", "nominal"])
def test_a_network_that_can_be_small_enough_is_never_larger(stage: Stage, kind: str) -> None:
    """Where the cut's filters are tied to others, its head reads more than the label chose."""
    ((_, images),) = stage.loader.batches(stage.split.train, [np.arange(len(stage.split.train))])
    for share in (0.5, 0.3, 0.2, 0.15):
        done = stage.run(kind, n_kept=2, images=images, below_cut="need", macs=1.0, size=share, cut="2.conv")
        assert done.cost.size_bytes <= share * done.cost_base.size_bytes
    assert len(done.keep["2.conv"]) > 2  # the smallest of them still has room for more than the label's


def test_need_keeps_the_responses_better_than_the_label_at_the_same_size(stage: Stage) -> None:
    """The label's choice here is the first filters, whatever they do."""
    ((_, images),) = stage.loader.batches(stage.split.train, [np.arange(len(stage.split.train))])
    by_label = stage.run(n_kept=4, images=images)
    macs = (by_label.cost.macs + 1) / by_label.cost_base.macs
    by_need = stage.run(n_kept=4, images=images, below_cut="need", macs=macs)
    unpruned = stage.responses.tap("3")[:, :4]
    missed = [
        np.square(stage.forward(rebuild_pruned(stage.base.graph, [done], images).backbone) - unpruned).mean()
        for done in (by_need, by_label)
    ]
    assert by_need.cost.macs <= by_label.cost.macs
    assert missed[0] < 0.8 * missed[1]


def test_rounding_holds_where_need_decides(stage: Stage) -> None:
    ((_, images),) = stage.loader.batches(stage.split.train, [np.arange(len(stage.split.train))])
    done = stage.run(n_kept=5, images=images, below_cut="need", macs=0.5, round_to=2, reconstruct=0)
    assert all(len(kept) % 2 == 0 for kept in done.keep.values())
