"""Each method measured for each task and trial, and stored as soon as it is done."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from facetask.experiments.transfer.clock import Stopwatch, TimedLoader
from facetask.experiments.transfer.config import MEASURED_EPOCHS
from facetask.experiments.transfer.head import augmenting, cached, live, train_head
from facetask.experiments.transfer.passes import of_the_labels, surroundings
from facetask.experiments.transfer.results import Measured, Method, Seconds
from facetask.networks.heads import fit_head
from facetask.running.prepare import respond
from facetask.running.stage_work import StageWork
from facetask.stages.prune import build_pruned, choose_cut
from facetask.stages.regress import Regression, regress
from facetask.tasks.satellite import to_finite
from facetask.training.epochs import train
from facetask.training.trainer import Teacher

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import RunConfig
    from facetask.experiments.transfer.config import TransferConfig
    from facetask.experiments.transfer.head import TrainedHead
    from facetask.progress import Reporter
    from facetask.responses import Responses
    from facetask.running.prepare import Materials
    from facetask.running.rundir import RunDir


@dataclass(frozen=True)
class Measuring:
    """A comparison on its way.

    Attributes:
        config: The comparison's configuration.
        run: The run's.
        materials: Network, images, tasks.
        folder: Where what is done is stored.
        reporter: Where to report to.
    """

    config: TransferConfig
    run: RunConfig
    materials: Materials
    folder: RunDir
    reporter: Reporter

    @property
    def methods(self) -> tuple[Method, ...]:
        """What is compared."""
        plain: tuple[Method, ...] = ("regression", "recipe", "cached")
        return plain if self.config.finetuning is False else (*plain, "finetuning")

    def measured(self, method: Method, index: int, trial: int) -> Measured:
        """Return what a method reaches and takes besides the pass that it makes once, from the folder or measured."""
        name = self.materials.tasks[index].spec.name
        depends = self._depends(method, index)
        stored, changed = self.folder.load_stage(name, trial, method, depends)
        if stored is not None:
            self.reporter.line(f"{method} {name}, trial {trial}: finished already")
            return Measured.model_validate(stored["result"]["measured"])
        if changed:
            self.reporter.line(f"{method} {name}, trial {trial}: measured again, changed: {changed}")
        work = StageWork(self.materials, self._responses, self.run, index, trial)
        do: dict[Method, Callable[[StageWork], tuple[Measured, Any]]] = {
            "regression": self._regression,
            "recipe": self._recipe,
            "cached": self._cached,
            "finetuning": self._finetuning,
        }
        done, more = do[method](work)
        result = {"measured": json.loads(done.model_dump_json()), "more": more}
        self.folder.save_stage(name, trial, method, depends, result, done.seconds.wall)
        metric = done.metrics[work.task.kind.main_metric]
        self.reporter.line(
            f"{method} {name}, trial {trial}: {work.task.kind.main_metric} "
            f"{float('nan') if metric is None else metric:.4g}, {done.seconds.wall:.1f} s"
            + (f", {done.epochs} epochs" if done.epochs else "")
            + (", extrapolated" if done.extrapolated else "")
        )
        return done

    # --- the methods

    def _regression(self, work: StageWork) -> tuple[Measured, Any]:
        """Fit and measure linear models at every tap, as a run does."""
        clock = Stopwatch()
        with clock.part("fit"), threadpool_limits(1, user_api="blas"):
            found = regress(self._responses, work.task, work.split)
        best = found.fit_of(found.best_tap)
        metrics = found.classifier or best.metrics
        done = self._result("regression", work, best.tap, best.validation_rmse, metrics, clock.take())
        return done, asdict(found)

    def _recipe(self, work: StageWork) -> tuple[Measured, Any]:
        """Train new layers with a forward pass of every image in every epoch."""
        settings, clock = self.config.recipe, Stopwatch()
        loader = TimedLoader.of(self.materials.loader, clock, settings.batch_size)
        backbone = self.materials.network.graph.cut(self._last).module()
        passing = live(backbone, loader, augmenting(work.task, settings, work.seed))
        known = cached(self._features, settings.batch_size)

        def source_of(epoch: int) -> Any:
            return known if self.config.extrapolate and epoch > MEASURED_EPOCHS else passing

        trained = self._train_head(work, source_of, clock)
        epochs = len(trained.validation_by_epoch)
        with_forward = min(MEASURED_EPOCHS, epochs) if self.config.extrapolate else epochs
        seconds = _of_all(trained.seconds, with_forward)
        with clock.part("train"):
            test = trained.predict(passing.plain, work.split.test)
        return self._of_head("recipe", work, trained, test, seconds + clock.take(), with_forward), None

    def _cached(self, work: StageWork) -> tuple[Measured, Any]:
        """Train the same layers on features that are computed once."""
        clock = Stopwatch()
        known = cached(self._features, self.config.recipe.batch_size)
        trained = self._train_head(work, lambda epoch: known, clock)
        with clock.part("train"):
            test = trained.predict(known.plain, work.split.test)
        seconds = sum(trained.seconds, clock.take())
        return self._of_head("cached", work, trained, test, seconds), None

    def _finetuning(self, work: StageWork) -> tuple[Measured, Any]:
        """Finetune the whole network below the cut; the regressions that choose it and its first head count."""
        task, split, settings = work.task, work.split, self.run.finetune
        assert settings is not False
        name, trial, clock = task.spec.name, work.trial, Stopwatch()
        fits = self.measured("regression", work.index, trial).seconds
        stored, _ = self.folder.load_stage(name, trial, "regression", self._depends("regression", work.index))
        assert stored is not None
        graph = self.materials.network.graph
        cut = choose_cut(Regression.from_json(stored["result"]["more"]), self.run.prune.cut, graph)
        keep = graph.cut(cut).everything()
        network = copy.deepcopy(build_pruned(graph, [(cut, task.targets.shape[1])], keep)).eval()
        responses = self._responses.tap(cut)
        with clock.part("fit"), threadpool_limits(1, user_api="blas"):
            head = fit_head(responses, task, split)
        network.set_heads([head.model])
        seconds = fits + clock.take()
        saved = self.folder.training_file(name, trial, "finetuning", self._depends("finetuning", work.index))
        with clock.part("train"):
            trained = train(
                network,
                [(task, split)],
                settings,
                TimedLoader.of(self.materials.loader, clock),
                work.seed,
                start=[head.gentle],
                teacher=Teacher.of(responses, split) if settings.distill else None,
                saved=saved,
                reporter=self.reporter,
                observe=lambda score, validation, predict, wall_s: clock.take().model_dump(),  # stored with the epoch
            )
            (test,) = trained.predict([split.test])
        seconds = sum((Seconds.model_validate(epoch) for epoch in trained.observed), seconds) + clock.take()
        (trained_task,) = trained.tasks
        best = trained_task.epochs[trained.best_epoch]
        done = self._result(
            "finetuning",
            work,
            cut,
            best.validation_rmse,
            self._metrics(work, trained_task.validation, test),
            seconds,
            epochs=len(trained_task.epochs) - 1,
            best_epoch=trained.best_epoch,
            validation_by_epoch=[score.validation_rmse for score in trained_task.epochs],
        )
        saved.remove()
        return done, None

    # --- what they share

    def _train_head(self, work: StageWork, source_of: Callable[[int], Any], clock: Stopwatch) -> TrainedHead:
        """Train new layers."""
        settings = self.config.recipe
        with self.reporter.bar(f"{work.task.spec.name}: epochs, at most", settings.epochs) as advance:
            return train_head(
                work.task,
                work.split,
                settings,
                self._features.shape[1],
                work.seed,
                source_of,
                clock,
                self.materials.loader.device,
                advance,
            )

    def _of_head(
        self,
        method: Method,
        work: StageWork,
        trained: TrainedHead,
        test: NDArray[np.float64],
        seconds: Seconds,
        with_forward: int | None = None,
    ) -> Measured:
        """Return what new layers reach."""
        return self._result(
            method,
            work,
            self._last,
            trained.validation_by_epoch[trained.best_epoch - 1],
            self._metrics(work, trained.validation, test),
            seconds,
            epochs=len(trained.validation_by_epoch),
            best_epoch=trained.best_epoch,
            epochs_with_forward=with_forward,
            validation_by_epoch=list(trained.validation_by_epoch),
        )

    def _metrics(self, work: StageWork, validation: NDArray[np.float64], test: NDArray[np.float64]) -> dict[str, float]:
        """Return test metrics, with what is learned on validation."""
        kind, values, split = work.task.kind, work.task.values, work.split
        decision = kind.learn(validation, values[split.validation])
        return kind.metrics(test, values[split.test], decision, kind.scale(work.task.targets[split.train]))

    def _result(
        self,
        method: Method,
        work: StageWork,
        tap: str,
        validation_rmse: float,
        metrics: dict[str, float],
        seconds: Seconds,
        **more: Any,
    ) -> Measured:
        """Return a method's result."""
        return Measured(
            method=method,
            trial=work.trial,
            seed=work.seed,
            n_train=len(work.split.train),
            n_validation=len(work.split.validation),
            n_test=len(work.split.test),
            tap=tap,
            **to_finite({"validation_rmse": validation_rmse}),
            metrics=to_finite(metrics),
            seconds=seconds,
            **more,
        )

    @property
    def _last(self) -> str:
        """The last tap."""
        return self.materials.network.graph.taps[-1].name

    @cached_property
    def _responses(self) -> Responses:
        """All taps' responses; those that a measured pass has computed come from the cache."""
        return respond(self.materials, self.reporter)

    @cached_property
    def _features(self) -> NDArray[np.float32]:
        """The last tap's responses."""
        return np.ascontiguousarray(self._responses.tap(self._last))

    def _depends(self, method: Method, index: int) -> dict[str, Any]:
        """Return everything that a method's result depends on, by the names that a user knows."""
        depends = {**of_the_labels(self.materials, self.run, index), **surroundings(self.materials, self.run)}
        if method in ("recipe", "cached"):
            depends["recipe"] = self.config.recipe.model_dump(mode="json")
        if method == "recipe":
            depends["extrapolate"] = self.config.extrapolate
        if method == "finetuning":
            assert self.run.finetune is not False
            depends |= {
                "finetune": self.run.finetune.model_dump(mode="json"),
                "prune.cut": self.run.prune.model_dump(mode="json")["cut"],
            }
        return depends


def _of_all(epochs: tuple[Seconds, ...], with_forward: int) -> Seconds:
    """Return what all epochs take, where images passed through the network in the first few only.

    Training is that of all epochs; what is multiplied is the rest, and the processor's time.
    """
    measured = sum(epochs[:with_forward], Seconds()).times(len(epochs) / with_forward)
    return measured.model_copy(update={"train": sum(epoch.train for epoch in epochs)})
