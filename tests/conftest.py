"""What all tests share: a cache of their own, and real images where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from toy_runs import Finished, Toy, make_toy

# No test fails because a machine is slow.
settings.register_profile("facetask", deadline=None)
settings.load_profile("facetask")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACETASK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real face images: FACETASK_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("FACETASK_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real images in {root}; set FACETASK_DATA to a folder that holds them")
    return root


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy run's ingredients: a tiny network and 60 images."""
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def finished(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The toy run, finished once for all tests."""
    path = tmp_path_factory.mktemp("runs") / "toy"
    return Finished(path, *toy.run(path))
