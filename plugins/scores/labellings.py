"""Images by their class, private to the scores that need classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask import ScoreProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


def mean_over_labellings(
    problem: ScoreProblem, score: Callable[[NDArray[np.float64], NDArray[np.intp]], float]
) -> float:
    """Return the mean over the task's labellings of a score of responses ``(n, n_columns)`` and classes ``(n,)``.

    NaN where no labelling has two classes.
    """
    found = [score(responses, classes) for responses, classes in labellings(problem)]
    return float(np.mean(found)) if found else float("nan")


def labellings(problem: ScoreProblem) -> Iterator[tuple[NDArray[np.float64], NDArray[np.intp]]]:
    """Yield the responses of the images whose class is known and their classes, numbered 0 … K − 1, each of them there.

    A labelling with one class only is passed over.
    """
    for column in problem.classes.T:
        known = column >= 0
        names, classes = np.unique(column[known], return_inverse=True)
        if len(names) > 1:
            yield (problem.responses if known.all() else problem.responses[known]), classes
