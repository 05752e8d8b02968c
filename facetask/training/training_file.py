"""A training on its way, saved after every epoch: its file is whole or not there, and is read without running code."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from facetask.errors import RunDirError

ENDING = ".training.pt"


class TrainingFile:
    """Where one training is saved while it goes on.

    Args:
        path: The file.
        depends: Everything that the training depends on, as JSON values; a file made with others does not count.

    Attributes:
        earlier_s: Seconds that training had taken when the state that was loaded was saved.
    """

    def __init__(self, path: Path, depends: Mapping[str, Any]) -> None:
        self._path, self._depends = path, json.dumps(depends, sort_keys=True)
        self.earlier_s = 0.0

    def part(self, name: str) -> TrainingFile:
        """Return the file of a part of the training."""
        stem = self._path.name.removesuffix(ENDING)
        return TrainingFile(self._path.with_name(f"{stem}.{name}{ENDING}"), json.loads(self._depends))

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, in main memory; None if there is none, a damaged one, or one of something else."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, about files that are none of ours
                state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            if state["depends"] != self._depends:
                return None
            self.earlier_s = float(state["wall_s"])
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state of tensors and plain values.

        Raises:
            RunDirError: If it cannot be written.
        """
        partial = self._path.with_name(self._path.name + ".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({**state, "depends": self._depends}, partial)
            partial.replace(self._path)
        except (OSError, RuntimeError) as error:  # torch's own for a full disk
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise RunDirError(
                f"{self._path}: the training cannot be saved ({error}); make room, or name another folder with --out"
            ) from None

    def remove(self) -> None:
        """Forget the training: its result is stored."""
        self._path.unlink(missing_ok=True)
        self._path.with_name(self._path.name + ".tmp").unlink(missing_ok=True)
