"""Every bundled selector, in a run of its own on a network with coupled taps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from toy_runs import ROOT, Toy

REGISTRY = yaml.safe_load((ROOT / "registry.yaml").read_text(encoding="utf-8"))["plugins"]
SELECTORS = [item["name"] for item in REGISTRY if item["kind"] == "selector"]


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_prunes_a_network(name: str, toy: Toy, tmp_path: Path) -> None:
    tasks = [toy.values["satellite_tasks"][index] for index in (0, 3)]  # a number, and one-hot classes
    # The last tap is the cut, so that the coupled taps below it are pruned as well.
    config = toy.config(selector={"name": name}, satellite_tasks=tasks, trials=1, prune={"cut": "3", "threshold": 0.2})
    toy.run(tmp_path / "run", config, until="prune")
    for task in ("brightness", "level"):
        curves = json.loads((tmp_path / f"run/stages/{task}/trial-0/curve.json").read_text())["result"]
        for curve in curves.values():
            assert curve["n_filters"][0] >= 1
            assert np.isfinite(curve["rmse"]).all()
        keep = json.loads((tmp_path / f"run/stages/{task}/trial-0/prune.json").read_text())["result"]["keep"]
        assert keep.keys() == {"0", "2.conv", "3"}
        assert keep["0"] == keep["2.conv"]
        assert all(len(kept) for kept in keep.values())
        assert sum(map(len, keep.values())) < 8 + 8 + 16


def test_need_decides_below_the_cut_and_the_report_says_so(toy: Toy, tmp_path: Path) -> None:
    tasks = [toy.values["satellite_tasks"][0]]
    prune = {"cut": "3", "threshold": 0.2, "below_cut": "need", "macs": 0.3}
    toy.run(tmp_path / "run", toy.config(satellite_tasks=tasks, trials=1, prune=prune), until="prune")
    (task,) = json.loads((tmp_path / "run/results.json").read_text())["tasks"]
    assert task["prune"]["budget"] == 0.3
    assert task["prune"]["macs"] - task["prune"]["params"] <= 0.3 * task["prune"]["base"]["macs"]
    assert [group["taps"] for group in task["prune"]["groups"]] == [["3"]]  # the only one with a curve
    report = " ".join((tmp_path / "run/report.html").read_text(encoding="utf-8").split())
    assert (
        "below it, what those filters must be computed from, within 30 % of the base network’s MACs."
        in report.replace("\u00a0", " ")
    )
