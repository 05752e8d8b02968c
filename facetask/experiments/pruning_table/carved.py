"""The networks of one task and trial: each source's, at the run's cut and at equal MACs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from facetask.config import PruneConfig
from facetask.errors import ConfigError
from facetask.experiments.pruning_table.rivals import TaskGradients, prune_by_rival
from facetask.keep_sets.budget import Budget
from facetask.keep_sets.by_curve import Groups, TaskAtCut, TrialCurves, choose_keep_sets
from facetask.keep_sets.by_need import choose_needed
from facetask.networks.cost import network_cost
from facetask.networks.heads import Head, fit_head
from facetask.networks.task_network import TaskNetwork
from facetask.report.format import number
from facetask.responses import forward_responses
from facetask.stages.curve import Chooser
from facetask.stages.prune import choose_cut
from facetask.stages.rounds import with_heads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.experiments.pruning_table.config import PruningTableConfig
    from facetask.experiments.pruning_table.rivals import Criterion
    from facetask.experiments.pruning_table.variants import Source
    from facetask.running.outcomes import TaskRecord
    from facetask.running.results import NetworkCost
    from facetask.running.stage_work import StageWork
    from facetask.surgery import ChannelGraph

    KeepSets = Mapping[str, NDArray[np.intp]]

CLOSE_ENOUGH = 0.01
SMALLEST_THRESHOLD, HALVINGS, TRIES = 1e-5, 14, 4


@dataclass(frozen=True)
class Carved:
    """A network that is not trained yet.

    Attributes:
        network: Its backbone and a head that is none yet.
        filters: Filters of the cut that it has, in its numbering; none are told where a rival chose.
        note: What the user should know.
    """

    network: TaskNetwork
    filters: NDArray[np.intp]
    note: str = ""

    def copy(self) -> TaskNetwork:
        """Return the network to be trained."""
        return copy.deepcopy(self.network)


class Carver:
    """Carves the networks of one task and trial, each when it is first asked for.

    Attributes:
        work: The task and trial.
        cut: The run's cut.
        graph: The base network's graph, cut there.
        settings: How the run prunes.
        wall_s: How long carving each source's network took, in seconds.
    """

    def __init__(self, work: StageWork, record: TaskRecord, table: PruningTableConfig) -> None:
        regression = record.trials[work.trial].regress
        assert regression is not None
        self.work, self._record, self._table = work, record, table
        self.base = work.materials.network
        self.settings: PruneConfig = work.config.prune
        self.cut = choose_cut(regression, self.settings.cut, self.base.graph)
        self.graph = self.base.graph.cut(self.cut)
        self.shape = self.base.preprocessing.input_shape
        self._carved: dict[Source, Carved] = {}
        self.wall_s: dict[Source, float] = {}

    def carved(self, source: Source) -> Carved:
        """Return a source's network.

        Raises:
            FacetaskError: If it cannot be had.
        """
        if source not in self._carved:
            made: dict[Source, Callable[[], Carved]] = {
                "unpruned": self._unpruned,
                "sliced": lambda: self._by_keep_sets(self._by_label, None),
                "label": lambda: self._by_keep_sets(self._by_label, self.images),
                "need": self._by_need,
                "magnitude": lambda: self._by_rival("magnitude"),
                "taylor": lambda: self._by_rival("taylor"),
            }
            start = time.perf_counter()
            self._carved[source] = made[source]()
            self.wall_s[source] = time.perf_counter() - start
        return self._carved[source]

    @cached_property
    def base_cost(self) -> NetworkCost:
        """What the whole base network costs."""
        return network_cost(self.base.module, self.shape)

    @cached_property
    def whole_head(self) -> Head:
        """The head on all of the cut's filters: the unpruned regression."""
        return fit_head(self.work.responses.tap(self.cut), self.work.task, self.work.split)

    @property
    def budget(self) -> int:
        """The MACs that pruned networks shall have."""
        share = self.share
        return round(share * self.base_cost.macs) if share is not None else self._label_macs

    @property
    def share(self) -> float | None:
        """The budget that is given, as a share of the base network's MACs."""
        return self._table.macs if self._table.macs is not None else self.settings.macs

    @property
    def budget_of_need(self) -> Budget:
        """The same where need chooses, with the run's limit of size, as shares of the base network's cost."""
        return Budget(self.budget / self.base_cost.macs, self.settings.size)

    @cached_property
    def _label_macs(self) -> int:
        """What the label leaves at the run's own rule."""
        return self._macs(self._by_label[0])

    @cached_property
    def _by_label(self) -> tuple[KeepSets, str]:
        """What the label keeps, and at which threshold, where that was searched for.

        Raises:
            ConfigError: If the rule has no threshold by which a budget could be met.
        """
        if self.share is None:
            return self._label_keep(self.settings), ""
        if self.settings.knee != "threshold":
            raise ConfigError(
                f"macs: the run's prune.knee is {str(self.settings.knee)!r}, which has no threshold that could meet a "
                "budget; leave macs out, or take knee: threshold"
            )
        budget = self.budget
        low, high = float(np.log(SMALLEST_THRESHOLD)), 0.0
        found: list[tuple[float, float, KeepSets]] = []

        def macs_at(threshold: float) -> int:
            keep = self._label_keep(self.settings.model_copy(update={"threshold": threshold}))
            macs = self._macs(keep)
            found.append((abs(macs - budget), threshold, keep))
            return macs

        if macs_at(1.0) < budget < macs_at(SMALLEST_THRESHOLD):  # else nothing comes nearer than these two
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                low, high = (low, middle) if macs_at(float(np.exp(middle))) < budget else (middle, high)
                if found[-1][0] <= CLOSE_ENOUGH * budget:
                    break
        _, threshold, keep = min(found, key=lambda each: each[0])
        return keep, f"threshold {number(threshold, significant=2)}, which comes nearest to the budget"

    def _label_keep(self, settings: PruneConfig) -> KeepSets:
        """Return what the label keeps by a rule."""
        settings = settings.model_copy(update={"below_cut": "label", "macs": None, "size": None})
        wanted, _ = choose_keep_sets(self.graph, self.base.follows, self.work.responses, [self.at_cut], settings)
        return self.graph.resolve(wanted)

    def _by_keep_sets(self, chosen: tuple[KeepSets, str], images: Tensor | None) -> Carved:
        """Return the network with what the label keeps."""
        keep, note = chosen
        return self.keeping(self.graph, keep, images, note)

    def _unpruned(self) -> Carved:
        """Return the cut network with all its filters, which shares nothing with the base network."""
        return self.keeping(self.graph, self.graph.everything())

    def _by_need(self) -> Carved:
        """Return the network that keeps what the layers above need."""
        keep, _ = self.needed(self.graph, [self.at_cut], self.budget_of_need)
        return self.keeping(self.graph, keep, self.images)

    @cached_property
    def at_cut(self) -> TaskAtCut:
        """The task at its cut, with this trial's curves, then those of the others, as the prune stage takes them."""
        order = [self.work.trial, *(t for t in range(self.work.config.trials) if t != self.work.trial)]
        found = []
        for trial in order:
            work, outcomes = replace(self.work, trial=trial), self._record.trials[trial]
            assert outcomes.curve is not None
            found.append(TrialCurves(work.split, outcomes.curve, self._chooser(work.seed), outcomes.group_curves))
        return TaskAtCut(self.work.task, self.graph, self.work.responses.tap(self.cut), found)

    def needed(self, graph: ChannelGraph, tasks: Sequence[TaskAtCut], budget: Budget) -> tuple[KeepSets, Groups]:
        """Return what need keeps of a graph that ends at the cut, in its numbering, within a budget.

        What need keeps may have fewer MACs than it is given, or a few more; then it is given more, or less.
        """
        aim = budget.macs * self.base_cost.macs
        given, before = budget, 0
        best: tuple[float, KeepSets, Groups] | None = None
        for _ in range(TRIES):
            wanted, groups = choose_needed(graph, tasks, self.settings, given, self.images, self.base_cost)
            keep = graph.resolve(wanted)
            macs = self._macs(keep, graph)
            if best is None or abs(macs - aim) < best[0]:
                best = abs(macs - aim), keep, groups
            if best[0] <= CLOSE_ENOUGH * aim or macs == before:
                break
            given, before = replace(given, macs=given.macs * aim / macs), macs
        assert best is not None
        return best[1], best[2]

    def keeping(self, graph: ChannelGraph, keep: KeepSets, images: Tensor | None = None, note: str = "") -> Carved:
        """Return the network of a graph that ends at the cut with some keep sets only, reconstructed on images."""
        return self.of_graph(graph.pruned(keep, images), keep, note)

    def of_graph(self, graph: ChannelGraph, keep: KeepSets, note: str = "") -> Carved:
        """Return the network of a graph that ends at the cut and has some keep sets left."""
        return Carved(with_heads(graph, [(self.cut, self._n_outputs)]), keep[self.cut], note)

    def _by_rival(self, criterion: Criterion) -> Carved:
        """Return the network that Torch-Pruning carves."""
        network = self.carved("unpruned").copy()
        network.set_heads([self.whole_head.model])
        work, task = self.work, self.work.task
        loss = task.kind.choose_loss(work.config.finetune.loss if work.config.finetune is not False else "auto")
        rows = np.random.default_rng(work.seed).permutation(work.split.train)[: self._table.taylor_images]
        gradients = TaskGradients(task, work.split, loss, work.materials.loader, rows)
        smaller = prune_by_rival(network, criterion, self.budget, self.shape, gradients)
        heads = [(slice(0, smaller.linear[0].in_features), self._n_outputs)]
        left = TaskNetwork(smaller.backbone, heads).eval()
        return Carved(left, np.zeros(0, dtype=np.intp))

    @property
    def _n_outputs(self) -> int:
        """Outputs of the task's head."""
        return int(self.work.task.targets.shape[1])

    def forward(self, backbone: nn.Module) -> NDArray[np.float32]:
        """Return a backbone's pooled responses for all labelled images, ``(n_images, n_filters)``."""
        return forward_responses(backbone, self.work.materials.loader, self.work.task.labelled.nonzero()[0])

    @cached_property
    def images(self) -> Tensor:
        """Normalised training images, those on which the run's own pruning would look; by default where it has none."""
        n = self.settings.reconstruct or PruneConfig().reconstruct
        rows = np.random.default_rng(self.work.seed).permutation(self.work.split.train)[:n]
        ((_, inputs),) = self.work.materials.loader.batches(rows, [np.arange(len(rows))])
        return inputs

    def _chooser(self, seed: int) -> Chooser:
        """Return the selector for a trial's seed."""
        selector, config = self.work.materials.selector, self.work.config
        weights = self.base.filter_weights() if "weights" in selector.needs else {}
        bootstrap = config.curve.bootstrap if self.settings.stable is not None else 0
        return Chooser(selector, config.selector.params, weights, seed, config.curve.refit, bootstrap)

    def _macs(self, keep: KeepSets, graph: ChannelGraph | None = None) -> int:
        """Return the MACs of the network with some keep sets and a head."""
        return network_cost(self.keeping(graph or self.graph, keep).network, self.shape).macs
