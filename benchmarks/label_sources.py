"""How far the label sources are from labels that people gave, on the sets that FACETASK_DATA has, and for whom.

Age and gender against UTKFace's own, emotion against FER2013's (on most of whose images that network was trained), yaw
and pitch of detected landmarks against those of YouTube Faces' own landmarks. Needs the extras ``age-gender``, ``vgg``
and ``landmarks``, and the file of ``fer``; run by hand, it takes two minutes the first time::

    FACETASK_DATA=data python benchmarks/label_sources.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facetask import DataError, FaceData, Labels, PluginManager

DATA = Path(os.environ.get("FACETASK_DATA", "data"))
PLUGINS = PluginManager()


def table(name: str) -> FaceData:
    """Return one of the sets."""
    record: Any = PLUGINS.find("dataset", "table")
    return record.load(record.params(root=DATA / name))


def labels(data: FaceData, name: str, **params: Any) -> Labels:
    """Return what a source says of a set's images."""
    record: Any = PLUGINS.find("task", name)
    return record.labels(data, record.params(**params))


def groups(data: FaceData) -> Iterator[tuple[str, np.ndarray]]:
    """Yield UTKFace's subgroups: a name and which images."""
    yield "all", np.ones(len(data), dtype=bool)
    for column in ("gender", "race"):
        for value in sorted(set(data.column(column))):
            yield value, data.column(column) == value
    age = data.column("age")
    for low, high in ((0, 10), (10, 20), (20, 40), (40, 60), (60, 200)):
        yield f"{low} to {high - 1} years" if high < 200 else f"{low} years or more", (age >= low) & (age < high)


def age_and_gender() -> None:
    """Print the errors on UTKFace."""
    data = table("utkface")
    age, gender = labels(data, "dex-age", kind="continuous"), labels(data, "gender-onnx")
    error = age.values[:, 0] - data.column("age")
    right = gender.values[:, 0] == (data.column("gender") == "male")
    print("| UTKFace | images | age MAE | age RMSE | age bias | gender accuracy |\n|---|---|---|---|---|---|")
    for name, rows in groups(data):
        mae, rmse, bias = np.abs(error[rows]).mean(), np.sqrt((error[rows] ** 2).mean()), error[rows].mean()
        print(f"| {name} | {rows.sum()} | {mae:.2f} | {rmse:.2f} | {bias:+.2f} | {right[rows].mean():.3f} |")
    assert age.confidence is not None
    assert gender.confidence is not None
    print("\n| confidence | images | mean | age MAE | within 5 years | mean | gender accuracy |")
    print("|---|---|---|---|---|---|---|")
    quarters = [np.argsort(np.argsort(source)) * 4 // len(source) for source in (age.confidence, gender.confidence)]
    for quarter, name in enumerate(("lowest quarter", "second", "third", "highest quarter")):
        old, sex = (ranks == quarter for ranks in quarters)
        near = (np.abs(error[old]) <= 5).mean()
        print(
            f"| {name} | {old.sum()} | {age.confidence[old].mean():.2f} | {np.abs(error[old]).mean():.2f} | {near:.2f} "
            f"| {gender.confidence[sex].mean():.2f} | {right[sex].mean():.3f} |"
        )


def emotion() -> None:
    """Print the accuracy on FER2013."""
    data = table("fer2013")
    found = labels(data, "emotion-fer")
    true = np.array([found.classes.index(value) for value in data.column("emotion")])
    print("\n| FER2013 | images | accuracy |\n|---|---|---|")
    print(f"| all | {len(true)} | {np.mean(found.values[:, 0] == true):.3f} |")
    for index, name in enumerate(found.classes):
        rows = true == index
        print(f"| {name} | {rows.sum()} | {np.mean(found.values[rows, 0] == index):.3f} |")


def pose() -> None:
    """Print how far angles of detected landmarks are from those of the table's."""
    data = table("ytf")
    print("\n| YouTube Faces | no face found | RMSE | bias | std of the labels |\n|---|---|---|---|---|")
    for angle in ("yaw", "pitch", "roll"):
        found, true = (
            labels(data, "pose-3dmm", angle=angle, model=DATA / "sfm", landmarks=landmarks).values[:, 0]
            for landmarks in ("detect", "columns")
        )
        lost, error = np.isnan(found).mean(), (found - true)[~np.isnan(found)]
        print(
            f"| {angle} | {lost:.1%} | {np.sqrt((error**2).mean()):.1f}° | {error.mean():+.1f}° | {true.std():.1f}° |"
        )


if __name__ == "__main__":
    for report in (age_and_gender, emotion, pose):
        try:
            report()
        except DataError as error:
            print(f"\n{report.__name__}: left out, {error}")
