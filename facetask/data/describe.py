"""What a dataset holds, seen before anything is computed: counts, labels, groups, copies and the first split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.context import run_context
from facetask.data.alignment import is_known
from facetask.data.images import load_images
from facetask.data.landmarks import face_points
from facetask.data.splits import PARTS, group_codes, missing_values
from facetask.errors import FacetaskError
from facetask.tasks.label_warnings import n_copies
from facetask.tasks.satellite import load_satellites, seed_of_trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import RunConfig, SatelliteTask
    from facetask.data.images import Images
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.records import FaceData
    from facetask.tasks.satellite import Satellite

N_BINS = 10


@dataclass(frozen=True)
class Groups:
    """The groups whose images stay on one side of a split.

    Attributes:
        column: The column that holds them.
        n: How many there are, without images of no group.
        n_without: Images of no group, each of which is a group of its own.
        smallest: Images of the smallest.
        median: Images of the median one.
        largest: Images of the largest.
    """

    column: str
    n: int
    n_without: int
    smallest: int
    median: float
    largest: int


@dataclass(frozen=True)
class Copies:
    """Files of the same content.

    Attributes:
        n_contents: Contents that occur more than once.
        n_extra: Images that only repeat an earlier one.
        n_across: Contents whose copies stand in different groups; None where there are no groups.
        first: The first such content's files, or the first that occurs more than once.
    """

    n_contents: int
    n_extra: int
    n_across: int | None
    first: tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """How often values occur.

    Attributes:
        name: What is counted, where a task has several values.
        rows: What each row is.
        counts: Images in each.
    """

    name: str
    rows: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TaskDescription:
    """One satellite task's labels.

    Attributes:
        name: The task's name in results; the plugin's where there are no labels.
        kind: How it is regressed, decided and measured.
        unit: Unit of its values.
        n_labelled: Images with a label, or some of several.
        n_partly: Those of them that lack some of several labels.
        n_missing: Images without.
        missing_share: Their share.
        source: Where the labels come from.
        licence: The labels' licence.
        notes: What the labels' source says of them.
        histograms: Their distribution, one for each value of a task with several.
        left_out: Classes with too few images, with their counts.
        split: Images of each part in trial 0.
        n_leaked: Images of its validation and test splits with a copy in training.
        problem: Why there are no labels, or no split.
    """

    name: str
    kind: str = ""
    unit: str = ""
    n_labelled: int = 0
    n_partly: int = 0
    n_missing: int = 0
    missing_share: float = 0.0
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    left_out: dict[str, int] | None = None
    split: dict[str, int] | None = None
    n_leaked: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Description:
    """What a configuration's data hold.

    Attributes:
        source: Where they come from.
        licence: Their licence or terms.
        n_images: Images that can be used.
        unreadable: Those that cannot.
        columns: The table's columns.
        groups: Its groups, if any.
        copies: Files of the same content.
        n_faceless: Images on which no face is known; None where faces are not to be aligned.
        tasks: The satellite tasks.
    """

    source: str
    licence: str
    n_images: int
    unreadable: tuple[str, ...]
    columns: tuple[str, ...]
    groups: Groups | None
    copies: Copies
    n_faceless: int | None
    tasks: tuple[TaskDescription, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def describe_data(config: RunConfig, plugins: PluginManager, reporter: Reporter) -> Description:
    """Return what a configuration's data and labels are; the base network is not looked at.

    A task whose labels cannot be had, or not be split, is described by its problem.

    Raises:
        PluginError: If the dataset plugin is unknown or cannot be imported.
        DataError: If the dataset or too many of its images cannot be read, or faces to be aligned are not known.
        WeightsError: If landmarks are to be detected, and dlib or its predictor is not installed.
    """
    images = load_images(config.data, plugins, reporter)
    data, column = images.data, config.split.group_by or images.data.group_column
    content = np.unique(images.digests, return_inverse=True)[1]
    with run_context(plugins, reporter):
        align = config.data.align
        n_faceless = None if align is None else int((~is_known(face_points(data, align))).sum())
        tasks = tuple(_describe_task(choice, config, data, content, plugins) for choice in config.satellite_tasks)
    return Description(
        source=data.source,
        licence=data.licence,
        n_images=len(data),
        unreadable=images.bad,
        columns=tuple(data.columns),
        groups=_groups(column, data.column(column)) if column else None,
        copies=_copies(images, content, data.column(column) if column else None),
        n_faceless=n_faceless,
        tasks=tasks,
    )


def _groups(column: str, values: NDArray[Any]) -> Groups:
    """Return how big the groups are."""
    known = ~missing_values(values)
    sizes = np.bincount(group_codes(values[known])) if known.any() else np.zeros(1, dtype=np.intp)
    return Groups(
        column=column,
        n=len(sizes) if known.any() else 0,
        n_without=int((~known).sum()),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
    )


def _copies(images: Images, content: NDArray[np.intp], groups: NDArray[Any] | None) -> Copies:
    """Return which files have the same content, and whether a split by groups may part them."""
    sizes = np.bincount(content)
    repeated = np.flatnonzero(sizes > 1)
    across = np.array([], dtype=np.intp)
    if groups is not None:
        pairs = np.unique(np.stack([content, group_codes(groups)], axis=1), axis=0)
        across = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    shown = across if len(across) else repeated
    rows = np.flatnonzero(content == shown[0]) if len(shown) else ()
    return Copies(
        n_contents=len(repeated),
        n_extra=int((sizes - 1).sum()),
        n_across=None if groups is None else len(across),
        first=tuple(images.data.paths[row].name for row in rows),
    )


def _describe_task(
    choice: SatelliteTask, config: RunConfig, data: FaceData, content: NDArray[np.intp], plugins: PluginManager
) -> TaskDescription:
    """Return one task's description."""
    try:
        (task,) = load_satellites((choice,), config.split, data, plugins)
    except FacetaskError as error:
        return TaskDescription(name=choice.label or choice.name, problem=str(error))
    summary = task.summary()
    problem, split = "", None
    try:
        split = task.split(seed_of_trial(config.seed, 0))
    except FacetaskError as error:
        problem = str(error)
    return TaskDescription(
        name=task.spec.name,
        kind=task.spec.kind,
        unit=task.spec.unit,
        n_labelled=summary.n_labelled,
        n_partly=summary.n_partly,
        n_missing=summary.n_missing,
        missing_share=summary.n_missing / len(data),
        source=summary.source,
        licence=summary.licence,
        notes=task.given.notes,
        histograms=tuple(_histograms(task, summary.counts)),
        left_out=task.left_out,
        split=None if split is None else {part: len(getattr(split, part)) for part in PARTS},
        n_leaked=None if split is None else n_copies(split, content),
        problem=problem,
    )


def _histograms(task: Satellite, counts: dict[str, int]) -> Iterator[Histogram]:
    """Yield the distribution of a task's labels."""
    if task.spec.kind == "multilabel":
        for name, column in zip(task.spec.classes, task.values.T, strict=True):
            known = {"no": int((column == 0).sum()), "yes": int((column == 1).sum())}
            yield Histogram(name, (*known, "missing"), (*known.values(), int(np.isnan(column).sum())))
    elif task.spec.kind == "continuous":
        several = task.values.shape[1] > 1
        for output, column in enumerate(task.values.T, start=1):
            n, edges = np.histogram(column[np.isfinite(column)], bins=N_BINS)
            rows = [f"{low:.4g} … {high:.4g}" for low, high in pairwise(edges)]
            yield Histogram(f"output {output}" if several else "", tuple(rows), tuple(n.tolist()))
    else:
        yield Histogram("", tuple(counts), tuple(counts.values()))
