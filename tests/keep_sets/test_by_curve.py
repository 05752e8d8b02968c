"""From curves to keep sets, on groups made up for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetask.config import KneeSize, PruneConfig
from facetask.keep_sets.by_curve import TaskAtCut, TrialCurves, choose_keep_sets
from facetask.stages.curve import Curves
from facetask.statistics.curves import Curve
from facetask.surgery import CoupledGroup


def bent(*supports: list[int], knee: int) -> Curve:
    """A curve through some supports whose knee is at one of them."""
    arrays = tuple(np.array(support) for support in supports)
    rmse = tuple(1.0 if i >= knee else 10.0 for i in range(len(supports)))
    order = list(dict.fromkeys(index for support in supports for index in support))
    return Curve(
        n_filters=tuple(map(len, supports)), rmse=rmse, supports=arrays, unpruned_rmse=1.0, order=np.array(order)
    )


class Picker:
    """A chooser's stand-in: answers with one curve and remembers what it was asked."""

    def __init__(self, answer: Curve | None = None, scope: str = "group") -> None:
        self.selector, self.asked, self._answer = SimpleNamespace(scope=scope), [], answer

    def curve(self, responses: Any, taps: Any, component: np.ndarray, task: Any, split: Any) -> Curve:
        self.asked.append((tuple(taps), component.tolist()))
        assert self._answer is not None, "the taps' own curves were to decide"
        return self._answer


def group(n: int, fixed: tuple[int, ...] = (), **component: list[int]) -> CoupledGroup:
    return CoupledGroup(
        taps=tuple(component),
        component={tap: np.array(own) for tap, own in component.items()},
        n_components=n,
        fixed=np.isin(np.arange(n), fixed),
    )


def keep_sets(
    groups: list[CoupledGroup],
    picker: Picker,
    couple: str = "group",
    round_to: int = 1,
    follows: Mapping[str, str] | None = None,
    others: Sequence[tuple[Picker, dict[str, Curve]]] = (),
    prune: Mapping[str, Any] | None = None,
    **curves: Curve,
) -> tuple[Any, Any]:
    """The keep sets as lists, and how they were chosen."""
    taps = [SimpleNamespace(name=tap) for each in groups for tap in each.taps]
    graph: Any = SimpleNamespace(groups=tuple(groups), taps=taps)
    trials = [TrialCurves(None, Curves(taps), chooser) for chooser, taps in ((picker, curves), *others)]  # type: ignore[arg-type]
    keep, (choices,) = choose_keep_sets(
        graph,
        follows or {},
        None,  # type: ignore[arg-type]
        [TaskAtCut(None, graph, None, trials)],  # type: ignore[arg-type]
        PruneConfig(couple=couple, round_to=round_to, **(prune or {})),  # type: ignore[arg-type]
    )
    return {tap: kept.tolist() for tap, kept in keep.items()}, choices


def test_a_tap_of_its_own_keeps_its_own_curve_s_knee() -> None:
    drawn = bent([2], [0, 2], [0, 1, 2], knee=1)
    picker = Picker()
    keep, (choice,) = keep_sets([group(3, a=[0, 1, 2])], picker, a=drawn)
    assert keep == {"a": [0, 2]}
    assert (choice.taps, choice.n_components, choice.curve, choice.kept) == (("a",), 3, drawn, 2)
    assert picker.asked == []


def test_a_coupled_group_keeps_the_knee_of_one_curve_over_its_taps() -> None:
    coupled = group(4, a=[0, 1, 2], b=[2, 1, 3])
    picker = Picker(bent([1], [1, 2], [0, 1, 2, 3], knee=1))
    keep, (choice,) = keep_sets([coupled], picker, a=bent([0], knee=0), b=bent([2], knee=0))
    assert picker.asked == [(("a", "b"), [0, 1, 2, 2, 1, 3])]
    assert keep == {"a": [1, 2], "b": [0, 1]}
    assert choice.kept == 2


def test_one_tap_whose_filters_share_components_needs_a_curve_of_components() -> None:
    picker = Picker(bent([1], [0, 1], knee=0))
    keep, _ = keep_sets([group(2, a=[0, 1, 0, 1])], picker, a=bent([0], knee=0))
    assert picker.asked == [(("a",), [0, 1, 0, 1])]
    assert keep == {"a": [1, 3]}


