"""A satellite task whose labels several sources give: their mean, median or majority, or the truth behind them."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facetask import DataError, FaceData, Flip, Labels, Params, Task, TaskChoice, did_you_mean, hookimpl
from facetask.plugins.tasks.agreement import class_agreement, number_agreement
from facetask.plugins.tasks.combining import Array, Combined, majority, weighted_mean, weighted_median
from facetask.plugins.tasks.latent_truth import LatentTruth, latent_truth

_NUMBERS = ("mean", "median")
_MOST_CLASSES = 200
Merged = tuple[Array, Array | None, NDArray[np.bool_], list[str]]
"""Labels, their confidence, which sources have a label of each image, ``(n, n_sources)``, and what to note."""


class Source(TaskChoice):
    """One source: a task plugin and its params.

    Attributes:
        weight: How much it counts beside the others.
        rename: Its classes' names among the merged ones, where they differ; null takes a class for no label.
    """

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    rename: dict[str, str | None] = Field(default={})


class MergeParams(Params):
    """Which sources, and how one label is made of theirs.

    A source that has no label for an image leaves it to the others.

    Attributes:
        sources: The sources. Name, unit, bins and classes are the first one's.
        rule: ``mean`` and ``median`` of numbers; ``majority`` of classes, where a tie goes to the source that stands
            first; ``latent-truth`` weighs classes by how each source is found to confuse them, which takes three
            sources or more.
        classes: The merged classes, where not all of them are the first source's.
        use_confidence: Whether a label counts by its confidence; one of confidence 0 is then no label.
    """

    sources: Annotated[list[Source], Field(min_length=1)]
    rule: Literal["mean", "median", "majority", "latent-truth"]
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    use_confidence: bool = True

    @model_validator(mode="after")
    def _fit_the_rule(self) -> MergeParams:
        """Refuse settings that the rule has no use for."""
        if self.rule in _NUMBERS and (self.classes or any(source.rename for source in self.sources)):
            raise ValueError(f"classes and rename are for rules of classes, not for {self.rule}")
        if self.rule == "latent-truth" and any(source.weight != 1 for source in self.sources):
            raise ValueError("rule: latent-truth finds out how far each source can be trusted; leave weight out")
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes must differ from each other")
        return self


def labels(data: FaceData, params: MergeParams) -> Labels:
    """Return the merged labels, with a confidence where the rule or the sources give one.

    Raises:
        DataError: If the sources' kinds, units or classes do not fit the rule or each other.
        FacetaskError: What a source raises.
    """
    given = [source.labels(data) for source in params.sources]
    kinds = [each.kind for each in given]
    fitting = [{"continuous", "binned"}] if params.rule in _NUMBERS else [{"binary", "nominal"}, {"multilabel"}]
    if not any(set(kinds) <= kinds_together for kinds_together in fitting):
        listed = ", ".join(f"{i + 1} is {kind}" for i, kind in enumerate(kinds))
        wanted = " or all ".join(" or ".join(sorted(some)) for some in fitting)
        raise DataError(f"merge: rule: {params.rule} needs sources that are all {wanted}; source {listed}")
    first = given[0]
    if params.rule in _NUMBERS:
        values, confidence, voting, notes = _merge_numbers(given, params)
        classes, kind = first.classes, first.kind
    else:
        classes = tuple(params.classes or dict.fromkeys(filter(None, _renamed(first, params.sources[0], 0))))
        kind = "multilabel" if first.kind == "multilabel" else "nominal"
        if set(kinds) == {"binary"} and len(classes) == 2:
            kind = "binary"
        merge = _merge_multilabel if kind == "multilabel" else _merge_classes
        values, confidence, voting, notes = merge(given, params, classes)
    flips = {_per_output(each) for each in given}
    return Labels(
        name=first.name,
        kind=kind,
        values=values,
        unit=first.unit,
        classes=classes,
        edges=first.edges,
        flip=first.flip if len(flips) == 1 else "never",
        source=f"{params.rule} of: " + "; ".join(each.source or "an unnamed source" for each in given),
        licence="; ".join(dict.fromkeys(each.licence for each in given)),
        confidence=confidence,
        notes=tuple(_coverage(given, voting) + notes),
    )


def _per_output(labels: Labels) -> Flip | tuple[Flip, ...]:
    """Return a source's rule for mirrored images, as one where it is the same for all of its outputs."""
    rules = (labels.flip,) if isinstance(labels.flip, str) else labels.flip
    return rules[0] if len(set(rules)) == 1 else rules


