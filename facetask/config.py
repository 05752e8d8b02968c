"""The configuration of a run: a YAML file and overrides become one validated, frozen :class:`RunConfig`.

Two phases, whose problems are told together: first the structure and the plugins' names, then each plugin's params
through the params model that it declares.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from facetask.budget import Budget
from facetask.context import current_plugins, run_context
from facetask.errors import PluginError, did_you_mean
from facetask.yaml_loader import Document, KeyPath, Problem, describe, dump_yaml, escaped, load_yaml

if TYPE_CHECKING:
    from facetask.records import Record


_DEFAULT_SELECTOR = "lasso"
_DEFAULT_BUDGET = 0.25
_Model = TypeVar("_Model", bound=BaseModel)


class PluginLookup(Protocol):
    """What the configuration asks of the plugin manager."""

    def find(self, kind: str, name: str) -> Record:
        """Return a plugin's record; raise PluginError if there is none."""


def _usable(value: Any) -> Any:
    """Refuse texts that pathlib takes for the current folder, or that no file can have."""
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError(f"expected a path, found {describe(value)}")
    return value


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Return a path counted from the configuration's folder; a link at its end is kept, for its name's sake."""
    try:
        path = path.expanduser()
        path = (info.context or {}).get("base", Path()) / path
        return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except RuntimeError as error:  # no such user's home, or links that go round
        raise ValueError(str(error)) from None


# A path in a plugin's params: ~ is expanded, a relative one counts from the YAML file's folder.
ConfigPath = Annotated[Path, Field(strict=False), BeforeValidator(_usable), AfterValidator(_absolute)]


class _Section(BaseModel):
    """Base of the configuration's own models."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _NoParams(_Section):
    """Stands in until the plugin's own model has validated its params."""


class PluginChoice(_Section):
    """A plugin's name and its params, an instance of the plugin's own params model."""

    name: str
    params: SerializeAsAny[BaseModel] = _NoParams()


class BaseNetworkConfig(_Section):
    """The base network: an architecture plugin and its params, or a model that an earlier run saved.

    Attributes:
        model: The saved model's folder, instead of a name: its pruned network is pruned further.
    """

    name: str | None = None
    params: SerializeAsAny[BaseModel] = _NoParams()
    model: ConfigPath | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> BaseNetworkConfig:
        if (self.name is None) == (self.model is None):
            raise ValueError(
                "expected a mapping such as {name: …, params: {…}}, or {model: FOLDER} for a saved model to start from"
            )
        return self


def _pattern(pattern: str) -> str:
    """Refuse a pattern that names one column only."""
    if pattern.count("{}") != 1:
        raise ValueError(f"expected a column's name with {{}} in place of the landmark's index, found {pattern!r}")
    return pattern


_Pattern = Annotated[str, AfterValidator(_pattern)]
_Place = tuple[float, float]


class AlignConfig(_Section):
    """How faces are turned, scaled and shifted so that they lie where the base network expects them.

    Attributes:
        landmarks: ``columns`` of the dataset's table, or ``detect`` them by dlib (extra ``landmarks``).
        x: Name of a landmark's column of x, in pixels, ``{}`` standing for its index from 0: 68 (iBUG), 5 (eyes, nose
            tip, corners of the mouth, as the viewer sees them from the left) or 2 (eyes). CelebA's names need none.
        y: Name of a landmark's column of y, which grows downwards.
        margin: Share of the network's own framing that is added on each side of a face; below 0 it is taken away.
        to: Where the five points shall lie, as shares of the input's width and height; null: as the network says.
    """

    landmarks: Literal["columns", "detect"]
    x: _Pattern = "x{}"
    y: _Pattern = "y{}"
    margin: Annotated[float, Field(gt=-0.5)] = 0.0
    to: tuple[_Place, _Place, _Place, _Place, _Place] | None = None

    @model_validator(mode="after")
    def _eyes_are_apart(self) -> AlignConfig:
        if self.to is not None and self.to[0][0] >= self.to[1][0]:
            raise ValueError("to: the first place is that of the eye on the left, the second of the one on the right")
        return self