def test_fixed_components_are_kept_and_fixed_groups_left_alone() -> None:
    groups = [group(4, (3,), a=[0, 1, 2, 3]), group(2, (0, 1), b=[0, 1])]
    keep, choices = keep_sets(groups, Picker(), a=bent([1], [0, 1, 2, 3], knee=0), b=bent([0], knee=0))
    assert keep == {"a": [1, 3]}
    assert [choice.taps for choice in choices] == [("a",)]
    assert choices[0].kept == 2


# Component:        0  1  2  3  4
# tap a (filters)   0  1  2  3  –   its knee wants 0, 1
# tap b (filters)   –  0  1  2  3   its knee wants components 1, 4
COUPLED = {"a": [0, 1, 2, 3], "b": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("couple", "expected"),
    [
        ("union", {"a": [0, 1], "b": [0, 3]}),  # components 0, 1, 4
        ("intersection", {"a": [0, 1], "b": [0, 3]}),  # 0 and 4 have no other tap to refuse them
    ],
)
def test_each_tap_s_own_knee_union_or_intersection(couple: str, expected: dict[str, list[int]]) -> None:
    curves = {"a": bent([0, 1], [0, 1, 2, 3], knee=0), "b": bent([0, 3], [0, 1, 2, 3], knee=0)}
    keep, (choice,) = keep_sets([group(5, **COUPLED)], Picker(), couple, **curves)
    assert keep == expected
    assert choice.curve is None
    assert choice.kept == 3


def test_intersection_drops_what_one_tap_refuses_union_keeps_it() -> None:
    curves = {"a": bent([0, 1, 2], knee=0), "b": bent([1, 2], knee=0)}  # components 0, 1, 2 and 2, 3
    groups = [group(5, (4,), **COUPLED)]
    assert keep_sets(groups, Picker(), "union", **curves)[0] == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    assert keep_sets(groups, Picker(), "intersection", **curves)[0] == {"a": [0, 2], "b": [1, 3]}


def test_no_tap_is_left_with_nothing() -> None:
    # The knee keeps component 0 alone, which tap b does not have; of b's own, the path takes 3 first.
    picker = Picker(bent([0], [0, 3], [0, 1, 2, 3], knee=0))
    keep, (choice,) = keep_sets([group(5, **COUPLED)], picker)
    assert keep == {"a": [0, 3], "b": [2]}
    assert choice.kept == 2
    # The path never takes any of b's: its first stays.
    picker = Picker(bent([0], knee=0))
    assert keep_sets([group(5, **COUPLED)], picker)[0] == {"a": [0, 1], "b": [0]}
    # Two taps that refuse each other's only filter.
    curves = {"a": bent([0], [0, 1], knee=0), "b": bent([1], [0, 1], knee=0)}
    both = group(2, a=[0, 1], b=[0, 1])
    assert keep_sets([both], Picker(), "intersection", **curves)[0] == {"a": [0], "b": [0]}


@pytest.mark.parametrize("couple", ["group", "union", "intersection"])
def test_a_selector_for_everything_is_asked_once(couple: str) -> None:
    groups = [group(3, (2,), a=[0, 1, 2]), group(2, b=[0, 1], c=[1, 0]), group(2, (0, 1), d=[0, 1])]
    picker = Picker(bent([1, 3], [0, 1, 2, 3, 4, 5, 6], knee=0), scope="all")
    keep, (choice,) = keep_sets(groups, picker, couple)
    assert picker.asked == [(("a", "b", "c", "d"), [0, 1, 2, 3, 4, 4, 3, 5, 6])]
    assert keep == {"a": [1, 2], "b": [0], "c": [1], "d": [0, 1]}
    assert (choice.n_components, choice.kept) == (7, 5)


# Taps that follow another (LightCNN's first max-feature-map of a group layer)


FOLLOWING = {"b": "a", "c": "b"}


