"""The command line: commands only; what they do stands in the modules that they call."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from facetask import __version__
from facetask.command_options import (
    AsJson,
    Config,
    Force,
    ModelDir,
    Out,
    Override,
    PluginsDir,
    folder_of,
    load,
    plugin_manager,
)
from facetask.errors import FacetaskError, PluginError
from facetask.experiment_commands import add_experiments


class _Commands(TyperGroup):
    """All commands; the user's errors end with status 2, Ctrl-C with 130, both without a traceback."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run a command."""
        try:
            return super().invoke(ctx)
        except FacetaskError as error:
            print(f"facetask: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print("facetask: interrupted; a run goes on where it stopped when you start it again", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    name="facetask",
    help="Find out what a pretrained face network already knows, and carve a small network for a new task out of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plugins_app = typer.Typer(help="List, check and start plugins.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")
data_app = typer.Typer(help="Look at a run's data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line."""
    # Torch's waiting threads otherwise spin, which on a busy machine costs several times what they gain.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app(prog_name="facetask")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"facetask {__version__}")
        raise typer.Exit


@app.command()
def run(
    config: Config, out: Out = None, override: Override = None, force: Force = False, plugins_dir: PluginsDir = None
) -> None:
    """Run all stages: regress, curve, prune, finetune, report."""
    _run("finetune", config, out, override, force, plugins_dir)


@app.command()
def regress(
    config: Config, out: Out = None, override: Override = None, force: Force = False, plugins_dir: PluginsDir = None
) -> None:
    """Stop after the regressions: what every layer knows of each task."""
    _run("regress", config, out, override, force, plugins_dir)


@app.command()
def curve(
    config: Config, out: Out = None, override: Override = None, force: Force = False, plugins_dir: PluginsDir = None
) -> None:
    """Stop after the characteristic curves."""
    _run("curve", config, out, override, force, plugins_dir)


@app.command()
def prune(
    config: Config, out: Out = None, override: Override = None, force: Force = False, plugins_dir: PluginsDir = None
) -> None:
    """Stop after pruning; the pruned network is saved."""
    _run("prune", config, out, override, force, plugins_dir)


@app.command()
def finetune(
    config: Config, out: Out = None, override: Override = None, force: Force = False, plugins_dir: PluginsDir = None
) -> None:
    """Run up to and with finetuning: the same as run."""
    _run("finetune", config, out, override, force, plugins_dir)


@app.command()
def check(config: Config, override: Override = None, plugins_dir: PluginsDir = None) -> None:
    """Check a configuration, its data and its weights, without computing anything."""
    from facetask.progress import Console
    from facetask.running.prepare import prepare

    plugins = plugin_manager(plugins_dir)
    materials = prepare(load(config, override, plugins), plugins, Console())
    print(f"{config}: good; {len(materials.images.data)} images, {len(materials.network.graph.taps)} taps")
    for task in materials.tasks:
        labels = task.summary()
        partly = f", {labels.n_partly} partly" if labels.n_partly else ""
        counts = f"{labels.n_labelled} labelled{partly}, {labels.n_missing} missing"
        print(f"  {task.spec.name}: {labels.kind}{task.extent()}, {counts}")


@app.command()
def predict(
    model: ModelDir,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE|FOLDER…")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Print a task's value for images, preprocessed as in training."""
    from facetask.models.predictions import find_images, print_predictions

    print_predictions(
        model, find_images(images), "csv" if as_csv else "json" if as_json else "text", plugin_manager(plugins_dir)
    )


@app.command()
def export(
    model: ModelDir,
    form: Annotated[str, typer.Option("--format", metavar="onnx|pt2", help="The file's format.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; by default model.onnx or model.pt2 in MODEL_DIR.")
    ] = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """Write a saved model as one file for another runtime, checked against torch."""
    from facetask.models.export import export_model

    done = export_model(model, form, out, plugin_manager(plugins_dir))
    print(f"{done.path}: {done.size_bytes / 1e6:.2f} MB; {done.difference:.0e} from torch (relative)")


@app.command()
def cost(
    model: ModelDir,
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="A batch size; by default 1, 32.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long to measure each batch size.")] = 5.0,
    as_json: AsJson = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Print a saved model's size, MACs and latency beside its base network's."""
    from facetask.networks.cost import model_cost

    found = model_cost(model, batches=batch or (1, 32), seconds=seconds, plugins=plugin_manager(plugins_dir))
    print(json.dumps(found.to_json(), indent=2, ensure_ascii=False) if as_json else "\n".join(found.lines()))


@app.command()
def filters(
    folder: Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN_DIR")],
    task: Annotated[str | None, typer.Option("--task", help="Of this task only.")] = None,
    tap: Annotated[str | None, typer.Option("--tap", help="At this tap; by default at each task's best.")] = None,
    index: Annotated[
        int | None, typer.Option("--filter", help="Its response; by default the kept filter closest to the label.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option("--compare", metavar="SELECTOR", help="Compare selectors; all for every one.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Write the photographs that drive the filter most and least.")
    ] = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Draw a run's filters into RUN_DIR/filters: curves, which tasks share which, responses, selectors."""
    from facetask.filters.pictures import Wish, write_pictures
    from facetask.progress import Console

    wish = Wish(task=task, tap=tap, filter=index, selectors=tuple(compare or ()), images=images)
    write_pictures(folder, wish, plugin_manager(plugins_dir), Console())


@app.command()
def env() -> None:
    """Print versions, processor and git revision as JSON."""
    from facetask.environment import environment

    print(json.dumps(environment(), indent=2))


@plugins_app.command("list")
def plugins_list(as_json: AsJson = False, plugins_dir: PluginsDir = None) -> None:
    """List every plugin that is known, without importing the bundled and installed ones."""
    entries = plugin_manager(plugins_dir).catalogue()
    if as_json:
        print(json.dumps([entry.to_json() for entry in entries], indent=2, ensure_ascii=False))
        return
    for entry in entries:
        print(f"{entry.kind:13}{entry.name:20}{entry.status:15}{entry.licence}")
        text = entry.detail if entry.status != "available" else entry.summary
        if text:
            print(f"{'':13}{text}")


@plugins_app.command("check")
def plugins_check(plugins_dir: PluginsDir = None) -> None:
    """Import every plugin and check its contract; exit status 0 only if all keep it."""
    from facetask.testing import check_record

    failures = 0
    for entry, record in plugin_manager(plugins_dir).load_all():
        problem = entry.detail if entry.status in ("failed", "conflict") else ""
        if record is not None:
            try:
                check_record(record)
            except PluginError as error:
                problem = str(error)
        failures += bool(problem)
        print(f"{'FAILED' if problem else 'ok':8}{entry.kind} {entry.name}{': ' + problem if problem else ''}")
    if failures:
        raise PluginError(f"{failures} of the plugins fail")


@plugins_app.command("new")
def plugins_new(
    kind: Annotated[str, typer.Argument(help="task, selector, architecture, dataset or score.", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="The plugin's name: lower-case words joined by hyphens.", metavar="NAME")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The package's folder; by default facetask-KIND-NAME.")
    ] = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """Write a package with a plugin that works, its tests and a run that uses it, for you to change."""
    from facetask.scaffold import new_plugin

    folder = new_plugin(kind, name, out, plugin_manager(plugins_dir))
    print(f"{folder}: written; its README.md says how to install, test and run it")


@data_app.command("describe")
def data_describe(
    config: Config, override: Override = None, as_json: AsJson = False, plugins_dir: PluginsDir = None
) -> None:
    """Print counts, labels, groups, copies and the first split, without looking at the base network."""
    from facetask.data.describe import describe_data
    from facetask.data.describe_text import description_lines
    from facetask.progress import Console

    plugins = plugin_manager(plugins_dir)
    found = describe_data(load(config, override, plugins), plugins, Console())
    print(json.dumps(found.to_json(), indent=2, ensure_ascii=False) if as_json else "\n".join(description_lines(found)))


def _run(
    until: str, config: Path, out: Path | None, override: list[str] | None, force: bool, plugins_dir: Path | None
) -> None:
    """Run a configuration up to a stage."""
    from facetask.progress import Console
    from facetask.runner import run as run_config

    plugins = plugin_manager(plugins_dir)
    loaded = load(config, override, plugins)
    run_config(loaded, folder_of(config, out), until=until, force=force, plugins=plugins, reporter=Console())


add_experiments(app)  # after the commands for one run, so that help lists these first
