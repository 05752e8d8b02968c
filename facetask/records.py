"""What a plugin returns: one typed record for each kind of plugin, and the types that records exchange.

This module imports neither torch nor pydantic models of its own, so that listing plugins stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from facetask.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.data.preprocessing import Preprocessing
    from facetask.statistics.moments import Moments

Kind = Literal["continuous", "binary", "multilabel", "binned", "nominal"]
Flip = Literal["keep", "negate", "never"]
Need = Literal["moments", "responses", "weights", "gradients"]
Scope = Literal["group", "all"]


class Params(BaseModel):
    """Base of a plugin's params model: unknown keys are errors, types are not coerced, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A base network's pretrained weights.

    Attributes:
        state: The module's state dict.
        licence: The weights' licence, carried by every network carved out of them.
        source: Where they come from, for a reader: a package and file name, not a path of this machine.
    """

    state: Mapping[str, Tensor]
    licence: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A base network: its structure, its weights and what it does to an image.

    Attributes:
        name: The name used in a configuration.
        build: Returns the module for given params, in its structure only: no weights file is needed to reload a
            pruned network. It must be traceable by torch.fx.
        weights: Returns the pretrained weights for given params.
        preprocessing: Returns what the network expects of an image.
        params: The params model.
        taps: Returns the names of the modules whose outputs are the taps, or None: then surgery finds them by rule.
        follows: Returns, for each tap that keeps the same indices as another instead of a curve of its own, that
            other tap's name; ``couple: free`` in the configuration lets such taps go.
        portable: Returns params that build the same structure without any file of this machine; they are saved with a
            pruned network. By default the params themselves.
        revision: Changes whenever the same params give other numbers; cached responses depend on it.
    """

    name: str
    build: Callable[[Any], nn.Module]
    weights: Callable[[Any], Weights]
    preprocessing: Callable[[Any], Preprocessing]
    params: type[BaseModel] = Params
    taps: Callable[[Any], Sequence[str] | None] = lambda params: None
    follows: Callable[[Any], Mapping[str, str]] = lambda params: {}
    portable: Callable[[Any], Any] = lambda params: params
    revision: str = "1"


