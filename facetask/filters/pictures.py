"""Pictures of a run's filters, written into its folder: curves, sharing, responses, selectors, images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facetask import report
from facetask.context import run_context
from facetask.errors import FacetaskError, RunDirError, did_you_mean, first_names
from facetask.filters.comparison import chosen_selectors, compare_selectors
from facetask.filters.filter_response import closest_filter, responses_to
from facetask.filters.image_strip import write_strip
from facetask.report.metrics import main_metric, unit_of
from facetask.report.tables import Table, as_markdown
from facetask.running.results import read_results
from facetask.tasks.satellite import seed_of_trial

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.filters.comparison import Comparison
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.responses import Responses
    from facetask.running.prepare import Materials
    from facetask.running.results import FilterResponse, Results, TaskResult
    from facetask.tasks.satellite import Satellite


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which pictures are wanted.

    Attributes:
        task: Of this task only; None: of all.
        tap: At this tap; None: at each task's best tap.
        filter: Of this filter; None: of the kept filter that follows the label most closely.
        selectors: The selectors to compare, ``all`` for every one; none by default.
        images: Whether to write the images that drive the filter most and least.
    """

    task: str | None = None
    tap: str | None = None
    filter: int | None = None
    selectors: tuple[str, ...] = ()
    images: bool = False


def write_pictures(folder: Path, wish: Wish, plugins: PluginManager, reporter: Reporter) -> list[Path]:
    """Write the pictures of a run's filters into ``filters/`` of its folder and return their paths.

    Curves, sharing and the responses that the run kept need its results only. What needs its images (another filter, a
    comparison of selectors, images) is left out where these cannot be had, and named after the rest is written.

    Args:
        folder: The run's folder.
        wish: Which pictures.
        plugins: Where plugins are found.
        reporter: Where to report to.

    Raises:
        RunDirError: If the folder holds no results, a name is unknown, or pictures that were asked for were left out.
    """
    pictures = _Pictures(folder, read_results(folder / "results.json"), wish, plugins, reporter)
    pictures.check()
    pictures.from_results()
    wanted = pictures.from_images()
    failed: list[str] = []
    reason = ""
    for name, draw in wanted:
        try:
            draw()
        except FacetaskError as error:
            failed.append(name)
            reason = str(error)
    if pictures.comparisons:
        report.write_report(pictures.results, folder / "report.html", pictures.comparisons)
        reporter.line(f"report: {folder / 'report.html'}")
    if failed:
        raise RunDirError(f"left out: {first_names(failed, 8)}; they need the run's images: {reason}")
    return pictures.written


