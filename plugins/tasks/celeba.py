"""CelebA's tasks: gender, facial hair, accessories, identity, or any of its 40 attributes.

Labels come from the dataset's columns (the dataset ``celeba``, or a table with the attributes' names in lower case), or
from the published lists, whatever dataset the images are in; there they are found by file name, without its suffix.

The attributes were given by annotators and are noisy, the subjective ones (attractive, big nose, young …) above all.

Source: Liu et al. 2015, Deep Learning Face Attributes in the Wild; the groups of attributes are those of arXiv
1901.02675.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from facetask import ConfigPath, DataError, FaceData, Labels, Params, Task, did_you_mean, hookimpl
from facetask.plugins.datasets.celeba import TERMS, read_list
from facetask.plugins.datasets.reading import find_file, numbers

ATTRIBUTES = (
    "5_o_clock_shadow",
    "arched_eyebrows",
    "attractive",
    "bags_under_eyes",
    "bald",
    "bangs",
    "big_lips",
    "big_nose",
    "black_hair",
    "blond_hair",
    "blurry",
    "brown_hair",
    "bushy_eyebrows",
    "chubby",
    "double_chin",
    "eyeglasses",
    "goatee",
    "gray_hair",
    "heavy_makeup",
    "high_cheekbones",
    "male",
    "mouth_slightly_open",
    "mustache",
    "narrow_eyes",
    "no_beard",
    "oval_face",
    "pale_skin",
    "pointy_nose",
    "receding_hairline",
    "rosy_cheeks",
    "sideburns",
    "smiling",
    "straight_hair",
    "wavy_hair",
    "wearing_earrings",
    "wearing_hat",
    "wearing_lipstick",
    "wearing_necklace",
    "wearing_necktie",
    "young",
)
FACIAL_HAIR = ("5_o_clock_shadow", "goatee", "sideburns", "mustache", "no_beard")
ACCESSORIES = ("wearing_earrings", "wearing_hat", "wearing_necklace", "wearing_necktie", "eyeglasses")
_GROUPS = {"facial-hair": FACIAL_HAIR, "accessories": ACCESSORIES}


class CelebATaskParams(Params):
    """Which labels; exactly one of ``task``, ``attribute`` and ``attributes``.

    Attributes:
        task: ``gender`` (binary), ``facial-hair`` or ``accessories`` (multilabel, five each), ``identity`` (nominal).
        attribute: One of the 40 attributes (binary), in any case.
        attributes: Two or more of them (multilabel).
        root: The folder with the published lists, which are then read instead of the dataset's columns.
    """

    task: Literal["gender", "facial-hair", "accessories", "identity"] | None = None
    attribute: str | None = None
    attributes: list[str] | None = None
    root: ConfigPath | None = None

    @field_validator("attribute", "attributes")
    @classmethod
    def _are_attributes(cls, given: Any) -> Any:
        """Refuse names that are none of the 40, and lists that repeat one or are none."""
        names = [given] if isinstance(given, str) else list(given or ())
        for name in names:
            if name.lower() not in ATTRIBUTES:
                raise ValueError(f"{name!r} is none of CelebA's 40 attributes{did_you_mean(name.lower(), ATTRIBUTES)}")
        if isinstance(given, list) and (len(given) < 2 or len({name.lower() for name in names}) < len(names)):
            raise ValueError(f"attributes must be two or more different ones, found {given}; for one use attribute")
        return given.lower() if isinstance(given, str) else [name.lower() for name in names] if names else given

    @model_validator(mode="after")
    def _says_one_thing(self) -> CelebATaskParams:
        """Refuse no task and several."""
        given = [name for name in ("task", "attribute", "attributes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of task, attribute and attributes, found {' and '.join(given) or 'none'}"
            )
        return self


def labels(data: FaceData, params: CelebATaskParams) -> Labels:
    """Return the labels of a task; missing where the table's cell is empty or the lists do not name the image.

    Raises:
        DataError: If a column or list is missing or malformed, a value is neither 0 nor 1 (nor −1), or no image is
            labelled.
    """
    if params.task == "identity":
        return _identity(data, params.root)
    one = "male" if params.task == "gender" else params.attribute
    names = (one,) if one is not None else _GROUPS.get(params.task or "", tuple(params.attributes or ()))
    name = params.task or params.attribute or "attributes"
    read = _from_columns(data, names) if params.root is None else _from_list(data, params.root, names)
    values = np.stack([_as_binary(column, where, data) for where, column in read], axis=1)
    source, licence = _origin(data, params.root, f"CelebA's {', '.join(names)}")
    return Labels(
        name=name,
        kind="binary" if one is not None else "multilabel",
        values=values,
        classes=("female", "male") if one == "male" else (f"not {one}", one) if one is not None else names,
        source=source,
        licence=licence,
    )


def _identity(data: FaceData, root: Path | None) -> Labels:
    """Return who is on each image."""
    if root is None:
        column = data.column("identity")
    else:
        path = _find(root, "identity_CelebA.txt")
        listed, columns = read_list(path, ["identity"])
        column = _of_images(data, listed, columns["identity"][:, None], path)[:, 0]
    known = np.array([value is not None and value == value for value in column], dtype=bool)
    if not known.any():
        raise DataError(f"{data.source or 'dataset'}: column 'identity': all of {len(column)} labels are missing")
    people, index = np.unique(column[known], return_inverse=True)
    values = np.full((len(column), 1), np.nan)
    values[known, 0] = index
    source, licence = _origin(data, root, "CelebA's identities")
    return Labels(
        name="identity",
        kind="nominal",
        values=values,
        classes=tuple(person if isinstance(person, str) else f"{person:.15g}" for person in people),
        source=source,
        licence=licence,
    )


def _origin(data: FaceData, root: Path | None, what: str) -> tuple[str, str]:
    """Return the source and the licence of labels."""
    if root is None:
        return f"{what}: columns of {Path(data.source).name or 'the dataset'}", data.licence
    return f"{what}: the published lists", TERMS


def _from_columns(data: FaceData, names: Sequence[str]) -> list[tuple[str, NDArray[Any]]]:
    """Return the dataset's columns of some attributes, each with its place."""
    for name in names:
        if name not in data.columns:
            raise DataError(
                f"{data.source or 'dataset'}: no column {name!r}{did_you_mean(name, data.columns)}; the task celeba "
                "needs the attributes as columns in lower case, or params.root with the published lists"
            )
    return [(f"{data.source or 'dataset'}: column {name!r}", data.columns[name]) for name in names]


