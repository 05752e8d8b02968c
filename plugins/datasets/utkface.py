"""UTKFace: faces whose labels stand in their file names, ``[age]_[gender]_[race]_[date&time].jpg.chip.jpg``.

Nobody knows who is on which image, so there is no group column: a person who appears twice may be on both sides of a
split. The ages are partly estimated by a machine.

Source: Zhang, Song, Qi 2017, Age Progression/Regression by Conditional Adversarial Autoencoder, and the form of the
names that its web page (susanqq.github.io/UTKFace) states; that a few names lack a field is general knowledge.
"""

from __future__ import annotations

import re

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.reading import image_names, numbers, shown, text

TERMS = "non-commercial research only; the images' owners keep their copyright"
GENDERS = ("male", "female")
RACES = ("white", "black", "asian", "indian", "other")
OLDEST = 116  # of the ages that the publishers state
_EXPECTED = "the images of UTKFace, such as 25_0_1_20170116174525125.jpg.chip.jpg"
_DATE_DIGITS = 8  # at least: year, month, day


class UTKFaceParams(Params):
    """Where the images are.

    Attributes:
        root: The folder that has the images themselves.
    """

    root: ConfigPath


def load(params: UTKFaceParams) -> FaceData:
    """Return all images with what their names say.

    Columns are ``age`` (years), ``gender``, ``race`` (words) and ``date`` (when the image was collected, digits).
    A field that a name lacks, or that is no code of its kind, is missing; where a name has fewer fields than four,
    which of gender and race it lacks cannot be known, so both are missing.

    Raises:
        DataError: If there is no image, or a name does not begin with an age.
    """
    names = image_names(params.root, _EXPECTED)
    foreign = [name for name in names if not re.match(r"\d{1,3}_", name)]
    if foreign:
        raise DataError(
            f"{params.root}: expected {_EXPECTED}; {len(foreign)} names do not begin with an age: {shown(foreign)}; "
            "move those images away"
        )
    fields = [_fields(name) for name in names]
    ages = (int(age) for age, *_ in fields)
    return FaceData(
        paths=tuple(params.root / name for name in names),
        columns={
            "age": numbers(age if age <= OLDEST else float("nan") for age in ages),
            "gender": text(_word(gender, GENDERS) for _, gender, _, _ in fields),
            "race": text(_word(race, RACES) for _, _, race, _ in fields),
            "date": text(date or None for *_, date in fields),
        },
        licence=TERMS,
        source=str(params.root),
    )


def _fields(name: str) -> tuple[str, str, str, str]:
    """Return a name's age, gender, race and date, empty where it lacks them."""
    parts = name.split(".")[0].strip().split("_")
    digits = re.match(r"\d*", parts[-1])
    date = digits.group() if digits and len(digits.group()) >= _DATE_DIGITS else ""
    if len(parts) - bool(date) < 3:
        return parts[0], "", "", date
    return parts[0], parts[1], parts[2], date


def _word(code: str, words: tuple[str, ...]) -> str | None:
    """Return the word that a code stands for."""
    return words[int(code)] if code.isdecimal() and int(code) < len(words) else None


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``utkface``."""
    return [Dataset(name="utkface", load=load, params=UTKFaceParams)]
