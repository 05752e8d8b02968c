"""Images on their way to a network: decoded by worker processes, normalised, moved to the device."""

from __future__ import annotations

import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from facetask.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.images import Images
    from facetask.data.preprocessing import Preprocessing

FEW_IMAGES = 64
MOST_WORKERS = 8


@dataclass(frozen=True)
class ImageLoader:
    """How images reach a network.

    Attributes:
        images: The run's images.
        preprocessing: What the network expects of an image.
        device: Where it runs.
        batch_size: Images per forward pass, outside training.
        workers: Processes that decode images; ``auto`` leaves one core to the network.
    """

    images: Images
    preprocessing: Preprocessing
    device: str
    batch_size: int
    workers: int | str

    def outputs(
        self, network: nn.Module, rows: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield ``(rows, outputs)`` batch by batch, outputs ``(batch, n_outputs)``, in evaluation mode.

        Every core takes a batch of its own: that is quicker than all cores sharing one, above all on a busy machine.

        Raises:
            DataError: If an image cannot be read any more.
        """
        network.to(device=self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        starts = range(0, len(rows), self.batch_size)
        batches = [np.arange(i, min(i + self.batch_size, len(rows))) for i in starts]

        def forward(inputs: Tensor) -> NDArray[np.float32]:
            with torch.inference_mode():
                return np.asarray(network(inputs).float().cpu().numpy())

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                waiting: deque[tuple[NDArray[np.intp], Future[NDArray[np.float32]]]] = deque()
                unreadable: DataError | None = None
                try:
                    for batch, inputs in self.batches(rows, batches):
                        waiting.append((batch, pool.submit(forward, inputs)))
                        if len(waiting) > threads:
                            done, outputs = waiting.popleft()
                            yield done, outputs.result()
                except DataError as error:  # after the batches that are on their way
                    unreadable = error
                for done, outputs in waiting:
                    yield done, outputs.result()
                if unreadable is not None:
                    raise unreadable
        finally:
            torch.set_num_threads(threads)

    def all_outputs(self, network: nn.Module, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the outputs for one or more images, ``(len(rows), n_outputs)``."""
        return np.concatenate([outputs for _, outputs in self.outputs(network, rows)])

    def batches(
        self,
        rows: NDArray[np.intp],
        batches: Sequence[NDArray[np.intp]],
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Yield ``(rows, inputs)`` for batches of positions in ``rows``.

        Args:
            rows: Rows of the images.
            batches: Positions in ``rows`` of each batch.
            change: Augments a batch of uint8 pixels before it is normalised.

        Raises:
            DataError: If an image cannot be read any more.
        """
        from torch.utils.data import DataLoader

        if not batches:
            return  # and start no workers for nothing
        decoded: DataLoader[Any] = DataLoader(
            _Pixels(self.images, rows, self.preprocessing),  # type: ignore[arg-type]
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self._n_workers(len(rows)),
            collate_fn=_collate,
            worker_init_fn=_leave_interrupts_to_the_parent,
        )
        for positions, pixels in zip(batches, decoded, strict=True):
            if isinstance(pixels, str):
                raise DataError(f"an image became unreadable during the run: {pixels}")
            tensor = torch.from_numpy(pixels)
            changed = tensor if change is None else change(tensor)
            inputs = self.preprocessing.normalise(changed.to(self.device))
            yield rows[positions], inputs.contiguous(memory_format=torch.channels_last)

    def _n_workers(self, n_images: int) -> int:
        """Return how many worker processes to start; none for a handful of images."""
        if isinstance(self.workers, int):
            return self.workers
        return 0 if n_images < FEW_IMAGES else max(1, min(MOST_WORKERS, (os.cpu_count() or 1) - 1))


class _Pixels:
    """A torch map-style dataset of (index, pixels or error message)."""

    def __init__(self, images: Images, rows: NDArray[np.intp], preprocessing: Preprocessing) -> None:
        self._paths = [str(images.data.paths[row]) for row in rows]
        self._points = None if images.points is None else images.points[rows]
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8] | str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on damaged EXIF data beside sound pixels
            try:
                points = None if self._points is None else self._points[index]
                return self._preprocessing.load(Path(self._paths[index]), points)
            except DataError as error:
                return str(error)


def _collate(items: list[NDArray[np.uint8] | str]) -> NDArray[np.uint8] | str:
    """Stack pixels, or return the first error message.

    Workers send arrays, not tensors: these would lie in shared memory, which containers are short of, and a worker that
    is interrupted while it hands one over complains.
    """
    for item in items:
        if isinstance(item, str):
            return item
    return np.stack(items)


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Make Ctrl-C reach the main process alone, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
