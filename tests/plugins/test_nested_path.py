from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetask.plugins.selectors.nested_path import nested_path


@given(st.permutations(range(9)))
def test_each_support_holds_the_first_of_the_order(order: list[int]) -> None:
    path = nested_path(np.array(order), ["a note"])
    assert [support.tolist() for support in path.supports] == [sorted(order[:k]) for k in range(1, 10)]
    assert path.notes == ("a note",)


@pytest.mark.parametrize("n", [1, 512, 513, 5000])
def test_thousands_of_components_take_growing_steps(n: int) -> None:
    sizes = [len(support) for support in nested_path(np.arange(n)[::-1]).supports]
    assert sizes[:512] == list(range(1, min(n, 512) + 1))
    assert sizes[-1] == n
    assert all(1 <= later - earlier <= 1 + 0.01 * earlier for earlier, later in pairwise(sizes))
    assert len(sizes) < 800
