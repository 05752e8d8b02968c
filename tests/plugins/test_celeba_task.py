"""The task ``celeba``: columns and published lists give the same labels; groups are the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from facetask import DataError, FaceData, Labels
from facetask.plugins.datasets.table import facetask_datasets
from facetask.plugins.tasks.celeba import ACCESSORIES, ATTRIBUTES, FACIAL_HAIR, facetask_tasks
from facetask.testing import check_task

(RECORD,) = facetask_tasks()
PUBLISHED = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
NAMES = [f"{i:06d}.jpg" for i in range(1, 13)]
VALUES = np.where(np.random.default_rng(0).random((len(NAMES), 40)) < 0.5, 1, -1)
PEOPLE = [2880 + i // 2 for i in range(len(NAMES))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The published lists without any image."""
    (tmp_path / "Anno").mkdir()
    lines = [f"{name} " + " ".join(f"{v:2d}" for v in row) for name, row in zip(NAMES, VALUES, strict=True)]
    (tmp_path / "Anno" / "list_attr_celeba.txt").write_text("\n".join([str(len(NAMES)), PUBLISHED + " ", *lines, ""]))
    people = [f"{name} {person}" for name, person in zip(NAMES, PEOPLE, strict=True)]
    (tmp_path / "identity_CelebA.txt").write_text("\n".join([*people, ""]))
    return tmp_path


def table(**changed: NDArray[Any]) -> FaceData:
    """What the dataset ``celeba`` gives, without images."""
    columns: dict[str, NDArray[Any]] = {"identity": np.array([str(person) for person in PEOPLE], dtype=object)}
    columns |= {name.lower(): (VALUES[:, i] + 1) / 2 for i, name in enumerate(PUBLISHED.split())}
    paths = tuple(Path(name) for name in NAMES)
    return FaceData(paths=paths, columns=columns | changed, licence="theirs", source="somewhere/labels.csv")


def bare(names: list[str]) -> FaceData:
    """Images of which nothing is known."""
    return FaceData(paths=tuple(Path("images") / name for name in names), columns={}, source="images")


def both(root: Path, **params: Any) -> Labels:
    """The labels from the columns, which must be those from the lists."""
    found = check_task(RECORD, table(), RECORD.params(**params))
    listed = check_task(RECORD, bare(NAMES), RECORD.params(root=root, **params))
    np.testing.assert_array_equal(found.values, listed.values)
    assert (found.kind, found.classes, found.name) == (listed.kind, listed.classes, listed.name)
    assert found.licence == "theirs"
    assert "non-commercial" in listed.licence
    assert found.flip == listed.flip == "keep"
    return found


def expected(*names: str) -> NDArray[np.float64]:
    return np.stack([VALUES[:, PUBLISHED.split().index(name)] > 0 for name in names], axis=1).astype(float)


def test_the_attributes_are_those_published() -> None:
    assert tuple(PUBLISHED.lower().split()) == ATTRIBUTES


def test_gender(root: Path) -> None:
    found = both(root, task="gender")
    assert (found.kind, found.classes, found.name) == ("binary", ("female", "male"), "gender")
    np.testing.assert_array_equal(found.values, expected("Male"))


@pytest.mark.parametrize(
    ("task", "names", "constant"),
    [
        ("facial-hair", ("5_o_Clock_Shadow", "Goatee", "Sideburns", "Mustache", "No_Beard"), FACIAL_HAIR),
        (
            "accessories",
            ("Wearing_Earrings", "Wearing_Hat", "Wearing_Necklace", "Wearing_Necktie", "Eyeglasses"),
            ACCESSORIES,
        ),
    ],
)
def test_groups_of_five(root: Path, task: str, names: tuple[str, ...], constant: tuple[str, ...]) -> None:
    found = both(root, task=task)
    assert (found.kind, found.name) == ("multilabel", task)
    assert found.classes == tuple(name.lower() for name in names) == constant
    np.testing.assert_array_equal(found.values, expected(*names))


def test_any_attribute_or_several_in_any_case(root: Path) -> None:
    found = both(root, attribute="Smiling")
    assert (found.kind, found.classes, found.name) == ("binary", ("not smiling", "smiling"), "smiling")
    np.testing.assert_array_equal(found.values, expected("Smiling"))
    found = both(root, attributes=["young", "Bald"])
    assert (found.kind, found.classes) == ("multilabel", ("young", "bald"))
    np.testing.assert_array_equal(found.values, expected("Young", "Bald"))