@dataclass(frozen=True, kw_only=True)
class FaceData:
    """A dataset: image files and a table with one row an image.

    Attributes:
        paths: Image files, ``(n,)``.
        columns: Table columns, each ``(n,)``: float64 with NaN for missing, or object (str) with None for missing.
        group_column: The column whose equal values must stay on one side of a split (a person, a clip), if any.
        licence: The images' licence or terms, shown in reports.
        source: Where the data comes from, for messages: the table's path.
    """

    paths: tuple[Path, ...]
    columns: Mapping[str, NDArray[Any]]
    group_column: str | None = None
    licence: str = "not stated"
    source: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column, ``(n,)``.

        Raises:
            DataError: If there is no such column.
        """
        if name not in self.columns:
            raise DataError(f"{self.source or 'dataset'}: no column {name!r}{did_you_mean(name, self.columns)}")
        return self.columns[name]

    def subset(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> FaceData:
        """Return the dataset's rows at the given indices, in their order."""
        indices = np.arange(len(self))[rows]
        return FaceData(
            paths=tuple(self.paths[int(i)] for i in indices),
            columns={name: column[indices] for name, column in self.columns.items()},
            group_column=self.group_column,
            licence=self.licence,
            source=self.source,
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset plugin: reads a published or a user's layout into :class:`FaceData`.

    Attributes:
        name: The name used in a configuration.
        load: Returns the data for given params. A wrong root raises :class:`DataError`, saying what was expected.
        params: The params model.
        revision: Changes whenever the same params give other data.
    """

    name: str
    load: Callable[[Any], FaceData]
    params: type[BaseModel] = Params
    revision: str = "1"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One satellite task's labels for every image of a dataset; NaN means missing and is masked, never imputed.

    Attributes:
        name: The task's default name in results, unless the configuration gives a ``label``.
        kind: How the task is regressed, decided and measured.
        values: Labels, ``(n, n_outputs)`` float64: the value in ``unit`` (continuous, binned), 0 or 1 (binary;
            multilabel, a column each label), or the index of the class (nominal). Some of an image's values may be
            missing.
        unit: Unit of continuous and binned values: ``years``, ``degrees``.
        classes: Names: of the classes (nominal), of negative and positive (binary), of the labels (multilabel), of the
            bins (binned; with two outputs the second varies fastest).
        edges: Inner bin edges for each output, ascending (binned only).
        flip: What a mirrored image's label is: the same, negated, or unknown (such images are never mirrored). Several
            numbers (continuous, binned) may have a rule each: yaw is negated, pitch kept.
        source: Where the labels come from.
        licence: The labels' or their source's licence.
        confidence: How sure the source is of each image's label, ``(n,)`` float64 in [0, 1], NaN where there is none;
            or None where the source does not say.
        notes: What the user should know of these labels: how far their sources agree.
    """

    name: str
    kind: Kind
    values: NDArray[np.float64]
    unit: str = ""
    classes: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    flip: Flip | tuple[Flip, ...] = "keep"
    source: str = ""
    licence: str = "not stated"
    confidence: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A satellite-task plugin: what to predict, from labels that come from somewhere.

    Attributes:
        name: The name used in a configuration.
        labels: Returns the labels of a dataset for given params.
        params: The params model.
        revision: Changes whenever the same params and data give other labels.
    """

    name: str
    labels: Callable[[FaceData, Any], Labels]
    params: type[BaseModel] = Params
    revision: str = "1"


@dataclass(frozen=True, kw_only=True)
class SelectionProblem:
    """What a selector chooses from: the responses of one coupled group (or of all) and the task's targets.

    A *component* is the smallest thing that can be kept or dropped; it owns one column, or several where taps are
    coupled.

    Attributes:
        moments: Moments of the training responses X ``(n, n_columns)`` and targets Y ``(n, n_outputs)``.
            Where labels are missing, each output's are those of the images where it is known, as
            :func:`facetask.statistics.known.available_moments` says; with responses, images without all labels are
            left out. Its ``tap`` says which tap a column belongs to.
        component: Component of each column, ``(n_columns,)``, in 0 … n_components − 1.
        responses: X itself, where the selector needs responses.
        targets: Y itself, where the selector needs responses.
        weights: Norm-ready weights, where the selector needs them: one flattened filter for each column.
        gradients: Taylor terms, where the selector needs gradients: ``(n_columns,)``, the mean over training images
            of |response × ∂loss/∂response| for the linear model of all columns. The loss is half the squared error,
            summed over outputs; where labels are missing, an output counts on the images where it is known, there so
            much more as if it were known on all.
        seed: For selectors that draw random numbers.
    """

    moments: Moments
    component: NDArray[np.intp]
    responses: NDArray[np.float64] | None = None
    targets: NDArray[np.float64] | None = None
    weights: tuple[NDArray[np.float64], ...] | None = None
    gradients: NDArray[np.float64] | None = None
    seed: int = 0

    @property
    def n_components(self) -> int:
        """How many components there are to choose from."""
        return int(self.component.max()) + 1 if len(self.component) else 0


@dataclass(frozen=True, kw_only=True)
class SelectionPath:
    """A selector's answer: supports from few to many components, nested or not.

    Attributes:
        supports: Sorted unique component indices for each point of the path, none empty.
        strengths: The penalty (lasso's λ, relative to the largest) at each point, where there is one.
        coefficients: The model that the selector itself fitted at each point, ``(n_points, n_columns, n_outputs)``,
            where there is one: in the targets' unit per standard deviation of a response in training, 0 off the
            support; its intercept makes the training means meet. ``curve: {refit: none}`` needs it.
        notes: What the user should know: duplicates dropped, a fallback taken, the KKT violation.
    """

    supports: tuple[NDArray[np.intp], ...]
    strengths: NDArray[np.float64] | None = None
    coefficients: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A selector plugin: the strategy that chooses which filters to keep.

    Attributes:
        name: The name used in a configuration.
        select: Returns a path of supports for a problem and params.
        params: The params model.
        needs: What the problem must hold.
        scope: ``group``: called once for each coupled group; ``all``: once for all taps below the cut together.
        revision: Changes whenever the same problem gives another path.
    """

    name: str
    select: Callable[[SelectionProblem, Any], SelectionPath]
    params: type[BaseModel] = Params
    needs: frozenset[Need] = field(default=frozenset({"moments"}))
    scope: Scope = "group"
    revision: str = "1"


@dataclass(frozen=True, kw_only=True)
class ScoreProblem:
    """What a transferability score judges: one tap's responses to labelled images of training and validation.

    Attributes:
        responses: One column a filter, ``(n, n_columns)`` float64.
        targets: What the regression fits, ``(n, n_outputs)``, NaN where missing; of several numbers each is divided by
            its spread in training, classes are one-hot rows.
        kind: The task's kind.
        classes: Each image's class, ``(n, n_labellings)``, −1 where it is unknown: one column for binary, binned and
            nominal tasks, one for each label of a multilabel one, and one for each output of a continuous one, whose
            values are put into equally frequent bins.
        rmse: Validation RMSE of the run's regression of these targets on these responses.
        trivial_rmse: That of the training mean.
    """

    responses: NDArray[np.float64]
    targets: NDArray[np.float64]
    kind: Kind
    classes: NDArray[np.intp]
    rmse: float
    trivial_rmse: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score plugin: how well a tap would serve a task, told without training.

    Attributes:
        name: The name used in a configuration.
        score: Returns a number for a problem and params, the higher the better; NaN where the score does not apply.
        params: The params model.
        revision: Changes whenever the same problem gives another number.
    """

    name: str
    score: Callable[[ScoreProblem, Any], float]
    params: type[BaseModel] = Params
    revision: str = "1"


Record = Architecture | Task | Dataset | Selector | Score