@dataclass
class _Pictures:
    """The pictures of one run, on their way."""

    folder: Path
    results: Results
    wish: Wish
    plugins: PluginManager
    reporter: Reporter
    written: list[Path] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def check(self) -> None:
        """Raise where the wish names what the run does not have."""
        names = [task.name for task in self.results.tasks]
        if self.wish.task is not None and self.wish.task not in names:
            raise RunDirError(f"{self.folder}: no task {self.wish.task!r}{did_you_mean(self.wish.task, names)}")
        taps = {fit.tap: fit.n_filters for fit in self.results.tasks[0].regress.taps}
        if self.wish.tap is not None and self.wish.tap not in taps:
            raise RunDirError(f"{self.folder}: no tap {self.wish.tap!r}{did_you_mean(self.wish.tap, taps)}")
        for task in self.tasks:
            n_filters = taps[self.tap_of(task)]
            if self.wish.filter is not None and not 0 <= self.wish.filter < n_filters:
                raise RunDirError(
                    f"{self.tap_of(task)} has {n_filters} filters: --filter must be from 0 to {n_filters - 1}, "
                    f"found {self.wish.filter}"
                )
        if self.wish.selectors:
            chosen_selectors(self.wish.selectors, self.plugins)

    def from_results(self) -> None:
        """Write what needs the results only."""
        for task in self.tasks:
            self._figure(f"curves_{task.name}", report.characteristic_curves(task))
            self._figure(f"stability_{task.name}", report.selection_probability(task))
            if task.curve is None:
                self.reporter.warn(f"task {task.name!r}: no curves: the run stopped before that stage")
            elif not any(curve.keep_set for curve in task.curve.taps):
                self.reporter.warn(f"task {task.name!r}: its results do not say which filters are kept; run it again")
            if not self._another_filter:
                self._responses(task, task.responses)
        for tap in [self.wish.tap] if self.wish.tap else report.best_taps(self.tasks):
            self._figure(f"filters_{tap}", report.filter_map(self.results.tasks, tap))
            self._table(f"filters_{tap}", report.sharing_table(self.results.tasks, tap))

    def from_images(self) -> list[tuple[str, Callable[[], None]]]:
        """Return what else is wanted, each with its name: what needs the run's images."""
        wanted: list[tuple[str, Callable[[], None]]] = []
        for index, task in enumerate(self.results.tasks):
            if task not in self.tasks:
                continue
            if self._another_filter:
                wanted.append((f"response for {task.name}", lambda index=index: self._other_response(index)))  # type: ignore[misc]
            if self.wish.images:
                wanted.append((f"images for {task.name}", lambda index=index: self._images(index)))  # type: ignore[misc]
            if self.wish.selectors:
                wanted.append((f"selectors for {task.name}", lambda index=index: self._selectors(index)))  # type: ignore[misc]
        return wanted

    @property
    def tasks(self) -> list[TaskResult]:
        """The tasks that are wanted."""
        return [task for task in self.results.tasks if self.wish.task in (None, task.name)]

    def tap_of(self, task: TaskResult) -> str:
        """Return the tap that is wanted."""
        return self.wish.tap or task.regress.best_tap

    @property
    def _another_filter(self) -> bool:
        """Whether a filter is wanted other than the one that the run kept."""
        return self.wish.tap is not None or self.wish.filter is not None

    @cached_property
    def _data(self) -> tuple[RunConfig, Materials, Responses]:
        """The run's configuration, images and responses."""
        from facetask.config import load_config
        from facetask.running.prepare import prepare, respond

        with run_context(self.plugins, self.reporter):
            config = load_config(self.folder / "resolved.yaml", plugins=self.plugins)
        materials = prepare(config, self.plugins, self.reporter)
        return config, materials, respond(materials, self.reporter)

    def _filter(self, index: int) -> tuple[TaskResult, Satellite, str, int]:
        """Return a task with the tap and filter that are wanted."""
        config, materials, responses = self._data
        result, task = self.results.tasks[index], materials.tasks[index]
        tap = self.tap_of(result)
        if self.wish.filter is not None:
            return result, task, tap, self.wish.filter
        columns = responses.columns[tap]
        kept = [curve.keep_set for curve in result.curve.taps if curve.tap == tap] if result.curve else []
        among = kept[0] if kept and kept[0] else range(columns.stop - columns.start)
        return (
            result,
            task,
            tap,
            closest_filter(task, responses, tap, among, task.split(seed_of_trial(config.seed, 0)).train),
        )

    def _other_response(self, index: int) -> None:
        """Write the response of a filter that the run did not keep."""
        result, task, tap, chosen = self._filter(index)
        self._responses(result, responses_to(task, self._data[2], tap, chosen))

    def _responses(self, task: TaskResult, responses: Sequence[FilterResponse]) -> None:
        """Write how a filter responds to each output of a task."""
        for found in responses:
            output = f"_{found.output + 1}" if len(responses) > 1 else ""
            name = f"response_{task.name}{output}_{found.tap}_{found.filter}"
            self._figure(name, report.filter_response(task, found))

    def _images(self, index: int) -> None:
        """Write the images that drive a filter most and least."""
        result, task, tap, chosen = self._filter(index)
        _, materials, responses = self._data
        path = self._path(f"images_{result.name}_{tap}_{chosen}", "png")
        groups = task.data.column(task.group_by) if task.group_by else None
        write_strip(path, materials.images.data, responses.tap(tap)[:, chosen], _said(task), groups)
        self._done(path)
        self.reporter.warn(f"{path}: shows images of the data set; photographs of people are personal data")

    def _selectors(self, index: int) -> None:
        """Write the comparison of selectors."""
        config, materials, responses = self._data
        result, task = self.results.tasks[index], materials.tasks[index]
        chosen = chosen_selectors(self.wish.selectors, self.plugins)
        with self.reporter.bar(f"selectors for {result.name}", len(chosen)) as advance:
            found = compare_selectors(materials, responses, config, task, self.tap_of(result), chosen, advance)
        self.comparisons.append(found)
        unit = unit_of(result.labels, "rmse")
        name = f"selectors_{result.name}_{found.tap}"
        self._figure(name, report.selectors_figure(found, unit, config.selector.name))
        main = main_metric(result.labels.kind, found.everything)
        tables = [report.selectors_table(found, metric, unit) for metric in dict.fromkeys(("rmse", main))]
        self._table(name, *tables)

    def _figure(self, name: str, svg: str) -> None:
        """Write a figure as SVG and PNG, if there is anything in it."""
        if svg:
            for ending, write in (("svg", report.write_svg), ("png", report.write_png)):
                path = self._path(name, ending)
                write(svg, path)
                self._done(path)

    def _table(self, name: str, *tables: Table | None) -> None:
        """Write tables as Markdown."""
        known = [as_markdown(table) for table in tables if table is not None]
        if known:
            path = self._path(name, "md")
            path.write_text("\n".join(known), encoding="utf-8")
            self._done(path)

    def _done(self, path: Path) -> None:
        """Note a file that was written."""
        self.written.append(path)
        self.reporter.line(str(path))

    def _path(self, name: str, ending: str) -> Path:
        """Return a file's path; a tap's name may hold what a file's name must not."""
        folder = self.folder / "filters"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunDirError(f"{folder}: cannot be written ({error.strerror})") from None
        return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}.{ending}"


def _said(task: Satellite) -> list[str]:
    """Return what the task says of each image, in few words."""
    spec, texts = task.spec, []
    for values in task.values:
        known = np.isfinite(values)
        if not known.any():
            texts.append("no label")
        elif spec.kind in ("binary", "nominal"):
            texts.append(spec.classes[int(values[0])])
        elif spec.kind == "multilabel":
            texts.append(
                ", ".join(name for name, value in zip(spec.classes, values, strict=True) if value == 1) or "none"
            )
        else:
            texts.append(f"{', '.join(f'{value:.4g}' for value in values[known])} {spec.unit}".strip())
    return texts
