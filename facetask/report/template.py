"""How pages are made of templates: everything escaped, nothing missing, one style sheet."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def template_environment(package: str) -> Environment:
    """Return where a package's templates are found, with the style sheet as their ``style``."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The style sheet is ours; it is marked safe because quotes inside <style> must not be escaped.
    environment.globals["style"] = Markup((files("facetask.report") / "report.css").read_text(encoding="utf-8"))
    return environment