def test_identity(root: Path) -> None:
    found = both(root, task="identity")
    assert found.kind == "nominal"
    assert found.classes == tuple(str(person) for person in sorted(set(PEOPLE)))
    assert [found.classes[int(value)] for value in found.values[:, 0]] == [str(person) for person in PEOPLE]
    numbered = table(identity=np.array(PEOPLE, dtype=float))
    np.testing.assert_array_equal(RECORD.labels(numbered, RECORD.params(task="identity")).values, found.values)


def test_images_that_no_list_names_have_no_label(root: Path) -> None:
    data = bare(["000003.png", "other.jpg", "000001.jpg"])  # converted images keep their name, not their suffix
    found = RECORD.labels(data, RECORD.params(root=root, task="gender")).values[:, 0]
    male = expected("Male")[:, 0]
    np.testing.assert_array_equal(found, [male[2], np.nan, male[0]])
    found = RECORD.labels(data, RECORD.params(root=root, task="identity"))
    assert found.classes == ("2880", "2881")
    np.testing.assert_array_equal(found.values[:, 0], [1, np.nan, 0])


def test_missing_cells_and_minus_one(root: Path) -> None:
    male = np.where(VALUES[:, 20] > 0, 1.0, -1.0)
    male[4] = np.nan
    found = RECORD.labels(table(male=male), RECORD.params(task="gender")).values[:, 0]
    assert np.isnan(found[4])
    np.testing.assert_array_equal(np.delete(found, 4), np.delete(expected("Male")[:, 0], 4))


def test_real_table(data_root: Path) -> None:
    if not (data_root / "celeba" / "labels.csv").is_file():
        pytest.skip("no CelebA images: set FACETASK_DATA")
    (dataset,) = facetask_datasets()
    data = dataset.load(dataset.params(root=data_root / "celeba"))
    for task in ("gender", "facial-hair", "accessories", "identity"):
        found = check_task(RECORD, data, RECORD.params(task=task))
        assert not np.isnan(found.values).any()
    assert len(found.classes) == 299
    hair = RECORD.labels(data, RECORD.params(task="facial-hair")).values
    bearded = hair[:, FACIAL_HAIR.index("goatee")] == 1
    assert hair[bearded, FACIAL_HAIR.index("no_beard")].mean() < 0.1


# --- errors -----------------------------------------------------------------------------------------------------------


def refusal(data: FaceData, **params: Any) -> str:
    with pytest.raises(DataError) as caught:
        RECORD.labels(data, RECORD.params(**params))
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "params", "words"),
    [
        ({"male": np.full(12, np.nan)}, {"task": "gender"}, "column 'male': all of 12 labels are missing"),
        ({"male": np.arange(12.0)}, {"task": "gender"}, "expected 0 or 1, found 2 for 000003.jpg"),
        ({"bald": np.array(["no"] * 12, dtype=object)}, {"attribute": "bald"}, "expected 0 or 1, found text"),
        ({"identity": np.array([None] * 12, dtype=object)}, {"task": "identity"}, "all of 12 labels are missing"),
    ],
)
def test_columns_that_are_no_labels(changed: Mapping[str, NDArray[Any]], params: dict[str, Any], words: str) -> None:
    message = refusal(table(**changed), **params)
    assert message.startswith("somewhere/labels.csv: column ")
    assert words in message


def test_missing_columns_and_lists_are_named(root: Path) -> None:
    message = refusal(bare(NAMES), task="accessories")
    assert message.startswith("images: no column 'wearing_earrings'")
    assert "params.root with the published lists" in message
    (root / "identity_CelebA.txt").unlink()
    assert "identity_CelebA.txt: no such file" in refusal(bare(NAMES), task="identity", root=root)
    assert "names none of the dataset's 1 images (a.jpg, …)" in refusal(bare(["a.jpg"]), task="gender", root=root)
    lists = root / "Anno" / "list_attr_celeba.txt"
    lists.write_text(lists.read_text().replace("Male", "Mail"))
    assert "line 2: no attribute 'male'" in refusal(bare(NAMES), task="gender", root=root)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "exactly one of task, attribute and attributes, found none"),
        ({"task": "gender", "attribute": "bald"}, "found task and attribute"),
        ({"attribute": "smilling"}, "none of CelebA's 40 attributes; did you mean 'smiling'"),
        ({"attributes": ["bald"]}, "two or more different ones"),
        ({"attributes": ["bald", "Bald"]}, "two or more different ones"),
    ],
)
def test_params_that_say_too_little_or_too_much(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RECORD.params(**params)
    assert words in str(caught.value)
