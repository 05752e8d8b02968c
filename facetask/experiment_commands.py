"""The command line's experiments: commands only; what they do stands in ``facetask/experiments``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from facetask.command_options import (
    AsJson,
    Config,
    ExperimentConfig,
    Force,
    Out,
    Override,
    PluginsDir,
    folder_of,
    load,
    plugin_manager,
)


def pretrain(
    config: Config, out: Out = None, override: Override = None, force: Force = False, plugins_dir: PluginsDir = None
) -> None:
    """Train a base network for a primary task, CONFIG's only one; nothing is pruned."""
    from facetask.experiments.pretrain import pretrain as train
    from facetask.progress import Console

    plugins = plugin_manager(plugins_dir)
    folder = folder_of(config, out)
    done = train(load(config, override, plugins), folder, force=force, plugins=plugins, reporter=Console())
    print(f"{done.model}: a base network, {{model: {done.model}}} in a run's configuration")


def sweep(
    config: ExperimentConfig,
    out: Out = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at a time; by default one a core, where memory allows.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="CONDITION",
            help='Name the best network with "macs<=20%", "size<=1MB", "rmse<=8" …; may be given several times.',
        ),
    ] = None,
    override: Override = None,
    force: Force = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Run every combination of thresholds, cuts and selectors: what a smaller network costs in accuracy."""
    from facetask.errors import RunDirError
    from facetask.experiments.config import load_experiment
    from facetask.experiments.sweep.config import SweepConfig
    from facetask.experiments.sweep.run import failures, run_sweep
    from facetask.experiments.sweep.target import chosen_lines, parse_target
    from facetask.progress import Console

    targets = [parse_target(text) for text in target or ()]
    loaded = load_experiment(config, SweepConfig, override or ())
    folder = folder_of(config, out)
    found = run_sweep(config, loaded, folder, jobs=jobs, force=force, plugins_dir=plugins_dir, reporter=Console())
    for line in chosen_lines(found, targets, folder) if targets else ():
        print(line)
    if found.failed:
        total = len(found.failed) + len(found.tasks[0].networks)
        raise RunDirError(f"{folder}: {len(found.failed)} of {total} combinations failed; {failures(found.failed)}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="The runs' folders.", metavar="RUN_DIR…")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Write a page, with its figures beside it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print several runs side by side, task by task."""
    from facetask.experiments.compare import as_text, compare_runs, comparison_table, not_comparable, write_comparison
    from facetask.experiments.together import together_table, together_text

    found = compare_runs(runs)
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        texts = [[task.name, as_text(comparison_table(task)), *not_comparable(task)] for task in found.tasks]
        if found.together is not None:
            texts.append([together_text(found.together), as_text(together_table(found.together))])
        print("\n\n".join("\n".join(lines) for lines in texts))
    if out is not None:
        write_comparison(found, out)


def rank(
    config: ExperimentConfig,
    out: Out = None,
    override: Override = None,
    finetuned: Annotated[
        list[Path] | None, typer.Option("--finetuned", metavar="RUN_DIR", help="A finished run to compare with.")
    ] = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """Rank base networks and their taps for a run's tasks, without training any."""
    from facetask.context import run_context
    from facetask.experiments.config import load_experiment
    from facetask.experiments.rank.config import RankConfig
    from facetask.experiments.rank.page import rank_lines
    from facetask.experiments.rank.run import rank as rank_networks
    from facetask.progress import Console

    plugins, reporter = plugin_manager(plugins_dir), Console()
    with run_context(plugins, reporter):
        loaded = load_experiment(config, RankConfig, override or ())
    if finetuned:
        loaded = loaded.model_copy(update={"finetuned": (*loaded.finetuned, *finetuned)})
    folder = folder_of(config, out)
    results = rank_networks(loaded, folder, plugins=plugins, reporter=reporter)
    for line in rank_lines(results):
        print(line)
    print(f"page: {folder / 'rank.html'}")


def transfer(
    config: ExperimentConfig,
    out: Out = None,
    override: Override = None,
    force: Force = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Compare regression with transfer learning: the same images, split and network, accuracy and wall time."""
    from facetask.experiments.config import load_experiment
    from facetask.experiments.transfer.config import TransferConfig
    from facetask.experiments.transfer.page import transfer_lines
    from facetask.experiments.transfer.run import transfer as compare_methods
    from facetask.progress import Console

    loaded = load_experiment(config, TransferConfig, override or ())
    folder = folder_of(config, out)
    results = compare_methods(loaded, folder, force=force, plugins=plugin_manager(plugins_dir), reporter=Console())
    for line in transfer_lines(results):
        print(line)
    print(f"page: {folder / 'transfer.html'}")


def ablate(
    config: ExperimentConfig,
    out: Out = None,
    override: Override = None,
    force: Force = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Measure what each part of pruning is worth, and what other criteria give, at equal MACs."""
    from facetask.experiments.config import load_experiment
    from facetask.experiments.pruning_table.config import PruningTableConfig
    from facetask.experiments.pruning_table.page import pruning_lines
    from facetask.experiments.pruning_table.run import run_pruning_table
    from facetask.progress import Console

    loaded = load_experiment(config, PruningTableConfig, override or ())
    folder = folder_of(config, out)
    plugins = plugin_manager(plugins_dir)
    results = run_pruning_table(loaded, folder, force=force, plugins=plugins, reporter=Console())
    for line in pruning_lines(results):
        print(line)


def matrix(
    config: ExperimentConfig,
    out: Out = None,
    override: Override = None,
    force: Force = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Show how much of every satellite task each primary task's base network knows, against direct training."""
    from facetask.context import run_context
    from facetask.experiments.config import load_experiment
    from facetask.experiments.matrix.config import MatrixConfig
    from facetask.experiments.matrix.page import matrix_lines
    from facetask.experiments.matrix.run import matrix as fill_matrix
    from facetask.progress import Console

    plugins, reporter = plugin_manager(plugins_dir), Console()
    with run_context(plugins, reporter):
        loaded = load_experiment(config, MatrixConfig, override or ())
    folder = folder_of(config, out)
    results = fill_matrix(loaded, folder, force=force, plugins=plugins, reporter=reporter)
    for line in matrix_lines(results):
        print(line)
    print(f"page: {folder / 'matrix.html'}")


def blind(
    config: ExperimentConfig,
    out: Out = None,
    override: Override = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """Remove the filters that carry other tasks; measure what probes can still read of them."""
    from facetask.experiments.blind.config import BlindConfig
    from facetask.experiments.blind.page import blind_lines
    from facetask.experiments.blind.run import blind as make_blind
    from facetask.experiments.config import load_experiment
    from facetask.progress import Console

    loaded = load_experiment(config, BlindConfig, override or ())
    folder = folder_of(config, out)
    results = make_blind(loaded, folder, plugins=plugin_manager(plugins_dir), reporter=Console())
    for line in blind_lines(results):
        print(line)
    print(f"page: {folder / 'blind.html'}")


_EXPERIMENTS: tuple[Callable[..., None], ...] = (pretrain, sweep, compare, rank, transfer, ablate, matrix, blind)


def add_experiments(app: typer.Typer) -> None:
    """Add every experiment's command."""
    for command in _EXPERIMENTS:
        app.command(rich_help_panel="Experiments over whole runs")(command)
