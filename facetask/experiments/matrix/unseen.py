"""No base network is judged on images that it was trained on: what its training saw is left out of a cell's splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from facetask.data.splits import PARTS, Split, group_codes
from facetask.errors import DataError
from facetask.tasks.satellite import Satellite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.images import Images
    from facetask.experiments.pretrain_results import PretrainResults


@dataclass(frozen=True)
class Trained:
    """A network's training.

    Attributes:
        task: The primary task.
        images: The images that it was trained and tested on.
        results: What its training measured; the network is the first trial's.
    """

    task: Satellite
    images: Images
    results: PretrainResults

    @property
    def split(self) -> Split:
        """How the first trial's images were divided."""
        return self.task.split(self.results.trials[0].seed)

    def digests(self, rows: NDArray[np.intp]) -> frozenset[bytes]:
        """Return the content digests of some images."""
        return frozenset(digest.tobytes() for digest in self.images.digests[rows])

    def why_not(self, task: Satellite, images: Images, trials: int, seed: int) -> str:
        """Return why the training's test metrics are no yardstick of a satellite task; empty where they are.

        Args:
            task: The satellite task.
            images: Its images.
            trials: Its number of trials.
            seed: Its first trial's seed.
        """
        if (self.task.spec.kind, self.task.spec.classes) != (task.spec.kind, task.spec.classes):
            return "is trained for labels of another kind or with other classes"
        if self.results.trials[0].seed not in range(seed, seed + trials):
            return "is trained with a seed that no trial has"
        if self._labelled(self.task, self.images) != self._labelled(task, images):
            return "is trained on another split, other labels or other images"
        return ""

    def _labelled(self, task: Satellite, images: Images) -> tuple[dict[bytes, bytes], ...]:
        """Return the labels by image in each part of a task's split for the training's seed."""
        split = task.split(self.results.trials[0].seed)
        return tuple(
            {images.digests[row].tobytes(): task.values[row].tobytes() for row in part}
            for part in (split.train, split.validation, split.test)
        )


@dataclass(frozen=True)
class Unseen(Satellite):
    """A satellite task on a network whose training saw some of the images.

    Attributes:
        fitted: Images that the network's weights were fitted to, ``(n_images,)``: no validation, no test.
        chosen: Images by which its best epoch was chosen, ``(n_images,)``: no test.
    """

    fitted: NDArray[np.bool_]
    chosen: NDArray[np.bool_]

    @classmethod
    def of(cls, task: Satellite, images: Images, trained: Trained) -> Unseen:
        """Return a task without what a training saw; where images form groups, an image stands for its whole group."""
        split = trained.split
        masks = []
        for rows in (split.train, split.validation):
            known = trained.digests(rows)
            mask = np.array([digest.tobytes() in known for digest in images.digests], dtype=bool)
            if task.group_by:
                codes = group_codes(task.data.column(task.group_by))
                mask = np.isin(codes, codes[mask])
            masks.append(mask)
        return cls(
            **{field.name: getattr(task, field.name) for field in fields(task)}, fitted=masks[0], chosen=masks[1]
        )

    def split(self, seed: int) -> Split:
        """Return the partition without validation and test images that training saw.

        Raises:
            DataError: If none is left in one of them, or the task cannot be split.
        """
        whole = super().split(seed)
        validation, test = whole.validation[~self.fitted[whole.validation]], whole.test
        test = test[~(self.fitted | self.chosen)[test]]
        for part, rows, before in zip(PARTS[1:], (validation, test), (whole.validation, whole.test), strict=True):
            if not len(rows):
                raise DataError(
                    f"task {self.spec.name!r}: the base network was trained on all {len(before)} images of its {part} "
                    f"split (seed {seed}); train the network with the same data, split and seed, or on other images"
                )
        return Split(whole.train, validation, test)

    def n_left_out(self, seed: int) -> int:
        """Return how many validation and test images are left out."""
        whole, left = super().split(seed), self.split(seed)
        return len(whole.validation) + len(whole.test) - len(left.validation) - len(left.test)

    def seen(self) -> str:
        """Return a digest of what training saw."""
        return hashlib.blake2b(self.fitted.tobytes() + self.chosen.tobytes(), digest_size=16).hexdigest()