def three(*, knees: tuple[int, int, int] = (0, 0, 0)) -> tuple[list[CoupledGroup], dict[str, Curve]]:
    groups = [group(3, **{tap: [0, 1, 2]}) for tap in "abc"]
    wanted = {"a": [0, 2], "b": [1], "c": [0]}
    return groups, {tap: bent(wanted[tap], [0, 1, 2], knee=knee) for tap, knee in zip("abc", knees, strict=True)}


def test_a_tap_that_follows_keeps_the_same_indices_without_a_curve_of_its_own() -> None:
    groups, curves = three()
    keep, choices = keep_sets(groups, Picker(), follows={"b": "a"}, **curves)
    assert keep == {"a": [0, 2], "b": [0, 2], "c": [0]}
    assert [choice.taps for choice in choices] == [("a",), ("c",)]


def test_couple_free_lets_it_go() -> None:
    groups, curves = three()
    assert keep_sets(groups, Picker(), "free", follows={"b": "a"}, **curves)[0] == {"a": [0, 2], "b": [1], "c": [0]}


def test_the_tap_at_the_cut_decides_for_itself() -> None:
    groups, curves = three()
    assert keep_sets(groups, Picker(), follows=FOLLOWING, **curves)[0] == {"a": [0, 2], "b": [0, 2], "c": [0]}


def test_a_tap_that_is_coupled_with_others_goes_by_its_group() -> None:
    groups = [group(3, a=[0, 1, 2]), group(3, b=[0, 1, 2], d=[0, 1, 2]), group(3, c=[0, 1, 2])]
    _, curves = three()
    picker = Picker(bent([2], [0, 1, 2], knee=0))
    keep, _ = keep_sets(groups, picker, follows={"b": "a"}, **curves)
    assert keep == {"a": [0, 2], "b": [2], "d": [2], "c": [0]}


# Rounded widths


@pytest.mark.parametrize(
    ("n_kept", "expected"),
    [(1, 4), (5, 4), (6, 8), (9, 8), (10, 10), (7, 8)],  # at least one multiple; halves go up; 10 is all there is
)
def test_widths_are_rounded_to_the_nearest_multiple(n_kept: int, expected: int) -> None:
    path = [list(range(9, 9 - k, -1)) for k in range(1, 11)]
    drawn = bent(*map(sorted, path), knee=n_kept - 1)
    keep, (choice,) = keep_sets([group(10, a=list(range(10)))], Picker(), round_to=4, a=drawn)
    # The path takes 9, 8, …: the last taken go first, and those that the path takes next come first.
    assert keep == {"a": list(range(10 - expected, 10))}
    assert choice.kept == expected


def test_fixed_components_stay_whatever_the_rounding() -> None:
    drawn = bent([0], [0, 1], list(range(8)), knee=0)
    keep, _ = keep_sets([group(8, (5, 6, 7), a=list(range(8)))], Picker(), round_to=2, a=drawn)
    assert keep == {"a": [0, 5, 6, 7]}


@given(
    st.integers(1, 9), st.lists(st.booleans(), min_size=4, max_size=40), st.integers(0, 39), st.sampled_from([1, 2, 3])
)
def test_every_tap_s_width_is_a_multiple_or_all_that_there_is(
    multiple: int, mask: list[bool], shared: int, channels: int
) -> None:
    """Tap a has all components, b the first of them, and in c each owns several channels."""
    n, wanted = len(mask), np.flatnonzero(mask).tolist() or [0]
    few = list(range(1 + shared % n))
    coupled = group(n, a=list(range(n)), b=few, c=[i for i in range(n) for _ in range(channels)])
    keep, (choice,) = keep_sets([coupled], Picker(bent(wanted, knee=0)), round_to=multiple)
    for tap, full in (("a", n), ("b", len(few))):
        parts = [len(set(keep[tap]) & set(part)) for part in (few, set(range(full)) - set(few))]
        whole = [len(few), full - len(few)]
        assert all(part % multiple == 0 or part == most for part, most in zip(parts, whole, strict=True)), parts
        assert len(keep[tap]) >= 1
    assert len(keep["c"]) == channels * choice.kept


