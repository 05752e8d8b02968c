"""The dataset ``celeba``: the published lists, joined and checked."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import load, refusal, unusable, write_image

POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
LANDMARKS = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
ATTRIBUTES = ["5_o_Clock_Shadow", *(f"Attribute_{i}" for i in range(1, 39)), "Young"]
N = 6


def values(n: int = N) -> np.ndarray:
    return np.where(np.random.default_rng(0).random((n, 40)) < 0.5, 1, -1)


def tree(root: Path, n: int = N) -> Path:
    """The lists as they are published: numbers padded to two places, a blank at the attributes' header's end."""
    names = [f"{i:06d}.jpg" for i in range(1, n + 1)]
    for name in names:
        write_image(root / "img_align_celeba" / name, (178, 218))
    lines = [f"{name} " + " ".join(f"{v:2d}" for v in row) for name, row in zip(names, values(n), strict=True)]
    lists = {
        "list_attr_celeba.txt": [str(n), " ".join(ATTRIBUTES) + " ", *lines],
        "identity_CelebA.txt": [f"{name} {2880 + i // 2}" for i, name in enumerate(names)],
        "list_eval_partition.txt": [f"{name} {i % 3}" for i, name in enumerate(names)],
        "list_landmarks_align_celeba.txt": [
            str(n),
            " ".join(LANDMARKS),
            *(f"{name} " + " ".join(f"{60 + i + k:4d}" for k in range(10)) for i, name in enumerate(names)),
        ],
    }
    for name, content in lists.items():
        (root / name).write_text("\n".join(content) + "\n")
    return root


def test_lists_become_columns(tmp_path: Path) -> None:
    data = load("celeba", tree(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in data.paths[:2]] == [
        "img_align_celeba/000001.jpg",
        "img_align_celeba/000002.jpg",
    ]
    assert list(data.columns) == ["identity", "split", *(name.lower() for name in ATTRIBUTES), *LANDMARKS]
    assert data.columns["identity"].tolist() == ["2880", "2880", "2881", "2881", "2882", "2882"]
    assert data.columns["split"].tolist() == ["train", "validation", "test"] * 2
    attributes = np.stack([data.columns[name.lower()] for name in ATTRIBUTES], axis=1)
    np.testing.assert_array_equal(attributes, values() == 1)
    assert data.columns["righteye_x"].tolist() == [62, 63, 64, 65, 66, 67]
    assert data.group_column == "identity"
    assert "non-commercial" in data.licence
    assert unusable(data) == ()


def test_folders_of_the_published_drive(tmp_path: Path) -> None:
    tree(tmp_path)
    for place, names in {
        "Anno": ["list_attr_celeba.txt", "identity_CelebA.txt", "list_landmarks_align_celeba.txt"],
        "Eval": ["list_eval_partition.txt"],
        "Img": ["img_align_celeba"],
    }.items():
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / name).rename(tmp_path / place / name)
    data = load("celeba", tmp_path)
    assert len(data.columns) == 2 + 40 + 10
    assert unusable(data) == ()


def test_partition_and_landmarks_need_not_be_there(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "list_eval_partition.txt").unlink()
    (tmp_path / "list_landmarks_align_celeba.txt").unlink()
    assert list(load("celeba", tmp_path).columns) == ["identity", *(name.lower() for name in ATTRIBUTES)]


def test_lists_in_another_order_are_joined_by_name(tmp_path: Path) -> None:
    tree(tmp_path)
    lines = (tmp_path / "identity_CelebA.txt").read_text().splitlines()
    (tmp_path / "identity_CelebA.txt").write_text("\r\n".join(reversed(lines)) + "\r\n")
    data = load("celeba", tmp_path)
    assert data.columns["identity"].tolist() == ["2880", "2880", "2881", "2881", "2882", "2882"]


def test_missing_images_are_counted_by_the_run(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "img_align_celeba" / "000002.jpg").unlink()
    data = load("celeba", tmp_path)
    assert len(data) == N
    assert unusable(data) == ("000002.jpg (No such file or directory)",)


@pytest.mark.parametrize(
    ("name", "line", "replacement", "message"),
    [
        ("list_attr_celeba.txt", 0, "image_id,Male", "in line 2, found 'image_id,Male'; a list of another version?"),
        ("list_attr_celeba.txt", 0, "202599", "line 1 says 202599 images, found 6 lines of images; is the file whole?"),
        ("list_attr_celeba.txt", 3, "000002.jpg 1 1", "line 4: expected an image's name and 40 numbers, found 3 cells"),
        ("list_attr_celeba.txt", 3, "000002.jpg" + " x" * 40, "line 4: expected a number for 5_o_Clock_Shadow, found"),
        ("list_attr_celeba.txt", 4, "000003.jpg" + " 0" * 40, "line 5: expected 1 or -1 for 5_o_Clock_Shadow, found 0"),
        ("list_attr_celeba.txt", 4, "000001.jpg" + " 1" * 40, "names 6 images, list_attr_celeba.txt 6"),
        ("identity_CelebA.txt", 1, "000002.jpg", "line 2: expected an image's name and 1 numbers, found 1 cells"),
        (
            "identity_CelebA.txt",
            1,
            "000002.jpg nan",
            "expected a person's whole number for each image, not so for 000002",
        ),
        ("identity_CelebA.txt", 5, "", "names 5 images, list_attr_celeba.txt 6; expected the same ones; 1 stand in"),
        ("list_eval_partition.txt", 1, "000002.jpg 3", "expected 0, 1 or 2 for 000002.jpg, found 3"),
        ("list_landmarks_align_celeba.txt", 2, "000001.jpg 1", "line 3: expected an image's name and 10 numbers"),
    ],
)
def test_malformed_lists(tmp_path: Path, name: str, line: int, replacement: str, message: str) -> None:
    tree(tmp_path)
    lines = (tmp_path / name).read_text().splitlines()
    lines[line] = replacement
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    found = refusal("celeba", tmp_path)
    assert message in found
    assert ".txt" in found.partition(": ")[0]


def test_images_named_twice_or_elsewhere(tmp_path: Path) -> None:
    tree(tmp_path)
    for path in tmp_path.glob("*.txt"):
        path.write_text(path.read_text().replace("000002.jpg", "../000002.jpg"))
    assert "1 image names lead out of" in refusal("celeba", tmp_path)
    for path in tmp_path.glob("*.txt"):
        path.write_text(path.read_text().replace("../000002.jpg", "000001.jpg"))
    assert "1 image names stand in more than one row: 000001.jpg" in refusal("celeba", tmp_path)


def test_parts_that_are_missing(tmp_path: Path) -> None:
    assert "expected a folder with img_align_celeba/, list_attr" in refusal("celeba", tmp_path / "none")
    assert f"{tmp_path / 'list_attr_celeba.txt'}: no such file; expected" in refusal("celeba", tmp_path)
    tree(tmp_path)
    (tmp_path / "identity_CelebA.txt").rename(tmp_path / "identity.txt")
    message = refusal("celeba", tmp_path)
    assert "identity_CelebA.txt: no such file" in message
    assert "identity.txt" in message
    (tmp_path / "identity.txt").rename(tmp_path / "identity_CelebA.txt")
    for path in (tmp_path / "img_align_celeba").iterdir():
        path.unlink()
    message = refusal("celeba", tmp_path)
    assert "expected the images of list_attr_celeba.txt (000001.jpg, " in message
    assert "(6 in all)), found none of them (an empty folder); extract the archive" in message
    (tmp_path / "img_align_celeba").rmdir()
    assert f"{tmp_path / 'img_align_celeba'}: expected" in refusal("celeba", tmp_path)


def test_real_images_in_the_published_layout(data_root: Path, tmp_path: Path) -> None:
    with (data_root / "celeba" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:150]
    names = [key for key in rows[0] if key not in ("image", "identity")]
    (tmp_path / "img_align_celeba").mkdir()
    for row in rows:
        (tmp_path / "img_align_celeba" / row["image"]).symlink_to(
            (data_root / "celeba/images" / row["image"]).absolute()
        )
    lines = [" ".join([row["image"], *(f"{2 * int(row[name]) - 1:2d}" for name in names)]) for row in rows]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), " ".join(names), *lines]) + "\n")
    (tmp_path / "identity_CelebA.txt").write_text("".join(f"{row['image']} {row['identity']}\n" for row in rows))
    data = load("celeba", tmp_path)
    assert data.columns["identity"].tolist() == [row["identity"] for row in rows]
    for name in names:
        assert data.columns[name].tolist() == [float(row[name]) for row in rows]
    assert unusable(data) == ()
