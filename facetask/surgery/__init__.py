"""Surgery: find a network's taps, cut it, and rebuild it with the kept filters only.

A network is traced with torch.fx (``tracing``), its graph is read once on channel labels instead of numbers
(``labels``, ``labelling``) by a table of operations (``operations``, with the rules in ``layers``, ``movement`` and
``arithmetic``).
Labels that must agree form components, the smallest things that can be kept or dropped. From them follow the taps
(``taps``), the coupled groups (``groups``), the smaller network (``rebuild``) and the reference it must equal
(``masks``).
"""

from facetask.surgery.graph import ChannelGraph, Frozen
from facetask.surgery.groups import CoupledGroup
from facetask.surgery.taps import Tap

__all__ = ["ChannelGraph", "CoupledGroup", "Frozen", "Tap"]
