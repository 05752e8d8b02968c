"""CelebA: 202,599 images of 10,177 people with 40 attributes, five landmarks and the published partition.

The group column is ``identity``. The list files are looked for in the root, and in the folders ``Anno`` and ``Eval`` as
they are published; the images in ``img_align_celeba`` and in ``Img/img_align_celeba``.

Source: Liu et al. 2015, Deep Learning Face Attributes in the Wild; the layout of the lists is general knowledge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.reading import find_file, listed_images, need_folder, shown, text

TERMS = "CelebA agreement: non-commercial research only"
PARTS = ("train", "validation", "test")
_EXPECTED = "a folder with img_align_celeba/, list_attr_celeba.txt and identity_CelebA.txt"


class CelebAParams(Params):
    """Where the data is.

    Attributes:
        root: The folder with the lists and ``img_align_celeba``.
    """

    root: ConfigPath


def load(params: CelebAParams) -> FaceData:
    """Return all images of the attributes' list, in its order.

    Columns are ``identity`` (text), the 40 attributes in lower case (0 or 1) and, where their lists are there,
    ``split`` (train, validation, test) and the landmarks ``lefteye_x`` … ``rightmouth_y`` (pixels of the aligned
    image).

    Raises:
        DataError: If a list or the images are missing, a line is malformed, or the lists name different images.
    """
    root = params.root
    attributes_file = find_file(root, _places("list_attr_celeba.txt", "Anno"), _EXPECTED)
    identity_file = find_file(root, _places("identity_CelebA.txt", "Anno"), _EXPECTED)
    names, attributes = read_list(attributes_file)
    for name, values in attributes.items():
        wrong = np.flatnonzero(np.abs(values) != 1)
        if len(wrong):
            raise DataError(
                f"{attributes_file}: line {wrong[0] + 3}: expected 1 or -1 for {name}, found {values[wrong[0]]:g}"
            )
    _, identity = read_list(identity_file, ["identity"], names)
    unknown = names[~(identity["identity"] % 1 == 0)]
    if len(unknown):
        raise DataError(
            f"{identity_file}: expected a person's whole number for each image, not so for {shown(unknown)}"
        )
    columns: dict[str, NDArray[Any]] = {"identity": text(map(str, identity["identity"].astype(int).tolist()))}
    columns |= _split(root, names)
    columns |= {name.lower(): (values + 1) / 2 for name, values in attributes.items()}
    landmarks_file = _optional(root, "list_landmarks_align_celeba.txt", "Anno")
    if landmarks_file:
        columns |= read_list(landmarks_file, names=names)[1]
    images = root / "img_align_celeba"
    if not images.is_dir() and (root / "Img" / "img_align_celeba").is_dir():
        images = root / "Img" / "img_align_celeba"
    need_folder(images, _EXPECTED)
    return FaceData(
        paths=listed_images(images, names.tolist(), attributes_file),
        columns=columns,
        group_column="identity",
        licence=TERMS,
        source=str(attributes_file),
    )


def _places(name: str, folder: str) -> tuple[str, str]:
    """Return where a list may be."""
    return name, f"{folder}/{name}"


def _optional(root: Path, name: str, folder: str) -> Path | None:
    """Return a list that need not be there."""
    return next((root / place for place in _places(name, folder) if (root / place).is_file()), None)


def _split(root: Path, names: NDArray[np.object_]) -> dict[str, NDArray[np.object_]]:
    """Return the published partition as a column, if its list is there."""
    path = _optional(root, "list_eval_partition.txt", "Eval")
    if path is None:
        return {}
    codes = read_list(path, ["split"], names)[1]["split"]
    unknown = np.flatnonzero(~np.isin(codes, range(len(PARTS))))
    if len(unknown):
        image = names[unknown[0]]
        raise DataError(f"{path}: expected 0, 1 or 2 for {image}, found {codes[unknown[0]]:g}")
    return {"split": np.array(PARTS, dtype=object)[codes.astype(int)]}


def read_list(
    path: Path, columns: list[str] | None = None, names: NDArray[np.object_] | None = None
) -> tuple[NDArray[np.object_], dict[str, NDArray[np.float64]]]:
    """Return a list's image names, ``(n,)``, and its columns of numbers.

    Args:
        path: Lines of an image's name and numbers, separated by spaces.
        columns: The numbers' names; by default the file's first line has their lines' count, its second their names.
        names: The images that the list must name; the rows are then in their order.

    Raises:
        DataError: If a line is malformed, or rows or images are too few or too many.
    """
    from pyarrow import ArrowException, BufferReader, csv, float64, string

    body, skipped, count = path.read_bytes(), 0, ""
    if columns is None:
        first, _, rest = body.partition(b"\n")
        header, _, body = rest.partition(b"\n")
        count, columns, skipped = first.decode(errors="replace").strip(), header.decode(errors="replace").split(), 2
        if not count.isdecimal() or not columns:
            raise DataError(
                f"{path}: line 1: expected the number of images, and their columns' names in line 2, found "
                f"{count[:60]!r}; a list of another version? fetch the published .txt"
            )
    body = _single_spaces(body)
    try:
        table = csv.read_csv(
            BufferReader(body),
            csv.ReadOptions(column_names=["image", *columns]),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types={"image": string(), **dict.fromkeys(columns, float64())}, null_values=[]),
        )
    except (ArrowException, ValueError) as error:
        raise DataError(f"{path}: {_first_fault(body, columns, skipped) or error}") from None
    if count and int(count) != len(table):
        raise DataError(f"{path}: line 1 says {count} images, found {len(table)} lines of images; is the file whole?")
    found = table["image"].to_numpy()
    values = {name: table[name].to_numpy().astype(np.float64) for name in columns}
    if names is None or np.array_equal(found, names):
        return found, values
    row_of = {name: row for row, name in enumerate(found)}
    unlike = set(names) ^ row_of.keys()
    if unlike or len(found) != len(names):
        raise DataError(
            f"{path}: names {len(found)} images, list_attr_celeba.txt {len(names)}; expected the same ones; "
            f"{len(unlike)} stand in one list only: {shown(unlike)}"
        )
    order = np.array([row_of[name] for name in names])
    return names, {name: column[order] for name, column in values.items()}


def _single_spaces(body: bytes) -> bytes:
    """Return lines whose cells are separated by one space, as a parser of tables wants it."""
    body = body.replace(b"\r\n", b"\n").replace(b"\t", b" ")
    while b"  " in body:
        body = body.replace(b"  ", b" ")
    return body.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")


def _first_fault(body: bytes, columns: list[str], skipped: int) -> str:
    """Return what is wrong with the first malformed line, if one is."""
    for line, row in enumerate(body.split(b"\n"), start=skipped + 1):
        cells = row.decode(errors="replace").split(" ")
        if row and len(cells) != len(columns) + 1:
            return f"line {line}: expected an image's name and {len(columns)} numbers, found {len(cells)} cells"
        for name, cell in zip(columns, cells[1:], strict=False):
            try:
                float(cell)
            except ValueError:
                return f"line {line}: expected a number for {name}, found {cell!r}"
    return "no line with an image in it" if not body.strip() else ""


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``celeba``."""
    return [Dataset(name="celeba", load=load, params=CelebAParams)]
