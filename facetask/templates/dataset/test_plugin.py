"""The installed plugin keeps its contract and reads what it should."""

from pathlib import Path

import numpy as np
import pytest

from facetask import Dataset, PluginError, PluginManager
from facetask.testing import check_dataset, toy_faces


@pytest.fixture
def dataset() -> Dataset:
    """The plugin as facetask finds it."""
    record = PluginManager().find("dataset", "$name")
    assert isinstance(record, Dataset)
    return record


def test_it_keeps_its_contract(dataset: Dataset, tmp_path: Path) -> None:
    """Two people, of whom one has a picture without an age."""
    for person, name in (("ann", "31_garden.png"), ("ben", "ben.png")):
        (picture,) = toy_faces(tmp_path / person, 1).paths
        picture.rename(picture.with_name(name))
    data = check_dataset(dataset, dataset.params(root=tmp_path, suffix=".png"))
    assert data.column("person").tolist() == ["ann", "ben"]
    assert np.array_equal(data.column("age"), [31, np.nan], equal_nan=True)


def test_a_wrong_folder_is_told(dataset: Dataset, tmp_path: Path) -> None:
    """The message says what was expected."""
    with pytest.raises(PluginError, match="expected a folder for each person"):
        check_dataset(dataset, dataset.params(root=tmp_path))
