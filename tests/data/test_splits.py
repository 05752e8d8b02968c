from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetask import DataError
from facetask.data.splits import Split, make_split, missing_values

HALVES = (0.5, 0.25, 0.25)


def parts(split: Split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


@st.composite
def fractions(draw: st.DrawFn) -> tuple[float, float, float]:
    shares = np.array([draw(st.integers(1, 20)) for _ in range(3)], dtype=float)
    return tuple((shares / shares.sum()).tolist())


@settings(max_examples=80, deadline=None)
@given(n=st.integers(3, 300), shares=fractions(), seed=st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_part_and_shares_are_near(n: int, shares: tuple[float, float, float], seed: int) -> None:
    split = make_split(n, shares, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), np.arange(n))
    for part, share in zip(parts(split), shares, strict=True):
        assert (np.diff(part) > 0).all()
        assert len(part) >= 1
        assert abs(len(part) - share * n) <= 2


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=60),
    shares=fractions(),
    seed=st.integers(0, 2**32 - 1),
    stratified=st.booleans(),
)
def test_no_group_is_on_two_sides(
    sizes: list[int], shares: tuple[float, float, float], seed: int, stratified: bool
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat([f"person {i}" for i in range(len(sizes))], sizes)).astype(object)
    strata = rng.integers(0, 3, len(groups)).astype(float) if stratified else None
    split = make_split(len(groups), shares, seed, groups=groups, strata=strata)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), np.arange(len(groups)))
    people = [set(groups[part]) for part in parts(split)]
    assert all(people)
    assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
    if len(sizes) > 10:
        for part, share in zip(parts(split), shares, strict=True):
            assert abs(len(part) - share * len(groups)) <= 4 / 3 * max(sizes) + 1e-9


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 80), min_size=2, max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
def test_strata_keep_their_shares_in_every_part(counts: list[int], seed: int) -> None:
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = np.array([f"class {value}" for value in strata], dtype=object)
    split = make_split(len(strata), HALVES, seed, strata=names)
    for value, count in enumerate(counts):
        for part, share in zip(parts(split), HALVES, strict=True):
            assert abs((strata[part] == value).sum() - share * count) <= 2.5


def test_many_numbers_are_stratified_at_their_deciles() -> None:
    ages = np.random.default_rng(0).gamma(2, 15, 2000)
    ages[::50] = np.nan
    split = make_split(len(ages), HALVES, 3, strata=ages)
    known = ages[~np.isnan(ages)]
    for part in parts(split):
        np.testing.assert_allclose(
            np.nanquantile(ages[part], np.arange(0.1, 1, 0.1)), np.quantile(known, np.arange(0.1, 1, 0.1)), rtol=0.06
        )
        assert np.isnan(ages[part]).mean() == pytest.approx(0.02, abs=0.003)


def test_a_group_counts_for_its_most_frequent_stratum() -> None:
    groups = np.repeat([f"p{i}" for i in range(80)], 5).astype(object)
    strata = np.repeat(np.arange(80) % 2, 5).astype(float)
    strata[::5] = 1 - strata[::5]
    split = make_split(400, HALVES, 0, groups=groups, strata=strata)
    for part, share in zip(parts(split), HALVES, strict=True):
        assert (strata[part] == 1).sum() == pytest.approx(200 * share, abs=6)


def test_same_seed_same_split_and_other_seed_another() -> None:
    groups = np.repeat(np.arange(40), 3).astype(float)
    one, again, other = (make_split(120, HALVES, seed, groups=groups) for seed in (7, 7, 8))
    for a, b in zip(parts(one), parts(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(one.test) != set(other.test)


def test_tiny_strata_do_not_always_meet_the_same_part() -> None:
    names = np.array([f"only {i}" for i in range(40)], dtype=object)
    tests = [frozenset(make_split(40, HALVES, seed, strata=names).test.tolist()) for seed in range(10)]
    assert len(set(tests)) > 5


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_missing_group_is_a_group_of_its_own(missing: float | None) -> None:
    groups = np.array([missing] * 40, dtype=object if missing is None else float)
    split = make_split(40, HALVES, 0, groups=groups)
    assert [len(part) for part in parts(split)] == [20, 10, 10]


def test_missing_values_of_both_column_types() -> None:
    assert missing_values(np.array(["a", None, float("nan"), ""], dtype=object)).tolist() == [False, True, True, False]
    assert missing_values(np.array([0.0, np.nan])).tolist() == [False, True]


@pytest.mark.parametrize("seed", range(20))
def test_three_groups_fill_three_parts_whatever_their_sizes(seed: int) -> None:
    groups = np.array(["big"] * 100 + ["a", "b"], dtype=object)
    split = make_split(102, (0.8, 0.1, 0.1), seed, groups=groups)
    assert all(len(part) for part in parts(split))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images(n: int) -> None:
    with pytest.raises(DataError, match=f"cannot split {n} images"):
        make_split(n, HALVES, 0)


def test_too_few_groups() -> None:
    with pytest.raises(DataError, match="cannot split 2 groups"):
        make_split(50, HALVES, 0, groups=np.array(["a", "b"] * 25, dtype=object))


def test_within_keeps_usable_rows_and_names_an_empty_part() -> None:
    split = make_split(40, HALVES, 0)
    usable = np.arange(40) % 2 == 0
    assert split.within(usable).train.tolist() == [row for row in split.train if row % 2 == 0]
    usable = np.ones(40, dtype=bool)
    usable[split.validation] = False
    with pytest.raises(DataError, match="the validation split has no labelled image"):
        split.within(usable)


def test_rows_of_any_partition_stay_in_their_part() -> None:
    whole = make_split(60, (0.5, 0.25, 0.25), 3)
    usable = np.random.default_rng(0).random((2, 60)) < 0.6
    one, other = (whole.within(mask) for mask in usable)
    either = Split.of_any([one, other])
    for part in ("train", "validation", "test"):
        rows = getattr(whole, part)
        np.testing.assert_array_equal(getattr(either, part), rows[usable.any(axis=0)[rows]])
        assert getattr(Split.of_any([one]), part) is getattr(one, part)
