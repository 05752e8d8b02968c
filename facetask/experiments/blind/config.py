"""The configuration of a blind network."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from facetask.errors import ConfigError, did_you_mean
from facetask.experiments.config import ExperimentConfig, RunTemplate


def _rising(amounts: tuple[int, ...]) -> tuple[int, ...]:
    """Return distinct amounts in rising order, none removed always among them: it is what the others stand beside."""
    return tuple(sorted({0, *amounts}))


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a name that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given {names.count(name)} times; once is enough")
    return names


class BlindConfig(ExperimentConfig):
    """A run, one of its tasks to keep, and others that shall not be told.

    Attributes:
        run: The run's YAML file, or the run itself as a mapping; all tasks are among its own.
        task: The task to keep; the network is cut where the run cuts for it.
        exclude_tasks: The tasks to be blind to.
        filters: How many of the cut's filters are removed; 0 is always among them.
        project: Whether the excluded labels are erased from the responses of the filters left, too: no linear model
            fitted on the training images can tell them then. A number: at most so many directions for each task, those
            that vary most with its labels; a task of many classes would otherwise take all there are.
    """

    run: RunTemplate
    task: Annotated[str, Field(min_length=1)]
    exclude_tasks: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
    filters: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_rising)] = (
        0,
        8,
        16,
        32,
        64,
    )
    project: bool | Annotated[int, Field(ge=1)] = False

    @model_validator(mode="after")
    def _not_both(self) -> BlindConfig:
        if self.task in self.exclude_tasks:
            raise ValueError(f"exclude_tasks: {self.task!r} is the task to keep; it cannot be excluded as well")
        return self

    @property
    def most_directions(self) -> int | None:
        """At most so many directions are erased for each excluded task; None: all that there are."""
        return None if isinstance(self.project, bool) else self.project

    def places(self, names: list[str]) -> tuple[int, list[int]]:
        """Return where the task to keep and the excluded ones stand among a run's tasks.

        Raises:
            ConfigError: If the run has no task of a name.
        """
        for key, name in [("task", self.task), *(("exclude_tasks", name) for name in self.exclude_tasks)]:
            if name not in names:
                raise ConfigError(
                    f"{key}: the run has no task {name!r}{did_you_mean(name, names)}; it has {', '.join(names)}"
                )
        return names.index(self.task), [names.index(name) for name in self.exclude_tasks]