def _coverage(given: list[Labels], voting: NDArray[np.bool_]) -> list[str]:
    """Return a line on each source: how many images it helps to label, ``(n, n_sources)``, and what it notes itself."""
    notes = []
    for i, each in enumerate(given):
        n, n_given = int(voting[:, i].sum()), int((~np.isnan(each.values)).any(axis=1).sum())
        unused = f"; {n_given - n:,} more are not merged" if n_given > n else ""
        notes.append(f"source {i + 1}, {each.source or 'unnamed'}: labels for {n:,} of {len(voting):,} images{unused}")
        notes += [f"source {i + 1}: {note}" for note in each.notes]
    return notes


def _weights(given: list[Labels], params: MergeParams) -> Array:
    """Return how much each source's label of each image counts, ``(n, n_sources)``; 0 where there is none."""
    columns = []
    for each, source in zip(given, params.sources, strict=True):
        sure = np.ones(len(each.values))
        if params.use_confidence and each.confidence is not None:
            sure = np.nan_to_num(each.confidence)
        columns.append(source.weight * sure)
    return np.stack(columns, axis=1)


# --- numbers


def _merge_numbers(given: list[Labels], params: MergeParams) -> Merged:
    """Return merged numbers, ``(n, n_outputs)``."""
    units = list(dict.fromkeys(each.unit for each in given if each.unit))
    if len(units) > 1:
        raise DataError(f"merge: the sources' units differ ({', '.join(units)}); they must be the same")
    n_outputs = [each.values.shape[1] for each in given]
    if len(set(n_outputs)) > 1:
        raise DataError(
            f"merge: the sources have {' and '.join(map(str, n_outputs))} values an image; merge equal ones"
        )
    weights, notes = _weights(given, params), []
    rule = weighted_mean if params.rule == "mean" else weighted_median
    outputs = []
    for i in range(n_outputs[0]):
        values = np.stack([each.values[:, i] for each in given], axis=1)
        outputs.append(rule(values, weights))
        where = f", value {i + 1}" if n_outputs[0] > 1 else ""
        notes += [line + where for line in number_agreement(values, "".join(units))]
    merged = np.stack(outputs, axis=1)
    voting = np.stack([~np.isnan(each.values).all(axis=1) for each in given], axis=1) & (weights > 0)
    if not params.use_confidence or all(each.confidence is None for each in given):
        return merged, None, voting, notes
    full = np.array([source.weight for source in params.sources])
    confidence = weighted_mean(np.where(voting, weights / full, np.nan), np.broadcast_to(full, weights.shape))
    return merged, confidence, voting, notes


# --- classes


def _merge_classes(given: list[Labels], params: MergeParams, classes: tuple[str, ...]) -> Merged:
    """Return merged classes' indices, ``(n, 1)``."""
    weights = _weights(given, params)
    columns = []
    for i, (each, source) in enumerate(zip(given, params.sources, strict=True)):
        place = [-1 if name is None else classes.index(name) for name in _matched(each, source, i, classes)]
        index = np.nan_to_num(each.values[:, 0], nan=len(place)).astype(np.intp)
        columns.append(np.array([*place, -1], dtype=np.intp)[index])
    votes = np.where(weights > 0, np.stack(columns, axis=1), -1)
    (merged, confidence), found = _decide(votes, weights, len(classes), params)
    notes = class_agreement(votes, "images")
    return merged[:, None], confidence, votes >= 0, notes + (_reliability(found, classes) if found else [])


