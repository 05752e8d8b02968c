"""LFW: faces of known people, a folder for each, with the ten folds of its verification protocol.

The group column is ``person``. The folds' pairs are for verification; here they only say which fold a person is in.

Source: Huang et al. 2007, Labeled Faces in the Wild; the layout, also that of ``pairs.txt``, is general knowledge.
"""

from __future__ import annotations

import re
from pathlib import Path

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.reading import image_tree, numbers, shown, text

TERMS = "no licence stated; published for research, the photographs' owners keep their copyright"
_EXPECTED = "a folder for each person, such as Aaron_Eckhart/Aaron_Eckhart_0001.jpg"


class LFWParams(Params):
    """Where the data is.

    Attributes:
        root: The folder that has a folder for each person, and ``pairs.txt`` where the folds are wanted.
    """

    root: ConfigPath


def load(params: LFWParams) -> FaceData:
    """Return all images with ``person``, ``number`` and, where ``pairs.txt`` is there, ``fold``.

    ``fold`` is 1 to 10, missing for people who are in no pair or in pairs of several folds.

    Raises:
        DataError: If there is no image, one is not named after its folder, or a line of ``pairs.txt`` is malformed or
            names people of whom none has an image.
    """
    images = image_tree(params.root, 1, _EXPECTED)
    found = [re.fullmatch(re.escape(person) + r"_(\d+)\.\w+", name) for person, name in images]
    foreign = ["/".join(parts) for parts, match in zip(images, found, strict=True) if not match]
    if foreign:
        raise DataError(
            f"{params.root}: expected {_EXPECTED}; {len(foreign)} images are not named after their folder: "
            f"{shown(foreign)}"
        )
    columns = {
        "person": text(person for person, _ in images),
        "number": numbers(int(match[1]) for match in found if match),
    }
    pairs = params.root / "pairs.txt"
    if pairs.is_file():
        folds = _folds(pairs)
        if not folds.keys() & {person for person, _ in images}:
            raise DataError(f"{params.root}: none of the people of {pairs.name} has an image: {shown(folds)}")
        columns["fold"] = numbers(folds.get(person, float("nan")) for person, _ in images)
    return FaceData(
        paths=tuple(params.root.joinpath(*parts) for parts in images),
        columns=columns,
        group_column="person",
        licence=TERMS,
        source=str(params.root),
    )


def _folds(path: Path) -> dict[str, float]:
    """Return the fold of each person in ``pairs.txt``, NaN where it is ambiguous.

    Raises:
        DataError: If a line is malformed, or there are more or fewer than the first line says.
    """
    first, *lines = path.read_text(encoding="utf-8", errors="replace").rstrip().split("\n")
    counts = re.fullmatch(r"(\d+)\s+(\d+)", first.strip())
    if not counts:
        raise DataError(f"{path}: line 1: expected the number of folds and of pairs in each, found {first[:40]!r}")
    n_folds, n_pairs = int(counts[1]), int(counts[2])
    if len(lines) != n_folds * 2 * n_pairs:
        raise DataError(
            f"{path}: line 1 asks for {n_folds} × 2 × {n_pairs} pairs, found {len(lines)} lines; is the file whole?"
        )
    folds: dict[str, float] = {}
    for index, row in enumerate(lines):
        cells = row.rstrip("\r").split("\t")
        same = index // n_pairs % 2 == 0
        people, images = (cells[:1], cells[1:]) if same else (cells[::2], cells[1::2])
        if len(cells) != (3 if same else 4) or not all(cell.isdecimal() for cell in images):
            form = "a name and two numbers" if same else "a name, a number, a name and a number"
            raise DataError(f"{path}: line {index + 2}: expected {form}, separated by tabs, found {row[:60]!r}")
        fold = index // (2 * n_pairs) + 1
        for person in people:
            folds[person] = fold if folds.get(person, fold) == fold else float("nan")
    return folds


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``lfw``."""
    return [Dataset(name="lfw", load=load, params=LFWParams)]