def test_components_that_own_several_channels_need_fewer_of_them() -> None:
    drawn = bent([0], [0, 1], [0, 1, 2], [0, 1, 2, 3], knee=0)
    keep, _ = keep_sets([group(4, a=[0, 1, 2, 3, 0, 1, 2, 3])], Picker(drawn), round_to=4)
    assert keep == {"a": [0, 1, 4, 5]}


# Other rules


def nested(*order: int, rmse: Sequence[float] = ()) -> Curve:
    """A curve through an order's first components, one more at each point."""
    supports = [sorted(order[: k + 1]) for k in range(len(order))]
    drawn = bent(*supports, knee=0)
    return replace(drawn, order=np.array(order), rmse=tuple(rmse) or drawn.rmse)


@pytest.mark.parametrize(
    ("couple", "expected"),
    [
        ("group", {"a": [0, 1], "b": [0]}),  # components 0, 1
        ("free", {"a": [0, 1], "b": [0]}),
        ("union", {"a": [0, 1, 2], "b": [0, 1, 3]}),  # components 2 and 0, 1 and 4
        ("intersection", {"a": [0], "b": [3]}),  # 1 and 2 are refused by the other
    ],
)
def test_a_number_of_components_of_each_group_or_tap(couple: str, expected: dict[str, list[int]]) -> None:
    curves = {"a": nested(0, 2, 1, 3), "b": nested(0, 3, 1, 2)}
    picker = Picker(nested(1, 0, 4, 2, 3))
    keep, (choice,) = keep_sets([group(5, **COUPLED)], picker, couple, prune={"knee": KneeSize(filters=2)}, **curves)
    assert keep == expected
    assert choice.knee == (2 if couple in ("group", "free") else None)


def test_a_fraction_of_everything_at_once() -> None:
    groups = [group(3, a=[0, 1, 2]), group(5, b=[0, 1, 2, 3, 4])]
    picker = Picker(nested(4, 7, 0, 3, 1, 2, 5, 6), scope="all")
    keep, (choice,) = keep_sets(groups, picker, prune={"knee": KneeSize(fraction=0.5)})
    assert keep == {"a": [0], "b": [0, 1, 4]}
    assert (choice.knee, choice.kept) == (4, 4)


def test_what_is_fixed_counts_among_the_number() -> None:
    picker = Picker()
    drawn = nested(5, 1, 2, 0, 3, 4)
    fixed = [group(6, (3, 4), a=list(range(6)))]
    assert keep_sets(fixed, picker, prune={"knee": KneeSize(filters=3)}, a=drawn)[0] == {"a": [3, 4, 5]}
    assert keep_sets(fixed, picker, prune={"knee": KneeSize(filters=1)}, a=drawn)[0] == {"a": [3, 4]}


def test_a_number_is_rounded_like_any_width() -> None:
    keep, _ = keep_sets(
        [group(10, a=list(range(10)))], Picker(), round_to=4, prune={"knee": KneeSize(filters=5)}, a=nested(*range(10))
    )
    assert keep == {"a": [0, 1, 2, 3]}


def test_the_elbow_decides() -> None:
    drawn = nested(3, 1, 0, 2, rmse=[9.0, 2.0, 1.8, 1.7])
    keep, (choice,) = keep_sets([group(4, a=[0, 1, 2, 3])], Picker(), prune={"knee": "elbow"}, a=drawn)
    assert keep == {"a": [1, 3]}
    assert choice.knee == 2


SURE, OTHER = [4.0, 2.0, 1.0, 0.9], [4.0, 2.0, 1.4, 1.1]  # means 4, 2, 1.2, 1.0; the error at 4 is 0.1


@pytest.mark.parametrize("couple", ["group", "union", "intersection"])
def test_one_standard_error_asks_all_trials(couple: str) -> None:
    rule = {"knee": "one-standard-error"}
    own = nested(3, 1, 0, 2, rmse=SURE)
    others = [(Picker(), {"a": nested(0, 1, 2, 3, rmse=OTHER)})]
    keep, (choice,) = keep_sets([group(4, a=[0, 1, 2, 3])], Picker(), couple, prune=rule, others=others, a=own)
    assert keep == {"a": [0, 1, 2, 3]}
    # A little more spread, and the point before is within it.
    others = [(Picker(), {"a": nested(0, 1, 2, 3, rmse=[4.0, 2.0, 1.4, 1.5])})]
    keep, (choice,) = keep_sets([group(4, a=[0, 1, 2, 3])], Picker(), couple, prune=rule, others=others, a=own)
    assert keep == {"a": [0, 1, 3]}  # how many, all trials say; which, its own path
    assert choice.kept == 3


