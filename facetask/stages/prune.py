"""Stage 3: the cut, the keep sets, the smaller network and its refitted head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.cost import network_cost, second_opinion
from facetask.keep_sets import GroupChoice, KeepSets, choose_keep_sets
from facetask.regression import LinearModel
from facetask.results import NetworkCost
from facetask.stages.curve import Chooser, Curves, curve_from_json, curve_to_json
from facetask.stages.regress import Regression, scaled_targets
from facetask.task_network import TaskNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from facetask.config import PruneConfig
    from facetask.kinds import Decision
    from facetask.network import BaseNetwork
    from facetask.responses import Responses
    from facetask.satellite import Satellite
    from facetask.splits import Split
    from facetask.surgery import ChannelGraph

Forward = Callable[["nn.Module"], "NDArray[np.float32]"]


@dataclass(frozen=True)
class Pruned:
    """The pruned network of one trial: enough to rebuild it from the base network.

    Attributes:
        cut: The tap above which everything was removed.
        keep: Keep set of each tap up to the cut, in original numbering.
        full: How many filters each of them had.
        groups: The coupled groups' choices.
        head: The head's linear model.
        gentle_head: The head from which training starts.
        decision: What was learned on validation for the head's outputs.
        metrics_unpruned: Test metrics with all filters of the cut tap.
        metrics_pruned: Test metrics of the pruned network with its refitted head.
        cost: Of the pruned network with its head.
        cost_at_cut: Of the base network cut at the same tap.
        cost_base: Of the whole base network.
        macs_note: Where the second counter disagrees.
    """

    cut: str
    keep: dict[str, NDArray[np.intp]]
    full: dict[str, int]
    groups: tuple[GroupChoice, ...]
    head: LinearModel
    gentle_head: LinearModel
    decision: Decision
    metrics_unpruned: dict[str, float]
    metrics_pruned: dict[str, float]
    cost: NetworkCost
    cost_at_cut: NetworkCost
    cost_base: NetworkCost
    macs_note: str

    def network(self, base: ChannelGraph) -> TaskNetwork:
        """Return the pruned network, rebuilt from the base network's graph."""
        network = build_pruned(base, self.cut, self.keep, len(self.head.intercept))
        network.set_head(self.head)
        return network

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "cut": self.cut,
            "keep": {tap: kept.tolist() for tap, kept in self.keep.items()},
            "full": self.full,
            "groups": [
                {
                    "taps": list(group.taps),
                    "n_components": group.n_components,
                    "curve": None if group.curve is None else curve_to_json(group.curve),
                    "kept": group.kept,
                }
                for group in self.groups
            ],
            "head": _head_to_json(self.head),
            "gentle_head": _head_to_json(self.gentle_head),
            "decision": self.decision,
            "metrics_unpruned": self.metrics_unpruned,
            "metrics_pruned": self.metrics_pruned,
            "cost": self.cost.model_dump(),
            "cost_at_cut": self.cost_at_cut.model_dump(),
            "cost_base": self.cost_base.model_dump(),
            "macs_note": self.macs_note,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Pruned:
        """Return what :meth:`to_json` described."""
        heads = {key: _head_from_json(fields[key]) for key in ("head", "gentle_head")}
        groups = tuple(
            GroupChoice(
                tuple(group["taps"]),
                group["n_components"],
                None if group["curve"] is None else curve_from_json(group["curve"]),
                group["kept"],
            )
            for group in fields["groups"]
        )
        costs = {key: NetworkCost(**fields[key]) for key in ("cost", "cost_at_cut", "cost_base")}
        keep = {tap: np.array(kept, dtype=np.intp) for tap, kept in fields["keep"].items()}
        return cls(**{**fields, **costs, **heads, "keep": keep, "groups": groups})


def build_pruned(base: ChannelGraph, cut: str, keep: KeepSets, n_outputs: int) -> TaskNetwork:
    """Return the network that ends at the cut with only the keep sets left, and an untrained head."""
    backbone = base.cut(cut).prune({tap: kept.tolist() for tap, kept in keep.items()})
    return TaskNetwork(backbone, len(keep[cut]), n_outputs)


