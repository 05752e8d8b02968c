"""Draw the pictures of the documentation from a run's folder: ``python docs/pictures.py RUN_DIR``."""

import sys
from pathlib import Path

from facetask.report import characteristic_curves, write_png
from facetask.running.results import read_results

folder = Path(__file__).parent / "images"
folder.mkdir(exist_ok=True)
task = read_results(Path(sys.argv[1]) / "results.json").tasks[0]
write_png(characteristic_curves(task), folder / f"{task.name}_curves.png")
