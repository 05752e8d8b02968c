"""The channel graph of a network: its taps, which of them are coupled, and its smaller versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from facetask.errors import SurgeryError, did_you_mean
from facetask.surgery import masks, rebuild
from facetask.surgery.expenses import Limit, bytes_of, head_bytes, macs_of
from facetask.surgery.groups import CoupledGroup, coupled_groups, requested, requested_of
from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Labelling, tensors_in
from facetask.surgery.labels import varying
from facetask.surgery.needs import choose_by_needs, components_of, find_readers
from facetask.surgery.reconstruct import reconstruct
from facetask.surgery.taps import Tap, find_taps
from facetask.surgery.tracing import trace

KeepSets = Mapping[str, Sequence[int] | NDArray[np.integer]]


@dataclass(frozen=True)
class Frozen:
    """An operation that the engine did not know, and kept whole.

    Attributes:
        operation: Its name.
        where: The module it belongs to.
        taps: The taps of which it froze at least one filter.
    """

    operation: str
    where: str
    taps: tuple[str, ...]


@dataclass(frozen=True)
class NeededComponents:
    """What the layers above need of one coupled group.

    Attributes:
        kept: Which components are kept, ``(n_components,)``.
        order: Components, the one worth most first; those that nothing needs are left out.
    """

    kept: NDArray[np.bool_]
    order: NDArray[np.intp]


class ChannelGraph:
    """A network whose channels are labelled: what depends on a filter, and what a network without it looks like.

    The graph shares the module's tensors and never changes them.

    Attributes:
        input_shape: Channels, height and width of the input.
        taps: The taps, input side first.
        frozen: What the engine did not know.
        groups: The coupled groups; every tap is in exactly one.
    """

    def __init__(
        self, network: fx.GraphModule, input_shape: tuple[int, int, int], taps: Sequence[Tap], *, is_cut: bool
    ) -> None:
        """Label a traced network; use :meth:`trace`, :meth:`cut` or :meth:`pruned` instead."""
        self.input_shape = input_shape
        self.taps = tuple(taps)
        self._network = network
        self._is_cut = is_cut
        self._labelling = Labelling(network, output_is_fixed=not is_cut)
        solution = self._labelling.components
        self._nodes = {node.name: node for node in network.graph.nodes}
        self._components = {tap.name: self._of_channels(self._nodes[tap.node]) for tap in self.taps}
        self.groups: tuple[CoupledGroup, ...] = coupled_groups(self._components, solution.fixed)
        self.frozen = self._blamed()

    @classmethod
    def trace(
        cls, module: nn.Module, input_shape: tuple[int, int, int], taps: Sequence[str] | None = None
    ) -> ChannelGraph:
        """Return the channel graph of a module.

        Args:
            module: The network; it is not changed.
            input_shape: Channels, height and width of its input.
            taps: Names of the modules whose outputs are the taps; by default the engine finds them.

        Raises:
            SurgeryError: If the module cannot be traced, saying where tracing stopped; or if a name is no module's, or
                its output is no feature map.
        """
        network = trace(module, input_shape)
        return cls(network, input_shape, find_taps(network, taps), is_cut=False)

    def tap(self, name: str) -> Tap:
        """Return a tap by name.

        Raises:
            SurgeryError: If there is no such tap.
        """
        for tap in self.taps:
            if tap.name == name:
                return tap
        raise SurgeryError(f"no tap {name!r} in this network{did_you_mean(name, [tap.name for tap in self.taps])}")

    def responder(self) -> nn.Module:
        """Return the network of all taps' filter responses, in evaluation mode.

        It maps images ``(batch, channels, height, width)`` to ``(batch, sum of n_filters)``: each tap's responses,
        globally average-pooled, in the order of the taps. It shares this network's tensors. A map is pooled as soon as
        it is there and then forgotten, so the responder needs no more memory than the network.
        """
        nodes = [self._nodes[tap.node] for tap in self.taps]
        return rebuild.bare(rebuild.ending_at(self._network, nodes))

    def cut(self, *taps: str) -> ChannelGraph:
        """Return the channel graph of the network that ends at the global average pools of some taps.

        Its output ``(batch, n_filters)`` has their filters side by side, in network order, each tap's once. What none
        of them needs is removed. The output can be pruned, for heads follow.

        Raises:
            SurgeryError: If there is no such tap.
        """
        chosen = {self.tap(name).name for name in taps}
        network = rebuild.ending_at(self._network, [self._nodes[tap.node] for tap in self.taps if tap.name in chosen])
        left = {node.name for node in network.graph.nodes}
        return ChannelGraph(network, self.input_shape, [tap for tap in self.taps if tap.node in left], is_cut=True)

    def pruned(self, keep: KeepSets, images: Tensor | None = None) -> ChannelGraph:
        """Return the channel graph of the network that :meth:`prune` gives, with the same taps.

        Args:
            keep: For each tap the filters to keep, in original numbering; see :meth:`resolve`.
            images: Normalised images, ``(n, channels, height, width)``: on them, the weights of every layer are changed
                so that its kept inputs stand in for the dropped ones as well as they can.

        Raises:
            SurgeryError: As :meth:`prune`.
        """
        answer = self._answer(keep)
        network = rebuild.prune(self._network, self._labelling, answer, self.input_shape)
        if images is not None:
            reconstruct(self._network, network, self._labelling, answer, images)
        widths = {name: len(kept) for name, kept in self.resolve(keep).items()}
        taps = [replace(tap, n_filters=widths[tap.name]) for tap in self.taps]
        return ChannelGraph(network, self.input_shape, taps, is_cut=self._is_cut)

    def needed(
        self,
        keep: KeepSets,
        heads: Mapping[str, NDArray[np.float64]],
        images: Tensor,
        macs: float,
        size_bytes: float | None = None,
    ) -> tuple[NeededComponents, ...]:
        """Return what each coupled group must keep so that what the heads read can still be computed.

        Args:
            keep: Filters that are kept in any case: those that the heads read, as a rule.
            heads: For each tap whose pooled responses linear heads read, their weights ``(n_filters, n_outputs)``.
            images: Normalised images, ``(n, channels, height, width)``.
            macs: Multiply–accumulates of the pruned network for one image, which are not exceeded unless what is kept
                in any case costs more.
            size_bytes: The same for the bytes of its tensors, heads included; None for no limit.

        Raises:
            SurgeryError: If a tap is unknown, or a head's weights are not those of its filters.
        """
        wanted = self._labelling.components.fixed.copy()
        for name, filters in keep.items():
            wanted[requested_of(name, filters, self._components)] = True
        for name, weights in heads.items():
            if weights.ndim != 2 or len(weights) != self.tap(name).n_filters:
                raise SurgeryError(
                    f"{name}: a head's weights are {weights.shape} instead of ({self.tap(name).n_filters}, n_outputs)"
                )
        groups = [components_of(group, self._components) for group in self.groups]
        at = {self._nodes[self.tap(name).node]: torch.from_numpy(weights) for name, weights in heads.items()}
        readers = find_readers(self._network, self._labelling, at, images)
        limits = [Limit(macs_of(self._network, self._labelling), macs)]
        if size_bytes is not None:
            ends = [part for tap, w in heads.items() for part in head_bytes(self._components[tap], w.shape[1])]
            limits.append(Limit((*bytes_of(self._network, self._labelling), *ends), max(size_bytes, 1.0)))
        kept, rankings = choose_by_needs(readers, groups, wanted, limits)
        orders = [rankings[index].order if index in rankings else own[:0] for index, own in enumerate(groups)]
        return tuple(
            NeededComponents(kept[own], np.searchsorted(own, order).astype(np.intp))
            for own, order in zip(groups, orders, strict=True)
        )

    def module(self) -> nn.Module:
        """Return the network itself, in evaluation mode; it shares this graph's tensors."""
        return rebuild.same(self._network)

    def everything(self) -> dict[str, NDArray[np.intp]]:
        """Return the keep sets that drop nothing."""
        return {tap.name: np.arange(tap.n_filters) for tap in self.taps}

    def resolve(self, keep: KeepSets) -> dict[str, NDArray[np.intp]]:
        """Return what every tap really keeps: fixed filters added, coupled ones included.

        A tap that is absent from the request keeps all that is not coupled with one that is present. Where a request
        would leave some layer without any input (the kept filters all go elsewhere), that layer's first input stays.

        Args:
            keep: For each tap the filters to keep, in original numbering.

        Raises:
            SurgeryError: If a tap is unknown, a keep set is empty, out of range or has an index twice, or if coupled
                taps do not agree.
        """
        kept = self._kept(keep)
        return {name: np.flatnonzero(kept[own]).astype(np.intp) for name, own in self._components.items()}

    def prune(self, keep: KeepSets) -> fx.GraphModule:
        """Return a physically smaller network, in evaluation mode; the original is untouched.

        Its parameters keep their names. It can be traced, cut and pruned again.

        Args:
            keep: For each tap the filters to keep, in original numbering; see :meth:`resolve`.

        Raises:
            SurgeryError: As :meth:`resolve`; or if the network's code fixes sizes that cannot be rewritten.
        """
        return rebuild.bare(rebuild.prune(self._network, self._labelling, self._answer(keep), self.input_shape))

    def masked(self, keep: KeepSets) -> fx.GraphModule:
        """Return the reference for :meth:`prune`: the same function, computed at the original size.

        The columns of dropped channels are zeroed in every layer, and in the output of a cut network. Layer and group
        norms, and whatever else is computed over channels, are computed over the kept ones.

        Raises:
            SurgeryError: As :meth:`resolve`.
        """
        return masks.mask(self._network, self._labelling, self._answer(keep))

    def _blamed(self) -> tuple[Frozen, ...]:
        """Return each unknown operation once, with the taps it froze; those that met no layer are left out."""
        solution, hits = self._labelling.components, dict[tuple[str, str], list[NDArray[np.intp]]]()
        outputs = [labels for layer in self._labelling.layers.values() for labels in layer.counts.values()]
        layers = np.concatenate(
            [np.zeros(0, np.intp), *(solution.of(labels).ravel() for labels in tensors_in(outputs))]
        )
        for operation, where, hit in solution.blamed:
            if np.isin(hit, layers).any():
                hits.setdefault((operation, where), []).append(hit)
        return tuple(
            Frozen(
                *key, tuple(tap for tap, own in self._components.items() if np.isin(own, np.concatenate(found)).any())
            )
            for key, found in hits.items()
        )

    def _answer(self, keep: KeepSets) -> Kept:
        """Return the kept components, to be asked by label."""
        return Kept(self._labelling.components, self._kept(keep), self._labelling.values)

    def _kept(self, keep: KeepSets) -> NDArray[np.bool_]:
        """Return which components are kept once no layer is left without inputs."""
        kept = requested(keep, self._components, self._labelling.components.fixed)
        for own in self._channel_vectors:
            if not kept[own].any():
                kept[own[0]] = True
        return kept

    @cached_property
    def _channel_vectors(self) -> list[NDArray[np.intp]]:
        """The components along the channels of every value and layer, each once."""
        found = {}
        for labels in tensors_in(list(self._labelling.values.values())):
            for d in varying(labels):
                own = self._labelling.components.of(
                    labels.movedim(d, 0).flatten(1)[:, 0] if labels.dim() > 1 else labels
                )
                found[own.tobytes()] = own
        return list(found.values())

    def _of_channels(self, node: fx.Node) -> NDArray[np.intp]:
        """Return the component of each channel of a node's value."""
        labels = self._labelling.values[node]
        return self._labelling.components.of(labels.movedim(1, 0).flatten(1)[:, 0])