def test_a_coupled_group_s_curve_is_drawn_on_every_trial_s_split_once_and_only_where_needed() -> None:
    coupled = [group(4, a=[0, 1, 2], b=[2, 1, 3])]
    pickers = [Picker(nested(3, 1, 0, 2, rmse=SURE)), Picker(nested(0, 1, 2, 3, rmse=OTHER))]
    trials = [TrialCurves(None, Curves({}), picker) for picker in pickers]  # type: ignore[arg-type]
    graph: Any = SimpleNamespace(groups=tuple(coupled), taps=[SimpleNamespace(name="a"), SimpleNamespace(name="b")])

    def keep(*order: int, **settings: Any) -> int:
        picked = [trials[index] for index in order]
        task = TaskAtCut(None, graph, None, picked)  # type: ignore[arg-type]
        _, ((choice,),) = choose_keep_sets(graph, {}, None, [task], PruneConfig(**settings))  # type: ignore[arg-type]
        assert choice.curve is pickers[order[0]]._answer
        return choice.kept

    keep(0, 1)
    assert [len(picker.asked) for picker in pickers] == [1, 0]
    keep(0, 1, knee="one-standard-error")
    keep(1, 0, knee="one-standard-error")
    assert [len(picker.asked) for picker in pickers] == [1, 1]


# Stable filters


def test_stable_filters_are_those_that_most_draws_choose() -> None:
    own = replace(nested(0, 1, 2, 3, rmse=[3.0, 1.0, 1.0, 1.0]), resampled=(np.array([2, 0]), np.array([0, 2, 1])))
    others = [(Picker(), {"a": nested(2, 3, 0, 1)})]
    # Two at the knee. Of four draws 0 is among the first two in 3, 2 in 3, 1 and 3 in 1.
    found = {}
    for least in (0.25, 0.75, 1.0):
        keep, (choice,) = keep_sets([group(4, a=[0, 1, 2, 3])], Picker(), prune={"stable": least}, others=others, a=own)
        found[least] = (keep["a"], choice.knee, choice.notes)
    assert found[0.25][:2] == ([0, 1, 2, 3], 2)
    assert found[0.75] == ([0, 2], 2, ("2 kept, 2 at the knee: chosen in at least 75% of 4 draws",))
    assert found[1.0] == ([0], 2, ("1 kept: none is chosen in 100% of 4 draws, this one most often",))


def test_stable_filters_of_each_tap_fixed_and_rounded() -> None:
    curves = {"a": nested(0, 2, 1, 3, rmse=[3.0, 1.0, 1.0, 1.0]), "b": nested(0, 3, 1, 2)}
    others = [(Picker(), {"a": nested(2, 1, 0, 3), "b": nested(0, 3, 1, 2)})]
    keep, (choice,) = keep_sets(
        [group(5, (3,), **COUPLED)], Picker(), "union", prune={"stable": 1.0}, others=others, **curves
    )
    # Component 2 of tap a's two, 1 of tap b's one, and the fixed 3.
    assert keep == {"a": [1, 2, 3], "b": [0, 1, 2]}
    assert choice.notes == (
        "a: 1 kept, 2 at the knee: chosen in at least 100% of 2 draws",
        "b: 1 kept, 1 at the knee: chosen in at least 100% of 2 draws",
    )
    rounded, _ = keep_sets(
        [group(4, a=[0, 1, 2, 3])], Picker(), prune={"stable": 1.0}, others=others, round_to=2, a=curves["a"]
    )
    assert rounded == {"a": [0, 2]}  # 2 alone is stable; of the others, chosen once each, 0 comes first on its own path


# Several tasks that share a network