def prune(
    network: BaseNetwork,
    responses: Responses,
    task: Satellite,
    split: Split,
    regression: Regression,
    curves: Curves,
    chooser: Chooser,
    settings: PruneConfig,
    forward: Forward,
) -> Pruned:
    """Cut the network, keep what matters, rebuild it smaller and refit its head.

    Args:
        network: The base network.
        responses: All taps' responses.
        task: The satellite task.
        split: The trial's partition.
        regression: The trial's regressions.
        curves: The trial's curves.
        chooser: The selector, for coupled groups.
        settings: Threshold, cut, coupling and rounding.
        forward: Returns a backbone's pooled responses for all images, ``(n_images, n_filters)``.

    Raises:
        SurgeryError: If the cut names no tap.
    """
    cut = choose_cut(regression, settings.cut, network.graph)
    graph = network.graph.cut(cut)
    wanted, groups = choose_keep_sets(graph, network.follows, responses, task, split, curves, chooser, settings)
    keep = graph.resolve(wanted)
    shape = network.preprocessing.input_shape
    targets, scale = scaled_targets(task, split)
    pruned = build_pruned(network.graph, cut, keep, targets.shape[1]).eval()
    x = forward(pruned.backbone)
    head = _fit_head(x, task, split, scale)
    unpruned = _fit_head(responses.tap(cut), task, split, scale)
    pruned.set_head(head.model)
    whole = {tap.name: np.arange(tap.n_filters) for tap in graph.taps}
    cost = network_cost(pruned, shape)
    return Pruned(
        cut=cut,
        keep=keep,
        full={tap.name: tap.n_filters for tap in graph.taps},
        groups=groups,
        head=head.model,
        gentle_head=head.gentle,
        decision=head.decision,
        metrics_unpruned=unpruned.metrics,
        metrics_pruned=head.metrics,
        cost=cost,
        cost_at_cut=network_cost(build_pruned(network.graph, cut, whole, targets.shape[1]).eval(), shape),
        cost_base=network_cost(network.module, shape),
        macs_note=second_opinion(pruned, shape, cost.macs),
    )


def choose_cut(regression: Regression, cut: Any, graph: ChannelGraph) -> str:
    """Return the tap to cut at: the best, a named one, or the lowest within a tolerance of the best.

    Raises:
        SurgeryError: If a named tap does not exist.
    """
    if cut == "best":
        return regression.best_tap
    if isinstance(cut, str):
        return str(graph.tap(cut).name)
    limit = regression.fit_of(regression.best_tap).validation_rmse * (1 + float(cut.within))
    return next(fit.tap for fit in regression.taps if fit.validation_rmse <= limit)


@dataclass(frozen=True)
class _Head:
    """A head fitted on responses: its linear model, where training starts, its decision and its test metrics."""

    model: LinearModel
    gentle: LinearModel
    decision: Decision
    metrics: dict[str, float]


def _fit_head(x: NDArray[np.float32], task: Satellite, split: Split, scale: NDArray[np.float64]) -> _Head:
    """Fit a head on responses of all images, ``(n_images, n_filters)``."""
    kind, targets = task.kind, task.targets / scale
    x_train, x_validation = (x[rows].astype(np.float64) for rows in (split.train, split.validation))
    fitted = kind.fit_head(x_train, targets[split.train], x_validation, targets[split.validation])
    gentle = kind.gentle_head(x_train, targets[split.train], fitted)
    model, gentle = (LinearModel(coef=m.coef * scale, intercept=m.intercept * scale) for m in (fitted, gentle))
    validation, test = (kind.activate(model.predict(x[part])) for part in (split.validation, split.test))
    decision = kind.learn(validation, task.values[split.validation])
    return _Head(model, gentle, decision, kind.metrics(test, task.values[split.test], decision, scale))


def _head_to_json(head: LinearModel) -> dict[str, Any]:
    """Return a head's linear model as JSON values."""
    return {"coef": head.coef.tolist(), "intercept": head.intercept.tolist()}


def _head_from_json(fields: dict[str, Any]) -> LinearModel:
    """Return the linear model that :func:`_head_to_json` described."""
    return LinearModel(**{key: np.array(value, dtype=np.float64) for key, value in fields.items()})
