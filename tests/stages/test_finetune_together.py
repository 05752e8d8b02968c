"""Training one network for several tasks: what the loss is, who takes part, and that it can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bar_networks import SIDE, Backbone, Bars, Interrupted, bars, equal, loader_of, state
from torch import Tensor
from torch.nn import functional as F

from facetask.config import FinetuneConfig
from facetask.data.loader import ImageLoader
from facetask.data.splits import Split
from facetask.networks.task_network import TaskNetwork
from facetask.stages.finetune import Finetuned, finetune
from facetask.statistics.regression import LinearModel
from facetask.tasks.metrics import scaled_rmse
from facetask.tasks.satellite import Satellite
from facetask.training.losses import loss_of_guessing, training_loss
from facetask.training.objective import Objective
from facetask.training.trainer import Teacher

Make = Callable[..., Any]
N = 120
NAN = float("nan")


def both_heads(seed: int = 0, **options: float) -> TaskNetwork:
    """A network with a head for a number on all filters but the last two, and one for three classes on the last six."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TaskNetwork(Backbone(**options), [(slice(0, 6), 1), (slice(2, 8), 3)]).eval()


@pytest.fixture(scope="module")
def positions() -> np.ndarray:
    return np.random.default_rng(2).uniform(-1, 1, (N, 1))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory, positions: np.ndarray) -> ImageLoader:
    return loader_of(tmp_path_factory.mktemp("bars"), bars(positions[:, 0]))


@pytest.fixture
def tasks(positions: np.ndarray, make_task: Make, halves: Make) -> list[tuple[Satellite, Split]]:
    """Where the bar is, in degrees and known for some images, and on which side, known for others."""
    number, side = 90 * positions, np.searchsorted([-0.3, 0.3], positions) * 1.0
    number[::3], side[1::4] = NAN, NAN
    found = []
    for name, values, kind, spec in (
        ("angle", number, "continuous", {"unit": "degrees", "flip": "never"}),
        ("side", side, "nominal", {"classes": ("left", "mid", "right"), "flip": "never"}),
    ):
        task = make_task(values, kind, **spec)
        task = replace(task, spec=replace(task.spec, name=name))
        found.append((task, halves(N).within(task.labelled)))
    return found


def trained(network: TaskNetwork, tasks: Any, loader: ImageLoader, **settings: Any) -> tuple[Finetuned, ...]:
    given = {key: settings.pop(key) for key in ("start", "teacher", "saved") if key in settings}
    config = FinetuneConfig(**{"epochs": 4, "batch_size": 16, "learning_rate": 0.1, **settings})
    return finetune(network, tasks, config, loader, 3, **given)


