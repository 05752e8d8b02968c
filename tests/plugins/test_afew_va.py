"""The dataset ``afew-va``: annotated frames of clips, whose actors stay on one side of a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import corners, load, refusal, unusable, write_ramp

from facetask.data.splits import make_split
from facetask.plugins.datasets.crops import MAX_SIDE


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path_factory.mktemp("cache")))


def points(left: int = 60, top: int = 30, extent: int = 40) -> list[list[float]]:
    """68 landmarks that fill a square."""
    inside = np.random.default_rng(0).uniform(0, extent, (68, 2))
    inside[[0, 1]] = [[0, 0], [extent, extent]]
    return (inside + np.array([left, top])).tolist()


def annotation(frame: int, **changes: Any) -> dict[str, Any]:
    return {"landmarks": points(60 + frame), "valence": -3.0 + frame, "arousal": 5.0} | changes


def tree(root: Path, actors: dict[str, str | None], frames: int = 2) -> Path:
    for clip, actor in actors.items():
        for i in range(frames):
            write_ramp(root / clip / f"{i:05d}.png")
        content = {"video_id": clip, "actor": actor, "frames": {f"{i:05d}": annotation(i) for i in range(frames)}}
        (root / clip / f"{clip}.json").write_text(json.dumps(content))
    return root


def test_frames_become_faces_with_their_landmarks(tmp_path: Path) -> None:
    data = load("afew-va", tree(tmp_path, {"001": "Ann Lee", "002": None}), margin=0.0)
    columns = data.columns
    assert columns["clip"].tolist() == ["001", "001", "002", "002"]
    assert columns["actor"].tolist() == ["Ann Lee", "Ann Lee", None, None]
    assert columns["person"].tolist() == ["Ann Lee", "Ann Lee", "clip 002", "clip 002"]
    assert columns["frame"].tolist() == [0, 1, 0, 1]
    assert columns["valence"].tolist() == [-3, -2, -3, -2]
    assert columns["arousal"].tolist() == [5] * 4
    assert data.group_column == "person"
    landmarks = np.array([[columns["x0"], columns["y0"]], [columns["x67"], columns["y67"]]])
    expected = np.array(points())[[0, 67]] - [60, 30]
    np.testing.assert_allclose(landmarks, np.repeat(expected[:, :, None], 4, axis=2))
    for path, left in zip(data.paths, (60, 61, 60, 61), strict=True):
        first, last = corners(path)
        assert first == pytest.approx([left, 30], abs=3)
        assert last == pytest.approx([left + 39, 69], abs=3)
    assert unusable(data) == ()


def test_landmarks_shrink_with_the_face(tmp_path: Path) -> None:
    tree(tmp_path, {"001": "Ann"}, 1)
    write_ramp(tmp_path / "001" / "00000.png", 1300, 1100)
    content = {"frames": {"00000": annotation(0, landmarks=points(100, 50, 1024))}}
    (tmp_path / "001" / "001.json").write_text(json.dumps(content))
    columns = load("afew-va", tmp_path, margin=0.0).columns
    assert [columns[name][0] for name in ("x0", "y0", "x1", "y1")] == [0, 0, MAX_SIDE, MAX_SIDE]


def test_an_actor_is_never_on_two_sides(tmp_path: Path) -> None:
    data = load("afew-va", tree(tmp_path, {f"{i:03d}": f"actor {i % 4}" for i in range(1, 9)}))
    actors = data.column("actor")
    split = make_split(len(data), (0.5, 0.25, 0.25), 0, groups=data.column(data.group_column or ""))
    sides = [set(actors[part]) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == 4


def test_what_a_frame_lacks_is_missing_or_reported(tmp_path: Path) -> None:
    tree(tmp_path, {"001": "Ann"}, 3)
    frames = {"00000": annotation(0, valence=None), "00001": annotation(1, landmarks=[]), "00002": annotation(2)}
    (tmp_path / "001" / "001.json").write_text(json.dumps({"actor": "Ann", "frames": frames}))
    (tmp_path / "001" / "00002.png").unlink()
    data = load("afew-va", tmp_path)
    np.testing.assert_array_equal(data.columns["valence"], [np.nan, -2, -1])
    assert np.isnan(data.columns["x0"]).tolist() == [False, True, False]
    bad = unusable(data)
    assert bad[0].startswith("00001-")
    assert bad[1] == "00002.png (No such file or directory)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"frames": {', "line 1: not JSON ("),
        ("[]", "expected 'frames', a mapping of frames to their annotations, found []"),
        ('{"frames": {}}', "expected 'frames'"),
        (
            json.dumps({"frames": {"00000": {"V": 3, "A": 1}}}),
            "frame '00000': expected arousal, landmarks, valence, found A, V; an annotation of another version?",
        ),
        (json.dumps({"frames": {"x": {}}}), "frame 'x': expected a number and a mapping"),
        (json.dumps({"frames": {"00000": annotation(0, valence=11)}}), "frame '00000': valence: expected a number of"),
        (json.dumps({"frames": {"00000": annotation(0, arousal="high")}}), "frame '00000': arousal: expected a number"),
        (json.dumps({"frames": {"00000": annotation(0, landmarks=[[1, 2]])}}), "landmarks: expected 68 pairs [x, y]"),
    ],
)
def test_malformed_annotations(tmp_path: Path, content: str, message: str) -> None:
    tree(tmp_path, {"001": "Ann"})
    (tmp_path / "001" / "001.json").write_text(content)
    found = refusal("afew-va", tmp_path)
    assert found.startswith(str(tmp_path / "001" / "001.json"))
    assert message in found


def test_refusals(tmp_path: Path) -> None:
    assert "expected a folder for each clip" in refusal("afew-va", tmp_path / "none")
    (tmp_path / "001").mkdir()
    assert refusal("afew-va", tmp_path).endswith("found 001")
    tree(tmp_path, {"001": "Ann"})
    for path in (tmp_path / "001").glob("*.png"):
        path.unlink()
    assert "(001/00000.png, 001/00001.png), found none of them" in refusal("afew-va", tmp_path)
