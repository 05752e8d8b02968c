"""Stage 3: the cuts, the keep sets, the smaller network and its refitted heads: one for each task that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.keep_sets.by_curve import GroupChoice, Groups, KeepSets, TaskAtCut, TrialCurves, choose_keep_sets
from facetask.keep_sets.by_need import choose_needed
from facetask.networks.cost import network_cost, second_opinion
from facetask.networks.heads import Head, Predicted, fit_head
from facetask.running.results import NetworkCost
from facetask.stages.curve import curve_from_json, curve_to_json
from facetask.stages.regress import Regression
from facetask.stages.rounds import Carved, Forward, Train, carve_in_rounds, fit_heads, with_heads
from facetask.statistics.regression import LinearModel

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from facetask.config import PruneConfig
    from facetask.keep_sets.budget import Budget
    from facetask.networks.base_network import BaseNetwork
    from facetask.networks.task_network import TaskNetwork
    from facetask.responses import Responses
    from facetask.surgery import ChannelGraph
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Decision


@dataclass(frozen=True)
class Pruned:
    """One task's part of a trial's pruned network: with that of the tasks that share it, enough to rebuild it.

    Attributes:
        cut: The tap that the task's head reads; what no task's head needs was removed.
        keep: Keep set of each tap of the network, in original numbering.
        full: How many filters each of them had.
        groups: The coupled groups' choices.
        head: The head's linear model.
        gentle_head: The head from which training starts.
        predicted: Its predictions on test, with what was learned on validation for the head's outputs.
        predicted_unpruned: The same with all filters of the cut tap.
        metrics_unpruned: Test metrics with all filters of the cut tap.
        metrics_pruned: Test metrics of the pruned network with its refitted head.
        metrics_validation: The same on validation.
        confusion: Its decisions on test, as in :class:`facetask.networks.heads.Head`.
        cost: Of the pruned network with all its heads.
        cost_at_cut: Of the base network cut at the same taps.
        cost_base: Of the whole base network.
        macs_note: Where the second counter disagrees.
    """

    cut: str
    keep: dict[str, NDArray[np.intp]]
    full: dict[str, int]
    groups: tuple[GroupChoice, ...]
    head: LinearModel
    gentle_head: LinearModel
    predicted: Predicted
    predicted_unpruned: Predicted
    metrics_unpruned: dict[str, float]
    metrics_pruned: dict[str, float]
    metrics_validation: dict[str, float]
    confusion: list[list[int]] | None
    cost: NetworkCost
    cost_at_cut: NetworkCost
    cost_base: NetworkCost
    macs_note: str

    @property
    def decision(self) -> Decision:
        """What was learned on validation for the head's outputs."""
        return self.predicted.decision

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
                    "knee": group.knee,
                    "kept": group.kept,
                    "notes": list(group.notes),
                }
                for group in self.groups
            ],
            "head": _head_to_json(self.head),
            "gentle_head": _head_to_json(self.gentle_head),
            "predicted": asdict(self.predicted),
            "predicted_unpruned": asdict(self.predicted_unpruned),
            "metrics_unpruned": self.metrics_unpruned,
            "metrics_pruned": self.metrics_pruned,
            "metrics_validation": self.metrics_validation,
            "confusion": self.confusion,
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
                group["knee"],
                group["kept"],
                tuple(group["notes"]),
            )
            for group in fields["groups"]
        )
        costs = {key: NetworkCost(**fields[key]) for key in ("cost", "cost_at_cut", "cost_base")}
        predicted = {key: Predicted(**fields[key]) for key in ("predicted", "predicted_unpruned")}
        keep = {tap: np.array(kept, dtype=np.intp) for tap, kept in fields["keep"].items()}
        return cls(**{**fields, **costs, **heads, **predicted, "keep": keep, "groups": groups})


@dataclass(frozen=True)
class TaskCurves:
    """What is known of one task when a network is pruned for it.

    Attributes:
        task: The task.
        regression: The trial's regressions.
        trials: The trial's partition and curves, then those of the other trials, which only some settings need.
    """

    task: Satellite
    regression: Regression
    trials: Sequence[TrialCurves]


def build_pruned(
    base: ChannelGraph, heads: Sequence[tuple[str, int]], keep: KeepSets, images: Tensor | None = None
) -> TaskNetwork:
    """Return the network that ends at some cuts with only the keep sets left, and untrained heads.

    Args:
        base: The base network's graph.
        heads: For each task the tap that its head reads, and the head's outputs.
        keep: Keep set of each tap of the network.
        images: Normalised images for the reconstruction of dropped inputs; None for none.
    """
    graph = base.cut(*(cut for cut, _ in heads))
    wanted = {**keep, **{tap.name: keep[tap.name] for tap in graph.taps}}  # none may be missing
    return with_heads(graph.pruned({tap: kept.tolist() for tap, kept in wanted.items()}, images), heads)


