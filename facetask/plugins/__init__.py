"""The bundled plugins: the files of the project's ``plugins/`` folder, in a checkout as in a wheel."""

from pathlib import Path

_checkout = Path(__file__).resolve().parents[2] / "plugins"
if _checkout.is_dir() and (_checkout.parent / "registry.yaml").is_file():
    __path__.append(str(_checkout))
