"""For plugin authors: contract checks, a tiny network and toy faces.

Each check raises :class:`PluginError` that says which part of the contract is broken; the bundled plugins pass the
same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from pydantic import BaseModel, ValidationError
from threadpoolctl import threadpool_limits

from facetask.errors import FacetaskError, PluginError
from facetask.records import (
    Architecture,
    Dataset,
    FaceData,
    Kind,
    Labels,
    Need,
    Record,
    Score,
    ScoreProblem,
    SelectionPath,
    SelectionProblem,
    Selector,
    Task,
)
from facetask.statistics.curves import check_coefficients, columns_of
from facetask.statistics.moments import Moments
from facetask.tasks.satellite import check_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from facetask.surgery import ChannelGraph

NEEDS = set(get_args(Need))


def check_record(record: Record) -> None:
    """Check any record as far as possible without the user's data.

    An architecture is checked in full if its params have defaults, and so are a selector and a score; a task and a
    dataset need data, so only their form is checked here.

    Raises:
        PluginError: If the contract is broken.
    """
    _check_form(record)
    if isinstance(record, Architecture) and _defaults(record.params) is not None:
        check_architecture(record)
    if isinstance(record, Selector) and _defaults(record.params) is not None:
        check_selector(record)
    if isinstance(record, Score) and _defaults(record.params) is not None:
        check_score(record)


def check_architecture(record: Architecture, params: BaseModel | None = None) -> None:
    """Check that a network builds, traces, takes its weights, gives finite responses and can be pruned.

    Raises:
        PluginError: If the contract is broken.
    """
    import torch

    from facetask.networks.base_network import load_state
    from facetask.stages.prune import build_pruned
    from facetask.surgery import ChannelGraph

    with _contract(record, params) as (where, params):
        module = record.build(params)
        preprocessing = record.preprocessing(params)
        weights = record.weights(params)
        load_state(module, weights.state, weights.source)
        graph = ChannelGraph.trace(module.eval(), preprocessing.input_shape)
        if not graph.taps:
            raise PluginError(f"{where}: no tap found; a base network needs convolutions followed by activations")
        if not weights.licence:
            raise PluginError(f"{where}: weights without a licence")
        pixels = torch.from_numpy(np.stack([preprocessing.pixels(image) for image in _toy_images(2)]))
        with torch.inference_mode():
            inputs = preprocessing.normalise(pixels)
            responses = graph.responder().eval()(inputs)
        if responses.shape != (2, sum(tap.n_filters for tap in graph.taps)) or not bool(responses.isfinite().all()):
            raise PluginError(
                f"{where}: responses of shape {tuple(responses.shape)} are not finite or of another width"
            )
        last = graph.taps[-1].name
        below = graph.cut(last)
        keep = below.resolve(_every_second_component(below))
        again = ChannelGraph.trace(record.build(params).eval(), preprocessing.input_shape)
        rebuilt = build_pruned(again, [(last, 1)], keep)
        load_state(rebuilt.backbone, below.prune(keep).state_dict(), f"{where}, pruned to half and built again")
        with torch.inference_mode():
            expected = below.masked(keep)(inputs)[:, keep[last]]
            found = rebuilt.backbone.eval()(inputs)
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
            raise PluginError(f"{where}: pruned to half of its filters, it differs from itself with the others masked")


def _every_second_component(graph: ChannelGraph) -> dict[str, NDArray[np.intp]]:
    """Return keep sets that halve every coupled group, except where that would leave a tap with nothing."""
    keep: dict[str, NDArray[np.intp]] = {}
    for group in graph.groups:
        kept = (np.arange(group.n_components) % 2 == 0) | group.fixed
        if all(kept[component].any() for component in group.component.values()):
            keep |= {tap: np.flatnonzero(kept[component]) for tap, component in group.component.items()}
    return keep


def check_task(record: Task, data: FaceData, params: BaseModel | None = None) -> Labels:
    """Check a task's labels on a dataset, and return them.

    Raises:
        PluginError: If the contract is broken.
    """
    with _contract(record, params) as (where, params):
        labels, again = record.labels(data, params), record.labels(data, params)
        check_labels(labels, len(data), record.name)
        if np.isinf(labels.values).any():
            raise PluginError(f"{where}: values must be finite, or NaN where missing")
        if not (_equal(labels.values, again.values) and _equal(labels.confidence, again.confidence)):
            raise PluginError(f"{where}: asked twice, it gives other labels")
    return labels


def _equal(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> bool:
    """Return whether both arrays are the same, or there is none."""
    return a is b if a is None or b is None else np.array_equal(a, b, equal_nan=True)


def check_dataset(record: Dataset, params: BaseModel | None = None) -> FaceData:
    """Check that a dataset loads, twice alike, and return it.

    Raises:
        PluginError: If the contract is broken.
    """
    with _contract(record, params) as (where, params):
        data, again = record.load(params), record.load(params)
        if not isinstance(data, FaceData):
            raise PluginError(f"{where}: must return FaceData, found {type(data).__name__}")
        if data.paths != again.paths:
            raise PluginError(f"{where}: two loads give different images or another order")
        for name, column in data.columns.items():
            if len(column) != len(data) or column.dtype not in (np.dtype(np.float64), np.dtype(object)):
                raise PluginError(
                    f"{where}: column {name!r} must be float64 or object (n,), found {column.dtype} {column.shape}"
                )
        if data.group_column is not None and data.group_column not in data.columns:
            raise PluginError(f"{where}: its group column {data.group_column!r} is no column")
    return data


def check_selector(record: Selector, params: BaseModel | None = None) -> SelectionPath:
    """Check a selector on a small problem with known, dead, duplicate and coupled columns, and return its path.

    Raises:
        PluginError: If the contract is broken.
    """
    path = SelectionPath(supports=())
    with _contract(record, params) as (where, params):
        for problem in (_as_needed(problem, record) for problem in toy_problems()):
            with threadpool_limits(1, user_api="blas"):  # as in a run
                path, again = record.select(problem, params), record.select(problem, params)
            if not isinstance(path, SelectionPath):
                raise PluginError(f"{where}: must return a SelectionPath, found {type(path).__name__}")
            if not path.supports:
                raise PluginError(f"{where}: its path is empty")
            for support in path.supports:
                if not _is_support(support, problem.n_components):
                    raise PluginError(
                        f"{where}: a support must be a one-dimensional integer array, sorted, unique, not empty and "
                        f"within 0 … {problem.n_components - 1}, found {support!r}"
                    )
            if path.strengths is not None and len(path.strengths) != len(path.supports):
                raise PluginError(f"{where}: {len(path.strengths)} strengths for {len(path.supports)} supports")
            check_coefficients(path, columns_of(path.supports, problem.component), problem.moments)
            if [support.tolist() for support in path.supports] != [support.tolist() for support in again.supports]:
                raise PluginError(f"{where}: asked twice, it gives another path; draw random numbers from problem.seed")
    return path


def _as_needed(problem: SelectionProblem, record: Selector) -> SelectionProblem:
    """Return a problem without what the selector does not say it needs, as in a run."""
    needs = record.needs
    return replace(
        problem,
        responses=problem.responses if "responses" in needs else None,
        targets=problem.targets if "responses" in needs else None,
        weights=problem.weights if "weights" in needs else None,
        gradients=problem.gradients if "gradients" in needs else None,
    )


def _is_support(support: Any, n_components: int) -> bool:
    """Return whether something is a valid support."""
    if not (isinstance(support, np.ndarray) and support.ndim == 1 and np.issubdtype(support.dtype, np.integer)):
        return False
    return len(support) > 0 and bool((np.diff(support) > 0).all()) and 0 <= support[0] <= support[-1] < n_components


def toy_problems(n: int = 80, n_columns: int = 12, seed: int = 0) -> tuple[SelectionProblem, ...]:
    """Return two selection problems with everything that a selector may need: one output; two outputs, coupled."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(size=(n, n_columns)) @ rng.normal(size=(n_columns, n_columns)) / 3, 0)
    x[:, 3] = 0.0
    x[:, 5] = x[:, 4]
    slopes = np.zeros((n_columns, 2))
    slopes[[0, 4, 7]] = [[2.0, 0.0], [-1.0, 1.0], [0.0, 1.5]]
    y = x @ slopes + 0.1 * rng.normal(size=(n, 2))
    problems = []
    for targets, component in ((y[:, :1], np.arange(n_columns)), (y, np.arange(n_columns) // 2)):
        problems.append(
            SelectionProblem(
                moments=Moments.from_arrays(x, targets),
                component=component.astype(np.intp),
                responses=x,
                targets=targets,
                weights=tuple(rng.normal(size=9) for _ in range(n_columns)),
                gradients=np.abs(rng.normal(size=n_columns)),
            )
        )
    return tuple(problems)


def check_score(record: Score, params: BaseModel | None = None) -> tuple[float, ...]:
    """Check a score on a small problem of each kind, with dead and copied filters, and return what it gives.

    Raises:
        PluginError: If the contract is broken.
    """
    found: list[float] = []
    with _contract(record, params) as (where, params):
        for problem in toy_score_problems():
            with threadpool_limits(1, user_api="blas"):  # as in a ranking
                value, again = record.score(problem, params), record.score(problem, params)
            if isinstance(value, bool) or not isinstance(value, float | int | np.floating | np.integer):
                raise PluginError(f"{where}: must return a number, found {type(value).__name__}")
            if np.isinf(value):
                raise PluginError(f"{where}: gives {value} for a {problem.kind} task; NaN says that it does not apply")
            if value != again and not (np.isnan(value) and np.isnan(again)):
                raise PluginError(f"{where}: asked twice, it gives another number")
            found.append(float(value))
        if np.isnan(found).all():
            raise PluginError(f"{where}: gives NaN for every kind of task")
    return tuple(found)


def toy_score_problems(n: int = 90, n_columns: int = 12, seed: int = 0) -> tuple[ScoreProblem, ...]:
    """Return a score problem of each kind, continuous, binary, multilabel (partly unknown), binned and nominal."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(size=(n, n_columns)) @ rng.normal(size=(n_columns, n_columns)) / 3, 0)
    x[:, 3] = 0.0
    x[:, 5] = x[:, 4]
    value = x[:, [0]] - x[:, [4]] + 0.1 * rng.normal(size=(n, 1))
    thirds = np.searchsorted(np.quantile(value, [1 / 3, 2 / 3]), value)
    halves = np.concatenate([value > np.median(value), x[:, [7]] > np.median(x[:, 7])], axis=1)
    unknown = rng.random((n, 2)) < 0.2
    made: tuple[tuple[Kind, NDArray[np.float64], NDArray[np.intp]], ...] = (
        ("continuous", value, thirds),
        ("binary", halves[:, :1].astype(np.float64), halves[:, :1].astype(np.intp)),
        ("multilabel", np.where(unknown, np.nan, halves), np.where(unknown, -1, halves)),
        ("binned", value, thirds),
        ("nominal", np.eye(3)[thirds[:, 0]], thirds),
    )
    return tuple(
        ScoreProblem(responses=x, targets=targets, kind=kind, classes=classes, rmse=0.5, trivial_rmse=1.0)
        for kind, targets, classes in made
    )


def tiny_network(seed: int = 0) -> nn.Module:
    """Return a small convolutional network for 32×32 RGB: convolution, batch norm, ReLU, one residual addition."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.conv(x)) + x)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), Residual(8), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
        )
    return network.eval()


def toy_faces(folder: Path, n: int = 24, seed: int = 0) -> FaceData:
    """Write small images whose brightness and tint are their labels, and return them as a dataset.

    Columns: ``person`` (group), ``brightness`` (number), ``tint`` (warm or cold).
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    brightness = rng.uniform(60, 190, n)
    warm = rng.random(n) < 0.5
    paths = []
    for index, image in enumerate(_toy_images(n, seed, brightness, warm)):
        paths.append(folder / f"{index:04d}.png")
        image.save(paths[-1])
    return FaceData(
        paths=tuple(paths),
        columns={
            "person": np.array([f"person {index // 2}" for index in range(n)], dtype=object),
            "brightness": brightness,
            "tint": np.array(["warm" if value else "cold" for value in warm], dtype=object),
        },
        group_column="person",
        licence="CC0-1.0",
        source="toy faces",
    )


def _toy_images(n: int, seed: int = 0, brightness: Any = None, warm: Any = None) -> list[Any]:
    """Return images of an ellipse with noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    face = (rows**2 + (columns * 1.3) ** 2 < 0.7)[..., None]
    images = []
    for index in range(n):
        level = 120.0 if brightness is None else brightness[index]
        tint = np.array([1.2, 1.0, 0.7]) if warm is not None and warm[index] else np.array([0.8, 1.0, 1.2])
        pixels = face * level * tint + rng.normal(40, 12, (64, 64, 3))
        images.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    return images


@contextmanager
def _contract(record: Record, params: BaseModel | None) -> Iterator[tuple[str, BaseModel]]:
    """Check a record's form; give the words that name it and the params to try it with, and blame it for what fails."""
    _check_form(record)
    where = _where(record)
    with _blaming(where):
        yield where, _params(record, params)


def _where(record: Record) -> str:
    """Return the words that name a record in messages."""
    return f"{type(record).__name__.lower()} {record.name!r}"


def _check_form(record: Record) -> None:
    """Check a record's own fields."""
    where = _where(record)
    if not record.name or record.name != record.name.strip() or " " in record.name:
        raise PluginError(f"{where}: a name must be one word, such as 'my-plugin'")
    if not (isinstance(record.params, type) and issubclass(record.params, BaseModel)):
        raise PluginError(f"{where}: params must be a pydantic model class, found {record.params!r}")
    if record.params.model_config.get("extra") != "forbid":
        raise PluginError(f"{where}: its params model must forbid unknown keys; derive it from facetask.Params")
    if isinstance(record, Selector):
        if not record.needs <= NEEDS:
            raise PluginError(f"{where}: needs {sorted(record.needs - NEEDS)}, known are {sorted(NEEDS)}")
        if record.scope not in ("group", "all"):
            raise PluginError(f"{where}: scope {record.scope!r} is neither 'group' nor 'all'")
    defaults = _defaults(record.params)
    if defaults is not None:
        with _blaming(where):
            if record.params.model_validate_json(defaults.model_dump_json()) != defaults:
                raise PluginError(f"{where}: its params do not survive being written to a file and read again")


@contextmanager
def _blaming(where: str) -> Iterator[None]:
    """Turn whatever a plugin raises into an error that names it."""
    try:
        yield
    except PluginError:
        raise
    except FacetaskError as error:
        raise PluginError(f"{where}: {error}") from error
    except Exception as error:
        raise PluginError(f"{where}: {type(error).__name__}: {error}") from error


def _defaults(model: type[BaseModel]) -> BaseModel | None:
    """Return the params with all defaults, None where some are required."""
    try:
        return model()
    except ValidationError:
        return None


def _params(record: Record, params: BaseModel | None) -> BaseModel:
    """Return the given params or the defaults."""
    found = params if params is not None else _defaults(record.params)
    if found is None:
        raise PluginError(f"{record.name!r}: its params have no defaults; give some to the check")
    return found
