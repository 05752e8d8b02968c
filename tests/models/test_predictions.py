"""What is predicted for which files, and how it is printed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from toy_runs import Finished, Toy

from facetask import CheckpointError, DataError
from facetask.models.predictions import find_images, print_predictions


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/c.jpeg", "notes.txt", "deep.png/d.webp"):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).touch()
    found = find_images([tmp_path / "faces/notes.txt", tmp_path / "faces"])
    names = [path.relative_to(tmp_path / "faces").as_posix() for path in found]
    assert names == ["notes.txt", "a.jpg", "b.PNG", "deep/c.jpeg", "deep.png/d.webp"]


def test_nothing_to_predict(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in this folder"):
        find_images([tmp_path])
    with pytest.raises(DataError, match=r"absent\.png: no such image or folder"):
        find_images([tmp_path / "absent.png"])


def test_every_form_says_the_same(finished: Finished, toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    paths = toy.images[:4]
    for task, model in finished.result.models.items():
        print_predictions(model, paths, "json", toy.plugins)
        rows = json.loads(capsys.readouterr().out)
        print_predictions(model, paths, "csv", toy.plugins)
        read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        print_predictions(model, paths, "text", toy.plugins)
        lines = capsys.readouterr().out.splitlines()
        if task == "marks":
            cells = ("value[bright]", "value[warm]", "score[bright]", "score[warm]")
            for line, cell, row in zip(lines, read, rows, strict=True):
                value, score = row["value"], row["score"]
                shown = ", ".join(f"{label} {value[label]} ({score[label]:.2f})" for label in ("bright", "warm"))
                assert line == f"{row['image']}: {shown}"
                assert cell == {"image": row["image"]} | {name: str(row[name[:5]][name[6:-1]]) for name in cells}
                assert set(value.values()) <= {0, 1}
                assert all(0 < number < 1 for number in score.values())
            continue
        assert read == [{key: str(value) for key, value in row.items()} for row in rows]
        for line, row in zip(lines, rows, strict=True):
            value = f"{row['value']:.4g} grey levels" if task == "brightness" else row["value"]
            score = f" ({row['score']:.2f})" if task in ("tint", "level") else ""
            assert line == f"{row['image']}: {value}{score}"


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_unreadable_images_are_named_at_the_end(
    finished: Finished, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    model = finished.result.models["tint"]
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read: .*bad\.png"):
        print_predictions(model, [toy.images[0], bad, toy.images[1]], form, toy.plugins)  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert str(toy.images[0]) in printed
    assert str(toy.images[1]) in printed
    with pytest.raises(DataError, match="1 of 1 images"):
        print_predictions(model, [bad], form, toy.plugins)  # type: ignore[arg-type]
    assert capsys.readouterr().out.strip() in ("", "[]")


def test_no_model(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no saved model"):
        print_predictions(tmp_path, toy.images[:1], "text", toy.plugins)
