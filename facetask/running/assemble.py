"""From the stages' outcomes to ``results.json``: means and spreads over the trials, plain numbers of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.data.alignment import is_known
from facetask.data.landmarks import DETECTED_LICENCE
from facetask.data.splits import missing_values
from facetask.filters.filter_response import closest_filter, responses_to
from facetask.keep_sets.by_curve import choose, draws
from facetask.running import results as shape
from facetask.running.outcomes import over_trials
from facetask.running.rundir import model_folder
from facetask.running.subgroups import measured_slices
from facetask.statistics.curves import Curve
from facetask.statistics.stability import selection_probability
from facetask.tasks.satellite import seed_of_trial, to_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facetask.config import RunConfig
    from facetask.data.images import Images
    from facetask.responses import Responses
    from facetask.running.outcomes import TaskRecord, TrialOutcomes
    from facetask.running.prepare import Materials


def assemble(
    config: RunConfig,
    materials: Materials,
    responses: Responses,
    records: Sequence[TaskRecord],
    until: Any,
    wall_s: dict[str, float],
    *,
    finished: bool,
) -> shape.Results:
    """Return a run's results.

    Args:
        config: The run's configuration.
        materials: What it worked on.
        responses: All taps' responses.
        records: Every task's outcomes.
        until: The last stage.
        wall_s: Seconds of what the tasks share.
        finished: Whether that stage has run for every task.
    """
    from facetask import __version__

    network, images = materials.network, materials.images
    groups = config.split.group_by or images.data.group_column
    shared = [record.name for record in records] if config.prune.share else []
    return shape.Results(
        facetask_version=__version__,
        finished=finished,
        stage=until,
        seed=config.seed,
        trials=config.trials,
        base_network=shape.NetworkSummary(
            plugin=network.architecture.name,
            n_taps=len(network.graph.taps),
            n_filters=sum(tap.n_filters for tap in network.graph.taps),
            weights_source=network.source,
            weights_licence=network.licence,
            frozen=[f"{item.operation} at {item.where}: {', '.join(item.taps)}" for item in network.graph.frozen],
        ),
        data=shape.DataSummary(
            plugin=config.data.name,
            n_images=len(images.data),
            bad_images=shape.BadImages(count=len(images.bad), first=list(images.bad[:5])),
            group_by=groups,
            n_groups=_n_groups(images.data.column(groups)) if groups else None,
            source=images.data.source,
            licence=images.data.licence,
            align=_align(config, images),
        ),
        tasks=[_task(config, materials, record, responses, until, shared) for record in records],
        wall_s=wall_s,
    )


def _align(config: RunConfig, images: Images) -> shape.AlignSummary | None:
    """Return what faces were aligned by, and on how many images no face is known."""
    if config.data.align is None or images.points is None:
        return None
    landmarks = config.data.align.landmarks
    return shape.AlignSummary(
        landmarks=landmarks,
        licence=DETECTED_LICENCE if landmarks == "detect" else images.data.licence,
        n_without_face=int((~is_known(images.points)).sum()),
    )


def _n_groups(column: NDArray[Any]) -> int:
    """Return how many groups are split; a missing one counts as one of its own."""
    missing = missing_values(column)
    return len(np.unique(column[~missing].astype(str))) + int(missing.sum())


def _task(
    config: RunConfig, materials: Materials, record: TaskRecord, responses: Responses, until: Any, shared: list[str]
) -> shape.TaskResult:
    """Return one task's results; its model is saved by the last stage, if that prunes."""
    first = record.trials[0]
    stages = [stage for stage in ("regress", "curve", "prune", "finetune") if stage in first.wall_s]
    saved = first.prune is not None and until in stages
    curves = _curves(config, record) if first.curve else None
    return shape.TaskResult(
        name=record.name,
        plugin=record.task.plugin,
        labels=record.task.summary(),
        regress=_regress(record),
        curve=curves,
        responses=_responses(config, record, curves, responses) if curves else [],
        prune=_prune(config, record, shared) if first.prune else None,
        finetune=_finetune(record) if first.finetune else None,
        slices=measured_slices(materials.slices, record, config.seed),
        wall_s={stage: sum(trial.wall_s[stage] for trial in record.trials) for stage in stages},
        trials=[_trial(config, record, index, trial) for index, trial in enumerate(record.trials)],
        model=model_folder(config, record.name) if saved else None,
    )


def _regress(record: TaskRecord) -> shape.RegressResult:
    """Return every tap's regression over the trials."""
    trials = [trial.regress for trial in record.trials if trial.regress is not None]
    taps = [
        shape.TapRegression(
            tap=fits[0].tap,
            n_filters=fits[0].n_filters,
            validation_rmse=fits[0].validation_rmse,
            metrics=over_trials([fit.metrics for fit in fits]),
        )
        for fits in zip(*(trial.taps for trial in trials), strict=True)
    ]
    baseline = over_trials([trial.baseline for trial in trials])
    classifiers = [trial.classifier for trial in trials if trial.classifier is not None]
    return shape.RegressResult(
        taps=taps,
        best_tap=trials[0].best_tap,
        baseline=baseline,
        classifier=over_trials(classifiers) if classifiers else None,
        confusion=trials[0].confusion,
    )


def _curves(config: RunConfig, record: TaskRecord) -> shape.CurveResult:
    """Return the reported trial's curves, with what all trials say of each filter."""
    assert record.trials[0].regress is not None
    trials = [trial.curve for trial in record.trials if trial.curve is not None]
    widths = {fit.tap: fit.n_filters for fit in record.trials[0].regress.taps}
    return shape.CurveResult(
        taps=[_tap_curve(config, tap, [trial.taps[tap] for trial in trials], widths[tap]) for tap in trials[0].taps],
        selector=config.selector.name,
        rule=str(config.prune.knee),
        threshold=config.prune.threshold,
        refit=config.curve.refit,
        draws=len(trials) * (1 + config.curve.bootstrap),
        unit=record.task.kind.unit(record.task.targets.shape[1]),
    )


