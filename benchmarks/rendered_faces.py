"""What the dlib face ResNet reads from rendered faces, beside what pixels alone say, in one run.

The network was never trained on drawings. Rivals: the same ridge on 24×24 grey pixels, and the network's own last tap,
which a plain probe of its embedding would use. All are means over three random partitions by person (50/25/25); the
strength of every ridge is chosen on validation::

    python benchmarks/rendered_faces.py [count]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import facetask
from facetask.data.splits import make_split
from facetask.plugins.datasets.rendered_faces import RenderedFacesParams, people, rendered_faces
from facetask.plugins.datasets.rendered_faces.drawing import draw

TASKS: dict[str, dict[str, Any]] = {
    "yaw": {"kind": "continuous", "unit": "degrees"},
    "pitch": {"kind": "continuous", "unit": "degrees"},
    "age": {"kind": "continuous", "unit": "years"},
    "glasses": {"kind": "binary"},
    "beard": {"kind": "binary"},
    "hat": {"kind": "binary"},
}
GOALS = {"yaw": 0.8, "glasses": 0.9}
TRIALS = 3
STRENGTHS = np.geomspace(1, 1e5, 11)


def from_pixels(data: facetask.FaceData, column: str, binary: bool) -> float:
    """Return R² or accuracy on the test split of a ridge on 24×24 grey pixels, mean over the trials."""
    grey = [np.asarray(Image.open(path).convert("L").resize((24, 24), Image.Resampling.BOX)) for path in data.paths]
    x = np.array(grey, dtype=float).reshape(len(data), -1)
    y = data.column(column)
    y = (y == "yes").astype(float) if binary else y
    scores = []
    for trial in range(TRIALS):
        split = make_split(len(data), (0.5, 0.25, 0.25), trial, groups=data.column("identity"))
        best = (-np.inf, np.nan)
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), Ridge(alpha=strength)).fit(x[split.train], y[split.train])
            seen, unseen = model.predict(x[split.validation]), model.predict(x[split.test])
            if binary:
                cuts = np.quantile(seen, np.linspace(0.02, 0.98, 97))
                right = [((seen > cut) == y[split.validation]).mean() for cut in cuts]
                score = float(((unseen > cuts[int(np.argmax(right))]) == y[split.test]).mean())
            else:
                score = r2_score(y[split.test], unseen)
            best = max(best, (r2_score(y[split.validation], seen), score))
        scores.append(best[1])
    return float(np.mean(scores))


def ms_per_image(pictures: int = 200) -> float:
    """Return the processor time of drawing a picture, in milliseconds."""
    labels = [people.picture(0, index, 150) for index in range(pictures)]
    start = time.process_time()
    for index, picture in enumerate(labels):
        draw(people.person(0, picture.person), picture, 150, people.chance(0, index))
    return (time.process_time() - start) / pictures * 1e3


def main(count: int = 1200) -> None:
    """Print the comparison."""
    ms_per_image(4)
    print(f"drawing: {ms_per_image():.1f} ms of one core a picture of 150×150")
    data = rendered_faces(RenderedFacesParams(count=count))
    tasks = [{"name": "column", "params": {"column": column, **params}} for column, params in TASKS.items()]
    config = {
        "base_network": {"name": "dlib-face-resnet"},
        "data": {"name": "rendered-faces", "params": {"count": count}},
        "satellite_tasks": tasks,
        "trials": TRIALS,
    }
    with tempfile.TemporaryDirectory() as folder:
        results = facetask.run(config, Path(folder) / "run", until="regress").results
    print(f"{count} pictures, test split, mean of {TRIALS} partitions by person: R² (continuous) or accuracy (binary)")
    print(f"{'task':8}  {'best tap':>9}  {'last tap':>9}  {'pixels':>7}  which tap")
    for task, (column, params) in zip(results.tasks, TASKS.items(), strict=True):
        binary = params["kind"] == "binary"
        score = {tap.tap: tap.metrics["accuracy" if binary else "r2"].mean for tap in task.regress.taps}
        best, last = score[task.regress.best_tap], list(score.values())[-1]
        pixels = from_pixels(data, column, binary)
        goal = f"  goal {GOALS[column]}: {'reached' if best >= GOALS[column] else 'MISSED'}" if column in GOALS else ""
        print(f"{column:8}  {best:9.3f}  {last:9.3f}  {pixels:7.3f}  {task.regress.best_tap}{goal}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
