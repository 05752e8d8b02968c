from __future__ import annotations

from pathlib import Path

import pytest

from facetask import RunDirError, cache_folder


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert cache_folder("responses/abc") == tmp_path / "a" / "b" / "responses" / "abc"
    assert cache_folder("responses/abc").is_dir()


@pytest.mark.parametrize("value", [None, ""])
def test_else_it_lies_in_the_platform_s_place(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "platform" / name)
    monkeypatch.delenv("FACETASK_CACHE")
    if value is not None:
        monkeypatch.setenv("FACETASK_CACHE", value)
    assert cache_folder("faces") == tmp_path / "platform" / "facetask" / "faces"


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FACETASK_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("FACETASK_CACHE", str(place))
        with pytest.raises(RunDirError, match="set FACETASK_CACHE to a writable folder"):
            cache_folder()
