"""What the page says of a task's labels: where they come from, and how they are spread."""

from __future__ import annotations

from dataclasses import dataclass

from facetask.report.format import count, plus_minus, with_unit
from facetask.running.results import LabelSummary

_MOST_CLASSES = 24


@dataclass(frozen=True)
class ClassBar:
    """One class or bin: its name, its images, and its bar's length against the largest one, in [0, 1]."""

    name: str
    images: str
    length: float


@dataclass(frozen=True)
class LabelsView:
    """What the template shows of the labels."""

    facts: list[tuple[str, str]]
    bars: list[ClassBar]
    more: str
    notes: list[str]


def labels_view(labels: LabelSummary) -> LabelsView:
    """Return the labels' texts; of very many classes only the largest are listed."""
    facts = [("Source", labels.source or "not stated"), ("Licence", labels.licence or "not stated")]
    facts.append(("Labelled images", count(labels.n_labelled)))
    facts.append(("Without a label", count(labels.n_missing) if labels.n_missing else "none"))
    if labels.n_partly:
        facts.append(("With some labels only", count(labels.n_partly)))
    if labels.mean is not None:
        facts.append(("Mean ± standard deviation", with_unit(plus_minus(labels.mean, labels.std), labels.unit)))
    if labels.left_out:
        listed = ", ".join(f"{name} ({count(n)})" for name, n in list(labels.left_out.items())[:_MOST_CLASSES])
        hidden = len(labels.left_out) - _MOST_CLASSES
        facts.append(("Classes too small to split", listed + (f", and {hidden} more" if hidden > 0 else "")))
    shown = list(labels.counts.items())
    more = ""
    if len(shown) > _MOST_CLASSES:
        sizes = sorted(labels.counts.values())
        shown = sorted(shown, key=lambda item: -item[1])[:_MOST_CLASSES]
        more = (
            f"The {_MOST_CLASSES} largest of {count(len(sizes))} classes; the smallest has {count(sizes[0])} images, "
            f"half of them have at most {count(sizes[len(sizes) // 2])}."
        )
    largest = max((n for _, n in shown), default=0)
    bars = [ClassBar(name, _images(labels, name, n), n / largest if largest else 0.0) for name, n in shown]
    return LabelsView(facts=facts, bars=bars, more=more, notes=labels.notes)


def _images(labels: LabelSummary, name: str, n: int) -> str:
    """Return how many images a class has, or how many of those where a label is known have it."""
    return f"{count(n)} of {count(labels.known[name])}" if name in labels.known else count(n)