def _responses(
    config: RunConfig, record: TaskRecord, curves: shape.CurveResult, responses: Responses
) -> list[shape.FilterResponse]:
    """Return how the best tap's most telling filter responds to a task's continuous labels."""
    assert record.trials[0].regress is not None
    best = record.trials[0].regress.best_tap
    kept = next(curve.keep_set for curve in curves.taps if curve.tap == best)
    train = record.task.split(seed_of_trial(config.seed, 0)).train
    return responses_to(record.task, responses, best, closest_filter(record.task, responses, best, kept, train))


def _tap_curve(config: RunConfig, tap: str, trials: list[Curve], n_filters: int) -> shape.TapCurve:
    """Return one tap's curve in the reported trial, and how often each filter is chosen in any."""
    choice = choose(trials, n_filters, config.prune)
    orders = draws(trials)
    probability = selection_probability(orders, n_filters, choice.knee) if len(orders) > 1 else None
    return shape.TapCurve(
        tap=tap,
        full_rmse=trials[0].unpruned_rmse,
        keep_set=[int(index) for index in choice.support],
        probability=None if probability is None else [round(float(share), 4) for share in probability],
        **_points(trials[0], choice.knee, choice.notes),
    )


def _prune(config: RunConfig, record: TaskRecord, shared: list[str]) -> shape.PruneResult:
    """Return the reported trial's pruned network and the metrics over the trials."""
    trials = [trial.prune for trial in record.trials if trial.prune is not None]
    pruned = trials[0]
    cost, base, budget = pruned.cost, pruned.cost_base, config.prune.budget
    return shape.PruneResult(
        cut=pruned.cut,
        shared=shared,
        kept={tap: len(kept) for tap, kept in pruned.keep.items()},
        full=pruned.full,
        groups=[
            shape.GroupCurve(
                taps=list(group.taps),
                n_components=group.n_components,
                **_points(group.curve, group.knee, group.notes),
            )
            for group in pruned.groups
            if group.curve is not None and group.knee is not None
        ],
        budget=budget.macs if budget else None,
        size_budget=budget.size if budget else None,
        rounds=config.prune.rounds,
        params=cost.params,
        macs=cost.macs,
        size_bytes=cost.size_bytes,
        size_reduction=1 - cost.size_bytes / base.size_bytes,
        macs_reduction=1 - cost.macs / base.macs,
        conv_size_reduction=1 - cost.conv_params / base.conv_params,
        pruned=cost,
        base=base,
        unpruned_at_cut=pruned.cost_at_cut,
        macs_note=pruned.macs_note,
        metrics_unpruned=over_trials([trial.metrics_unpruned for trial in trials]),
        metrics_pruned=over_trials([trial.metrics_pruned for trial in trials]),
        metrics_validation=over_trials([trial.metrics_validation for trial in trials]),
        confusion=pruned.confusion,
    )


def _finetune(record: TaskRecord) -> shape.FinetuneResult:
    """Return the reported trial's epochs and the metrics over the trials."""
    trials = [trial.finetune for trial in record.trials if trial.finetune is not None]
    return shape.FinetuneResult(
        metrics=over_trials([trial.metrics for trial in trials]),
        metrics_validation=over_trials([trial.metrics_validation for trial in trials]),
        confusion=trials[0].confusion,
        epochs=[
            shape.Epoch(
                epoch=score.epoch,
                **to_finite({"train_loss": score.train_loss, "validation_rmse": score.validation_rmse}),
            )
            for score in trials[0].epochs
        ],
        best_epoch=trials[0].best_epoch,
    )


def _trial(config: RunConfig, record: TaskRecord, index: int, trial: TrialOutcomes) -> shape.Trial:
    """Return one trial's plain numbers."""
    assert trial.regress is not None
    split = record.task.split(seed_of_trial(config.seed, index))
    pruned, finetuned = trial.prune, trial.finetune
    return shape.Trial(
        trial=index,
        seed=seed_of_trial(config.seed, index),
        n_train=len(split.train),
        n_validation=len(split.validation),
        n_test=len(split.test),
        best_tap=trial.regress.best_tap,
        regress=to_finite(trial.regress.fit_of(trial.regress.best_tap).metrics),
        cut=pruned.cut if pruned else None,
        kept={tap: len(kept) for tap, kept in pruned.keep.items()} if pruned else None,
        params=pruned.cost.params if pruned else None,
        macs=pruned.cost.macs if pruned else None,
        metrics_unpruned=to_finite(pruned.metrics_unpruned) if pruned else None,
        metrics_pruned=to_finite(pruned.metrics_pruned) if pruned else None,
        validation_pruned=to_finite(pruned.metrics_validation) if pruned else None,
        best_epoch=finetuned.best_epoch if finetuned else None,
        finetune=to_finite(finetuned.metrics) if finetuned else None,
        validation_finetuned=to_finite(finetuned.metrics_validation) if finetuned else None,
        wall_s=trial.wall_s,
    )


def _points(curve: Curve, knee: int, notes: Sequence[str]) -> dict[str, Any]:
    """Return a curve's points, its knee and notes."""
    return {
        "n_filters": list(curve.n_filters),
        "rmse": list(curve.rmse),
        "knee": knee,
        "notes": [*curve.notes, *notes],
    }
