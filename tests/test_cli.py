"""The command line: what each command prints; what the user can mend ends with status 2 and one message."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from toy_runs import ROOT, Finished, Toy, process_environment
from typer.testing import CliRunner, Result

from facetask import __version__, cli, load_model
from facetask.cache import cache_folder

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in a folder of its own, with the toy plugins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACETASK_PLUGINS", str(toy.plugins_dir))

    def command(*arguments: Any) -> Result:
        found = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], prog_name="facetask")
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return command


@pytest.fixture
def refused(invoke: Invoke) -> Callable[..., str]:
    """Run a command that must end with status 2, and return its message."""

    def command(*arguments: Any) -> str:
        found = invoke(*arguments)
        assert found.exit_code == 2, found.output
        (message,) = [line for line in found.stderr.splitlines() if line.startswith("facetask: ")]
        assert "Traceback" not in found.output
        return message + found.stderr.split(message, 1)[1]

    return command


def dataset(toy: Toy, folder: Path) -> tuple[Path, list[str]]:
    """Copy the toy faces; return their folder and the overrides that use it."""
    root = folder / "faces"
    shutil.copytree(Path(toy.values["data"]["params"]["root"]), root)
    return root, ["-o", f"data.params.root={root}"]


def break_images(root: Path, count: int) -> None:
    """Cut off the ends of some images."""
    for path in sorted((root / "images").iterdir())[:count]:
        path.write_bytes(path.read_bytes()[:600])


# --- commands


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"facetask {__version__}\n"


@pytest.mark.parametrize("stage", ["regress", "curve", "prune", "finetune"])
def test_each_stage_is_a_command(invoke: Invoke, toy: Toy, tmp_path: Path, stage: str) -> None:
    found = invoke(stage, toy.config_path, "--out", tmp_path / "run", "-o", "trials=1")
    assert found.exit_code == 0, found.output
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["stage"], results["trials"]) == (stage, 1)
    done = [name for name in ("regress", "curve", "prune", "finetune") if results["tasks"][1][name] is not None]
    assert done[-1] == stage
    assert f"{stage} tint: " in found.stderr
    assert (tmp_path / "run/model/tint/model.json").is_file() == (stage in ("prune", "finetune"))


def test_runs_go_to_a_folder_named_after_the_file(invoke: Invoke, toy: Toy, tmp_path: Path) -> None:
    assert invoke("regress", toy.config_path).exit_code == 0
    assert (tmp_path / "runs/toy/results.json").is_file()


def test_check_reads_everything_and_computes_nothing(
    invoke: Invoke, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "cache"))
    root, overrides = dataset(toy, tmp_path)
    break_images(root, 2)
    found = invoke("check", toy.config_path, *overrides)
    assert found.exit_code == 0, found.output
    assert "good; 58 images, 3 taps" in found.stdout
    assert re.search(r"brightness: continuous from 6\d.* to 1\d\d.* grey levels, 57 labelled, 1 missing", found.stdout)
    assert re.search(r"bins: binned from \S+ to \S+, 57 labelled, 1 missing", found.stdout)
    assert "marks: multilabel, 58 labelled, 7 partly, 0 missing" in found.stdout
    assert "2 of 60 images cannot be read and are left out: 0000.png (cannot be decoded), 0001.png" in found.stderr
    assert not [path for path in cache_folder("responses").rglob("*") if path.is_file()]
    assert not (tmp_path / "runs").exists()


def test_env_prints_json(invoke: Invoke) -> None:
    assert json.loads(invoke("env").stdout)["facetask"] == __version__


def test_plugins_are_listed(invoke: Invoke) -> None:
    listed = json.loads(invoke("plugins", "list", "--json").stdout)
    by_name = {(entry["kind"], entry["name"]): entry for entry in listed}
    assert by_name["architecture", "tiny"]["origin"] == "local"
    dlib = by_name["architecture", "dlib-face-resnet"]
    assert "CC0-1.0" in dlib["licence"]
    assert dlib["weights"][0]["sha256"]
    assert all({"kind", "name", "status", "licence"} <= entry.keys() for entry in listed)
    assert all(entry["status"] == "available" for entry in listed)
    text = invoke("plugins", "list").stdout
    assert all(entry["name"] in text for entry in listed)


def test_plugins_check_passes(invoke: Invoke, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy(toy.plugins_dir / "tiny.py", tmp_path / "mine")
    found = invoke("plugins", "check", "--plugins-dir", tmp_path / "mine")
    assert found.exit_code == 0, found.output
    assert "ok      architecture tiny" in found.stdout


BROKEN = {
    "absent": ("import absent_package", "ModuleNotFoundError: No module named 'absent_package'"),
    "leaves": ("raise SystemExit(1)", "SystemExit"),
    "syntax": ("def f(:", "SyntaxError"),
    "divides": (
        "from facetask import Selector, hookimpl\n@hookimpl\ndef facetask_selectors():\n"
        "    return [Selector(name='divides', select=lambda problem, params: 1 / 0)]",
        "selector 'divides': ZeroDivisionError",
    ),
}


def test_plugins_check_tells_of_broken_plugins(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, (code, _) in BROKEN.items():
        (tmp_path / f"mine/{name}.py").write_text(code)
    found = invoke("plugins", "check", "--plugins-dir", tmp_path / "mine")
    assert found.exit_code == 2
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == len(BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert [line for line in failed if f" {name}: " in line and reason in line], (name, failed)
    assert "ok      selector lasso" in found.stdout


def test_a_local_plugin_that_cannot_be_imported_hides_nothing(
    refused: Any, invoke: Invoke, toy: Toy, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(toy.plugins_dir / "tiny.py", mine)
    (mine / "broken.py").write_text("import absent_package")
    listed = json.loads(invoke("plugins", "list", "--json", "--plugins-dir", mine).stdout)
    (broken,) = [entry for entry in listed if entry["status"] == "failed"]
    assert broken["name"] == "broken"
    assert "absent_package" in broken["detail"]
    message = refused("check", toy.config_path, "--plugins-dir", mine, "-o", "selector.name=mine")
    assert "unknown selector 'mine'" in message
    assert f"{mine / 'broken.py'}" in message
    assert "absent_package" in message
    assert invoke("check", toy.config_path, "--plugins-dir", mine).exit_code == 0


# --- predictions


def test_predictions_are_those_of_the_loaded_model(invoke: Invoke, finished: Finished, toy: Toy) -> None:
    for task, folder in finished.result.models.items():
        expected = list(load_model(folder, toy.plugins).predict(toy.images[:3], batch_size=1))
        as_json = json.loads(invoke("predict", folder, *toy.images[:3], "--json").stdout)
        assert [{key: row[key] for key in row if key != "image"} for row in as_json] == expected, task
        assert [row["image"] for row in as_json] == [str(path) for path in toy.images[:3]]
        header, *rows = invoke("predict", folder, *toy.images[:3], "--csv").stdout.splitlines()
        if task == "marks":
            assert header == "image,value[bright],value[warm],score[bright],score[warm]"
            assert [row.split(",")[1] for row in rows] == [str(found["value"]["bright"]) for found in expected]
            continue
        assert header == ",".join(["image", *expected[0]])
        assert [row.split(",")[1] for row in rows] == [str(found["value"]) for found in expected]


def test_a_folder_is_predicted_in_order_and_text_shows_the_unit(invoke: Invoke, finished: Finished, toy: Toy) -> None:
    lines = invoke("predict", finished.path / "model/brightness", toy.images[0].parent).stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in toy.images]
    assert all(line.endswith(" grey levels") for line in lines)


def test_images_that_cannot_be_read_are_named_after_the_others(
    refused: Any, invoke: Invoke, finished: Finished, toy: Toy, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    arguments = ["predict", finished.path / "model/tint", bad, toy.images[0], "--json"]
    found = invoke(*arguments)
    assert [row["image"] for row in json.loads(found.stdout)] == [str(toy.images[0])]
    assert "1 of 2 images cannot be read" in refused(*arguments)
    assert "bad.png" in refused(*arguments)
    (tmp_path / "none").mkdir()
    assert "no image in this folder" in refused("predict", finished.path / "model/tint", tmp_path / "none")
    assert "no such image or folder" in refused("predict", finished.path / "model/tint", tmp_path / "absent.png")


def test_a_photograph_with_damaged_exif_is_no_trouble(invoke: Invoke, finished: Finished, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x01\0\0\0" + b"\xff" * 9
    Image.new("RGB", (40, 40), "grey").save(photo, exif=exif)
    found = invoke("predict", finished.path / "model/tint", photo, "--json")
    assert found.exit_code == 0, found.output
    assert found.stderr == ""


# --- exports and costs


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_model_is_exported_without_noise(invoke: Invoke, finished: Finished, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"new/tint.{form}"
    found = invoke("export", finished.path / "model/tint", "--format", form, "--out", out)
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith(f"{out}: ")
    assert found.stderr == ""
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_export_lies_beside_the_model_by_default(invoke: Invoke, finished: Finished, tmp_path: Path) -> None:
    model = finished.copy(tmp_path) / "model/tint"
    assert invoke("export", model, "--format", "pt2").exit_code == 0
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.pt2", "model.safetensors"]


def test_exports_that_are_refused(refused: Any, finished: Finished, tmp_path: Path) -> None:
    model = finished.path / "model/tint"
    assert "unknown format 'tflite'; known: onnx, pt2" in refused("export", model, "--format", "tflite")
    assert "no saved model" in refused("export", tmp_path)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/tint.pt2"
    assert f"{out}: cannot be written" in refused("export", model, "--format", "pt2", "--out", out)


def test_a_cost_is_printed(invoke: Invoke, refused: Any, finished: Finished, tmp_path: Path) -> None:
    arguments = ["cost", finished.path / "model/tint", "--batch", 2, "--seconds", 0]
    found = invoke(*arguments, "--json")
    assert found.exit_code == 0, found.output
    cost = json.loads(found.stdout)
    assert [(row["batch"], row["runtime"]) for row in cost["latency"]] == [(2, "torch"), (2, "onnxruntime")]
    assert cost["pruned"]["params"] < cost["base"]["params"]
    lines = invoke(*arguments).stdout.splitlines()
    assert lines[0] == "tint, carved out of tiny"
    assert [line for line in lines if line.startswith("    2  onnxruntime ")]
    assert "no saved model" in refused("cost", tmp_path)


# --- what the user can mend


def test_a_misspelt_key(refused: Any, toy: Toy) -> None:
    message = refused("run", toy.config_path, "-o", "prune.treshold=0.1")
    assert "prune.treshold: unknown key; did you mean 'threshold'?" in message


def test_a_file_that_is_no_configuration(refused: Any, tmp_path: Path) -> None:
    assert "absent.yaml" in refused("run", tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("data: {name: table\ntrials: [")
    assert "bad.yaml:2" in refused("run", tmp_path / "bad.yaml")


def test_an_unknown_plugin(refused: Any, toy: Toy) -> None:
    message = refused("run", toy.config_path, "-o", "selector.name=laso")
    assert "selector.name: unknown selector 'laso'; did you mean 'lasso'?" in message


def test_an_unknown_cut_is_found_before_any_work(refused: Any, toy: Toy) -> None:
    assert "no tap '2.con' in this network; did you mean '2.conv'?" in refused(
        "check", toy.config_path, "-o", "prune.cut=2.con"
    )


def test_a_loss_that_does_not_fit(refused: Any, toy: Toy) -> None:
    message = refused("check", toy.config_path, "-o", "finetune.loss=smooth-l1")
    assert "finetune.loss: 'smooth-l1' does not fit the nominal task 'level'; use auto" in message


def test_labels_that_cannot_be_used(refused: Any, toy: Toy, tmp_path: Path) -> None:
    root, overrides = dataset(toy, tmp_path)
    table = (root / "labels.csv").read_text().splitlines()
    value = table[5].split(",")[2]

    def with_table(*lines: str) -> str:
        (root / "labels.csv").write_text("\n".join(lines))
        return refused("check", toy.config_path, *overrides)

    assert "no column 'brightness'; did you mean 'brightnes'" in with_table(
        table[0].replace("brightness", "brightnes"), *table[1:]
    )
    infinite = with_table(*table[:5], table[5].replace(value, "inf"), *table[6:])
    assert "column 'brightness': 1 labels are infinite, in 0004.png" in infinite
    text = with_table(*table[:5], table[5].replace(value, "bright"), *table[6:])
    assert "needs numbers, but row 5 (0004.png) has 'bright'" in text


def test_images_that_cannot_be_used(refused: Any, toy: Toy, tmp_path: Path) -> None:
    root, overrides = dataset(toy, tmp_path)
    break_images(root, 7)
    many = refused("check", toy.config_path, *overrides)
    assert "7 of 60 images cannot be read, more than data.max_bad_share = 0.05 allows" in many
    assert "0004.png (cannot be decoded), …" in many
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    assert "found an empty folder" in refused("check", toy.config_path, *overrides)


def test_truncated_weights(refused: Any, toy: Toy, tmp_path: Path) -> None:
    weights = tmp_path / "face.dat"
    weights.write_bytes(b"\x01\x01\x08dlib")
    config = toy.config(base_network={"name": "dlib-face-resnet", "params": {"weights": str(weights)}})
    (tmp_path / "dlib.yaml").write_text(yaml.safe_dump(config))
    assert str(weights) in refused("check", tmp_path / "dlib.yaml")


def test_a_folder_that_cannot_be_a_runs(refused: Any, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/run"):
        assert "cannot be written" in refused("run", toy.config_path, "--out", out)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("")
    message = refused("run", toy.config_path, "--out", tmp_path / "notes")
    assert "not empty and no run's folder" in message
    assert (tmp_path / "notes/todo.txt").is_file()


def test_another_configuration_in_the_same_folder(refused: Any, toy: Toy, finished: Finished) -> None:
    message = refused("run", toy.config_path, "--out", finished.path, "-o", "trials=5", "-o", "prune.couple=union")
    assert "different: prune.couple, trials; name another folder with --out, or go on here with --force" in message


def test_a_damaged_model(refused: Any, toy: Toy, finished: Finished, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    model = run / "model/tint"
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"{weights}: not a safetensors file" in refused("predict", model, toy.images[0])
    (model / "model.json").write_text("{")
    assert "model.json: not a model description" in refused("predict", model, toy.images[0])
    assert "no saved model" in refused("predict", tmp_path, toy.images[0])


def test_ctrl_c_ends_with_status_130(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("facetask.environment.environment", interrupted)
    found = invoke("env")
    assert found.exit_code == 130
    assert found.stderr.startswith("facetask: interrupted")


# --- what is loaded


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["plugins", "list"], ["plugins", "list", "--json"], ["run", "--help"]]
)
def test_quick_commands_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from facetask.cli import main
sys.argv = ["facetask", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "sklearn", "altair", "scipy", "pyarrow", "PIL", "vl_convert"}} & sys.modules.keys()
bundled = [name for name in sys.modules if name.startswith("facetask.plugins.")]
print(sorted(heavy), bundled, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=process_environment(),
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout
    assert done.stderr == "[] []\n"


def test_the_module_runs_as_a_program(toy: Toy, finished: Finished) -> None:
    command = [sys.executable, "-m", "facetask", "predict", finished.path / "model/tint", toy.images[0], "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=process_environment(FACETASK_PLUGINS=toy.plugins_dir),
        cwd=ROOT,
        check=True,
    )
    (row,) = json.loads(done.stdout)
    expected = next(load_model(finished.path / "model/tint", toy.plugins).predict([toy.images[0]]))
    assert row["value"] == expected["value"]
    assert np.isclose(row["score"], expected["score"])


def test_filters_draws_pictures_and_refuses_what_the_run_lacks(
    invoke: Invoke, refused: Callable[..., str], finished: Finished, tmp_path: Path
) -> None:
    folder = finished.copy(tmp_path)
    found = invoke("filters", folder, "--task", "brightness", "--tap", "0", "--filter", 3)
    assert found.exit_code == 0, found.output
    assert (folder / "filters" / "response_brightness_0_3.png").is_file()
    assert str(folder / "filters" / "curves_brightness.svg") in found.stderr.replace("\n", "")
    assert "no tap '1'" in refused("filters", folder, "--tap", "1")
    assert "results.json" in refused("filters", tmp_path / "nowhere")
