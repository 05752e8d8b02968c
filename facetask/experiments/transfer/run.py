"""`facetask transfer`: the same task learned by regression and by transfer learning, on the same images and splits.

Four methods on one base network: our regression at every tap; the paper's recipe, new fully connected layers on
frozen convolutions, with a forward pass of every image in every epoch; the same layers on features that are computed
once; and, if wanted, full finetuning. Each is measured as if the others were not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.environment import environment
from facetask.errors import ConfigError
from facetask.experiments.config import refuse_shared
from facetask.experiments.transfer import results as shape
from facetask.experiments.transfer.measure import Measuring
from facetask.experiments.transfer.passes import Passes
from facetask.experiments.transfer.results import PASS_OF, Method, MethodTrial, Seconds
from facetask.json_record import write_record
from facetask.running.outcomes import over_trials
from facetask.running.prepare import prepare
from facetask.running.results import Metric
from facetask.running.rundir import RunDir

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import RunConfig
    from facetask.experiments.transfer.config import TransferConfig
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.tasks.satellite import Satellite

    Trials = Mapping[Method, Sequence[MethodTrial]]


def transfer(
    config: TransferConfig,
    out: Path,
    *,
    force: bool = False,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> shape.TransferResults:
    """Compare regression with transfer learning, write ``transfer.json`` and ``transfer.html``, return what was found.

    What is measured is stored at once in the folder and not measured again.

    Args:
        config: The comparison's configuration.
        out: The folder to write into.
        force: Go on in a folder that holds another configuration's comparison.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong.
    """
    from facetask.experiments.transfer.page import write_transfer_page
    from facetask.plugin_manager import default_manager
    from facetask.progress import Silent

    plugins, reporter = plugins or default_manager(), reporter or Silent()
    run = _run(config, plugins)
    folder = RunDir.open(out, run, force=force)
    folder.begin()
    measuring = Measuring(config, run, prepare(run, plugins, reporter), folder, reporter)
    results = _results(measuring)
    write_record(results, out / "transfer.json")
    write_transfer_page(results, out)
    return results


def _run(config: TransferConfig, plugins: PluginManager) -> RunConfig:
    """Return the run's configuration, its ``finetune`` as the comparison wants it.

    Raises:
        ConfigError: If it is wrong, or asks for something that is no finetuning of the whole network.
    """
    changes: dict[str, Any] = {} if config.trials is None else {"trials": config.trials}
    if config.finetuning is False:
        return config.run.config(plugins, {**changes, "finetune": False})
    own = {f"finetune.{name}": value for name, value in config.finetuning.items()}
    if config.run.config(plugins, changes).finetune is False:
        own = {"finetune": config.finetuning}
    run = config.run.config(plugins, {**changes, **own})
    refuse_shared(run, "transfer")
    if run.finetune is not False and run.finetune.start == "scratch":
        raise ConfigError("finetuning: start: scratch knows nothing of the base network, so nothing is transferred")
    if run.finetune is not False and run.finetune.trains == "head":
        raise ConfigError("finetuning: trains: head is no full finetuning; recipe is what trains new layers alone")
    return run


def _results(measuring: Measuring) -> shape.TransferResults:
    """Measure what is not measured yet, trial by trial, and return all of it."""
    import torch

    from facetask import __version__

    tasks, run, config = measuring.materials.tasks, measuring.run, measuring.config
    labelled = np.flatnonzero(np.any([task.labelled for task in tasks], axis=0))
    found: list[dict[Method, list[MethodTrial]]] = [{method: [] for method in measuring.methods} for _ in tasks]
    for trial in range(run.trials):
        for index, trials in enumerate(found):
            for method, one in _trial(measuring, index, trial, labelled):
                trials[method].append(one)
    return shape.TransferResults(
        facetask_version=__version__,
        base_network=run.base_network.name or str(run.base_network.model),
        weights_licence=measuring.materials.network.licence,
        n_images=len(labelled),
        trials=run.trials,
        seed=run.seed,
        recipe=config.recipe.model_dump(mode="json"),
        finetuning=None if run.finetune is False else run.finetune.model_dump(mode="json"),
        extrapolate=config.extrapolate,
        environment=environment(),
        threads=torch.get_num_threads(),
        tasks=[_task(task, trials) for task, trials in zip(tasks, found, strict=True)],
        all_tasks=_all_tasks(found),
    )


def _trial(
    measuring: Measuring, index: int, trial: int, labelled: NDArray[np.intp]
) -> Iterator[tuple[Method, MethodTrial]]:
    """Yield each method's measurements for one task and trial."""
    tasks = measuring.materials.tasks
    passes = Passes(measuring.run, measuring.materials, measuring.folder, measuring.reporter)
    own = np.flatnonzero(tasks[index].labelled)
    for method in measuring.methods:
        alone = shared = Seconds()
        if method in PASS_OF:
            which = PASS_OF[method]
            alone = passes.seconds(which, own, trial)
            shared = passes.seconds(which, labelled, trial).times(1 / len(tasks))
        one = measuring.measured(method, index, trial)
        yield method, MethodTrial(measured=one, alone=alone + one.seconds, shared=shared + one.seconds)


