"""What plugins share with the run around them."""

from __future__ import annotations

import pytest
from toy_runs import Recorder, Toy

from facetask.context import current_plugins, current_reporter, run_context
from facetask.plugin_manager import default_manager
from facetask.progress import Silent


def test_outside_of_a_run_nothing_is_reported_and_the_default_plugins_are_known() -> None:
    assert isinstance(current_reporter(), Silent)
    assert current_plugins() is default_manager()


def test_inside_it_they_are_the_run_s_and_afterwards_no_more(toy: Toy) -> None:
    outer, inner = Recorder(), Recorder()
    with run_context(toy.plugins, outer):
        with run_context(default_manager(), inner):
            assert current_reporter() is inner
        with pytest.raises(ZeroDivisionError), run_context(default_manager(), inner):
            1 / 0  # noqa: B018
        assert current_reporter() is outer
        assert current_plugins() is toy.plugins
    assert isinstance(current_reporter(), Silent)
