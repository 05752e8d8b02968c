"""The true classes behind several sources' labels, and how each source confuses them.

The model: an image's true class c has probability p(c), and source k gives it the label y with probability T_k[c, y], a
row-stochastic matrix of its own. Expectation–maximisation alternates between the classes' posterior for each image and
p and T_k. Every T_k starts near the identity, sources being mostly right, and is held there by one made-up image a
class, which also decides what few images leave open.

LTNet has the same matrices behind a network that predicts the true class from the image. Labels are made before there
is a network here, so the posterior takes its place: it knows an image by its labels only.

Source: A. P. Dawid and A. M. Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm",
Applied Statistics 28 (1979); J. Zeng, S. Shan and X. Chen, "Facial expression recognition with inconsistently annotated
datasets", ECCV 2018 (IPA2LT and its LTNet).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

START = 0.8  # a source's accuracy before anything is known of it
_MOST_ROUNDS = 1000
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LatentTruth:
    """What was found.

    Attributes:
        posterior: Probability of each true class, ``(n, n_classes)``.
        prior: Share of each true class, ``(n_classes,)``.
        confusion: T_k of each source, ``(n_sources, n_classes, n_classes)``: rows are true classes, columns labels.
    """

    posterior: NDArray[np.float64]
    prior: NDArray[np.float64]
    confusion: NDArray[np.float64]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """How often each source is right, ``(n_sources,)``."""
        return np.asarray(np.einsum("c,kcc->k", self.prior, self.confusion))


def latent_truth(votes: NDArray[np.intp], weights: NDArray[np.float64], n_classes: int) -> LatentTruth:
    """Return the true classes' posterior and every source's confusion matrix.

    Args:
        votes: Each source's class for each image, ``(n, n_sources)``, −1 where it has none.
        weights: How much each vote counts, ``(n, n_sources)``, 1 for a full one.
        n_classes: Number of classes.
    """
    start = np.full((n_classes, n_classes), (1 - START) / max(n_classes - 1, 1))
    np.fill_diagonal(start, START if n_classes > 1 else 1.0)
    # Images with the same votes have the same posterior: without confidences there are few different ones.
    same, row, n_images = np.unique(
        np.concatenate([votes, np.where(votes < 0, 0, weights)], axis=1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    labels, weight = np.split(same, 2, axis=1)
    labels = labels.astype(np.intp)
    n_sources = labels.shape[1]
    prior, confusion = np.full(n_classes, 1 / n_classes), np.stack([start] * n_sources)
    for _ in range(_MOST_ROUNDS):
        posterior = _posterior(labels, weight, prior, confusion)
        mass = posterior * n_images[:, None]
        voted = mass[(labels >= 0).any(axis=1)].sum(axis=0) + 1 / n_classes
        prior, before = voted / voted.sum(), confusion
        confusion = np.stack([_confusion(labels[:, k], weight[:, k], mass, start) for k in range(n_sources)])
        if np.abs(confusion - before).max() < _TOLERANCE:
            break
    return LatentTruth(_posterior(labels, weight, prior, confusion)[row.ravel()], prior, confusion)


def _posterior(
    labels: NDArray[np.intp], weight: NDArray[np.float64], prior: NDArray[np.float64], confusion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the true classes' probabilities, ``(n, n_classes)``."""
    log = np.tile(np.log(prior), (len(labels), 1))
    for k, matrix in enumerate(confusion):
        known = labels[:, k] >= 0
        log[known] += weight[known, k, None] * np.log(matrix).T[labels[known, k]]
    likelihood = np.exp(log - log.max(axis=1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True))


def _confusion(
    labels: NDArray[np.intp], weight: NDArray[np.float64], mass: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return one source's confusion matrix from the true classes' mass, ``(n, n_classes)``."""
    counts = start.T.copy()
    known = labels >= 0
    np.add.at(counts, labels[known], weight[known, None] * mass[known])
    return np.asarray((counts / counts.sum(axis=0)).T)
