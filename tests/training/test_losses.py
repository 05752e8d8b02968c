from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch.nn import functional as F

from facetask.training.losses import distillation_loss, loss_of_guessing, partial_bce, training_loss

NAN = float("nan")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), labels=st.integers(1, 5))
def test_partial_bce_is_the_published_formula(seed: int, n: int, labels: int) -> None:
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((n, labels))
    truth = (rng.random((n, labels)) < 0.5).astype(float)
    known = rng.random((n, labels)) < 0.6
    each = []
    for i in range(n):
        share = known[i].mean()
        total = sum(
            log_loss([truth[i, j]], [1 / (1 + np.exp(-logits[i, j]))], labels=[0, 1])
            for j in range(labels)
            if known[i, j]
        )
        each.append((-4.45 * share + 5.45) / labels * total)
    found = partial_bce(torch.tensor(logits), torch.tensor(np.where(known, truth, np.nan)))
    assert found.item() == pytest.approx(np.mean(each), rel=1e-9, abs=1e-12)


def test_with_all_labels_known_it_is_the_plain_cross_entropy() -> None:
    logits, truth = torch.randn(4, 3), (torch.rand(4, 3) < 0.5).float()
    assert torch.allclose(partial_bce(logits, truth), F.binary_cross_entropy_with_logits(logits, truth))


@pytest.mark.parametrize("loss", ["mse", "smooth-l1", "partial-bce"])
def test_what_is_missing_has_no_gradient(loss: str) -> None:
    outputs = torch.randn(3, 2, requires_grad=True)
    wanted = np.array([[1.0, NAN], [NAN, 0.0], [0.0, 1.0]])
    training_loss(outputs, wanted, loss).backward()  # type: ignore[arg-type,no-untyped-call]
    assert outputs.grad is not None
    assert torch.equal(outputs.grad == 0, torch.tensor(np.isnan(wanted)))
    assert outputs.grad.isfinite().all()


def test_smoothing_spreads_a_share_of_each_label_over_all_classes() -> None:
    outputs = torch.randn(5, 4, dtype=torch.float64)
    classes = np.eye(4)[[0, 1, 2, 3, 0]]
    smooth = 0.7 * classes + 0.3 / 4
    found = training_loss(outputs, classes, "cross-entropy", 0.3)
    expected = -(smooth * outputs.log_softmax(1).numpy()).sum(axis=1).mean()
    assert found.item() == pytest.approx(expected, rel=1e-9)
    labels = np.array([[1.0, 0.0, NAN, 1.0]])
    assert torch.equal(
        training_loss(outputs[:1], labels, "partial-bce", 0.3),
        training_loss(outputs[:1], 0.7 * labels + 0.15, "partial-bce"),
    )


def test_what_is_regressed_is_not_smoothed() -> None:
    outputs, wanted = torch.randn(3, 2), np.ones((3, 2))
    assert torch.equal(training_loss(outputs, wanted, "mse", 0.3), training_loss(outputs, wanted, "mse"))


def test_distance_is_counted_in_standard_deviations() -> None:
    responses = torch.tensor([[1.0, 30.0], [0.0, 10.0]])
    wanted, spread = np.array([[0.0, 10.0], [0.0, 10.0]], np.float32), np.array([0.5, 10.0], np.float32)
    assert distillation_loss(responses, wanted, spread).item() == pytest.approx((4 + 4) / 4)


# Batches of which one of several tasks knows nothing, and what guessing costs


@pytest.mark.parametrize("loss", ["mse", "smooth-l1", "partial-bce", "cross-entropy"])
def test_a_batch_of_which_nothing_is_known_costs_nothing_and_teaches_nothing(loss: str) -> None:
    outputs = torch.randn(3, 2, requires_grad=True)
    found = training_loss(outputs, np.full((3, 2), NAN), loss, 0.1)  # type: ignore[arg-type]
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


@pytest.mark.parametrize("loss", ["mse", "smooth-l1", "partial-bce", "cross-entropy"])
def test_images_of_which_nothing_is_known_do_not_count(loss: str) -> None:
    outputs = torch.randn(5, 3)
    wanted = np.eye(3)[[0, 2, 1, 0, 1]]
    wanted[[1, 4]] = NAN
    found = training_loss(outputs, wanted, loss)  # type: ignore[arg-type]
    rows = [0, 2, 3]
    assert found.item() == pytest.approx(training_loss(outputs[rows], wanted[rows], loss).item(), rel=1e-6)  # type: ignore[arg-type]


def test_guessing_costs_the_variance_the_entropy_or_what_no_constant_beats() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (200, 2))
    values[::3, 1] = NAN
    known = ~np.isnan(values)
    errors = np.square(values - np.nanmean(values, axis=0))
    assert loss_of_guessing(values, "mse") == pytest.approx(errors[known].mean(), rel=1e-6)
    classes = np.eye(3)[rng.choice(3, 200, p=[0.6, 0.3, 0.1])]
    share = classes.mean(axis=0)
    assert loss_of_guessing(classes, "cross-entropy") == pytest.approx(-(share * np.log(share)).sum(), rel=1e-5)
    labels = (rng.random((200, 2)) < [0.2, 0.7]) * 1.0
    p = labels.mean(axis=0)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
    assert loss_of_guessing(labels, "partial-bce") == pytest.approx(entropy, rel=1e-5)
    skewed = np.exp(rng.normal(size=(200, 1)))
    tried = [
        training_loss(torch.full((200, 1), float(constant), dtype=torch.float64), skewed, "smooth-l1").item()
        for constant in np.linspace(skewed.min(), skewed.max(), 2000)
    ]
    found = loss_of_guessing(skewed, "smooth-l1")
    assert min(tried) * (1 - 1e-4) <= found <= min(tried) * (1 + 1e-9)
    assert loss_of_guessing(np.ones((5, 1)), "mse") == 1  # nothing to divide by