def shared(
    groups: list[CoupledGroup], *tasks: tuple[list[CoupledGroup], str, dict[str, Curve]], **settings: Any
) -> tuple[dict[str, list[int]], Any]:
    """The keep sets of tasks that each see the groups below their own cut."""

    def graph(own: list[CoupledGroup], cut: str) -> Any:
        names = [tap for each in own for tap in each.taps if tap != cut]
        return SimpleNamespace(groups=tuple(own), taps=[SimpleNamespace(name=tap) for tap in (*names, cut)])

    at_cut = [
        TaskAtCut(None, graph(own, cut), None, [TrialCurves(None, Curves(curves), Picker())])  # type: ignore[arg-type]
        for own, cut, curves in tasks
    ]
    follows = settings.pop("follows", {})
    keep, choices = choose_keep_sets(
        graph(groups, groups[-1].taps[-1]),
        follows,
        None,  # type: ignore[arg-type]
        at_cut,
        PruneConfig(**settings),
    )
    return {tap: kept.tolist() for tap, kept in keep.items()}, choices


def test_what_any_task_chooses_is_kept_and_each_says_how_it_chose() -> None:
    a, b = group(4, a=[0, 1, 2, 3]), group(3, b=[0, 1, 2])
    low = {"a": bent([1], [1, 3], [0, 1, 2, 3], knee=1)}
    high = {"a": bent([0], [0, 1, 2, 3], knee=0), "b": bent([2], [0, 1, 2], knee=0)}
    keep, (one, other) = shared([a, b], ([a], "a", low), ([a, b], "b", high))
    assert keep == {"a": [0, 1, 3], "b": [2]}
    assert [(choice.taps, choice.curve, choice.kept) for choice in one] == [(("a",), low["a"], 3)]
    assert [(choice.taps, choice.curve, choice.kept) for choice in other] == [
        (("a",), high["a"], 3),
        (("b",), high["b"], 1),
    ]
    assert [choice.knee for choice in (*one, *other)] == [2, 1, 1]


def test_a_lower_task_s_filters_bring_their_components_in_the_larger_group() -> None:
    # Below the lower cut, tap a is on its own, in another numbering; above it, an addition ties it to b.
    tied = group(5, a=[4, 1, 2, 3], b=[1, 2, 3, 0])
    low = {"a": bent([0], [0, 1, 2, 3], knee=0)}  # the component 4 of the whole
    high = {"a": bent([1], [0, 1, 2, 3], knee=0), "b": bent([0], [0, 1, 2, 3], knee=0)}  # both its component 1
    own = group(4, a=[0, 1, 2, 3])
    keep, _ = shared([tied], ([own], "a", low), ([tied], "b", high), couple="union")
    assert keep == {"a": [0, 1], "b": [0]}


def test_the_union_is_rounded_once_by_the_best_place_that_any_task_gives() -> None:
    a = group(8, a=list(range(8)))
    one = {"a": bent([5], [5, 2], [5, 2, 0, 1, 3, 4, 6, 7], knee=1)}
    other = {"a": bent([7], [7, 6], [7, 6, 0, 1, 2, 3, 4, 5], knee=0)}
    assert shared([a], ([a], "a", one), ([a], "a", other))[0] == {"a": [2, 5, 7]}
    keep, ((first,), (second,)) = shared([a], ([a], "a", one), ([a], "a", other), round_to=4)
    assert keep == {"a": [2, 5, 6, 7]}  # 6 is the second of one task, no other comes sooner
    assert first.kept == second.kept == 4


def test_a_tap_that_follows_another_does_so_unless_some_head_reads_it() -> None:
    groups = [group(3, a=[0, 1, 2]), group(3, b=[0, 1, 2]), group(2, c=[0, 1])]
    curves = {"a": bent([0], knee=0), "b": bent([2], knee=0), "c": bent([1], knee=0)}
    alone = shared(groups, (groups, "c", curves), follows={"b": "a"})[0]
    assert alone == {"a": [0], "b": [0], "c": [1]}
    both = shared(groups, (groups, "c", curves), (groups[:2], "b", curves), follows={"b": "a"})[0]
    assert both == {"a": [0], "b": [2], "c": [1]}
