"""Latent truth: confusion matrices are recovered, and a bad source does less harm than in a majority."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetask.plugins.tasks.combining import majority
from facetask.plugins.tasks.latent_truth import START, latent_truth

GOOD = np.array([[0.9, 0.07, 0.03], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]])
FAIR = np.array([[0.75, 0.15, 0.1], [0.05, 0.9, 0.05], [0.1, 0.2, 0.7]])
BAD = np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.5, 0.2, 0.3]])  # mostly wrong, but steadily so


def annotate(sources: list[np.ndarray], n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True classes, ``(n,)``, and what sources of known confusion matrices make of them, ``(n, n_sources)``."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(sources[0]), size=n, p=np.array([0.5, 0.3, 0.2])[: len(sources[0])])
    votes = [(rng.random(n)[:, None] > matrix[truth].cumsum(axis=1)).sum(axis=1) for matrix in sources]
    return truth, np.stack(votes, axis=1).clip(0, len(sources[0]) - 1).astype(np.intp)


def full(votes: np.ndarray) -> np.ndarray:
    return np.ones(votes.shape)


def test_confusion_matrices_and_shares_are_recovered() -> None:
    sources = [GOOD, FAIR, GOOD[::-1, ::-1], FAIR]
    _, votes = annotate(sources, 20_000)
    found = latent_truth(votes, full(votes), 3)
    assert np.abs(found.confusion - np.stack(sources)).max() < 0.03
    assert np.abs(found.prior - [0.5, 0.3, 0.2]).max() < 0.02
    expected = [float([0.5, 0.3, 0.2] @ np.diag(matrix)) for matrix in sources]
    assert found.accuracy == pytest.approx(expected, abs=0.02)


def test_a_bad_source_does_less_harm_than_in_a_majority() -> None:
    truth, votes = annotate([GOOD, FAIR, BAD], 5_000)
    found = latent_truth(votes, full(votes), 3).posterior.argmax(axis=1)
    voted, _ = majority(votes, full(votes), np.ones(3))
    assert (found == truth).mean() > (voted == truth).mean() + 0.03


def test_a_posterior_is_a_calibrated_probability() -> None:
    truth, votes = annotate([GOOD, FAIR, GOOD], 20_000, seed=1)
    posterior = latent_truth(votes, full(votes), 3).posterior
    assert posterior.sum(axis=1) == pytest.approx(1)
    assert posterior.max(axis=1).mean() == pytest.approx((posterior.argmax(axis=1) == truth).mean(), abs=0.01)


def test_the_posterior_follows_bayes_rule_from_what_was_found() -> None:
    _, votes = annotate([GOOD, FAIR, GOOD], 500)
    votes[::3, 1] = -1
    found = latent_truth(votes, full(votes), 3)
    for row in (0, 1, 2, 3):
        known = [(matrix, vote) for matrix, vote in zip(found.confusion, votes[row], strict=True) if vote >= 0]
        joint = found.prior * np.prod([matrix[:, vote] for matrix, vote in known], axis=0)
        assert found.posterior[row] == pytest.approx(joint / joint.sum())


def test_missing_votes_are_no_evidence() -> None:
    sources = [GOOD, FAIR, GOOD]
    truth, votes = annotate(sources, 20_000)
    votes[np.random.default_rng(5).random(votes.shape) < 0.3] = -1
    found = latent_truth(votes, full(votes), 3)
    assert np.abs(found.confusion - np.stack(sources)).max() < 0.05
    nobody = (votes < 0).all(axis=1)
    assert nobody.any()
    assert found.posterior[nobody] == pytest.approx(np.tile(found.prior, (nobody.sum(), 1)))
    assert (found.posterior.argmax(axis=1) == truth)[~nobody].mean() > 0.85


def test_a_source_that_is_less_sure_counts_for_less() -> None:
    votes = np.array([[0, 1]] * 3 + [[0, 0], [1, 1]] * 10, dtype=np.intp)
    weights = full(votes)
    weights[:3, 1] = 0.1
    assert (latent_truth(votes, weights, 2).posterior[:3, 0] > 0.9).all()
    assert (latent_truth(votes, weights[:, ::-1], 2).posterior[:3, 0] < 0.1).all()


def test_one_source_is_taken_at_its_word() -> None:
    _, votes = annotate([FAIR], 1_000)
    found = latent_truth(votes, full(votes), 3)
    assert (found.posterior.argmax(axis=1) == votes[:, 0]).all()


def test_without_any_vote_nothing_is_known() -> None:
    votes = np.full((4, 2), -1, dtype=np.intp)
    found = latent_truth(votes, full(votes), 3)
    assert found.posterior == pytest.approx(np.full((4, 3), 1 / 3))
    assert np.diagonal(found.confusion, axis1=1, axis2=2) == pytest.approx(np.full((2, 3), START))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 40), st.integers(0, 10_000))
def test_matrices_are_row_stochastic_and_relabelling_changes_nothing(
    n_sources: int, n_classes: int, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    votes = rng.integers(-1, n_classes, (n, n_sources)).astype(np.intp)
    found = latent_truth(votes, full(votes), n_classes)
    assert found.confusion.sum(axis=2) == pytest.approx(1)
    assert (found.confusion > 0).all()
    order = rng.permutation(n)
    shuffled = latent_truth(votes[order], full(votes), n_classes)
    assert shuffled.posterior == pytest.approx(found.posterior[order], abs=1e-6)