class DataConfig(PluginChoice):
    """The dataset.

    Attributes:
        max_bad_share: Share of unreadable images above which the run stops.
        crop: Share of its width and height that every image loses on each side, where faces are framed loosely; with
            ``align`` that holds for images on which no face is known.
        align: Faces are aligned by their landmarks; null: images are taken as they are.
    """

    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    crop: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    align: AlignConfig | None = None


def _sum_to_one(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    """Refuse fractions of which images would be left over or used twice."""
    if abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"the fractions must sum to 1, but sum to {sum(fractions):g}")
    return fractions


_Share = Annotated[float, Field(gt=0)]


class SplitConfig(_Section):
    """How images are divided.

    Attributes:
        fractions: Shares of the training, validation and test splits.
        group_by: Column whose equal values stay on one side; null: the dataset's own group column.
        stratify_by: Column whose values are spread evenly.
        min_per_class: Fewest images of each class in each split.
    """

    fractions: Annotated[tuple[_Share, _Share, _Share], AfterValidator(_sum_to_one)] = (0.5, 0.25, 0.25)
    group_by: str | None = None
    stratify_by: str | None = None
    min_per_class: Annotated[int, Field(ge=1)] = 1


_PARTITION_KEYS = {"fractions", "group_by", "stratify_by"}  # min_per_class masks labels, and moves no image


def can_name_a_folder(label: str) -> bool:
    """Return whether a task's name can name its folder in the run directory, on any platform."""
    return bool(label) and label not in (".", "..") and not set(label) & set('/\\:*?"<>|\0')


def _folder_name(label: str) -> str:
    """Refuse a label that cannot name the task's folder."""
    if not can_name_a_folder(label):
        raise ValueError(f"expected a label that can name a folder, found {describe(label)}")
    return label


class SatelliteTask(PluginChoice):
    """A satellite task.

    Attributes:
        label: Its name in results, instead of the plugin's.
        split: Its own split; what it leaves out is taken from the run's.
    """

    label: Annotated[str, AfterValidator(_folder_name)] | None = None
    split: SplitConfig | None = None


_CHOICE_KEYS = {*SatelliteTask.model_fields, *DataConfig.model_fields}


class CutWithin(_Section):
    """The lowest tap whose error is within a share of the best tap's."""

    within: Annotated[float, Field(ge=0)]


class CurveConfig(_Section):
    """How the characteristic curves are drawn.

    Attributes:
        refit: ``least-squares`` fits the model anew on each support; ``none`` takes the selector's own coefficients,
            which only some selectors give (lasso does).
        bootstrap: On how many resamples of each trial's training images the selector is asked again, to see how often
            it chooses each filter.
    """

    refit: Literal["least-squares", "none"] = "least-squares"
    bootstrap: Annotated[int, Field(ge=0)] = 0


