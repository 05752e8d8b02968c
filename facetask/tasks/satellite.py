"""A satellite task with its labels, ready for the stages: targets and random partitions."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from facetask.config import can_name_a_folder
from facetask.data.splits import PARTS, Split, make_split
from facetask.errors import DataError, PluginError, first_names
from facetask.records import Flip, Labels
from facetask.running.results import LabelSummary
from facetask.tasks.kinds import KINDS, TaskSpec
from facetask.tasks.task_kind import TaskKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import SatelliteTask, SplitConfig
    from facetask.plugin_manager import PluginManager
    from facetask.records import FaceData, Task


@dataclass(frozen=True)
class Satellite:
    """One satellite task over the usable images of a run.

    Attributes:
        spec: What it predicts.
        plugin: The task plugin's name.
        values: Label values, ``(n_images, n_values)``, NaN where missing or left out.
        data: The images' table, for groups and strata.
        split_config: How it is split.
        left_out: Classes with too few images, with their counts; their labels are masked.
        n_missing: Images without a label.
        given: The labels as the plugin gave them, before small classes were left out.
    """

    spec: TaskSpec
    plugin: str
    values: NDArray[np.float64]
    data: FaceData
    split_config: SplitConfig
    left_out: dict[str, int]
    n_missing: int
    given: Labels

    @property
    def kind(self) -> TaskKind:
        """How a task of its kind behaves."""
        return self.spec.behaviour()

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which images have a label, or some of several, ``(n_images,)``."""
        return np.asarray(np.isfinite(self.values).any(axis=1))

    @property
    def partly(self) -> NDArray[np.bool_]:
        """Which images have some of several labels but not all, ``(n_images,)``."""
        return self.labelled & ~np.asarray(np.isfinite(self.values).all(axis=1))

    @property
    def targets(self) -> NDArray[np.float64]:
        """What the regression fits, ``(n_images, n_outputs)``, NaN where there is no label."""
        return self.kind.targets(self.values)

    @property
    def licence(self) -> str:
        """The labels' licence."""
        return self.given.licence

    @property
    def group_by(self) -> str | None:
        """The column whose equal values stay on one side of a split."""
        return self.split_config.group_by or self.data.group_column

    def split(self, seed: int) -> Split:
        """Return the labelled images' partition for a seed; tasks that are split alike share it.

        Raises:
            DataError: If a column is unknown, or a part would be empty or lack one of several labels.
        """
        stratify_by = self.split_config.stratify_by
        whole = make_split(
            len(self.data),
            self.split_config.fractions,
            seed,
            groups=self.data.column(self.group_by) if self.group_by else None,
            strata=self.data.column(stratify_by) if stratify_by else None,
        )
        try:
            split = whole.within(self.labelled)
        except DataError as error:
            raise DataError(f"task {self.spec.name!r}: {error}") from None
        for part, rows in zip(PARTS, (split.train, split.validation, split.test), strict=True):
            unknown = np.flatnonzero(~np.isfinite(self.values[rows]).any(axis=0))
            if len(unknown):
                known = int(np.isfinite(self.values[:, unknown[0]]).sum())
                raise DataError(
                    f"task {self.spec.name!r}: {self._output(int(unknown[0]))} is known for no image of the {part} "
                    f"split ({known} images in all); label more images, or leave it out"
                )
        return split

    def fingerprint(self) -> str:
        """Return a digest of the labels and of what splits them."""
        digest = hashlib.blake2b(self.values.tobytes(), digest_size=16)
        digest.update(repr(self.spec).encode())
        for column in (self.group_by, self.split_config.stratify_by):
            if column:
                digest.update("\n".join(map(str, self.data.column(column))).encode())
        return digest.hexdigest()

    def summary(self) -> LabelSummary:
        """Return what the report says of the labels."""
        values = self.values[self.labelled]
        numeric = self.spec.kind in ("continuous", "binned") and values.shape[1] == 1
        return LabelSummary(
            kind=self.spec.kind,
            unit=self.spec.unit,
            classes=list(self.spec.classes),
            n_labelled=len(values),
            n_missing=self.n_missing,
            n_partly=int(self.partly.sum()),
            rmse_unit=self.kind.unit(self.targets.shape[1]),
            mean=float(values.mean()) if numeric else None,
            std=float(values.std()) if numeric else None,
            counts=self._counts(values),
            known=self._known(),
            left_out=self.left_out,
            source=self.given.source,
            licence=self.licence,
            notes=list(self.given.notes),
        )

    def extent(self) -> str:
        """Return from where to where numbers reach, for a message: `` from 20 to 2014 years``; empty for classes."""
        if self.spec.kind not in ("continuous", "binned"):
            return ""
        ends = [f"{np.nanmin(column):.4g} to {np.nanmax(column):.4g}" for column in self.values.T]
        return f" from {' and '.join(ends)}" + (f" {self.spec.unit}" if self.spec.unit else "")

    def _output(self, output: int) -> str:
        """Return the name of one of several outputs, for a message."""
        return f"label {self.spec.classes[output]!r}" if self.spec.kind == "multilabel" else f"output {output + 1}"

    def _known(self) -> dict[str, int]:
        """Return for how many images each of several labels is known."""
        if self.spec.kind != "multilabel":
            return {}
        known = np.isfinite(self.values).sum(axis=0)
        return {name: int(count) for name, count in zip(self.spec.classes, known, strict=True)}

    def _counts(self, values: NDArray[np.float64]) -> dict[str, int]:
        """Return how many images each class or bin has, or has each label."""
        if self.spec.kind == "continuous":
            return {}
        if self.spec.kind == "multilabel":
            return {name: int((values[:, label] == 1).sum()) for label, name in enumerate(self.spec.classes)}
        values = values[~np.isnan(values).any(axis=1)]
        index = values[:, 0].astype(int)
        if self.spec.kind == "binned":
            columns = [np.searchsorted(edges, values[:, i], side="right") for i, edges in enumerate(self.spec.edges)]
            index = np.ravel_multi_index(tuple(columns), [len(edges) + 1 for edges in self.spec.edges])
        counts = np.bincount(index, minlength=len(self.spec.classes))
        return {name: int(count) for name, count in zip(self.spec.classes, counts, strict=True)}


