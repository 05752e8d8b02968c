"""The hooks that a plugin may implement.

A plugin is a module with functions of these names, marked with :data:`facetask.hookimpl`. Bundled plugins are listed in
``registry.yaml``; an installed one has an entry point in the group ``facetask`` named ``KIND.NAME`` (for example
``selector.first-k``); a folder given with ``--plugins-dir`` serves experiments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from facetask.records import Architecture, Dataset, Score, Selector, Task

PROJECT = "facetask"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def facetask_architectures() -> list[Architecture]:  # type: ignore[empty-body]
    """Return the base networks that this plugin provides.

    Example::

        from torch import nn

        from facetask import Architecture, Params, Preprocessing, Weights, hookimpl


        class TwoConvs(nn.Sequential):
            def __init__(self) -> None:
                super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU())


        @hookimpl
        def facetask_architectures() -> list[Architecture]:
            return [
                Architecture(
                    name="two-convs",
                    build=lambda params: TwoConvs(),
                    weights=lambda params: Weights(state=TwoConvs().state_dict(), licence="MIT", source="random"),
                    preprocessing=lambda params: Preprocessing(
                        size=(64, 64), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3
                    ),
                )
            ]
    """


@hookspec
def facetask_tasks() -> list[Task]:  # type: ignore[empty-body]
    """Return the satellite tasks that this plugin provides.

    Example::

        import numpy as np

        from facetask import FaceData, Labels, Params, Task, hookimpl


        def brightness(data: FaceData, params: Params) -> Labels:
            from PIL import Image

            values = [np.asarray(Image.open(path).convert("L")).mean() for path in data.paths]
            return Labels(name="brightness", kind="continuous", unit="grey levels", values=np.array(values)[:, None])


        @hookimpl
        def facetask_tasks() -> list[Task]:
            return [Task(name="brightness", labels=brightness)]
    """


@hookspec
def facetask_datasets() -> list[Dataset]:  # type: ignore[empty-body]
    """Return the datasets that this plugin can read.

    Example::

        from pathlib import Path

        import numpy as np

        from facetask import Dataset, FaceData, Params, hookimpl


        class FolderParams(Params):
            root: str


        def folder(params: FolderParams) -> FaceData:
            paths = tuple(sorted(Path(params.root).glob("*/*.jpg")))
            person = np.array([path.parent.name for path in paths], dtype=object)
            return FaceData(paths=paths, columns={"person": person}, group_column="person")


        @hookimpl
        def facetask_datasets() -> list[Dataset]:
            return [Dataset(name="person-folders", load=folder, params=FolderParams)]
    """


@hookspec
def facetask_selectors() -> list[Selector]:  # type: ignore[empty-body]
    """Return the selectors that this plugin provides.

    Example::

        import numpy as np

        from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl


        def first_k(problem: SelectionProblem, params: Params) -> SelectionPath:
            supports = tuple(np.arange(k) for k in range(1, problem.n_components + 1))
            return SelectionPath(supports=supports)


        @hookimpl
        def facetask_selectors() -> list[Selector]:
            return [Selector(name="first-k", select=first_k)]
    """


@hookspec
def facetask_scores() -> list[Score]:  # type: ignore[empty-body]
    """Return the transferability scores that this plugin provides.

    Example::

        import numpy as np

        from facetask import Params, Score, ScoreProblem, hookimpl


        def liveliness(problem: ScoreProblem, params: Params) -> float:
            return float(np.mean(problem.responses.std(axis=0) > 0))


        @hookimpl
        def facetask_scores() -> list[Score]:
            return [Score(name="liveliness", score=liveliness)]
    """


@hookspec
def facetask_stage_finished(stage: str, result: Any) -> None:
    """Called when a stage of one task and trial has finished.

    Args:
        stage: ``regress``, ``curve``, ``prune`` or ``finetune``.
        result: The stage's frozen result.

    Example::

        from facetask import hookimpl


        @hookimpl
        def facetask_stage_finished(stage, result):
            print(stage, "finished")
    """
