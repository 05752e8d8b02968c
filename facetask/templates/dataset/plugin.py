"""A dataset: a folder for each person, with the age in the pictures' names."""

import numpy as np
from numpy.typing import NDArray

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl


class PersonFoldersParams(Params):
    """Where the pictures are.

    Attributes:
        root: The folder; ``ann/31_garden.jpg`` in it is a picture of Ann at 31.
        suffix: How the pictures' names end.
    """

    root: ConfigPath
    suffix: str = ".jpg"


def person_folders(params: PersonFoldersParams) -> FaceData:
    """Return the pictures with the columns ``person`` (the group) and ``age`` (years; NaN where no name says it).

    Raises:
        DataError: If there are no pictures.
    """
    paths = tuple(sorted(params.root.glob(f"*/*{params.suffix}")))
    if not paths:
        raise DataError(f"{params.root}: expected a folder for each person with *{params.suffix} files, found none")
    person = np.array([path.parent.name for path in paths], dtype=object)
    ages = [path.stem.partition("_")[0] for path in paths]
    age: NDArray[np.float64] = np.array([float(text) if text.isdecimal() else np.nan for text in ages])
    return FaceData(paths=paths, columns={"person": person, "age": age}, group_column="person", source=str(params.root))


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset."""
    return [Dataset(name="$name", load=person_folders, params=PersonFoldersParams)]
