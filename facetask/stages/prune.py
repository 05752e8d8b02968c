"""Stage 3: the cut, the keep sets, the smaller network and its refitted head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.cost import network_cost, second_opinion
from facetask.heads import Predicted, fit_head
from facetask.keep_sets import GroupChoice, KeepSets, TrialCurves, choose_keep_sets
from facetask.needed_filters import choose_needed
from facetask.regression import LinearModel
from facetask.results import NetworkCost
from facetask.stages.curve import curve_from_json, curve_to_json
from facetask.stages.regress import Regression
from facetask.task_network import TaskNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.config import PruneConfig
    from facetask.network import BaseNetwork
    from facetask.responses import Responses
    from facetask.satellite import Satellite
    from facetask.surgery import ChannelGraph
    from facetask.task_kind import Decision

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
        predicted: Its predictions on test, with what was learned on validation for the head's outputs.
        predicted_unpruned: The same with all filters of the cut tap.
        metrics_unpruned: Test metrics with all filters of the cut tap.
        metrics_pruned: Test metrics of the pruned network with its refitted head.
        metrics_validation: The same on validation.
        confusion: Its decisions on test, as in :class:`facetask.heads.Head`.
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

    def network(self, base: ChannelGraph, images: Tensor | None) -> TaskNetwork:
        """Return the pruned network, rebuilt from the base network's graph and the images of its reconstruction."""
        network = build_pruned(base, self.cut, self.keep, len(self.head.intercept), images)
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


def build_pruned(
    base: ChannelGraph, cut: str, keep: KeepSets, n_outputs: int, images: Tensor | None = None
) -> TaskNetwork:
    """Return the network that ends at the cut with only the keep sets left, and an untrained head.

    Args:
        base: The base network's graph.
        cut: The tap to end at.
        keep: Keep set of each tap up to the cut.
        n_outputs: Outputs of the head.
        images: Normalised images for the reconstruction of dropped inputs; None for none.
    """
    backbone = base.cut(cut).pruned({tap: kept.tolist() for tap, kept in keep.items()}, images).module()
    return TaskNetwork(backbone, len(keep[cut]), n_outputs)


def prune(
    network: BaseNetwork,
    responses: Responses,
    task: Satellite,
    regression: Regression,
    trials: Sequence[TrialCurves],
    settings: PruneConfig,
    images: Tensor | None,
    forward: Forward,
) -> tuple[Pruned, TaskNetwork]:
    """Cut the network, keep what matters, rebuild it smaller and refit its head; return it too.

    Args:
        network: The base network.
        responses: All taps' responses.
        task: The satellite task.
        regression: The trial's regressions.
        trials: The trial's partition and curves, then those of the other trials, which only some settings need.
        settings: The knee's rule, cut, coupling and rounding.
        images: Normalised training images, on which filters are chosen by need and dropped inputs reconstructed; None
            where neither is asked for.
        forward: Returns a backbone's pooled responses for all images, ``(n_images, n_filters)``.

    Raises:
        SurgeryError: If the cut names no tap.
        CurveError: If a curve has no knee by the configured rule.
    """
    cut = choose_cut(regression, settings.cut, network.graph)
    graph = network.graph.cut(cut)
    split = trials[0].split
    shape = network.preprocessing.input_shape
    cost_base = network_cost(network.module, shape)
    if settings.budget is not None:
        assert images is not None
        wanted, groups = choose_needed(graph, trials, settings, images, cost_base.macs)
    else:
        wanted, groups = choose_keep_sets(graph, network.follows, responses, task, trials, settings)
    keep = graph.resolve(wanted)
    n_outputs = task.targets.shape[1]
    pruned = build_pruned(network.graph, cut, keep, n_outputs, images if settings.reconstruct else None).eval()
    x = forward(pruned.backbone)
    head = fit_head(x, task, split)
    unpruned = fit_head(responses.tap(cut), task, split)
    pruned.set_head(head.model)
    whole = {tap.name: np.arange(tap.n_filters) for tap in graph.taps}
    cost = network_cost(pruned, shape)
    done = Pruned(
        cut=cut,
        keep=keep,
        full={tap.name: tap.n_filters for tap in graph.taps},
        groups=groups,
        head=head.model,
        gentle_head=head.gentle,
        predicted=head.predicted,
        predicted_unpruned=unpruned.predicted,
        metrics_unpruned=unpruned.metrics,
        metrics_pruned=head.metrics,
        metrics_validation=head.metrics_validation,
        confusion=head.confusion,
        cost=cost,
        cost_at_cut=network_cost(build_pruned(network.graph, cut, whole, n_outputs).eval(), shape),
        cost_base=cost_base,
        macs_note=second_opinion(pruned, shape, cost.macs),
    )
    return done, pruned


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
