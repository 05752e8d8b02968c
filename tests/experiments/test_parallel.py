"""Pieces of work in several processes: what fails or dies is told, the others go on."""

from __future__ import annotations

import os
from typing import Any

import pytest
from toy_runs import Recorder

from facetask.errors import DataError
from facetask.experiments.parallel import Outcome, default_jobs, in_parallel
from facetask.progress import Reporter


def work(item: Any, reporter: Reporter) -> Any:
    reporter.line(f"on {item}")
    if item == "wrong":
        raise DataError("the user can mend this")
    if item == "bug":
        raise ValueError("nobody expected this")
    if item == "dies":
        os._exit(3)
    if item == "warns":
        reporter.warn("look at this")
    return os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_has_an_outcome_whatever_the_others_do(jobs: int) -> None:
    items = {
        name.upper(): name for name in ("good", "wrong", "bug", "warns", "dies", "last") if jobs > 1 or name != "dies"
    }
    recorder = Recorder()
    found: dict[str, Outcome[int]] = dict(in_parallel(work, items, jobs, recorder))
    assert found.keys() == items.keys()
    assert {name for name, outcome in found.items() if not outcome.error} == {"GOOD", "WARNS", "LAST"}
    assert found["WRONG"].error == "the user can mend this"
    assert found["WRONG"].trace == ""
    assert found["BUG"].error == "ValueError: nobody expected this"
    assert "in work" in found["BUG"].trace
    processes = {outcome.value for outcome in found.values() if outcome.value}
    assert (os.getpid() in processes) == (jobs == 1)
    if jobs > 1:
        assert "exit code 3" in found["DIES"].error
    assert set(recorder.lines) >= {f"{name} | on {item}" for name, item in items.items() if item != "dies"}
    assert recorder.warnings == ["WARNS | look at this"]


def test_no_items_are_no_outcomes() -> None:
    assert list(in_parallel(work, {}, 2, Recorder())) == []


def test_at_least_one_job_and_no_more_than_items() -> None:
    assert default_jobs(1) == 1
    assert 1 <= default_jobs(1000) <= (os.cpu_count() or 1)
