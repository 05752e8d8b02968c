"""From a configuration to what the stages work on: network, images, tasks and responses."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from facetask.checkpoint import load_base
from facetask.context import run_context
from facetask.data import Images, scan_images
from facetask.errors import ConfigError, first_names
from facetask.loader import ImageLoader
from facetask.network import BaseNetwork, load_network
from facetask.responses import ResponseCache, Responses, collect_responses
from facetask.satellite import Satellite, load_satellites, seed_of_trial

if TYPE_CHECKING:
    from facetask.config import ComputeConfig, RunConfig
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.records import Dataset, Selector


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
    """

    network: BaseNetwork
    images: Images
    tasks: tuple[Satellite, ...]
    selector: Selector
    cache: ResponseCache
    loader: ImageLoader


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
        reporter.warn(
            f"surgery does not know {frozen.operation} at {frozen.where}: {first_names(frozen.taps)} stay whole"
        )
    dataset: Dataset = plugins.find("dataset", config.data.name)  # type: ignore[assignment]
    with run_context(plugins, reporter):
        data = dataset.load(config.data.params)
    cache = ResponseCache(network.fingerprint(), sum(tap.n_filters for tap in network.graph.taps))
    with reporter.bar("images", len(data)) as advance:
        images = scan_images(data, config.data.max_bad_share, known_good=cache.__contains__, advance=advance)
    if images.bad:
        reporter.warn(
            f"{len(images.bad)} of {len(data)} images cannot be read and are left out: {first_names(images.bad)}"
        )
    with run_context(plugins, reporter):
        tasks = load_satellites(config.satellite_tasks, config.split, images.data, plugins)
    for task in tasks:
        for note in task.given.notes:
            reporter.line(f"labels {task.spec.name}: {note}")
        for trial in range(config.trials):
            task.split(seed_of_trial(config.seed, trial))
        if task.left_out:
            reporter.warn(
                f"task {task.spec.name!r}: classes with too few images are left out: {first_names(task.left_out)}"
            )
        if task.partly.any():
            reporter.warn(_partly_labelled(task, selector))
        if config.finetune is not False:
            task.kind.choose_loss(config.finetune.loss)
    loader = ImageLoader(images, network.preprocessing, device, config.compute.batch_size, config.compute.workers)
    return Materials(network, images, tasks, selector, cache, loader)


def _partly_labelled(task: Satellite, selector: Selector) -> str:
    """Return how many images lack some of a task's labels, and what that means."""
    summary = task.summary()
    counts = ", ".join(f"{name} {count}" for name, count in list(summary.known.items())[:8])
    which = f" ({counts}{', …' if len(summary.known) > 8 else ''} known)" if counts else ""
    seen = ""
    if "responses" in selector.needs:
        whole = summary.n_labelled - summary.n_partly
        seen = f"; the selector {selector.name!r} chooses by the {whole} images that have all of them"
    return (
        f"task {task.spec.name!r}: {summary.n_partly} of {summary.n_labelled} labelled images lack some labels{which}; "
        f"each counts for those that it has{seen}"
    )


def _network(config: RunConfig, plugins: PluginManager) -> BaseNetwork:
    """Return the base network: an architecture's, or a model that an earlier run saved."""
    base = config.base_network
    if base.model is not None:
        network = load_base(base.model, plugins)
    else:
        assert base.name is not None
        network = load_network(base.name, base.params, plugins)
    return replace(network, preprocessing=replace(network.preprocessing, crop=config.data.crop))


def respond(materials: Materials, reporter: Reporter) -> Responses:
    """Return all taps' responses for all images, in one forward pass."""
    graph, images = materials.network.graph, materials.images
    start = time.perf_counter()
    cached = sum(digest.tobytes() in materials.cache for digest in images.digests)
    with reporter.bar("responses", len(images.digests)) as advance:
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
