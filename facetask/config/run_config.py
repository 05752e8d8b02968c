"""A whole run's configuration, and what its sections must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from facetask.config.inputs import (
    PARTITION_KEYS,
    BaseNetworkConfig,
    DataConfig,
    SatelliteTask,
    Slice,
    SplitConfig,
    each_once,
)
from facetask.config.method import CurveConfig, FinetuneConfig, PruneConfig
from facetask.config.section import PluginChoice, Section
from facetask.yaml_loader import Problem, describe

DEFAULT_SELECTOR = "lasso"


class ComputeConfig(Section):
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


class RunConfig(Section):
    """A whole run; made by :func:`load_config` or :func:`config_from_dict`.

    Attributes:
        slices: Columns by whose groups of test images every metric is reported too.
        trials: Number of random partitions.
        seed: Seed of the first.
    """

    base_network: BaseNetworkConfig
    data: DataConfig
    satellite_tasks: Annotated[tuple[SatelliteTask, ...], Field(min_length=1)]
    selector: PluginChoice = PluginChoice(name=DEFAULT_SELECTOR)
    curve: CurveConfig = CurveConfig()
    prune: PruneConfig = PruneConfig()
    finetune: Annotated[FinetuneConfig | Literal[False], BeforeValidator(_mapping_or_false)] = FinetuneConfig()
    split: SplitConfig = SplitConfig()
    slices: Annotated[tuple[Slice, ...], AfterValidator(each_once)] = ()
    compute: ComputeConfig = ComputeConfig()
    trials: Annotated[int, Field(ge=1)] = 3
    seed: Annotated[int, Field(ge=0)] = 0


def disagreements(config: RunConfig) -> Iterator[Problem]:
    """Yield what each section may say, but not beside what another says."""
    yield from _too_few_trials(config)
    yield from _unshareable(config)
    yield from _not_for_rounds(config)


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
            if name in given & PARTITION_KEYS and getattr(task.split, name) != getattr(config.split, name)
        ]
        if differing:
            yield Problem(
                ("satellite_tasks", index, "split"),
                "prune.share trains one network for all tasks, so that all must be split alike: else an image that "
                f"trains one task tests another; leave {', '.join(differing)} out here, set it under split: for all "
                "tasks, or give this task a run of its own",
            )
