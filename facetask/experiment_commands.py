"""The command line's experiments: commands only; what they do stands in ``facetask/experiments``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def add_experiments(app: typer.Typer) -> None:
    """Add every experiment's command."""
    for command in ():
        app.command()(command)
