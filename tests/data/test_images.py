from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facetask import DataError, FaceData
from facetask.data.images import scan_images
from facetask.testing import toy_faces


@pytest.fixture
def faces(tmp_path: Path) -> FaceData:
    return toy_faces(tmp_path / "faces", n=10)


def broken(faces: FaceData) -> dict[str, Path]:
    """Break the files of rows 1, 3, 5, 6 and 8, each in another way."""
    paths = faces.paths
    paths[1].unlink()
    paths[3].write_bytes(b"")
    content = paths[5].read_bytes()
    paths[5].write_bytes(content[: len(content) // 2])
    paths[6].write_bytes(b"\xff\xd8 no jpeg \xff\xd9")
    paths[8].unlink()
    paths[8].mkdir()
    return {
        name: paths[i] for name, i in {"missing": 1, "empty": 3, "truncated": 5, "no image": 6, "folder": 8}.items()
    }


def test_sound_images_all_stay(faces: FaceData) -> None:
    counted: list[int] = []
    images = scan_images(faces, 0.0, advance=counted.append)
    assert images.data.paths == faces.paths
    assert images.bad == ()
    assert sum(counted) == 10
    assert len({digest.tobytes() for digest in images.digests}) == 10


def test_bad_images_are_left_out_and_named_in_order(faces: FaceData) -> None:
    names = broken(faces)
    images = scan_images(faces, 0.5)
    assert [path.name for path in images.data.paths] == [f"{i:04d}.png" for i in (0, 2, 4, 7, 9)]
    np.testing.assert_array_equal(images.data.column("brightness"), faces.column("brightness")[[0, 2, 4, 7, 9]])
    assert images.data.group_column == "person"
    assert len(images.digests) == 5
    assert [message.split(" ")[0] for message in images.bad] == [path.name for path in names.values()]
    assert "No such file" in images.bad[0]
    for message in images.bad[1:4]:
        assert "cannot be decoded" in message


def test_a_truncated_jpeg_is_found(tmp_path: Path) -> None:
    paths = tuple(tmp_path / name for name in ("whole.jpg", "cut.jpg"))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(paths[0])
    paths[1].write_bytes(paths[0].read_bytes()[:-40])
    images = scan_images(FaceData(paths=paths, columns={}), 0.5)
    assert images.bad == ("cut.jpg (cannot be decoded)",)


def test_more_than_the_allowed_share_stops_and_names_the_first_five(faces: FaceData) -> None:
    broken(faces)
    faces.paths[9].unlink()
    with pytest.raises(DataError) as caught:
        scan_images(faces, 0.59)
    message = str(caught.value)
    assert "toy faces: 6 of 10 images cannot be read, more than data.max_bad_share = 0.59 allows" in message
    assert "0008.png" in message
    assert "0009.png" not in message
    assert len(scan_images(faces, 0.6).bad) == 6


@pytest.mark.parametrize(("n", "n_bad", "share"), [(100, 29, 0.29), (30, 3, 0.1), (20, 1, 0.05)])
def test_exactly_the_allowed_share_is_allowed(tmp_path: Path, n: int, n_bad: int, share: float) -> None:
    good = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(good)
    paths = (good,) * (n - n_bad) + (tmp_path / "none.png",) * n_bad
    assert len(scan_images(FaceData(paths=paths, columns={}), share).bad) == n_bad
    with pytest.raises(DataError, match=f"{n_bad} of {n} images"):
        scan_images(FaceData(paths=paths, columns={}), share - 1e-6)


def test_no_image_at_all(faces: FaceData) -> None:
    with pytest.raises(DataError, match="toy faces: no image in it"):
        scan_images(faces.subset(np.array([], dtype=int)), 1.0)
    for path in faces.paths:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"toy faces: none of 10 images can be read: 0000.png .*, …"):
        scan_images(faces, 1.0)


def test_equal_content_has_an_equal_digest_wherever_it_lies(faces: FaceData, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.png"
    shutil.copy(faces.paths[2], copy)
    data = FaceData(paths=(*faces.paths, copy), columns={})
    digests = scan_images(data, 0.0).digests
    assert digests[10] == digests[2]
    assert len({digest.tobytes() for digest in digests}) == 10


def test_the_fingerprint_follows_content_and_order(faces: FaceData, tmp_path: Path) -> None:
    one = scan_images(faces, 0.0).fingerprint()
    moved = FaceData(paths=toy_faces(tmp_path / "again", n=10).paths, columns={})
    assert scan_images(moved, 0.0).fingerprint() == one
    assert scan_images(faces.subset(np.arange(10)[::-1]), 0.0).fingerprint() != one
    toy_faces(tmp_path / "again", n=10, seed=1)
    assert scan_images(moved, 0.0).fingerprint() != one


def test_what_is_known_to_be_good_is_not_decoded_again(faces: FaceData, monkeypatch: pytest.MonkeyPatch) -> None:
    images = scan_images(faces, 0.0)
    known = {digest.tobytes() for digest in images.digests[:7]}
    decoded = []
    monkeypatch.setattr("facetask.data.images.open_image", decoded.append)
    again = scan_images(faces, 0.0, known_good=known.__contains__)
    assert sorted(decoded) == sorted(faces.paths[7:])
    assert again.fingerprint() == images.fingerprint()


def test_damaged_exif_is_passed_over_in_silence(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "somebody's camera"
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=exif.tobytes()[:-9])
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert scan_images(FaceData(paths=(path,) * 50, columns={}), 0.0).bad == ()
    assert heard == []
    assert warnings.filters == filters


@pytest.mark.parametrize("dataset", ["utkface", "fer2013", "celeba", "ytf"])
def test_real_images_can_be_read(data_root: Path, dataset: str) -> None:
    paths = tuple(sorted((data_root / dataset / "images").rglob("*.*"))[:40])
    if not paths:
        pytest.skip(f"no images of {dataset} in {data_root}")
    images = scan_images(FaceData(paths=paths, columns={}), 0.0)
    assert len(images.data) == len(paths)
