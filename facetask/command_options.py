"""Arguments and options that several commands of the command line share, and what commands do with them first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.plugin_manager import PluginManager

Config = Annotated[Path, typer.Argument(help="The run's YAML file.", metavar="CONFIG")]
ExperimentConfig = Annotated[Path, typer.Argument(help="The experiment's YAML file.", metavar="CONFIG")]
Out = Annotated[Path | None, typer.Option("--out", help="The folder to write; by default runs/ and CONFIG's name.")]
Override = Annotated[
    list[str] | None, typer.Option("-o", "--override", metavar="KEY.PATH=VALUE", help="Override a value of CONFIG.")
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Go on in a folder of another configuration; look at a finished run's data again."),
]
PluginsDir = Annotated[
    Path | None, typer.Option("--plugins-dir", help="A folder of plugin files of your own.", envvar="FACETASK_PLUGINS")
]
ModelDir = Annotated[Path, typer.Argument(help="A saved model's folder.", metavar="MODEL_DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def folder_of(config: Path, out: Path | None) -> Path:
    """Return the folder to write: the one given, or in ``runs/`` by the configuration's name."""
    return out if out is not None else Path("runs") / config.stem


def load(config: Path, override: list[str] | None, plugins: PluginManager) -> RunConfig:
    """Load a configuration with its overrides."""
    from facetask.config import load_config

    return load_config(config, override or (), plugins=plugins)


def plugin_manager(plugins_dir: Path | None) -> PluginManager:
    """Return the plugin manager."""
    from facetask.plugin_manager import PluginManager

    return PluginManager(plugins_dir)