def _merge_multilabel(given: list[Labels], params: MergeParams, classes: tuple[str, ...]) -> Merged:
    """Return merged labels, ``(n, n_labels)``, and the confidence of each image's least sure one."""
    weights = _weights(given, params)
    names = [
        _matched(each, source, i, classes) for i, (each, source) in enumerate(zip(given, params.sources, strict=True))
    ]
    all_votes, outputs, sure, notes = [], [], [], []
    for label in classes:
        votes = np.full(weights.shape, -1, dtype=np.intp)
        for k, each in enumerate(given):
            if label in names[k]:
                votes[:, k] = np.nan_to_num(each.values[:, names[k].index(label)], nan=-1)
        votes[weights == 0] = -1
        (merged, confidence), found = _decide(votes, weights, 2, params)
        all_votes.append(votes)
        outputs.append(merged)
        sure.append(np.where(np.isnan(confidence), np.inf, confidence))
        notes += [f"{label}: {line}" for line in _reliability(found, ("no", "yes"))] if found else []
    least = np.min(sure, axis=0)
    agreement = class_agreement(np.concatenate(all_votes), "labels")
    voting = (np.stack(all_votes) >= 0).any(axis=0)
    return np.stack(outputs, axis=1), np.where(np.isinf(least), np.nan, least), voting, agreement + notes


def _decide(
    votes: NDArray[np.intp], weights: Array, n_classes: int, params: MergeParams
) -> tuple[Combined, LatentTruth | None]:
    """Return each image's class and its confidence, by the rule, and what the latent truth found."""
    if params.rule == "majority":
        return majority(votes, weights, np.array([source.weight for source in params.sources])), None
    if n_classes > _MOST_CLASSES:
        raise DataError(
            f"merge: rule: latent-truth estimates how each source confuses all classes, which it can for "
            f"{_MOST_CLASSES} classes, found {n_classes:,}; use rule: majority"
        )
    found = latent_truth(votes, weights, n_classes)
    voted = (votes >= 0).any(axis=1)
    chosen = np.where(voted, found.posterior.argmax(axis=1), np.nan)
    return (chosen, np.where(voted, found.posterior.max(axis=1), np.nan)), found


def _renamed(labels: Labels, source: Source, number: int) -> list[str | None]:
    """Return a source's class names among the merged ones, None for those that are no label."""
    for name in source.rename:
        if name not in labels.classes:
            hint = did_you_mean(name, labels.classes)
            raise DataError(f"merge: sources.{number}.rename: source {number + 1} has no class {name!r}{hint}")
    return [source.rename.get(name, name) for name in labels.classes]


def _matched(labels: Labels, source: Source, number: int, classes: tuple[str, ...]) -> list[str | None]:
    """Return a source's class names among the merged ones, checked."""
    names = _renamed(labels, source, number)
    strange = [name for name in names if name is not None and name not in classes]
    if strange:
        raise DataError(
            f"merge: source {number + 1} ({labels.source or source.name}) has classes that the merged labels lack: "
            f"{', '.join(map(repr, strange))}; those are {', '.join(map(repr, classes))}. Say in "
            f"sources.{number}.rename what they are there, null for no label, or list all in classes"
        )
    return names


def _reliability(found: LatentTruth, classes: tuple[str, ...]) -> list[str]:
    """Return a line on each source: how often it is right, and about which class least often."""
    lines = []
    for k, accuracy in enumerate(found.accuracy):
        right = np.diag(found.confusion[k])
        least = int(right.argmin())
        lines.append(
            f"source {k + 1}: right for {accuracy:.1%} by the latent truth, least often for {classes[least]!r} "
            f"({right[least]:.1%})"
        )
    return lines


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``merge``."""
    return [Task(name="merge", labels=labels, params=MergeParams)]
