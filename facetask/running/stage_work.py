"""One task's own stages in one trial, regress and curve: what they depend on, how they are computed and stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from facetask.data.splits import Split
from facetask.responses import Responses
from facetask.stages.curve import Chooser, Curves, curve
from facetask.stages.finetune import Finetuned
from facetask.stages.prune import Pruned
from facetask.stages.regress import Regression, regress
from facetask.tasks.satellite import Satellite, seed_of_trial

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.running.outcomes import Outcome, TaskRecord
    from facetask.running.prepare import Materials

_DECODERS: dict[str, Any] = {
    "regress": Regression.from_json,
    "curve": Curves.from_json,
    "prune": Pruned.from_json,
    "finetune": Finetuned.from_json,
}

_REVISION = 2
"""Of what regress stores: grows whenever that is something else, so that older results are computed again."""


def decode(stage: str, fields: Any) -> Outcome:
    """Return a stage's result for one task from its JSON values."""
    outcome: Outcome = _DECODERS[stage](fields)
    return outcome


def encode(outcome: Outcome) -> Any:
    """Return a stage's result for one task as JSON values."""
    return asdict(outcome) if isinstance(outcome, Regression) else outcome.to_json()


@dataclass(frozen=True)
class StageWork:
    """One task in one trial.

    Attributes:
        materials: Network, images, tasks.
        responses: All taps' responses.
        config: The run's configuration.
        index: The task's place in the configuration.
        trial: The trial, from 0.
    """

    materials: Materials
    responses: Responses
    config: RunConfig
    index: int
    trial: int

    @property
    def task(self) -> Satellite:
        """The satellite task."""
        return self.materials.tasks[self.index]

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return seed_of_trial(self.config.seed, self.trial)

    @property
    def split(self) -> Split:
        """The trial's partition."""
        return self.task.split(self.seed)

    def of_trial(self, trial: int) -> StageWork:
        """Return the same task in another trial."""
        return replace(self, trial=trial)

    def dependencies(self, stage: str) -> dict[str, Any]:
        """Return everything of this task that a stage's result depends on, by the names that a user knows."""
        from facetask import __version__

        config = self.config
        depends: dict[str, Any] = {
            "facetask": __version__,
            "base_network": config.base_network.model_dump(mode="json"),
            "weights": self.materials.network.fingerprint(),
            "images": self.materials.images.fingerprint(),
            "satellite_task": config.satellite_tasks[self.index].model_dump(mode="json"),
            "labels": self.task.fingerprint(),
            "split": self.task.split_config.model_dump(mode="json"),
            "seed": config.seed,
        }
        if stage == "regress":
            return {**depends, "revision": _REVISION}
        selector = {**config.selector.model_dump(mode="json"), "revision": self.materials.selector.revision}
        return {**depends, "selector": selector, "curve": config.curve.model_dump(mode="json")}

    def compute(self, stage: str, record: TaskRecord) -> Outcome:
        """Run ``regress``, or ``curve`` on what it gave."""
        # Many small products: several BLAS threads would wait for each other longer than they compute.
        with threadpool_limits(1, user_api="blas"):
            if stage == "regress":
                return regress(self.responses, self.task, self.split)
            return curve(self.responses, self.task, self.split, self.chooser(self.config.curve.bootstrap))

    def chooser(self, bootstrap: int) -> Chooser:
        """Return the selector for this task and trial, asked again on so many resamples."""
        selector = self.materials.selector
        weights = self.materials.network.filter_weights() if "weights" in selector.needs else {}
        return Chooser(selector, self.config.selector.params, weights, self.seed, self.config.curve.refit, bootstrap)
