"""The installed plugin keeps its contract and takes a checkpoint's weights."""

from pathlib import Path

import pytest
import torch

from facetask import Architecture, PluginManager
from facetask.testing import check_architecture


@pytest.fixture
def architecture() -> Architecture:
    """The plugin as facetask finds it."""
    record = PluginManager().find("architecture", "$name")
    assert isinstance(record, Architecture)
    return record


@pytest.mark.parametrize("width", [16, 5])
def test_it_keeps_its_contract(architecture: Architecture, width: int) -> None:
    """It builds, takes its weights, gives finite responses and can be pruned."""
    check_architecture(architecture, architecture.params(width=width))


def test_a_checkpoint_of_your_own(architecture: Architecture, tmp_path: Path) -> None:
    """Its weights are taken, and a pruned network can be built without it."""
    state = architecture.build(architecture.params()).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    params = architecture.params(checkpoint=tmp_path / "mine.pth")
    check_architecture(architecture, params)
    found = architecture.weights(params).state
    assert all(found[key].equal(value) for key, value in state.items())
    assert architecture.portable(params) == architecture.params()