def rebuild_pruned(base: ChannelGraph, tasks: Sequence[Pruned], images: Tensor | None) -> TaskNetwork:
    """Return the pruned network of one or more tasks, rebuilt from the base network and its reconstruction's images."""
    heads = [(each.cut, len(each.head.intercept)) for each in tasks]
    network = build_pruned(base, heads, tasks[0].keep, images)
    network.set_heads([each.head for each in tasks])
    return network


def prune(
    network: BaseNetwork,
    responses: Responses,
    tasks: Sequence[TaskCurves],
    settings: PruneConfig,
    images: Tensor | None,
    forward: Forward,
    train: Train | None = None,
) -> tuple[tuple[Pruned, ...], TaskNetwork]:
    """Cut the network, keep what matters to any task, rebuild it smaller and refit the heads; return it too.

    Args:
        network: The base network.
        responses: All taps' responses.
        tasks: The tasks that one network shall serve, one or more.
        settings: The knee's rule, cut, coupling and rounding.
        images: Normalised training images, on which filters are chosen by need and dropped inputs reconstructed; None
            where neither is asked for.
        forward: Returns a backbone's pooled responses for all images, ``(n_images, n_filters)``.
        train: Trains a network, where settings ask for rounds; else None.

    Raises:
        SurgeryError: If the cut names no tap.
        CurveError: If a curve has no knee by the configured rule.
    """
    cuts = [choose_cut(each.regression, settings.cut, network.graph) for each in tasks]
    graphs = {cut: network.graph.cut(cut) for cut in cuts}
    graph = graphs[cuts[0]] if len(graphs) == 1 else network.graph.cut(*graphs)
    at_cut = [
        TaskAtCut(each.task, graphs[cut], responses.tap(cut), each.trials)
        for each, cut in zip(tasks, cuts, strict=True)
    ]
    shape = network.preprocessing.input_shape
    cost_base = network_cost(network.module, shape)
    heads = [(cut, each.task.targets.shape[1]) for each, cut in zip(tasks, cuts, strict=True)]
    to_reconstruct = images if settings.reconstruct else None

    def choose_within(of: ChannelGraph, each: Sequence[TaskAtCut], budget: Budget) -> tuple[KeepSets, Groups]:
        assert images is not None
        wanted, groups = choose_needed(of, each, settings, budget, images, cost_base)
        return of.resolve(wanted), groups

    if settings.rounds:
        assert settings.budget is not None
        assert train is not None
        carved = carve_in_rounds(
            network,
            graph,
            at_cut,
            settings.rounds,
            settings.budget,
            to_reconstruct,
            forward,
            choose_within,
            train,
        )
    else:
        if settings.budget is not None:
            keep, groups = choose_within(graph, at_cut, settings.budget)
        else:
            wanted, groups = choose_keep_sets(graph, network.follows, responses, at_cut, settings)
            keep = graph.resolve(wanted)
        carved = Carved(graph.pruned(keep, to_reconstruct), keep, groups)
    pruned = with_heads(carved.graph, heads)
    fitted = fit_heads(pruned, forward(pruned.backbone), at_cut)
    cost = network_cost(pruned, shape)
    cost_at_cut = network_cost(with_heads(graph, heads), shape)
    macs_note = second_opinion(pruned, shape, cost.macs)

    def of_task(each: TaskCurves, cut: str, own: tuple[GroupChoice, ...], head: Head) -> Pruned:
        unpruned = fit_head(responses.tap(cut), each.task, each.trials[0].split)
        return Pruned(
            cut=cut,
            keep=dict(carved.keep),
            full={tap.name: tap.n_filters for tap in graph.taps},
            groups=own,
            head=head.model,
            gentle_head=head.gentle,
            predicted=head.predicted,
            predicted_unpruned=unpruned.predicted,
            metrics_unpruned=unpruned.metrics,
            metrics_pruned=head.metrics,
            metrics_validation=head.metrics_validation,
            confusion=head.confusion,
            cost=cost,
            cost_at_cut=cost_at_cut,
            cost_base=cost_base,
            macs_note=macs_note,
        )

    return tuple(map(of_task, tasks, cuts, carved.groups, fitted)), pruned


def choose_cut(regression: Regression, cut: Any, graph: ChannelGraph) -> str:
    """Return the tap to cut at: the best, a named one, or the lowest within a tolerance of the best.

    Raises:
        SurgeryError: If a named tap does not exist.
    """
    if cut == "best":
        return regression.best_tap
    if isinstance(cut, str):
        return str(graph.tap(cut).name)
    best = regression.fit_of(regression.best_tap)
    limit = best.validation_rmse * (1 + float(cut.within))
    return next(fit.tap for fit in regression.taps if fit.validation_rmse <= limit and fit.dead <= best.dead)


def _head_to_json(head: LinearModel) -> dict[str, Any]:
    """Return a head's linear model as JSON values."""
    return {"coef": head.coef.tolist(), "intercept": head.intercept.tolist()}


def _head_from_json(fields: dict[str, Any]) -> LinearModel:
    """Return the linear model that :func:`_head_to_json` described."""
    return LinearModel(**{key: np.array(value, dtype=np.float64) for key, value in fields.items()})
