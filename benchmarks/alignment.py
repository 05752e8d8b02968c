"""What aligning faces is worth to a linear regression on the base network: CelebA's crops as they are, and misplaced.

Misplaced are 2,500 of the crops turned by up to 25°, scaled to 60–100 % and put somewhere on a grey square of 200×200.
Needs the extras ``dlib`` and ``landmarks``; run by hand, it takes eight minutes the first time::

    FACETASK_DATA=data python benchmarks/alignment.py
"""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from facetask import run

CELEBA = Path(os.environ.get("FACETASK_DATA", "data")) / "celeba"
TASKS = ("smiling", "eyeglasses", "goatee")
N_MISPLACED, SIDE, GREY = 2500, 200, (90, 90, 90)


def misplace(to: Path) -> None:
    """Write misplaced faces and their table."""
    (to / "images").mkdir()
    with (CELEBA / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    with (to / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "identity", *TASKS], extrasaction="ignore")
        writer.writeheader()
        for i in rng.permutation(len(rows))[:N_MISPLACED]:
            with Image.open(CELEBA / "images" / rows[i]["image"]) as opened:
                side = int(opened.width * rng.uniform(0.6, 1.0))
                face = opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            image = Image.new("RGB", (SIDE, SIDE), GREY)
            x, y = (int(value) for value in rng.integers(0, SIDE - side + 1, 2))
            image.paste(face, (x, y))
            middle = (x + side / 2, y + side / 2)
            image = image.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC, fillcolor=GREY, center=middle)
            name = f"{Path(rows[i]['image']).stem}.png"
            image.save(to / "images" / name)
            writer.writerow({**rows[i], "image": name})


def accuracies(root: Path, align: dict[str, str] | None, out: Path) -> list[str]:
    """Return each task's test accuracy of the best layer's regression, in percent."""
    config = {
        "base_network": {"name": "dlib-face-resnet"},
        "data": {"name": "table", "params": {"root": str(root), "group_column": "identity"}, "align": align},
        "satellite_tasks": [{"name": "column", "params": {"column": task, "kind": "binary"}} for task in TASKS],
    }
    found = run(config, out, until="regress").results.tasks
    best = [next(tap for tap in task.regress.taps if tap.tap == task.regress.best_tap) for task in found]
    return [f"{100 * tap.metrics['accuracy'].mean:.1f} ± {100 * tap.metrics['accuracy'].std:.1f}" for tap in best]


def main() -> None:
    """Print a table."""
    print(f"| faces | aligned | {' | '.join(TASKS)} |\n|---|---|{'---|' * len(TASKS)}")
    with tempfile.TemporaryDirectory() as folder:
        misplaced = Path(folder) / "misplaced"
        misplaced.mkdir()
        misplace(misplaced)
        for name, root in (("as they are", CELEBA), ("misplaced", misplaced)):
            for align in (None, {"landmarks": "detect"}):
                found = accuracies(root, align, Path(folder) / f"{name}-{align is None}")
                print(f"| {name} | {'no' if align is None else 'yes'} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