def load_satellites(
    choices: tuple[SatelliteTask, ...], default_split: SplitConfig, data: FaceData, plugins: PluginManager
) -> tuple[Satellite, ...]:
    """Return all tasks with their labels.

    Raises:
        PluginError: If a task plugin is unknown, cannot be imported or gives labels that do not fit their kind.
        DataError: If labels cannot be had, two tasks share a name, or a column to split by is unknown.
    """
    satellites = []
    for choice in choices:
        record: Task = plugins.find("task", choice.name)  # type: ignore[assignment]
        labels = record.labels(data, choice.params)
        satellite = _satellite(labels, choice, choice.split or default_split, data)
        for column in (satellite.group_by, satellite.split_config.stratify_by):
            if column:
                data.column(column)
        satellites.append(satellite)
    names = [satellite.spec.name for satellite in satellites]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"satellite_tasks: {names.count(name)} tasks are named {name!r}; give each a `label:` of its own"
            )
    return tuple(satellites)


def _satellite(labels: Labels, choice: SatelliteTask, split: SplitConfig, data: FaceData) -> Satellite:
    """Check a plugin's labels and mask the classes that are too small to split."""
    check_labels(labels, len(data), choice.name)
    given, name, values = labels, choice.label or labels.name, labels.values
    if not can_name_a_folder(name):
        raise DataError(f"task {choice.name!r}: its name {name!r} cannot name a folder; give it a `label:`")
    if np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0, 0])
        raise DataError(f"task {name!r}: the label of {data.paths[row].name} is infinite; leave it empty if unknown")
    missing = ~np.isfinite(values).any(axis=1)
    if missing.all():
        raise DataError(f"task {name!r}: no image has a label")
    left_out: dict[str, int] = {}
    if labels.kind == "nominal":
        values, labels, left_out = _without_small_classes(values, labels, split.min_per_class)
    if np.isnan(values).all():
        raise DataError(
            f"task {name!r}: no class has {len(PARTS) * split.min_per_class} images, split.min_per_class = "
            f"{split.min_per_class} for each of {len(PARTS)} splits"
        )
    constant = [len(np.unique(column[~np.isnan(column)])) < 2 for column in values.T]
    if all(constant):
        raise DataError(f"task {name!r}: every label is the same; there is nothing to learn")
    if any(constant):
        names = labels.classes if labels.kind == "multilabel" else [f"output {i + 1}" for i in range(len(constant))]
        same = [label for label, is_constant in zip(names, constant, strict=True) if is_constant]
        raise DataError(f"task {name!r}: {first_names(same)}: the same for every image where it is known; leave it out")
    return Satellite(
        spec=TaskSpec.of(labels, name),
        plugin=choice.name,
        values=values,
        data=data,
        split_config=split,
        left_out=left_out,
        n_missing=int(missing.sum()),
        given=given,
    )