def _task(task: Satellite, trials: Trials) -> shape.TransferTask:
    """Return one task's results over its trials."""
    return shape.TransferTask(
        name=task.spec.name,
        labels=task.summary(),
        main_metric=task.kind.main_metric,
        higher_is_better=task.kind.higher_is_better,
        methods=[_method(method, trials, task.kind.main_metric) for method in trials],
    )


def _method(method: Method, trials: Trials, main: str) -> shape.MethodResult:
    """Return one method's results over its trials."""
    ours, own = trials["regression"], trials[method]
    measured = [one.measured for one in own]
    differences = [
        _known(a.measured.metrics[main]) - _known(b.measured.metrics[main]) for a, b in zip(own, ours, strict=True)
    ]
    epochs = [one.epochs for one in measured if one.epochs is not None]
    return shape.MethodResult(
        method=method,
        tap=measured[0].tap,
        metrics=over_trials([{name: _known(value) for name, value in one.metrics.items()} for one in measured]),
        validation_rmse=_over([_known(one.validation_rmse) for one in measured]),
        difference=_over(differences),
        epochs=_over(epochs) if epochs else None,
        extrapolated=any(one.extrapolated for one in measured),
        wall_s=_over([one.alone.wall for one in own]),
        shared_wall_s=_over([one.shared.wall for one in own]),
        ratio=_ratio([one.alone.wall for one in own], [one.alone.wall for one in ours]),
        cpu_ratio=_ratio([one.alone.cpu for one in own], [one.alone.cpu for one in ours]),
        shared_ratio=_ratio([one.shared.wall for one in own], [one.shared.wall for one in ours]),
        trials=list(own),
    )


def _all_tasks(found: Sequence[Trials]) -> list[shape.AllTasks]:
    """Return what each method costs per task where all tasks share one pass."""
    ours = [one.shared for trials in found for one in trials["regression"]]
    rows = []
    for method in found[0]:
        own = [one for trials in found for one in trials[method]]
        walls = [one.shared.wall for one in own]
        rows.append(
            shape.AllTasks(
                method=method,
                per_task_wall_s=sum(walls) / len(walls),
                ratio=_ratio(walls, [one.wall for one in ours]),
                cpu_ratio=_ratio([one.shared.cpu for one in own], [one.cpu for one in ours]),
                extrapolated=any(one.measured.extrapolated for one in own),
            )
        )
    return rows


def _ratio(own: Sequence[float], ours: Sequence[float]) -> float | None:
    """Return how much more all trials take together; None where the clock is too coarse to say."""
    return sum(own) / sum(ours) if sum(ours) > 0 else None


def _over(values: Sequence[float]) -> Metric:
    """Return mean and spread over the trials."""
    return over_trials([{"": value} for value in values])[""]


def _known(value: float | None) -> float:
    """Return a metric, not a number where it is unknown."""
    return math.nan if value is None else value
