"""AgeDB: faces of known people over their lives, with labels in the file names, ``id_name_age_gender.jpg``.

The group column is ``name``: one person has about thirty images.

Source: Moschoglou et al. 2017, AgeDB: the first manually collected, in-the-wild age database; the form of the names is
general knowledge.
"""

from __future__ import annotations

import re

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.reading import image_names, numbers, shown, text

TERMS = "non-commercial research only"
GENDERS = {"f": "female", "m": "male"}
OLDEST = 116  # as in the reader of UTKFace; the publishers' own ages end at 101
_EXPECTED = "the images of AgeDB, such as 0_MariaCallas_35_f.jpg"
_NAME = re.compile(r"\d+_(?P<name>.+)_(?P<age>\d+)_(?P<gender>[fm])", re.IGNORECASE)


class AgeDBParams(Params):
    """Where the images are.

    Attributes:
        root: The folder that has the images themselves.
    """

    root: ConfigPath


def load(params: AgeDBParams) -> FaceData:
    """Return all images with what their names say: ``name``, ``age`` (years) and ``gender`` (words).

    An age that nobody reaches is missing.

    Raises:
        DataError: If there is no image, or a name is of another form.
    """
    names = image_names(params.root, _EXPECTED)
    matches = [_NAME.fullmatch(name.rpartition(".")[0]) for name in names]
    fields = [match for match in matches if match]
    if len(fields) < len(names):
        foreign = [name for name, match in zip(names, matches, strict=True) if not match]
        raise DataError(
            f"{params.root}: expected {_EXPECTED} (id_name_age_gender); {len(foreign)} names are of another form: "
            f"{shown(foreign)}; move those images away"
        )
    ages = [int(match["age"]) for match in fields]
    return FaceData(
        paths=tuple(params.root / name for name in names),
        columns={
            "name": text(match["name"] for match in fields),
            "age": numbers(age if age <= OLDEST else float("nan") for age in ages),
            "gender": text(GENDERS[match["gender"].lower()] for match in fields),
        },
        group_column="name",
        licence=TERMS,
        source=str(params.root),
    )


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``agedb``."""
    return [Dataset(name="agedb", load=load, params=AgeDBParams)]
