"""The shape of results.json. After a change of it, write its schema anew from the repository's root:

python -c "import json, facetask.running.results as r; print(json.dumps(r.json_schema(), indent=2))" \\
    > docs/results.schema.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from toy_runs import ROOT, Finished, Toy

from facetask import RunDirError
from facetask.json_record import write_record
from facetask.running.results import json_schema, read_results

SCHEMA = ROOT / "docs/results.schema.json"


def properties(schema: Any) -> Iterator[str]:
    """Yield the name of every field in a schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from properties(value)


def test_the_documented_schema_is_the_real_one() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_every_field_is_explained() -> None:
    page = (ROOT / "docs/results-format.md").read_text()
    explained = set(re.findall(r"`([a-z_]+)`", page))
    assert {*properties(json_schema())} - explained == set()


def test_real_results_have_the_documented_shape(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    toy.run(tmp_path / "part", until="regress")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    whole, part = (json.loads((path / "results.json").read_text()) for path in (finished.path, tmp_path / "part"))
    for found in (whole, part):
        validator.validate(found)
    assert not validator.is_valid({**whole, "surplus": 1})
    assert not validator.is_valid({**whole, "stage": "prepare"})
    assert not validator.is_valid({key: value for key, value in whole.items() if key != "tasks"})


def test_results_come_back_as_they_were(finished: Finished, tmp_path: Path) -> None:
    write_record(finished.result.results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == finished.result.results
    assert read_results(finished.path / "results.json") == finished.result.results
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 2}', "\xff"])
def test_what_is_no_results_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunDirError, match="not a results file"):
        read_results(tmp_path / "results.json")


def test_results_that_cannot_be_read_or_written(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="not a results file"):
        read_results(tmp_path / "absent.json")
    (tmp_path / "file").touch()
    with pytest.raises(RunDirError, match="cannot be written"):
        write_record(finished.result.results, tmp_path / "file" / "results.json")
