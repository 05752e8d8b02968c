"""`facetask filters`: what it writes from the results alone, what with the run's images, and what it leaves out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_runs import Finished, Recorder, Toy

from facetask import RunDirError
from facetask.errors import ConfigError
from facetask.filters.comparison import chosen_selectors
from facetask.filters.pictures import Wish, write_pictures
from facetask.running.results import read_results


def names(paths: list[Path]) -> set[str]:
    return {path.name for path in paths}


@pytest.fixture
def folder(finished: Finished, tmp_path: Path) -> Path:
    return finished.copy(tmp_path)


def write(folder: Path, toy: Toy, **wish: object) -> tuple[list[Path], Recorder]:
    recorder = Recorder()
    return write_pictures(folder, Wish(**wish), toy.plugins, recorder), recorder  # type: ignore[arg-type]


def test_curves_sharing_and_responses_need_no_images(folder: Path, toy: Toy) -> None:
    (folder / "resolved.yaml").unlink()
    written, recorder = write(folder, toy)
    results = read_results(folder / "results.json")
    taps = {task.regress.best_tap for task in results.tasks}
    for task in results.tasks:
        assert {f"curves_{task.name}.svg", f"curves_{task.name}.png"} <= names(written)
    for tap in taps:
        assert {f"filters_{tap}.svg", f"filters_{tap}.png", f"filters_{tap}.md"} <= names(written)
    kept = next(iter(results.tasks[0].responses))
    assert f"response_brightness_{kept.tap}_{kept.filter}.svg" in names(written)
    assert not any("images" in name or "selectors" in name for name in names(written))
    assert names(written) == {path.name for path in (folder / "filters").iterdir()}
    assert recorder.warnings == []
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.size[0] > 300
        if path.suffix == ".svg":
            assert "var(--" not in path.read_text()


def test_keep_sets_are_those_of_the_knee(finished: Finished) -> None:
    for task in finished.result.results.tasks:
        assert task.curve
        for curve in task.curve.taps:
            assert len(curve.keep_set) == curve.knee
            assert curve.keep_set == sorted(set(curve.keep_set))


def test_another_filter_and_the_images_that_drive_it(folder: Path, toy: Toy) -> None:
    written, recorder = write(folder, toy, task="brightness", tap="0", filter=3, images=True)
    assert {"response_brightness_0_3.svg", "images_brightness_0_3.png", "filters_0.svg"} <= names(written)
    assert not any("tint" in name for name in names(written))
    assert [warning for warning in recorder.warnings if "personal data" in warning]
    assert "images_brightness" not in (folder / "report.html").read_text()


@pytest.mark.parametrize("task", ["tint", "bins", "level", "marks"])
def test_every_kind_of_task_has_images(folder: Path, toy: Toy, task: str) -> None:
    written, _ = write(folder, toy, task=task, images=True)
    assert [name for name in names(written) if name.startswith(f"images_{task}_")]


def test_selectors_are_compared_and_join_the_report(folder: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetask.filters.comparison.SIZES", (1, 4))
    before = (folder / "results.json").read_bytes()
    written, _ = write(folder, toy, task="brightness", tap="0", selectors=("lasso", "random"))
    (table,) = [path for path in written if path.name == "selectors_brightness_0.md"]
    rows = [line.split(" | ") for line in table.read_text().splitlines()]
    assert [row[0].strip("| ") for row in rows[2:]] == ["lasso", "random", "all 8 filters"]
    best, lots = (float(row[1].split()[0].split("\u00a0")[0]) for row in rows[2:4])
    assert best <= lots
    assert "How other selectors would do" in (folder / "report.html").read_text()
    assert (folder / "results.json").read_bytes() == before


def test_all_filters_are_the_run_s_own_regression(folder: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetask.filters.comparison.SIZES", (1,))
    found = []
    monkeypatch.setattr("facetask.report.write_report", lambda results, path, comparisons: found.extend(comparisons))
    write(folder, toy, selectors=("greedy",))
    for task, compared in zip(read_results(folder / "results.json").tasks, found, strict=True):
        fit = next(fit for fit in task.regress.taps if fit.tap == compared.tap)
        assert compared.everything["rmse"].mean == pytest.approx(fit.metrics["rmse"].mean)
        assert compared.everything["rmse"].std == pytest.approx(fit.metrics["rmse"].std)


def test_without_images_the_rest_is_written_and_they_are_named(folder: Path, toy: Toy) -> None:
    text = (folder / "resolved.yaml").read_text()
    (folder / "resolved.yaml").write_text(text.replace(toy.values["data"]["params"]["root"], "/no/such/folder"))
    with pytest.raises(RunDirError, match=r"left out: response for brightness, images for brightness; .*images: "):
        write(folder, toy, task="brightness", filter=1, images=True)
    assert (folder / "filters" / "curves_brightness.svg").is_file()
    assert not list((folder / "filters").glob("images*"))


def test_wrong_names_are_told_before_anything_is_written(folder: Path, toy: Toy, tmp_path: Path) -> None:
    for wish, words in (
        ({"task": "brightnes"}, "no task 'brightnes'; did you mean 'brightness'"),
        ({"tap": "2.cnv"}, "no tap '2.cnv'; did you mean '2.conv'"),
        ({"tap": "0", "filter": 8}, "0 has 8 filters: --filter must be from 0 to 7, found 8"),
        ({"filter": -1}, "must be from 0 to"),
    ):
        with pytest.raises(RunDirError, match=words.replace("(", r"\(")):
            write(folder, toy, **wish)
    with pytest.raises(ConfigError, match="no selector 'laso'; did you mean 'lasso'"):
        write(folder, toy, selectors=("laso",))
    assert not (folder / "filters").exists()
    with pytest.raises(RunDirError, match=r"results\.json"):
        write(tmp_path / "nowhere", toy)


def test_a_run_without_curves_says_so(folder: Path, toy: Toy) -> None:
    shutil.rmtree(folder)
    toy.run(folder, until="regress")
    written, recorder = write(folder, toy)
    assert written == []
    assert all("stopped before that stage" in warning for warning in recorder.warnings)
    assert len(recorder.warnings) == 5


def test_all_selectors_are_those_that_can_be_used(toy: Toy) -> None:
    found = [selector.name for selector in chosen_selectors(["all"], toy.plugins)]
    assert {"lasso", "greedy", "correlation", "random", "l1-norm"} <= set(found)
    assert len(np.unique(found)) == len(found)
    assert [selector.name for selector in chosen_selectors(["random", "lasso", "random"], toy.plugins)] == [
        "random",
        "lasso",
    ]