def _from_list(data: FaceData, root: Path, names: Sequence[str]) -> list[tuple[str, NDArray[Any]]]:
    """Return the dataset's images' attributes as the published list has them, each with its place."""
    path = _find(root, "list_attr_celeba.txt")
    listed, columns = read_list(path)
    columns = {name.lower(): column for name, column in columns.items()}
    absent = next((name for name in names if name not in columns), None)
    if absent is not None:
        raise DataError(f"{path}: line 2: no attribute {absent!r}{did_you_mean(absent, columns)}")
    values = _of_images(data, listed, np.stack([columns[name] for name in names], axis=1), path)
    return [(f"{path}: attribute {name!r}", column) for name, column in zip(names, values.T, strict=True)]


def _find(root: Path, name: str) -> Path:
    """Return one of the published lists, in the root or where it is published."""
    return find_file(root, (name, f"Anno/{name}"), f"a folder with CelebA's {name}")


def _of_images(
    data: FaceData, listed: NDArray[np.object_], values: NDArray[np.float64], path: Path
) -> NDArray[np.float64]:
    """Return a list's rows for a dataset's images, ``(n, n_columns)``, NaN for images that it does not name.

    Raises:
        DataError: If it names none of them.
    """
    row_of = {name.rpartition(".")[0]: row for row, name in enumerate(listed)}
    rows = np.array([row_of.get(image.stem, -1) for image in data.paths])
    if (rows < 0).all():
        first = data.paths[0].name if len(data) else "none"
        raise DataError(f"{path}: names none of the dataset's {len(data)} images ({first}, …); it has {listed[0]}, …")
    return np.where((rows < 0)[:, None], np.nan, values[rows])


def _as_binary(column: NDArray[Any], where: str, data: FaceData) -> NDArray[np.float64]:
    """Return a column of 0 and 1, or −1 and 1, as 0 and 1, ``(n,)``.

    Raises:
        DataError: If it has other values, or none.
    """
    if column.dtype == object:
        raise DataError(f"{where}: expected 0 or 1, found text; use the task column")
    values = numbers(column)
    known = ~np.isnan(values)
    if not known.any():
        raise DataError(f"{where}: all of {len(values)} labels are missing")
    wrong = np.flatnonzero(known & ~np.isin(values, (-1, 0, 1)))
    if len(wrong):
        raise DataError(f"{where}: expected 0 or 1, found {values[wrong[0]]:g} for {data.paths[wrong[0]].name}")
    return np.where(known, (values == 1).astype(np.float64), np.nan)


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``celeba``."""
    return [Task(name="celeba", labels=labels, params=CelebATaskParams)]