def check_labels(labels: Labels, n_images: int, plugin: str) -> None:
    """Check that a task plugin's labels are what their kind asks for.

    Raises:
        PluginError: If they are not.
    """
    if not isinstance(labels, Labels):
        raise PluginError(f"task {plugin!r}: must return Labels, found {type(labels).__name__}")
    values: Any = labels.values
    if not isinstance(values, np.ndarray) or values.dtype != np.float64 or values.shape[:1] != (n_images,):
        raise PluginError(
            f"task {plugin!r}: values must be a float64 array (n, n_outputs) with n = {n_images}, found "
            + (f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__)
        )
    n_names, known = len(labels.classes), values[np.isfinite(values)]
    rules = set(labels.flip) if isinstance(labels.flip, tuple) else {labels.flip}
    problem = ""
    if labels.kind not in KINDS:
        problem = f"the kind is none of {', '.join(KINDS)}"
    elif values.ndim != 2 or not values.shape[1]:
        problem = f"values must be (n, n_outputs), found {values.shape}"
    elif not rules <= set(get_args(Flip)):
        problem = f"flip {labels.flip!r} is none of {', '.join(get_args(Flip))}, nor a tuple of them"
    elif isinstance(labels.flip, tuple) and len(labels.flip) != values.shape[1]:
        problem = f"flip has {len(labels.flip)} rules for {values.shape[1]} outputs; give one for each, or one for all"
    elif labels.kind == "binary" and (values.shape[1] != 1 or n_names != 2 or not np.isin(known, [0, 1]).all()):
        problem = "one column of 0 or 1 and two classes are needed"
    elif labels.kind == "multilabel" and (
        values.shape[1] != n_names or len(set(labels.classes)) < n_names or not np.isin(known, [0, 1]).all()
    ):
        problem = "a column of 0 or 1 for each of its differently named labels is needed"
    elif labels.kind == "nominal" and (values.shape[1] != 1 or not np.isin(known, np.arange(n_names)).all()):
        problem = f"one column of indices of its {n_names} classes is needed"
    elif labels.kind == "binned":
        bins = math.prod(len(edges) + 1 for edges in labels.edges)
        if len(labels.edges) != values.shape[1] or bins != n_names:
            problem = f"{values.shape[1]} lists of edges and a class for each of their {bins} bins are needed"
    if not problem and "negate" in rules and labels.kind in ("binary", "multilabel", "nominal"):
        problem = "flip 'negate' needs numbers"
    if problem:
        raise PluginError(f"task {plugin!r}: labels do not fit their kind {labels.kind!r}: {problem}")
    if labels.confidence is not None:
        _check_confidence(labels.confidence, values, plugin)


def _check_confidence(confidence: Any, values: NDArray[np.float64], plugin: str) -> None:
    """Check that there is a confidence where there is a label, and none where there is no label."""
    where = f"task {plugin!r}: confidence"
    if not isinstance(confidence, np.ndarray) or confidence.dtype != np.float64 or confidence.shape != values.shape[:1]:
        found = (
            f"{confidence.dtype} {confidence.shape}"
            if isinstance(confidence, np.ndarray)
            else type(confidence).__name__
        )
        raise PluginError(f"{where} must be a float64 array ({len(values)},), found {found}")
    known = np.isfinite(values)
    stated = ~np.isnan(confidence)
    if (known.all(axis=1) & ~stated).any() or (stated & ~known.any(axis=1)).any():
        raise PluginError(f"{where} must be a number where there is a label and NaN where there is none")
    if not ((confidence[stated] >= 0) & (confidence[stated] <= 1)).all():
        raise PluginError(f"{where} must lie in [0, 1], found {confidence[stated].min()} … {confidence[stated].max()}")


def _without_small_classes(
    values: NDArray[np.float64], labels: Labels, least: int
) -> tuple[NDArray[np.float64], Labels, dict[str, int]]:
    """Mask the labels of classes with too few images to give each split the least, and renumber the others."""
    index = np.nan_to_num(values[:, 0], nan=-1).astype(int)
    counts = np.bincount(index[index >= 0], minlength=len(labels.classes))
    kept = np.flatnonzero(counts >= len(PARTS) * least)
    number = np.full(len(labels.classes) + 1, np.nan)
    number[kept] = np.arange(len(kept))
    left_out = {labels.classes[i]: int(counts[i]) for i in np.setdiff1d(np.arange(len(counts)), kept)}
    renamed = replace(labels, classes=tuple(labels.classes[i] for i in kept))
    return number[index][:, None], renamed, left_out


def seed_of_trial(seed: int, trial: int) -> int:
    """Return the seed of a trial's partition and of its finetuning."""
    return seed + trial


def to_finite(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return metrics with None for what is not a number, as JSON wants it."""
    return {name: float(value) if value is not None and np.isfinite(value) else None for name, value in metrics.items()}
