from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bar_networks import SIDE, Backbone, Bars, Interrupted, bars, equal, loader_of, state, task_network
from pydantic import ValidationError
from torch import Tensor, nn

from facetask import ConfigError
from facetask.config import FinetuneConfig
from facetask.data.loader import ImageLoader
from facetask.data.splits import Split
from facetask.networks.task_network import TaskNetwork
from facetask.stages.finetune import Finetuned, finetune
from facetask.statistics.regression import LinearModel
from facetask.tasks.metrics import scaled_rmse
from facetask.training.epochs import train
from facetask.training.losses import distillation_loss
from facetask.training.trainer import Teacher, one_cycle

Make = Callable[..., Any]


def train_one(
    network: TaskNetwork,
    task: Any,
    split: Split,
    settings: FinetuneConfig,
    loader: ImageLoader,
    seed: int,
    **given: Any,
) -> Finetuned:
    """Finetune a network for one task."""
    start = given.pop("start", None)
    heads = None if start is None else [start]
    (done,) = finetune(network, [(task, split)], settings, loader, seed, start=heads, **given)
    return done


@pytest.fixture(scope="module")
def bar_positions() -> np.ndarray:
    """The training half has its bars on the right only."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(0.1, 0.9, 48), rng.uniform(-0.9, 0.9, 48)])[:, None]


@pytest.fixture(scope="module")
def bar_loader(tmp_path_factory: pytest.TempPathFactory, bar_positions: np.ndarray) -> ImageLoader:
    return loader_of(tmp_path_factory.mktemp("bars"), bars(bar_positions[:, 0]))


@pytest.fixture
def run(bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, halves: Make) -> Callable[..., Finetuned]:
    """Finetune a network on the bars."""

    def go(network: TaskNetwork, rule: str = "negate", seed: int = 0, **settings: Any) -> Finetuned:
        task = make_task(bar_positions, flip=rule)
        given = {key: settings.pop(key) for key in ("start_head", "teacher", "saved", "reporter") if key in settings}
        given["start"] = given.pop("start_head", None)
        config = FinetuneConfig(**{"epochs": 8, "batch_size": 16, "learning_rate": 0.1, **settings})
        return train_one(network, task, halves(96), config, bar_loader, seed, **given)

    return go


def test_training_improves_and_the_network_is_left_at_its_best_epoch(
    run: Make, bar_loader: ImageLoader, bar_positions: np.ndarray, halves: Make
) -> None:
    network = task_network()
    done = run(network)
    scores = [epoch.validation_rmse for epoch in done.epochs]
    assert [epoch.epoch for epoch in done.epochs] == list(range(9))
    assert done.epochs[0].train_loss is None
    assert done.best_epoch == int(np.argmin(scores)) > 0
    assert min(scores) < 0.3 * scores[0]
    assert not network.training
    split = halves(96)
    for rows, rmse in ((split.validation, min(scores)), (split.test, done.metrics["rmse"])):
        predicted = bar_loader.all_outputs(network, rows).astype(float)
        assert scaled_rmse(predicted, bar_positions[rows], np.ones(1)) == pytest.approx(rmse, rel=1e-6)


def test_the_sign_of_a_mirrored_label_matters(run: Make) -> None:
    right, wrong, unmirrored = (
        run(task_network(), rule, **settings).metrics["rmse"]
        for rule, settings in (("negate", {}), ("keep", {}), ("negate", {"flip": False}))
    )
    assert right < 0.5 * wrong
    assert right < 0.5 * unmirrored


def test_each_output_has_a_rule_of_its_own_for_mirrored_images(
    bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, halves: Make
) -> None:
    both = np.concatenate([0.7 * np.abs(bar_positions), bar_positions], axis=1)
    spec = {"edges": ((0.35,), (-0.3, 0.3)), "classes": tuple("abcdef")}
    settings = FinetuneConfig(epochs=8, batch_size=16, learning_rate=0.1)

    def errors(flip: Any) -> np.ndarray:
        task, network = make_task(both, "binned", flip=flip, **spec), task_network(n_outputs=2)
        train_one(network, task, halves(96), settings, bar_loader, 0)
        rows = halves(96).test
        return np.abs(bar_loader.all_outputs(network, rows) - both[rows]).mean(axis=0)

    right, swapped, never = (errors(flip) for flip in (("keep", "negate"), ("negate", "keep"), ("keep", "never")))
    assert (right < 0.6 * swapped).all()
    assert right[1] < 0.75 * never[1]


@pytest.mark.parametrize("rate", [100.0, 1e30])
@pytest.mark.parametrize("optimiser", ["scaled-adamw", "adamw", "sgd"])
def test_training_that_only_harms_leaves_the_starting_point(run: Make, rate: float, optimiser: str) -> None:
    network = task_network()
    run(network)
    before = state(network)
    done = run(network, learning_rate=rate, optimiser=optimiser, epochs=3)
    assert done.best_epoch == 0
    assert equal(state(network), before)
    assert np.isfinite([epoch.validation_rmse for epoch in done.epochs]).all()
    assert np.isfinite(list(done.metrics.values())).all()
    json.dumps(done.to_json(), allow_nan=False)


def test_a_loss_that_is_no_number_ends_the_training(run: Make) -> None:
    class Poison(Backbone):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (torch.nan if len(self.seen) >= 8 else 1.0)

    network = TaskNetwork(Poison(), [(slice(0, 8), 1)]).eval()
    done = run(network, epochs=5)  # three batches an epoch: NaN in the third, as are all outputs from then on
    assert [epoch.epoch for epoch in done.epochs] == [0, 1, 2]
    assert len(network.backbone.seen) == 8
    assert done.best_epoch <= 2


def test_batch_norm_statistics_stay_and_its_scales_learn(run: Make) -> None:
    network = task_network()
    before = state(network)
    assert run(network).best_epoch > 0
    for key, value in network.state_dict().items():
        frozen = key.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
        assert torch.equal(value, before[key]) == frozen, key


def test_equal_seeds_give_equal_trainings_dropout_included(run: Make) -> None:
    settings = {"shift": 0.2, "brightness": 0.3, "epochs": 2}
    networks = [task_network(dropout=0.3) for _ in range(3)]
    one, again, other = (run(network, seed=seed, **settings) for network, seed in zip(networks, (5, 5, 6), strict=True))
    assert one == again
    assert equal(state(networks[0]), state(networks[1]))
    assert one.epochs[1] != other.epochs[1]


def test_training_leaves_the_global_random_numbers_of_dropout_alone(run: Make) -> None:
    torch.manual_seed(3)
    run(task_network(dropout=0.3), epochs=1, seed=1)
    one = torch.rand(1)
    torch.manual_seed(3)
    run(task_network(dropout=0.3), epochs=1, seed=2)
    assert torch.equal(torch.rand(1), one)


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs", "warmup"),
    [(1, 16, 1, 0.3), (1, 1, 2, 0.5), (5, 4, 1, 0.5), (10, 1, 1, 0.1), (4, 2, 2, 0.25)],
)
def test_a_batch_of_one_and_few_steps(
    bar_loader: ImageLoader, make_task: Make, n: int, batch_size: int, epochs: int, warmup: float
) -> None:
    values = np.linspace(-1, 1, 96)[:, None]
    split = Split(np.arange(n), np.arange(20, 30), np.arange(30, 40))
    settings = FinetuneConfig(epochs=epochs, batch_size=batch_size, warmup=warmup)
    bars = Bars()
    done = train_one(task_network(), make_task(values), split, settings, bar_loader, 0, reporter=bars)
    assert len(done.epochs) == epochs + 1
    assert bars.done == {"task: epochs": epochs, **{f"epoch {i + 1} of {epochs}: images": n for i in range(epochs)}}


def test_one_cycle_rises_over_the_warm_up_and_falls_to_nothing() -> None:
    for warmup in (0.1, 0.3, 0.9):
        rise = [one_cycle(position, warmup) for position in np.linspace(1e-9, warmup - 1e-9, 30)]
        fall = [one_cycle(position, warmup) for position in np.linspace(warmup, 1, 30)]
        assert (np.diff(rise) > 0).all()
        assert (np.diff(fall) < 0).all()
        np.testing.assert_allclose([rise[0], rise[-1], fall[0], fall[-1]], [0.04, 1, 1, 0], atol=1e-6)


def test_one_cycle_is_torch_s(run: Make) -> None:
    network = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=1001, pct_start=301 / 1001, cycle_momentum=False
    )
    for step in range(1000):
        assert schedule.get_last_lr()[0] == pytest.approx(one_cycle((step + 1e-9) / 1000, 0.3), abs=1e-5)
        optimiser.step()
        schedule.step()


# What augmentation does, seen by the network


def originals() -> np.ndarray:
    return np.random.default_rng(1).integers(40, 120, (6, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def seen(tmp_path: Path, make_task: Make) -> Callable[..., Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Yield each image that the network was trained on, ``(channels, height, width)``, with its original."""
    pixels = originals()
    loader = loader_of(tmp_path, pixels, raw=True)

    def go(rule: str, **settings: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = Split(np.arange(4), np.array([4]), np.array([5]))
        network = task_network()
        config = FinetuneConfig(epochs=10, batch_size=4, learning_rate=1e-9, **settings)
        task = make_task(np.arange(6.0)[:, None], flip=rule)
        train_one(network, task, split, config, loader, 0)
        images = [image.numpy() for batch in network.backbone.seen for image in batch]
        assert len(images) == 40
        channels_first = pixels.transpose(0, 3, 1, 2).astype(np.float32)
        for epoch in range(10):
            # The channel means tell which original it was, whatever its place in the batch.
            for image in images[4 * epoch : 4 * epoch + 4]:
                ratio = image.mean((1, 2)) / channels_first[:4].mean((2, 3))
                yield image, channels_first[int(ratio.std(axis=1).argmin())]

    return go


@pytest.mark.parametrize(("rule", "settings"), [("never", {}), (("never",), {}), ("keep", {"flip": False})])
def test_without_augmentation_images_come_as_they_are(seen: Make, rule: str, settings: dict[str, bool]) -> None:
    for image, original in seen(rule, **settings):
        np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize("rule", ["keep", "negate"])
def test_about_half_of_the_images_are_mirrored(seen: Make, rule: str) -> None:
    mirrored = []
    for image, original in seen(rule):
        mirrored.append(np.array_equal(image, original[:, :, ::-1]))
        assert mirrored[-1] or np.array_equal(image, original)
    assert 10 <= sum(mirrored) <= 30


def test_brightness_multiplies_each_image_by_one_factor(seen: Make) -> None:
    factors = []
    for image, original in seen("never", brightness=0.4):
        factors.append(float((image * original).sum() / (original**2).sum()))
        assert np.abs(image - factors[-1] * original).max() <= 0.6
    assert 0.595 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.405


def test_shift_moves_an_image_and_repeats_its_edge(tmp_path: Path, make_task: Make) -> None:
    height, width = 10, 20
    pixels = np.zeros((3, height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width) * 10 + 5, np.arange(height)[:, None] * 20 + 5
    loader = loader_of(tmp_path, pixels, raw=True)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs: list[Tensor] = []
    backbone.register_forward_pre_hook(lambda module, args: inputs.append(args[0].clone()) if module.training else None)
    split = Split(np.array([0]), np.array([1]), np.array([2]))
    settings = FinetuneConfig(epochs=60, batch_size=1, shift=0.2, learning_rate=1e-9)
    train_one(
        TaskNetwork(backbone, [(slice(0, 8), 1)]), make_task(np.zeros((3, 1)), flip="never"), split, settings, loader, 0
    )
    moves = set()
    for (image,) in inputs:
        across, down = (image[0, 0] - 5) / 10, (image[1, :, 0] - 5) / 20
        x, y = int(across[width // 2]) - width // 2, int(down[height // 2]) - height // 2
        moves.add((x, y))
        np.testing.assert_array_equal(across.numpy(), np.clip(np.arange(width) + x, 0, width - 1))
        np.testing.assert_array_equal(down.numpy(), np.clip(np.arange(height) + y, 0, height - 1))
    assert {x for x, _ in moves} == set(range(-4, 5))
    assert {y for _, y in moves} == set(range(-2, 3))


# Kinds and losses


@pytest.mark.parametrize(
    ("kind", "spec", "n_outputs", "main"),
    [
        ("binary", {"classes": ("left", "right")}, 1, "accuracy"),
        ("nominal", {"classes": ("left", "mid", "right")}, 3, "accuracy"),
        ("binned", {"classes": ("left", "mid", "right"), "edges": ((-0.3, 0.3),)}, 1, "accuracy"),
        ("continuous", {}, 2, "r2"),
        ("multilabel", {"classes": ("right", "edge")}, 2, "auc"),
    ],
)
def test_every_kind_can_be_trained(
    tmp_path: Path, make_task: Make, halves: Make, kind: str, spec: dict[str, Any], n_outputs: int, main: str
) -> None:
    position = np.random.default_rng(2).uniform(-1, 1, (120, 1))
    values = {
        "binary": (position > 0) * 1.0,
        "nominal": np.searchsorted([-0.3, 0.3], position) * 1.0,
        "binned": position,
        "continuous": np.hstack([position, 100 * position**2]),
        "multilabel": np.hstack([position > 0, np.abs(position) > 0.6]) * 1.0,
    }[kind]
    if n_outputs == 2:  # labels may be missing on their own, or all of an image's
        values[7], values[10:40:3, 0], values[60::4, 1] = np.nan, np.nan, np.nan
    task = make_task(values, kind, **{"flip": "never", **spec})
    split = halves(120).within(task.labelled)
    settings = FinetuneConfig(epochs=25, learning_rate=0.1, batch_size=16)
    done = train_one(task_network(n_outputs), task, split, settings, loader_of(tmp_path, bars(position[:, 0])), 0)
    assert done.metrics[main] > 0.75
    assert done.best_epoch > 0
    decided = {"binary": {"threshold"}, "multilabel": {"threshold[right]", "threshold[edge]"}}
    assert done.decision.keys() == decided.get(kind, set())
    assert (done.confusion is not None) == (kind in ("binary", "nominal", "binned"))
    scale, values = task.kind.scale(task.targets[split.train]), task.values[split.test]
    again = task.kind.metrics(done.predicted.predictions(len(split.test)), values, done.decision, scale)
    assert again == pytest.approx(done.metrics, nan_ok=True)
    assert done.metrics_validation["rmse"] == pytest.approx(done.epochs[done.best_epoch].validation_rmse, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("continuous", "cross-entropy"),
        ("binary", "cross-entropy"),
        ("binary", "partial-bce"),
        ("nominal", "mse"),
        ("nominal", "smooth-l1"),
        ("nominal", "partial-bce"),
        ("multilabel", "mse"),
    ],
)
def test_a_loss_that_does_not_fit_the_kind_is_refused(
    bar_loader: ImageLoader, make_task: Make, halves: Make, kind: str, loss: Any
) -> None:
    values = np.arange(96.0)[:, None] % 2
    classes = {"continuous": (), "multilabel": ("a",)}.get(kind, ("a", "b"))
    network, settings = task_network(2 if kind == "nominal" else 1), FinetuneConfig(loss=loss)
    with pytest.raises(ConfigError, match=f"finetune.loss: '{loss}' does not fit the {kind} task 'task'; use auto"):
        train_one(network, make_task(values, kind, classes=classes), halves(96), settings, bar_loader, 0)


def test_a_label_that_is_constant_in_training_does_no_harm(
    bar_loader: ImageLoader, make_task: Make, halves: Make
) -> None:
    values = np.concatenate([np.full(48, 0.1), np.linspace(0, 1, 48)])[:, None]
    done = train_one(task_network(), make_task(values), halves(96), FinetuneConfig(epochs=2), bar_loader, 0)
    assert len(done.epochs) == 3


def test_the_loss_does_not_depend_on_the_label_s_unit(
    bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, halves: Make
) -> None:
    losses = []
    for factor in (1.0, 1024.0):  # the unit is rounded to a power of two
        network = task_network()
        with torch.no_grad():
            network.heads[0].weight.mul_(factor)
            network.heads[0].bias.mul_(factor)
        settings = FinetuneConfig(epochs=1, learning_rate=1e-12)
        done = train_one(network, make_task(factor * bar_positions), halves(96), settings, bar_loader, 0)
        losses.append(done.epochs[1].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_json_keeps_every_field(run: Make) -> None:
    done = run(task_network(), epochs=2)
    assert Finetuned.from_json(json.loads(json.dumps(done.to_json()))) == done


def test_scaled_steps_do_not_depend_on_how_layers_share_their_scale(run: Make) -> None:
    """A convolution 1,000 times smaller before a scale 1,000 times larger computes the same and must train alike."""
    scores = {}
    for optimiser, rate in (("scaled-adamw", 0.05), ("adamw", 0.01)):
        for factor in (1.0, 1000.0):
            network = task_network()
            with torch.no_grad():
                network.backbone[0].weight.div_(factor)
                network.backbone[0].bias.div_(factor)
                network.backbone[1].running_mean.div_(factor)
                network.backbone[1].running_var.div_(factor**2)
                network.backbone[1].eps /= factor**2
            done = run(network, optimiser=optimiser, learning_rate=rate, epochs=3, weight_decay=0.0, flip=False)
            scores[optimiser, factor] = [epoch.validation_rmse for epoch in done.epochs]
    assert scores["scaled-adamw", 1000.0] == pytest.approx(scores["scaled-adamw", 1.0], rel=1e-2)
    assert scores["adamw", 1000.0] != pytest.approx(scores["adamw", 1.0], rel=1e-2)


# Leaving a training and going on with it


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "scaled-adamw"},
        {"optimiser": "sgd", "learning_rate": 1e-3},
        {"start": "scratch", "batch_norm": "train"},
        {"distill": 1.0, "batch_norm": "train"},
        {"trains": "head"},
        {"mixup": 0.4},
    ],
)
def test_an_interrupted_training_gives_the_same_result_to_the_last_bit(
    run: Make, teacher: Teacher, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {"epochs": 4, "shift": 0.1, "brightness": 0.2, "seed": 3, "teacher": teacher, **settings}
    start = LinearModel(coef=np.linspace(-1, 1, 8)[:, None], intercept=np.array([0.1]))
    whole = task_network(dropout=0.3)
    expected = run(whole, start_head=start, **settings)
    for at in (1, 3, 4):
        for after in (at, 0):
            network = task_network(dropout=0.3)
            saved = Interrupted(tmp_path / f"{at}.pt", after)
            if after:
                with pytest.raises(KeyboardInterrupt):
                    run(network, start_head=start, saved=saved, **settings)
            else:
                found = run(network, start_head=start, saved=saved, **settings)
                assert len(network.backbone.seen) == 3 * (4 - at) * (settings.get("trains") != "head")
        assert found == expected
        assert equal(state(network), state(whole))


def test_a_training_that_goes_on_says_so_and_counts_its_epochs(run: Make, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(task_network(), epochs=4, saved=Interrupted(tmp_path / "a.pt", 3))
    bars = Bars()
    run(task_network(), epochs=4, saved=Interrupted(tmp_path / "a.pt", 0), reporter=bars)
    assert bars.done == {"task: epochs": 4, "epoch 4 of 4: images": 48}
    assert bars.lines == ["training of task goes on after epoch 3 of 4"]


# What is trained, and from where


def test_from_scratch_nothing_of_the_given_network_counts(run: Make) -> None:
    networks = task_network(seed=0), task_network(seed=1)
    one, other = (run(network, start="scratch", epochs=12) for network in networks)
    assert one == other
    assert equal(state(networks[0]), state(networks[1]))
    assert one.best_epoch > 0
    spread = 0.52  # of the bars' positions, about zero
    assert one.epochs[one.best_epoch].validation_rmse < 0.6 * spread


def test_from_scratch_the_first_guess_is_near_the_mean_label(
    bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, halves: Make
) -> None:
    network, values = task_network(), 1000 + bar_positions
    settings = FinetuneConfig(start="scratch", epochs=1, learning_rate=1e-9)
    done = train_one(network, make_task(values), halves(96), settings, bar_loader, 0)
    assert done.epochs[0].validation_rmse < 3


def test_only_the_head_is_trained(run: Make) -> None:
    network = task_network(dropout=0.5)
    before = state(network)
    done = run(network, trains="head")
    assert done.best_epoch > 0
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("backbone."), key
    assert not network.backbone.seen  # and no gradient is computed for it
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_batch_norm_learns_its_statistics_where_it_shall(run: Make) -> None:
    network = task_network()
    before = state(network)
    assert run(network, batch_norm="train").best_epoch > 0
    for name in ("running_mean", "running_var"):
        assert not torch.isclose(network.backbone[1].state_dict()[name], before[f"backbone.1.{name}"]).any()


@pytest.mark.parametrize("n", [9, 17, 33])
def test_statistics_never_come_from_one_image(
    bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, n: int
) -> None:
    split = Split(np.arange(n), np.arange(50, 70), np.arange(70, 90))
    network = task_network()
    settings = FinetuneConfig(epochs=2, batch_size=8, batch_norm="train", learning_rate=0.01)
    assert len(train_one(network, make_task(bar_positions), split, settings, bar_loader, 0).epochs) == 3
    sizes = [len(batch) for batch in network.backbone.seen]
    assert sizes == 2 * ([8] * (n // 8 - 1) + [9])


def test_label_smoothing_keeps_outputs_moderate(
    bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, halves: Make
) -> None:
    for kind, n_outputs, values in (
        ("nominal", 3, np.searchsorted([-0.3, 0.3], bar_positions) * 1.0),
        ("multilabel", 2, np.hstack([bar_positions > 0.5, bar_positions > 0.0]) * 1.0),
    ):
        sizes = []
        for smoothing in (0.0, 0.4):
            network = task_network(n_outputs)
            split = Split(np.arange(96), np.arange(96), np.arange(96))
            settings = FinetuneConfig(epochs=20, learning_rate=0.1, label_smoothing=smoothing)
            task = make_task(values, kind, classes=tuple("abc")[:n_outputs], flip="never")
            train_one(network, task, split, settings, bar_loader, 0)
            outputs = bar_loader.all_outputs(network, split.test)
            sizes.append(np.abs(outputs - outputs.mean(axis=1, keepdims=True)).mean())
        assert sizes[1] < 0.7 * sizes[0], kind


def test_mixup_blends_images_and_losses(
    bar_loader: ImageLoader, bar_positions: np.ndarray, make_task: Make, halves: Make
) -> None:
    split, network = halves(96), task_network()
    before = copy.deepcopy(network)
    n = len(split.train)
    settings = FinetuneConfig(epochs=1, batch_size=n, learning_rate=1e-12, mixup=0.4, loss="mse", flip=False)
    task = make_task(bar_positions, flip="negate")
    done = train(network, [(task, split)], settings, bar_loader, seed=5)
    rng = np.random.default_rng(5)
    rows = split.train[rng.permutation(n)]
    share, other = rng.beta(0.4, 0.4), rng.permutation(n)
    assert 0.001 < share < 0.999
    ((_, images),) = bar_loader.batches(rows, [np.arange(n)])
    blended = share * images + (1 - share) * images[torch.from_numpy(other)]
    (seen,) = network.backbone.seen
    assert torch.allclose(seen, blended, atol=1e-6)
    before.scale_outputs(1 / done.unit)
    outputs = before(blended).detach().double().numpy()
    wanted = task.targets[rows] / done.unit
    expected = sum(
        weight * np.mean((outputs - labels) ** 2) for weight, labels in ((share, wanted), (1 - share, wanted[other]))
    )
    assert done.tasks[0].epochs[1].train_loss == pytest.approx(expected, rel=1e-5)


def test_mixup_and_distillation_are_refused_together() -> None:
    with pytest.raises(ValidationError, match="leave one out"):
        FinetuneConfig(mixup=0.2, distill=1.0)


# Distillation


@pytest.fixture
def teacher(bar_loader: ImageLoader, halves: Make) -> Teacher:
    """What another network responds to the bars."""
    rows = np.arange(96)
    return Teacher.of(bar_loader.all_outputs(task_network(seed=7).backbone, rows), halves(96))


def test_responses_stay_near_the_teacher_s(run: Make, bar_loader: ImageLoader, teacher: Teacher, halves: Make) -> None:
    distances, rows = [], halves(96).train
    for weight in (0.0, 0.1, 10.0):
        network = task_network(seed=7)  # its own responses are the teacher's at the start
        assert run(network, distill=weight, teacher=teacher).best_epoch > 0
        responses = bar_loader.all_outputs(network.backbone, rows)
        distances.append(float((((responses - teacher.responses[rows]) / teacher.spread) ** 2).mean()))
    assert distances[2] < 0.5 * distances[1] < 0.25 * distances[0]


def test_mirrored_images_are_not_held_to_the_responses_of_unmirrored_ones(
    run: Make, bar_loader: ImageLoader, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def noted(responses: Tensor, wanted: np.ndarray, spread: np.ndarray) -> Tensor:
        seen.append((responses.detach().numpy().copy(), wanted))
        return distillation_loss(responses, wanted, spread)

    monkeypatch.setattr("facetask.training.trainer.distillation_loss", noted)
    network = task_network(seed=7)  # its own responses are the teacher's
    run(network, distill=1.0, teacher=teacher, epochs=1, learning_rate=1e-9)
    assert 12 <= sum(len(wanted) for _, wanted in seen) <= 36  # of 48
    for responses, wanted in seen:
        np.testing.assert_allclose(responses, wanted, atol=1e-4)


def test_filters_that_never_change_do_no_harm(run: Make, halves: Make) -> None:
    responses = np.zeros((96, 8), dtype=np.float32)
    done = run(task_network(), distill=1.0, teacher=Teacher.of(responses, halves(96)), epochs=2)
    assert len(done.epochs) == 3
