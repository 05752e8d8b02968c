from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from facetask import CurveError, Moments, Params, SelectionPath, SelectionProblem
from facetask.plugins.selectors.random_order import facetask_selectors, random_order
from facetask.testing import check_selector


def problem(seed: int, n_components: int = 30, dead: int | None = None) -> SelectionProblem:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2 * n_components))
    x[:, n_components:] += x[:, :n_components]
    if dead is not None:
        x[:, dead::n_components] = 0.1
    moments = Moments.from_arrays(x, rng.standard_normal((200, 1)))
    return SelectionProblem(moments=moments, component=np.tile(np.arange(n_components), 2), seed=seed)


def order(path: SelectionPath) -> list[int]:
    """Return the components in the order in which a nested path takes them up."""
    assert [len(support) for support in path.supports] == list(range(1, len(path.supports) + 1))
    sets = [set(), *(set(support.tolist()) for support in path.supports)]
    return [(later - earlier).pop() for earlier, later in pairwise(sets)]


def test_the_seed_decides() -> None:
    first, again, other = (order(random_order(problem(seed), Params())) for seed in (3, 3, 4))
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(30))


def test_every_component_is_equally_likely_to_come_first() -> None:
    firsts = [int(random_order(problem(seed, 4), Params()).supports[0][0]) for seed in range(400)]
    counts = np.bincount(firsts, minlength=4)
    assert (np.abs(counts - 100) < 4 * np.sqrt(100 * 0.75)).all()


def test_the_dead_are_left_out() -> None:
    path = random_order(problem(0, dead=7), Params())
    assert 7 not in path.supports[-1]
    assert len(path.supports) == 29
    assert path.notes == ("1 dead, left out: 7",)
    with pytest.raises(CurveError, match="dead"):
        random_order(problem(0, 1, dead=0), Params())


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.scope) == ("random", {"moments"}, "group")
    check_selector(selector)
