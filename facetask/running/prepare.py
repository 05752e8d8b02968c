"""From a configuration to what the stages work on: network, images, tasks and responses."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from facetask.context import run_context
from facetask.data.alignment import POINTS, is_known, with_margin
from facetask.data.images import Images, load_images
from facetask.data.landmarks import DETECTED_LICENCE, face_points
from facetask.data.loader import ImageLoader
from facetask.data.slices import Slicing, slicings
from facetask.errors import ConfigError, PluginError, first_names
from facetask.models.checkpoint import load_base
from facetask.networks.base_network import BaseNetwork, load_network
from facetask.responses import ResponseCache, Responses, collect_responses
from facetask.tasks.label_warnings import label_warnings
from facetask.tasks.satellite import Satellite, load_satellites, seed_of_trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import AlignConfig, ComputeConfig, RunConfig
    from facetask.data.preprocessing import Preprocessing
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.records import Selector


@dataclass(frozen=True)
class Materials:
    """What a configuration names, loaded and checked.

    Attributes:
        network: The base network.
        images: The usable images.
        tasks: The satellite tasks with their labels.
        selector: The selector's record.
        cache: The network's cached responses.
        loader: How images reach a network.
        slices: The groups of images by which metrics are reported too.
    """

    network: BaseNetwork
    images: Images
    tasks: tuple[Satellite, ...]
    selector: Selector
    cache: ResponseCache
    loader: ImageLoader
    slices: tuple[Slicing, ...]


def prepare(config: RunConfig, plugins: PluginManager, reporter: Reporter) -> Materials:
    """Load and check everything that a configuration names, without computing responses.

    Raises:
        FacetaskError: If anything is missing or wrong; see the errors of each part.
    """
    device = set_up_compute(config.compute)
    selector: Selector = plugins.find("selector", config.selector.name)  # type: ignore[assignment]
    network = _network(config, plugins)
    if isinstance(config.prune.cut, str) and config.prune.cut != "best":
        network.graph.tap(config.prune.cut)
    for frozen in network.graph.frozen:
        what = f"{first_names(frozen.taps)} stay whole" if frozen.taps else "no tap is affected"
        reporter.warn(f"surgery does not know {frozen.operation} at {frozen.where}: {what}")
    cache = ResponseCache(network.fingerprint(), sum(tap.n_filters for tap in network.graph.taps))
    images = load_images(config.data, plugins, reporter, cache.__contains__)
    with run_context(plugins, reporter):
        if config.data.align is not None:
            images = replace(images, points=_points(images, config.data.align, reporter))
        tasks = load_satellites(config.satellite_tasks, config.split, images.data, plugins)
    slices = slicings(config.slices, images.data)
    content = np.unique(images.digests, return_inverse=True)[1]
    for task in tasks:
        for note in task.given.notes:
            reporter.line(f"labels {task.spec.name}: {note}")
        splits = [task.split(seed_of_trial(config.seed, trial)) for trial in range(config.trials)]
        for warning in label_warnings(task, splits, content, selector):
            reporter.warn(warning)
        if config.finetune is not False:
            task.kind.choose_loss(config.finetune.loss)
    loader = ImageLoader(images, network.preprocessing, device, config.compute.batch_size, config.compute.workers)
    return Materials(network, images, tasks, selector, cache, loader, slices)


def _network(config: RunConfig, plugins: PluginManager) -> BaseNetwork:
    """Return the base network: an architecture's, or a model that an earlier run saved."""
    base = config.base_network
    if base.model is not None:
        network = load_base(base.model, plugins)
    else:
        assert base.name is not None
        network = load_network(base.name, base.params, plugins)
    where = f"base network {base.name or base.model}"
    face = None if config.data.align is None else _wanted_face(network.preprocessing, config.data.align, where)
    return replace(network, preprocessing=replace(network.preprocessing, crop=config.data.crop, face=face))


def _wanted_face(preprocessing: Preprocessing, align: AlignConfig, where: str) -> tuple[tuple[float, float], ...]:
    """Return where faces shall lie in the network's input: as the configuration says, else as the network wants it.

    Raises:
        ConfigError: If neither is known.
        PluginError: If the architecture's own are no five points.
    """
    face, (height, width) = preprocessing.face, preprocessing.size
    if align.to is not None:
        face = tuple((x * width - 0.5, y * height - 0.5) for x, y in align.to)
    if face is None:
        raise ConfigError(
            f"data.align: {where} does not say where it wants a face to lie; give data.align.to, the places of "
            f"{', '.join(POINTS)} as shares of its input's width and height, such as "
            "[[0.32, 0.31], [0.67, 0.31], [0.49, 0.51], [0.34, 0.69], [0.65, 0.69]], or leave align out"
        )
    points = np.array(face, dtype=np.float64)
    if points.shape != (len(POINTS), 2) or not np.isfinite(points).all() or not is_known(points):
        raise PluginError(f"{where}: preprocessing.face must be five (x, y) in pixels, both eyes apart; found {face}")
    return with_margin(face, preprocessing.size, align.margin)


def _points(images: Images, align: AlignConfig, reporter: Reporter) -> NDArray[np.float64]:
    """Return the points that images are aligned by, ``(n, 5, 2)``; report where there are none."""
    points = face_points(images.data, align)
    unknown = np.flatnonzero(~is_known(points))
    if align.landmarks == "detect":
        reporter.line(f"align: {DETECTED_LICENCE}")
    if len(unknown):
        names = first_names([images.data.paths[row].name for row in unknown])
        reporter.warn(
            f"align: no face is known on {len(unknown)} of {len(points)} images, which are used as they are: {names}"
        )
    return points


def respond(materials: Materials, reporter: Reporter) -> Responses:
    """Return all taps' responses for all images, in one forward pass."""
    graph, images = materials.network.graph, materials.images
    start = time.perf_counter()
    cached = sum(key.tobytes() in materials.cache for key in images.keys)
    with reporter.bar("responses", len(images.keys)) as advance:
        matrix = collect_responses(graph.responder(), materials.loader, materials.cache, advance)
    wall_s = time.perf_counter() - start
    n = len(matrix)
    reporter.line(
        f"responses: {n} images × {matrix.shape[1]} filters of {len(graph.taps)} taps, "
        + (f"all from the cache, {wall_s:.1f} s" if cached == n else f"{cached} from the cache, {wall_s:.1f} s")
    )
    columns, start_column = {}, 0
    for tap in graph.taps:
        columns[tap.name] = slice(start_column, start_column + tap.n_filters)
        start_column += tap.n_filters
    return Responses(matrix, columns)


def set_up_compute(compute: ComputeConfig) -> str:
    """Set torch's threads and return the device to use.

    Raises:
        ConfigError: If the device does not exist here.
    """
    import torch

    if isinstance(compute.threads, int):
        torch.set_num_threads(compute.threads)
    if compute.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=compute.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"compute.device: {compute.device!r} cannot be used here ({reason}); use auto or cpu"
        ) from None
    return compute.device
