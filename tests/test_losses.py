from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch.nn import functional as F

from facetask.losses import distillation_loss, partial_bce, training_loss

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
