from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch.nn import functional as F

from facetask.losses import partial_bce, training_loss

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