class KneeSize(_Section):
    """The same number, or the same fraction, of the filters of every tap or coupled group."""

    filters: Annotated[int, Field(ge=1)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> KneeSize:
        if (self.filters is None) == (self.fraction is None):
            raise ValueError("expected a mapping such as {filters: 64} or {fraction: 0.25}")
        return self

    def of(self, n_components: int) -> int:
        """Return how many are kept of so many, at least one."""
        if self.fraction is not None:
            return max(math.floor(self.fraction * n_components + 0.5), 1)
        return min(self.filters or 1, n_components)

    def __str__(self) -> str:
        return f"filters: {self.filters}" if self.fraction is None else f"fraction: {self.fraction:g}"


class PruneConfig(_Section):
    """Where to cut and what to keep.

    Attributes:
        knee: How many filters of a curve are kept: ``threshold``, the fewest within ``threshold`` of its best;
            ``elbow``, where it bends most; ``one-standard-error``, the fewest within one standard error of the best
            over the trials; or a given number or fraction of them.
        threshold: Knee threshold, as a fraction of a curve's RMSE range.
        stable: Keep, instead of the filters that the curve holds at its knee, those that at least this share of the
            trials and bootstrap resamples choose among as many; null keeps the curve's.
        cut: ``best``, a tap's name, or the lowest tap that is nearly as good as the best.
        couple: How the keep set of coupled taps is found: by one curve for the group, or from one for each tap
            (``union``, ``intersection``). ``free`` is ``group``, but taps that would keep the same indices as the one
            before them, by their architecture's rule, get a curve of their own.
        below_cut: What decides which filters are kept below the cut: ``label``, how well they predict it, as in the
            paper; or ``need``, what the kept filters of the cut must be computed from, within a budget of MACs. At the
            cut itself the label decides.
        macs: The budget of ``below_cut: need``, as a share of the base network's MACs; by default 0.25.
        size: What the network may take in memory besides, as a share of the base network's size; null: no limit.
        rounds: How often the network is finetuned before it is pruned, which takes it a step nearer to the budget; the
            cut's curve is drawn again each time. 0: the base network is pruned at once, as it is.
        round_to: Kept widths are rounded to the nearest multiple of this, which many processors compute faster.
        reconstruct: On so many training images the weights of every layer are changed so that its kept inputs stand in
            for the dropped ones; 0: they are sliced only, as in the paper.
        share: One network for all tasks, with a head each, which keeps what any of them needs and is finetuned for all
            together; false: a network for each.
    """

    knee: Literal["threshold", "elbow", "one-standard-error"] | KneeSize = "threshold"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.01
    stable: Annotated[float, Field(gt=0, le=1)] | None = None
    cut: Annotated[str, Field(min_length=1)] | CutWithin = "best"
    couple: Literal["group", "union", "intersection", "free"] = "group"
    below_cut: Literal["label", "need"] = "label"
    macs: Annotated[float, Field(gt=0, le=1)] | None = None
    size: Annotated[float, Field(gt=0, le=1)] | None = None
    round_to: Annotated[int, Field(ge=1)] = 1
    reconstruct: Annotated[int, Field(ge=0)] = 256
    share: bool = False
    rounds: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _budget_is_used(self) -> PruneConfig:
        """Refuse a budget that nothing would keep to, and rounds that would have none to come down to."""
        for name in ("macs", "size"):
            if getattr(self, name) is not None and self.below_cut != "need":
                raise ValueError(f"{name} is the budget of below_cut: need; set that, or leave {name} out")
        if self.rounds and self.below_cut != "need":
            raise ValueError("rounds come down to the budget of below_cut: need; set that, or leave rounds out")
        if self.rounds and self.knee == "one-standard-error":
            raise ValueError(
                "knee: one-standard-error compares trials, which rounds train into different networks; take threshold"
            )
        return self

    @property
    def budget(self) -> Budget | None:
        """What need may choose within; None where the label chooses."""
        return Budget(self.macs or _DEFAULT_BUDGET, self.size) if self.below_cut == "need" else None


_LEARNING_RATES = {"scaled-adamw": 1e-2, "adamw": 1.5e-4, "sgd": 1e-3}


def _learning_rate(fields: dict[str, Any]) -> float:
    """Return the optimiser's own learning rate; where the optimiser is wrong, that is told, not this."""
    return _LEARNING_RATES.get(fields.get("optimiser", ""), 1.0)


def _batch_norm(fields: dict[str, Any]) -> Literal["frozen", "train"]:
    """Return how batch norm is trained unless the user says so: fresh networks have no statistics to keep."""
    return "train" if fields.get("start") == "scratch" else "frozen"


class FinetuneConfig(_Section):
    """How the pruned network is trained.

    Attributes:
        start: ``pruned`` goes on from the weights that pruning left; ``scratch`` draws all parameters of the same
            network anew, the head's too, for comparison with training that knows nothing.
        trains: ``head`` leaves everything below the head as it is.
        batch_norm: ``frozen`` keeps the statistics that the base network was trained with: a few thousand faces
            estimate them worse; ``train`` learns them from the batches, the default for ``start: scratch``.
        optimiser: ``scaled-adamw`` is AdamW whose step is a share of each tensor's root mean square, for networks
            whose layers are scaled very differently.
        learning_rate: Peak of the one-cycle schedule; the default depends on the optimiser.
        warmup: Share of the steps before the peak.
        loss: ``auto``: what suits the task's kind.
        label_smoothing: Share of each label that is spread over all classes, in cross-entropies (nominal and multilabel
            tasks); what is regressed has nothing to smooth.
        mixup: α of mixup: each batch is blended with itself in another order, by a share that is drawn from Beta(α, α),
            and so are its losses; 0: without. Source: Zhang et al. 2018, "mixup: Beyond empirical risk minimization".
        distill: Weight of a second loss, beside the task's: the mean squared distance of the pruned network's pooled
            responses at the cut from the base network's own responses of the kept filters, in standard deviations. It
            costs next to nothing, for the run has these responses; 0: without.
        flip: Mirror images at random, where the task says what that does to its label.
        shift: Largest random shift, as a share of the image's side.
        brightness: Largest random change of brightness, as a share.
    """

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 16
    start: Literal["pruned", "scratch"] = "pruned"
    trains: Literal["all", "head"] = "all"
    batch_norm: Literal["frozen", "train"] = Field(default_factory=_batch_norm)
    optimiser: Literal["scaled-adamw", "adamw", "sgd"] = "scaled-adamw"
    learning_rate: Annotated[float, Field(gt=0)] = Field(default_factory=_learning_rate)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    loss: Literal["auto", "smooth-l1", "mse", "cross-entropy", "partial-bce"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    distill: Annotated[float, Field(ge=0)] = 0.0
    flip: bool = True
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _belongs_together(self) -> FinetuneConfig:
        """Refuse settings that contradict each other."""
        if self.trains == "head":
            if self.start == "scratch":
                raise ValueError("trains: head would leave the fresh network of start: scratch untrained; use all")
            if self.batch_norm == "train":
                raise ValueError("batch_norm: train changes what trains: head leaves as it is; use frozen")
            if self.distill:
                raise ValueError("distill: moves the responses that trains: head leaves as they are; use 0")
        if self.distill and self.mixup:
            raise ValueError(
                "distill knows how the base network responds to single images, not to mixup's; leave one out"
            )
        if self.start == "scratch" and self.batch_norm == "frozen":
            raise ValueError("batch_norm: frozen keeps statistics that start: scratch does not have; use train")
        if self.batch_norm == "train" and self.batch_size == 1:
            raise ValueError("batch_norm: train needs statistics of a batch; use a batch_size of 2 or more")
        return self


def _ascending(edges: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse edges that do not ascend."""
    if any(high <= low for low, high in pairwise(edges)):
        raise ValueError(f"the edges must ascend, found {', '.join(f'{edge:g}' for edge in edges)}")
    return edges


class SliceConfig(_Section):
    """A column of numbers whose intervals are reported separately; a value on an edge belongs to the one above."""

    column: Annotated[str, Field(min_length=1)]
    edges: Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(_ascending)]


Slice = Annotated[str, Field(min_length=1)] | SliceConfig


def _each_once(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """Refuse a column that is named twice."""
    columns = [each if isinstance(each, str) else each.column for each in slices]
    for column in columns:
        if columns.count(column) > 1:
            raise ValueError(f"column {column!r} is named {columns.count(column)} times; name it once")
    return slices


class ComputeConfig(_Section):
    """What the run may use of the machine.

    Attributes:
        workers: Processes that decode images; 0: the main process does.
        threads: Threads of one operation.
    """

    device: Annotated[str, Field(min_length=1)] = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 32
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


def _mapping_or_false(value: Any) -> Any:
    """Refuse ``finetune: true``, which would say neither how long nor how."""
    if value is False or isinstance(value, dict | FinetuneConfig):
        return value
    raise ValueError(f"expected a mapping such as {{epochs: 3}}, or false to leave it out; found {describe(value)}")


class RunConfig(_Section):
    """A whole run; made by :func:`load_config` or :func:`config_from_dict`.

    Attributes:
        slices: Columns by whose groups of test images every metric is reported too.
        trials: Number of random partitions.
        seed: Seed of the first.
    """

    base_network: BaseNetworkConfig
    data: DataConfig
    satellite_tasks: Annotated[tuple[SatelliteTask, ...], Field(min_length=1)]
    selector: PluginChoice = PluginChoice(name=_DEFAULT_SELECTOR)
    curve: CurveConfig = CurveConfig()
    prune: PruneConfig = PruneConfig()
    finetune: Annotated[FinetuneConfig | Literal[False], BeforeValidator(_mapping_or_false)] = FinetuneConfig()
    split: SplitConfig = SplitConfig()
    slices: Annotated[tuple[Slice, ...], AfterValidator(_each_once)] = ()
    compute: ComputeConfig = ComputeConfig()
    trials: Annotated[int, Field(ge=1)] = 3
    seed: Annotated[int, Field(ge=0)] = 0


def load_config(path: Path | str, overrides: Sequence[str] = (), *, plugins: PluginLookup | None = None) -> RunConfig:
    """Read and validate a configuration file.

    Args:
        path: The YAML file; relative paths in it and in overrides count from its folder.
        overrides: ``key.path=value`` each, the value in YAML.
        plugins: Where to look plugins up; by default among the bundled and installed ones.

    Raises:
        ConfigError: If the file cannot be read or anything in it is wrong; all problems are told at once.
    """
    return _validated(load_yaml(path).overridden(overrides), Path(path).parent, plugins)


def config_from_dict(
    data: Mapping[str, Any], *, base: Path, plugins: PluginLookup | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Validate a configuration that was made in Python, by the same rules as a file in the folder ``base``.

    Raises:
        ConfigError: If anything in it is wrong; all problems are told at once.
    """
    problems: list[Problem] = []
    document = Document(_plain(data, (), problems), problems=tuple(problems))
    return _validated(document.overridden(overrides), base, plugins)


def as_config(config: RunConfig | Mapping[str, Any] | Path | str, plugins: PluginLookup) -> RunConfig:
    """Return a configuration that is given as such, as a YAML file, or as a mapping as in one.

    Raises:
        ConfigError: If anything in it is wrong.
    """
    if isinstance(config, Path | str):
        return load_config(config, plugins=plugins)
    return config if isinstance(config, RunConfig) else config_from_dict(config, base=Path.cwd(), plugins=plugins)


def resolved_yaml(config: RunConfig) -> str:
    """Return a configuration as YAML with every default spelt out, which loads as the same configuration."""
    return dump_yaml(escaped(config.model_dump(mode="json")))


def config_differences(a: RunConfig | Mapping[str, Any], b: RunConfig | Mapping[str, Any]) -> list[str]:
    """Return the dotted key paths whose values differ, in the configuration's order; those only in ``b`` come last."""
    return [".".join(map(str, path)) for path in _differing(_dumped(a), _dumped(b), ())]


def _validated(document: Document, base: Path, plugins: PluginLookup | None) -> RunConfig:
    """Return a document's configuration, or raise ConfigError with all its problems."""
    plugins = plugins or current_plugins()
    document = document.expanded(os.environ)
    structure = copy.deepcopy(document.value)
    if isinstance(structure, dict):
        structure.setdefault("selector", {"name": _DEFAULT_SELECTOR})
    problems: list[Problem] = []
    params: dict[KeyPath, BaseModel] = {}
    for kind, path, choice in _choices(structure):
        with run_context(plugins):
            found = _plugin_params(plugins, kind, path, choice, base=base, problems=problems)
        if found is not None:
            params[path] = found
    try:
        config = RunConfig.model_validate_json(json.dumps(structure), context={"base": base})
        problems += [*_too_few_trials(config), *_unshareable(config), *_not_for_rounds(config)]
    except ValidationError as error:
        problems += _problems(error, RunConfig, structure, ())
    document.raise_problems(problems)
    return _completed(config, params)


def validated(document: Document, base: Path, model: type[_Model], context: Mapping[str, Any] | None = None) -> _Model:
    """Return what a document without plugins holds as a model, or raise ConfigError with all its problems."""
    document = document.expanded(os.environ)
    found, problems = None, []
    try:
        found = model.model_validate_json(json.dumps(document.value), context={"base": base, **(context or {})})
    except ValidationError as error:
        problems = _problems(error, model, document.value, ())
    document.raise_problems(problems)
    assert found is not None
    return found


def _too_few_trials(config: RunConfig) -> Iterator[Problem]:
    """Yield what cannot be done with so few trials."""
    if config.trials == 1 and config.prune.knee == "one-standard-error":
        yield Problem(
            ("prune", "knee"), "one-standard-error compares trials, and there is one only; set trials to 2 or more"
        )
    if config.trials == 1 and config.prune.stable is not None and not config.curve.bootstrap:
        yield Problem(
            ("prune", "stable"),
            "how often a filter is chosen cannot be told from one trial; set trials to 2 or more, or curve.bootstrap",
        )


def _not_for_rounds(config: RunConfig) -> Iterator[Problem]:
    """Yield what pruning in rounds cannot do with."""
    if not config.prune.rounds:
        return
    if config.prune.stable is not None and not config.curve.bootstrap:
        yield Problem(
            ("prune", "stable"), "rounds train each trial's network, so trials cannot be compared; set curve.bootstrap"
        )
    where, training = ("prune", "rounds"), config.finetune
    if training is False:
        yield Problem(
            where, "rounds train the network as finetune says, which is false; give it epochs, or leave rounds out"
        )
        return
    for key, value, usual in (("start", "scratch", "pruned"), ("trains", "head", "all")):
        if getattr(training, key) == value:
            yield Problem(where, f"rounds train all of a network that knows something; use finetune.{key}: {usual}")
    if training.distill:
        yield Problem(where, "rounds train away from the base network, which finetune.distill holds to; leave one out")


def _unshareable(config: RunConfig) -> Iterator[Problem]:
    """Yield why the tasks cannot share a network."""
    if not config.prune.share:
        return
    if len(config.satellite_tasks) == 1:
        yield Problem(("prune", "share"), "one task has nobody to share a network with; name more, or leave share out")
    for index, task in enumerate(config.satellite_tasks):
        given = set() if task.split is None else task.split.model_fields_set
        differing = [
            name
            for name in SplitConfig.model_fields
            if name in given & _PARTITION_KEYS and getattr(task.split, name) != getattr(config.split, name)
        ]
        if differing:
            yield Problem(
                ("satellite_tasks", index, "split"),
                "prune.share trains one network for all tasks, so that all must be split alike: else an image that "
                f"trains one task tests another; leave {', '.join(differing)} out here, set it under split: for all "
                "tasks, or give this task a run of its own",
            )


def _choices(structure: Any) -> Iterator[tuple[str, KeyPath, dict[str, Any]]]:
    """Yield the kind, the path and the mapping of each place that names a plugin."""
    if not isinstance(structure, dict):
        return
    tasks = structure.get("satellite_tasks")
    places: list[tuple[str, KeyPath, Any]] = [
        ("architecture", ("base_network",), structure.get("base_network")),
        ("dataset", ("data",), structure.get("data")),
        *(
            ("task", ("satellite_tasks", index), task)
            for index, task in enumerate(tasks if isinstance(tasks, list) else ())
        ),
        ("selector", ("selector",), structure.get("selector")),
    ]
    yield from (place for place in places if isinstance(place[2], dict) and place[2].get("model") is None)


def _plugin_params(
    plugins: PluginLookup, kind: str, path: KeyPath, choice: dict[str, Any], *, base: Path, problems: list[Problem]
) -> BaseModel | None:
    """Take the params out of a choice and return them as the plugin's own model, or note why not."""
    raw = choice.pop("params", {})
    if not isinstance(raw, dict):
        problems.append(Problem((*path, "params"), f"expected a mapping, found {describe(raw)}"))
    if not isinstance(choice.get("name"), str):
        return None
    try:
        model = plugins.find(kind, choice["name"]).params
    except PluginError as error:
        problems.append(Problem((*path, "name"), str(error)))
        return None
    for key in choice:
        if key in model.model_fields and key not in _CHOICE_KEYS:
            problems.append(
                Problem((*path, key), f"unknown key; did you mean '{'.'.join(map(str, path))}.params.{key}'?")
            )
    if not isinstance(raw, dict):
        return None
    try:
        return model.model_validate_json(json.dumps(raw), context={"base": base})
    except ValidationError as error:
        problems += _problems(error, model, raw, (*path, "params"))
        return None


def _completed(config: RunConfig, params: Mapping[KeyPath, BaseModel]) -> RunConfig:
    """Return the configuration with the plugins' params and with each task's split filled up from the run's."""
    tasks: list[SatelliteTask] = []
    for index, task in enumerate(config.satellite_tasks):
        update: dict[str, Any] = {"params": params["satellite_tasks", index]}
        if task.split is not None:
            given = {name: getattr(task.split, name) for name in task.split.model_fields_set}
            update["split"] = config.split.model_copy(update=given)
        tasks.append(task.model_copy(update=update))
    choices = {
        name: getattr(config, name).model_copy(update={"params": params[name,]})
        for name in ("base_network", "data", "selector")
        if (name,) in params
    }
    return config.model_copy(update={**choices, "satellite_tasks": tuple(tasks)})


# What a value should have been, by pydantic's type of error.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "enum": "{expected}",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "none_required": "null",
    "multiple_of": "a multiple of {multiple_of}",
    "path_type": "a path",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_long": "a text of at most {max_length} characters",
    "string_too_short": "a text of at least {min_length} characters",
    "string_type": "text",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
_NAMED = {model.__name__ for model in (BaseNetworkConfig, PluginChoice, DataConfig, SatelliteTask)}


def _problems(error: ValidationError, model: type[BaseModel], data: Any, prefix: KeyPath) -> list[Problem]:
    """Return pydantic's complaints in plain words, the alternatives of a union joined into one."""
    told: dict[KeyPath, str] = {}
    expected: dict[KeyPath, tuple[list[str], Any]] = {}
    for detail in error.errors(include_url=False):
        path, value = _place(detail["loc"], data)
        kind, context = detail["type"], detail.get("ctx", {})
        last = detail["loc"][-1] if detail["loc"] else ""
        if kind == "missing" and isinstance(last, str):
            told[*path, last] = "required, but missing"
        elif kind == "extra_forbidden":
            told[path] = f"unknown key{did_you_mean(str(last), _known_keys(model, path[:-1]))}"
        elif kind in ("value_error", "assertion_error"):
            told[path] = str(context["error"])
        elif kind == "missing":  # once for each item that a tuple lacks: the last tells them all
            expected[path] = ([f"a list of at least {int(last) + 1}"], value)
        else:
            phrase = detail["msg"].removeprefix("Input should be ")
            if kind in _EXPECTED:
                phrase = _EXPECTED[kind].format(**context)
            if context.get("class_name") in _NAMED:
                phrase += " such as {name: …, params: {…}}"
            expected.setdefault(path, ([], value))[0].append(phrase)
    for path, (phrases, value) in expected.items():
        # Where something deeper is wrong, the value's other permitted forms were not meant.
        if not any(len(other) > len(path) and other[: len(path)] == path for other in (*told, *expected)):
            found = f"expected {' or '.join(dict.fromkeys(phrases))}, found {describe(value)}"
            told.setdefault(path, found + _advice(value, phrases))
    return [Problem((*prefix, *path), what) for path, what in told.items()]


def _place(loc: Sequence[str | int], data: Any) -> tuple[KeyPath, Any]:
    """Return the path and the value that a pydantic location means; its names of a union's members are left out."""
    path: KeyPath = ()
    for step in loc:
        within = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if step in within:
            path, data = (*path, step), data[step]
    return path, data


def _known_keys(model: type[BaseModel], path: KeyPath) -> set[str]:
    """Return the keys that a model permits in the mapping at a path."""
    models = [model]
    for key in path:
        fields = [outer.model_fields[key] for outer in models if key in outer.model_fields]
        models = [inner for field in fields for inner in _models(field.annotation)] or models
    return {field.alias or name for each in models for name, field in each.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that occur in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _advice(value: Any, phrases: Sequence[str]) -> str:
    """Return what to do about a value that is not as expected, where that can be guessed."""
    if "text" in phrases and isinstance(value, int | float):
        return "; put it in quotes to make it text"
    words = [word for phrase in phrases for word in re.findall(r"'([^']+)'", phrase)]
    hint = did_you_mean(value, words) if isinstance(value, str) and words else ""
    return hint if "did you mean" in hint else ""


def _plain(value: Any, path: KeyPath, problems: list[Problem]) -> Any:
    """Return a Python value in a YAML file's types; note what has none."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                problems.append(Problem(path, f"a key must be a text, found {key!r}"))
        return {str(key): _plain(item, (*path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), problems) for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    problems.append(Problem(path, f"expected what YAML can say, found a {type(value).__name__}"))
    return None


def _dumped(config: RunConfig | Mapping[str, Any]) -> Any:
    """Return a configuration as plain values."""
    return config.model_dump(mode="json") if isinstance(config, RunConfig) else _plain(config, (), [])


def _differing(a: Any, b: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield the paths of values that differ or stand on one side only."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            inner = (*path, key)
            yield from _differing(a[key], b[key], inner) if key in a and key in b else (inner,)
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield path