def test_a_batch_s_loss_is_the_mean_of_the_tasks_as_shares_of_guessing(tasks: Any) -> None:
    objective = Objective.of(tasks, FinetuneConfig())
    rows = np.flatnonzero(np.arange(N) < N // 2)[:20]
    angle, side = torch.randn(20, 1), torch.randn(20, 3)
    found = objective.loss_of([angle, side], rows, np.zeros(20, dtype=bool))

    (number, split), (nominal, nominal_split) = tasks
    unit = 2.0 ** np.round(np.log2(np.nanstd(number.values[split.train])))
    np.testing.assert_array_equal(objective.unit, [unit, 1, 1, 1])
    y = number.values[rows, 0] / unit
    known = ~np.isnan(y)
    one = F.smooth_l1_loss(angle[known, 0], torch.tensor(y[known]).float())
    every = number.values[split.train] / unit
    constants = np.linspace(every.min(), every.max(), 20001)
    of_guessing = min(np.mean([huber(value - c) for value in every[:, 0]]) for c in constants[::10])
    classes = nominal.values[rows, 0]
    seen = ~np.isnan(classes)
    other = F.cross_entropy(side[seen], torch.tensor(classes[seen]).long())
    share = np.bincount(nominal.values[nominal_split.train, 0].astype(int)) / len(nominal_split.train)
    entropy = -(share * np.log(share)).sum()
    assert found.item() == pytest.approx((one.item() / of_guessing + other.item() / entropy) / 2, rel=1e-4)


def huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_epochs_are_compared_by_the_mean_of_errors_as_shares_of_guessing(tasks: Any) -> None:
    objective = Objective.of(tasks, FinetuneConfig())
    expected = []
    for (task, split), rmse in zip(tasks, (30.0, 0.2), strict=True):
        y = task.targets
        mean = np.nanmean(y[split.train], axis=0)
        guess = scaled_rmse(
            np.tile(mean, (len(split.validation), 1)), y[split.validation], task.kind.scale(y[split.train])
        )
        expected.append(rmse / guess)
    assert objective.judged([30.0, 0.2]) == pytest.approx(np.mean(expected))


def test_one_task_alone_counts_as_it_is(tasks: Any) -> None:
    for task, split in tasks:
        objective, settings = Objective.of([(task, split)], FinetuneConfig()), FinetuneConfig()
        rows = split.train[:16]
        outputs = torch.randn(16, task.targets.shape[1], requires_grad=True)
        found = objective.loss_of([outputs], rows, np.zeros(16, dtype=bool))
        plain = training_loss(outputs, task.targets[rows] / objective.unit, task.kind.choose_loss(settings.loss))
        assert torch.equal(found, plain)
        assert torch.equal(*(torch.autograd.grad(loss, outputs, retain_graph=True)[0] for loss in (found, plain)))
        assert objective.judged([0.1 + 0.2]) == 0.1 + 0.2


def test_labels_train_only_in_their_own_training_split(tasks: Any, positions: np.ndarray) -> None:
    objective = Objective.of(tasks, FinetuneConfig())
    for part, (_, split) in zip(objective.parts, tasks, strict=True):
        known = np.isfinite(part.targets).all(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(known), split.train)
        assert loss_of_guessing(part.targets / part.unit, part.loss) == pytest.approx(part.guess_loss)


def test_every_image_of_any_task_is_seen_once_an_epoch(tasks: Any, loader: ImageLoader) -> None:
    network = both_heads()
    trained(network, tasks, loader, epochs=2)
    seen = torch.cat(network.backbone.seen)
    rows = np.union1d(tasks[0][1].train, tasks[1][1].train)
    assert len(rows) > max(len(split.train) for _, split in tasks)
    assert seen.shape == (2 * len(rows), 3, SIDE, SIDE)


def test_both_tasks_are_learned_and_the_network_is_left_at_their_common_best_epoch(
    tasks: Any, loader: ImageLoader
) -> None:
    network = both_heads()
    done = trained(network, tasks, loader, epochs=25)
    assert done[0].metrics["r2"] > 0.8
    assert done[1].metrics["accuracy"] > 0.75
    assert done[0].best_epoch == done[1].best_epoch > 0
    assert [e.train_loss for e in done[0].epochs] == [e.train_loss for e in done[1].epochs]
    objective = Objective.of(tasks, FinetuneConfig())
    judged = [
        objective.judged([one.validation_rmse, other.validation_rmse])
        for one, other in zip(done[0].epochs, done[1].epochs, strict=True)
    ]
    assert done[0].best_epoch == int(np.argmin(judged))
    for (task, split), own, columns in zip(tasks, done, (slice(0, 1), slice(1, 4)), strict=True):
        outputs = loader.all_outputs(network, split.test).astype(float)[:, columns]
        predicted = task.kind.activate(outputs)
        np.testing.assert_allclose(own.predicted.predictions(len(split.test)), predicted, rtol=1e-4, atol=1e-4)
        scale = task.kind.scale(task.targets[split.train])
        again = task.kind.metrics(predicted, task.values[split.test], own.decision, scale)
        assert own.metrics == pytest.approx(again, rel=1e-3)


@pytest.mark.parametrize(("rules", "mirrored"), [(("negate", "keep"), True), (("negate", "never"), False)])
def test_images_are_mirrored_where_every_task_says_what_that_does(
    tasks: Any, loader: ImageLoader, rules: tuple[str, str], mirrored: bool
) -> None:
    ruled = [
        (replace(task, spec=replace(task.spec, flip=rule)), split)
        for (task, split), rule in zip(tasks, rules, strict=True)
    ]
    network = both_heads()
    trained(network, ruled, loader, epochs=1)
    ((_, originals),) = loader.batches(np.arange(N), [np.arange(N)])
    known = {image.numpy().tobytes() for image in originals.contiguous()}
    same = [image.contiguous().numpy().tobytes() in known for image in torch.cat(network.backbone.seen)]
    assert all(same) != mirrored


def test_a_head_learns_nothing_from_what_it_does_not_read(tasks: Any, loader: ImageLoader) -> None:
    network = both_heads()
    before = state(network)
    trained(network, tasks, loader, epochs=2)
    assert network.heads[0].weight.shape == (1, 6)
    assert network.heads[1].weight.shape == (3, 6)
    assert not equal(state(network), before)
    responses = torch.randn(2, 8)
    changed = responses.clone()
    changed[:, 6:] += 1  # which the second head alone reads
    one, other = network.read(responses), network.read(changed)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "scaled-adamw", "distill": 1.0},
        {"start": "scratch", "batch_norm": "train"},
        {"trains": "head"},
    ],
)
def test_an_interrupted_joint_training_gives_the_same_result_to_the_last_bit(
    tasks: Any, loader: ImageLoader, tmp_path: Path, settings: dict[str, Any]
) -> None:
    union = Split.of_any([split for _, split in tasks])
    responses = loader.all_outputs(both_heads(seed=7).backbone, np.arange(N))
    heads = [
        LinearModel(coef=np.linspace(-1, 1, 6 * n).reshape(6, n), intercept=np.linspace(0, 0.1, n)) for n in (1, 3)
    ]
    teacher, config = Teacher.of(responses, union), FinetuneConfig(**{"epochs": 4, "shift": 0.1, **settings})

    def go(network: TaskNetwork, **more: Any) -> tuple[Finetuned, ...]:
        return finetune(network, tasks, config, loader, 3, start=heads, teacher=teacher, **more)

    whole = both_heads(dropout=0.3)
    expected = go(whole)
    for at in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            go(both_heads(dropout=0.3), saved=Interrupted(tmp_path / f"{at}.pt", at))
        network = both_heads(dropout=0.3)
        assert go(network, saved=Interrupted(tmp_path / f"{at}.pt", 0)) == expected
        assert equal(state(network), state(whole))


def test_training_says_for_which_tasks(tasks: Any, loader: ImageLoader) -> None:
    shown = Bars()
    finetune(both_heads(), tasks, FinetuneConfig(epochs=1), loader, 0, reporter=shown)
    assert "angle, side: epochs" in shown.done


def test_outputs_are_scaled_head_by_head() -> None:
    network = both_heads()
    responses: Tensor = torch.randn(4, 8)
    before = torch.cat(network.read(responses), 1)
    network.scale_outputs(np.array([2.0, 3.0, 4.0, 5.0]))
    after = torch.cat(network.read(responses), 1)
    torch.testing.assert_close(after, before * torch.tensor([2.0, 3.0, 4.0, 5.0]))
