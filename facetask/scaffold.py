"""Writes a new plugin's package: a plugin that works, its entry point, its tests and a configuration that uses it.

The templates in ``templates/`` are such packages themselves, but for ``$name`` and a few more words; their Python is
linted and type-checked as it stands.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from facetask import __version__
from facetask.errors import PluginError, did_you_mean
from facetask.plugin_manager import KINDS, PluginManager

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES = Path(__file__).with_name("templates")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FILES = {  # file of the package: its template
    "pyproject.toml": "package.toml",
    "README.md": "README.md",
    "$command.yaml": "$kind/$command.yaml",
    "$module.py": "$kind/plugin.py",
    "tests/test_$module.py": "$kind/test_plugin.py",
}


def new_plugin(kind: str, name: str, folder: Path | None = None, plugins: PluginManager | None = None) -> Path:
    """Write a new plugin's package and return its folder.

    Args:
        kind: ``task``, ``selector``, ``architecture``, ``dataset`` or ``score``.
        name: The plugin's name in configurations: lower-case letters and digits, words joined by hyphens.
        folder: The package's folder, which must not exist; by default ``facetask-KIND-NAME`` in the current folder.
        plugins: The plugins whose names are taken.

    Raises:
        PluginError: If there is no such kind, the name is no name or taken, or the folder exists or cannot be written.
    """
    _check_kind(kind)
    _check_name(kind, name, plugins or PluginManager())
    package = f"facetask-{kind}-{name}"
    words = {
        "kind": kind,
        "command": "rank" if kind == "score" else "run",
        "name": name,
        "package": package,
        "module": package.replace("-", "_"),  # with kind and name, so that it hides no other module
        "version": __version__,
    }
    folder = folder if folder is not None else Path(package)
    texts = {_filled(file, words): _filled(_read(_filled(source, words)), words) for file, source in _FILES.items()}
    try:
        folder.mkdir(parents=True)
        for file, text in texts.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise PluginError(f"{folder}: exists already and is not overwritten; name another folder by --out") from None
    except OSError as error:
        raise PluginError(f"{folder}: the package cannot be written ({error.strerror or error})") from None
    return folder


def _check_kind(kind: str) -> None:
    """Refuse a kind that is none."""
    if kind not in KINDS:
        raise PluginError(f"unknown kind of plugin {kind!r}{did_you_mean(kind, KINDS)}")


def _check_name(kind: str, name: str, plugins: PluginManager) -> None:
    """Refuse a name that is none, or that another plugin has."""
    if not _NAME.fullmatch(name):
        near = "-".join(re.findall("[a-z0-9]+", name.lower())).lstrip("-0123456789")
        example = near if _NAME.fullmatch(near) else f"my-{kind}"
        raise PluginError(
            f"{name!r} cannot be a plugin's name: allowed are the letters a–z and digits, a letter first, words joined "
            f"by single hyphens, such as {example!r}"
        )
    for entry in plugins.catalogue():
        if (entry.kind, entry.name) == (kind, name):
            raise PluginError(f"{kind} {name!r} exists already, provided by {entry.provider}; choose another name")


def _read(template: str) -> str:
    """Return a template's text."""
    return (_TEMPLATES / template).read_text(encoding="utf-8")


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Return a text with its ``$words`` filled in."""
    return Template(text).substitute(words)
