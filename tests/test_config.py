from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

import facetask.plugin_manager
from facetask.config import (
    ComputeConfig,
    ConfigPath,
    CutWithin,
    FinetuneConfig,
    KneeSize,
    PruneConfig,
    SliceConfig,
    SplitConfig,
    config_differences,
    config_from_dict,
    load_config,
    resolved_yaml,
)
from facetask.errors import ConfigError, PluginError, did_you_mean
from facetask.records import Architecture, Dataset, Params, Selector, Task


class TableParams(Params):
    root: ConfigPath
    labels: str = "labels.csv"
    extra: tuple[ConfigPath, ...] = ()


class Bin(Params):
    low: float
    high: float

    @model_validator(mode="after")
    def ordered(self):
        if self.low >= self.high:
            raise ValueError(f"low must be below high,\nfound {self.low:g} and {self.high:g}")
        return self


class ColumnParams(Params):
    column: str
    kind: Literal["continuous", "binary", "binned"] = "continuous"
    positive: str | int | None = None
    bins: tuple[Bin, ...] = ()
    named: dict[str, Bin] = Field(default_factory=dict)
    size: tuple[int, int] = (1, 1)
    code: str = Field(default="aa", pattern=r"^a{2}$")
    day: date | None = None


class LassoParams(Params):
    steps: int = 100
    smallest: float = 1e-4


def nothing(*_: Any) -> Any:
    raise AssertionError("validation must not run a plugin")


RECORDS = (
    ("architecture", Architecture(name="net", build=nothing, weights=nothing, preprocessing=nothing)),
    ("dataset", Dataset(name="table", load=nothing, params=TableParams)),
    ("task", Task(name="column", labels=nothing, params=ColumnParams)),
    ("task", Task(name="bare", labels=nothing)),
    ("selector", Selector(name="lasso", select=nothing, params=LassoParams)),
    ("selector", Selector(name="greedy", select=nothing)),
)


class Plugins:
    """A fixed catalogue."""

    def find(self, kind, name):
        known = {record.name: record for record_kind, record in RECORDS if record_kind == kind}
        if name not in known:
            raise PluginError(f"unknown {kind} {name!r}{did_you_mean(name, known)}")
        return known[name]


PLUGINS = Plugins()
MINIMAL = """\
base_network: {name: net}
data: {name: table, params: {root: faces}}
satellite_tasks:
- {name: column, params: {column: age}}
"""


@pytest.fixture
def load(tmp_path):
    """Loads a configuration from its text."""

    def load(text, *overrides):
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "c.yaml", overrides, plugins=PLUGINS)

    return load


@pytest.fixture
def errors(load, tmp_path):
    """Returns the lines with which a configuration is refused, the folder left out."""

    def errors(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return errors


def test_the_shortest_configuration_has_the_documented_defaults(load, tmp_path):
    config = load(MINIMAL)
    assert config.base_network.name == "net"
    assert type(config.base_network.params) is Params
    assert config.data.params == TableParams(root=tmp_path / "faces")
    assert config.data.max_bad_share == 0.05
    (task,) = config.satellite_tasks
    assert (task.name, task.label, task.split) == ("column", None, None)
    assert task.params == ColumnParams(column="age")
    assert config.selector.name == "lasso"
    assert config.selector.params == LassoParams()
    assert config.curve.model_dump() == {"refit": "least-squares", "bootstrap": 0}
    assert config.prune.model_dump() == {
        "knee": "threshold",
        "threshold": 0.01,
        "stable": None,
        "cut": "best",
        "couple": "group",
        "below_cut": "label",
        "macs": None,
        "size": None,
        "round_to": 1,
        "reconstruct": 1024,
        "share": False,
        "rounds": 0,
    }
    assert config.finetune.model_dump() == {
        "epochs": 3,
        "batch_size": 16,
        "start": "pruned",
        "trains": "all",
        "batch_norm": "frozen",
        "optimiser": "scaled-adamw",
        "learning_rate": 1e-2,
        "weight_decay": 1e-4,
        "warmup": 0.3,
        "loss": "auto",
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "distill": 0.0,
        "flip": True,
        "shift": 0.0,
        "brightness": 0.0,
    }
    assert config.split.model_dump() == {
        "fractions": (0.5, 0.25, 0.25),
        "group_by": None,
        "stratify_by": None,
        "min_per_class": 1,
    }
    assert config.slices == ()
    assert config.compute.model_dump() == {"device": "auto", "batch_size": 32, "workers": "auto", "threads": "auto"}
    assert (config.trials, config.seed) == (3, 0)


def test_the_documented_file_is_the_default_spelt_out(load, monkeypatch, tmp_path):
    monkeypatch.delenv("FACES", raising=False)
    text = """\
base_network: {name: net, params: {}}
data: {name: table, params: {root: "${FACES:-data}/utkface", labels: labels.csv}}
satellite_tasks:
  - {name: column, params: {column: age, kind: continuous}}
selector: {name: lasso, params: {}}
curve: {refit: least-squares, bootstrap: 0}
prune: {knee: threshold, threshold: 0.01, stable: null, cut: best, couple: group}   # cut: best, a tap or {within: 0.02}
finetune: {epochs: 3}                                # or false
split: {fractions: [0.5, 0.25, 0.25], group_by: null, stratify_by: null, min_per_class: 1}
compute: {device: auto, batch_size: 32, workers: auto, threads: auto}
trials: 3
seed: 0
"""
    assert load(text) == load(MINIMAL, "data.params.root=data/utkface")
    monkeypatch.setenv("FACES", "/elsewhere")
    assert load(text).data.params.root == Path("/elsewhere/utkface")


@pytest.mark.parametrize(
    ("override", "attribute", "value"),
    [
        ("prune.cut=32_1", "prune.cut", "32_1"),
        ("prune.cut={within: 0.02}", "prune.cut", CutWithin(within=0.02)),
        ("prune.threshold=1", "prune.threshold", 1.0),
        ("finetune=false", "finetune", False),
        ("finetune.learning_rate=1e-4", "finetune.learning_rate", 1e-4),
        ("finetune={}", "finetune", FinetuneConfig()),
        ("split.fractions=[0.6, 0.2, 0.2]", "split.fractions", (0.6, 0.2, 0.2)),
        ("split.stratify_by=no", "split.stratify_by", "no"),
        ("compute.workers=0", "compute.workers", 0),
        ("compute.threads=4", "compute.threads", 4),
        ("selector.name=greedy", "selector.name", "greedy"),
        ("selector={name: lasso, params: {smallest: 1e-6}}", "selector.params", LassoParams(smallest=1e-6)),
        ("data.max_bad_share=0", "data.max_bad_share", 0.0),
        (
            "slices=[race, {column: age, edges: [20, 40]}]",
            "slices",
            ("race", SliceConfig(column="age", edges=(20.0, 40.0))),
        ),
    ],
)
def test_values_are_taken_as_written(load, override, attribute, value):
    found = load(MINIMAL, override)
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{start: scratch, trains: head}", "trains: head would leave the fresh network of start: scratch untrained"),
        ("{trains: head, batch_norm: train}", "batch_norm: train changes what trains: head leaves as it is"),
        ("{trains: head, distill: 1.0}", "distill: moves the responses that trains: head leaves as they are; use 0"),
        ("{start: scratch, batch_norm: frozen}", "batch_norm: frozen keeps statistics that start: scratch"),
        ("{batch_norm: train, batch_size: 1}", "batch_norm: train needs statistics of a batch"),
    ],
)
def test_settings_of_training_that_contradict_each_other(load, settings, message):
    with pytest.raises(ConfigError, match=f"finetune: {message}"):
        load(MINIMAL, f"finetune={settings}")


def test_a_fresh_network_learns_its_batch_norm(load):
    assert load(MINIMAL, "finetune.start=scratch").finetune.batch_norm == "train"
    assert load(MINIMAL, "finetune.epochs=2").finetune.batch_norm == "frozen"


def test_an_override_of_false_makes_a_mapping_again(load):
    assert load(MINIMAL + "finetune: false\n").finetune is False
    assert load(MINIMAL + "finetune: false\n", "finetune.epochs=1").finetune == FinetuneConfig(epochs=1)
    assert load(MINIMAL + "finetune: {epochs: 9}\n", "finetune=false").finetune is False


def test_overrides_reach_into_lists(load):
    config = load(MINIMAL, "satellite_tasks.0.params.column=gender", "satellite_tasks.0.label=sex")
    assert config.satellite_tasks[0].params.column == "gender"
    assert config.satellite_tasks[0].label == "sex"


def test_a_task_s_split_is_filled_up_from_the_run_s(load):
    config = load(
        MINIMAL + "split: {group_by: person, fractions: [0.6, 0.2, 0.2]}\n",
        "satellite_tasks.0.split={min_per_class: 2}",
    )
    assert config.satellite_tasks[0].split == SplitConfig(group_by="person", fractions=(0.6, 0.2, 0.2), min_per_class=2)
    config = load(MINIMAL + "split: {group_by: person}\n", "satellite_tasks.0.split.group_by=null")
    assert config.satellite_tasks[0].split == SplitConfig()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("trials: 0", "trials: expected at least 1, found 0"),
        ("trials: 1.0", "trials: expected a whole number, found 1.0"),
        ("trials: true", "trials: expected a whole number, found true"),
        ("trials: '3'", "trials: expected a whole number, found '3'"),
        ("trials:", "trials: expected a whole number, found null"),
        ("seed: -1", "seed: expected at least 0, found -1"),
        ("sede: 1", "sede: unknown key; did you mean 'seed'?"),
        ("prune: []", "prune: expected a mapping, found a list of 0"),
        ("prune: {threshold: 1.5}", "prune.threshold: expected at most 1.0, found 1.5"),
        ("prune: {threshold: -0.1}", "prune.threshold: expected at least 0.0, found -0.1"),
        ("prune: {knee: elbo}", "prune.knee: expected 'threshold', 'elbow' or 'one-standard-error' or a mapping, found "
         "'elbo'; did you mean 'elbow'?"),
        ("prune: {knee: {filters: 0}}", "prune.knee.filters: expected at least 1, found 0"),
        ("prune: {knee: {fraction: 1.5}}", "prune.knee.fraction: expected at most 1.0, found 1.5"),
        ("prune: {knee: {}}", "prune.knee: expected a mapping such as {filters: 64} or {fraction: 0.25}"),
        ("prune: {knee: {filters: 3, fraction: 0.5}}",
         "prune.knee: expected a mapping such as {filters: 64} or {fraction: 0.25}"),
        ("prune: {stable: 0}", "prune.stable: expected more than 0.0, found 0"),
        ("curve: {refit: ridge}", "curve.refit: expected 'least-squares' or 'none', found 'ridge'"),
        ("curve: {bootstrap: -1}", "curve.bootstrap: expected at least 0, found -1"),
        ("prune: {threshold: .nan}", "prune.threshold: expected a finite number, found nan"),
        ("prune: {threshold:0.1}", "prune.threshold:0.1: unknown key; did you mean 'threshold'?"),
        ("prune: {treshold: 0.1}", "prune.treshold: unknown key; did you mean 'threshold'?"),
        ("prune: {cut: 3}", "prune.cut: expected text or a mapping, found 3; put it in quotes to make it text"),
        ("prune: {cut: ''}", "prune.cut: expected a text of at least 1 characters or a mapping, found ''"),
        ("prune: {cut: {within: -1}}", "prune.cut.within: expected at least 0.0, found -1"),
        ("prune: {macs: 0.2}", "prune: macs is the budget of below_cut: need; set that, or leave macs out"),
        ("prune: {size: 0.02}", "prune: size is the budget of below_cut: need; set that, or leave size out"),
        ("prune: {below_cut: need, size: 1.5}", "prune.size: expected at most 1.0, found 1.5"),
        ("prune: {below_cut: need, macs: 0}", "prune.macs: expected more than 0.0, found 0"),
        ("prune: {below_cut: needs}",
         "prune.below_cut: expected 'label' or 'need', found 'needs'; did you mean 'need'?"),
        ("prune: {cut: {}}", "prune.cut.within: required, but missing"),
        ("prune: {couple: grup}", "prune.couple: expected 'group', 'union', 'intersection' or 'free', found 'grup'"
         "; did you mean 'group'?"),
        ("prune: {couple: 1}", "prune.couple: expected 'group', 'union', 'intersection' or 'free', found 1"),
        ("finetune: true", "finetune: expected a mapping such as {epochs: 3}, or false to leave it out; found true"),
        ("finetune: 0", "finetune: expected a mapping such as {epochs: 3}, or false to leave it out; found 0"),
        ("finetune: no", "finetune: expected a mapping such as {epochs: 3}, or false to leave it out; found 'no'"),
        ("finetune: {epochs: 0}", "finetune.epochs: expected at least 1, found 0"),
        ("finetune: {optimizer: sgd}", "finetune.optimizer: unknown key; did you mean 'optimiser'?"),
        ("finetune: {learning_rate: 0}", "finetune.learning_rate: expected more than 0.0, found 0"),
        ("finetune: {learning_rate: .inf}", "finetune.learning_rate: expected a finite number, found inf"),
        ("finetune: {warmup: 1}", "finetune.warmup: expected less than 1.0, found 1"),
        ("finetune: {flip: yes}", "finetune.flip: expected true or false, found 'yes'"),
        ("finetune: {shift: 0.5}", "finetune.shift: expected less than 0.5, found 0.5"),
        ("split: {fractions: [0.5, 0.4, 0.2]}", "split.fractions: the fractions must sum to 1, but sum to 1.1"),
        ("split: {fractions: [0.5]}", "split.fractions: expected a list of at least 3, found a list of 1"),
        ("split: {fractions: [0.7, 0.1, 0.1, 0.1]}",
         "split.fractions: expected a list of at most 3, found a list of 4"),
        ("split: {fractions: [1, 0, 0.5]}", "split.fractions.1: expected more than 0.0, found 0"),
        ("split: {group_by: 3}", "split.group_by: expected text, found 3; put it in quotes to make it text"),
        ("slices: race", "slices: expected a list, found 'race'"),
        ("slices: [3]", "slices.0: expected text or a mapping, found 3; put it in quotes to make it text"),
        ("slices: [{column: age}]", "slices.0.edges: required, but missing"),
        ("slices: [{column: age, edges: []}]", "slices.0.edges: expected a list of at least 1, found a list of 0"),
        ("slices: [{column: age, edges: [20, 20]}]", "slices.0.edges: the edges must ascend, found 20, 20"),
        ("slices: [{column: age, edges: [20], edge: 3}]", "slices.0.edge: unknown key; did you mean 'edges'?"),
        ("slices: [a, {column: a, edges: [1]}]", "slices: column 'a' is named 2 times; name it once"),
        ("compute: {workers: many}", "compute.workers: expected 'auto' or a whole number, found 'many'"),
        ("compute: {workers: -1}", "compute.workers: expected 'auto' or at least 0, found -1"),
        ("compute: {workers: atuo}", "compute.workers: expected 'auto' or a whole number, found 'atuo'"
         "; did you mean 'auto'?"),
        ("compute: {threads: 0}", "compute.threads: expected 'auto' or at least 1, found 0"),
        ("selector: lasso", "selector: expected a mapping such as {name: …, params: {…}}, found 'lasso'"),
        ("selector: {name: laso}", "selector.name: unknown selector 'laso'; did you mean 'lasso'?"),
        ("selector: {name: 3}", "selector.name: expected text, found 3; put it in quotes to make it text"),
        ("selector: {params: {}}", "selector.name: required, but missing"),
        ("selector: {name: lasso, params:}", "selector.params: expected a mapping, found null"),
        ("selector: {name: lasso, params: [1]}", "selector.params: expected a mapping, found a list of 1"),
        ("selector: {name: lasso, params: {step: 1}}", "selector.params.step: unknown key; did you mean 'steps'?"),
        ("selector: {name: lasso, steps: 1}", "selector.steps: unknown key; did you mean 'selector.params.steps'?"),
        ("selector: {name: lasso, params: {steps: x}}", "selector.params.steps: expected a whole number, found 'x'"),
        ("selector: {name: greedy, params: {x: 1}}", "selector.params.x: unknown key; none is known here"),
        ("selector: {name: '${ABSENT_VARIABLE}'}",
         "selector.name: the environment variable ABSENT_VARIABLE is not set"
         "; set it or write ${ABSENT_VARIABLE:-default}"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_in_one_line_with_its_place(errors, section, message):
    assert errors(MINIMAL + section + "\n") == [f"c.yaml:5: {message}"]


def test_what_compares_trials_needs_more_than_one(errors, load):
    alone = MINIMAL + "trials: 1\nprune: {knee: one-standard-error, stable: 0.5}\n"
    assert errors(alone) == [
        "c.yaml:6: prune.knee: one-standard-error compares trials, and there is one only; set trials to 2 or more",
        "c.yaml:6: prune.stable: how often a filter is chosen cannot be told from one trial; "
        "set trials to 2 or more, or curve.bootstrap",
    ]
    assert load(alone, "trials=2").prune.stable == 0.5
    assert load(MINIMAL + "trials: 1\nprune: {stable: 0.5}\ncurve: {bootstrap: 1}\n").curve.bootstrap == 1


def test_a_size_is_a_number_or_a_share():
    assert [KneeSize(filters=8).of(n) for n in (1, 8, 64)] == [1, 8, 8]
    assert [KneeSize(fraction=0.25).of(n) for n in (1, 2, 6, 64)] == [1, 1, 2, 16]
    assert KneeSize(fraction=1.0).of(7) == 7
    assert [str(KneeSize(filters=8)), str(KneeSize(fraction=0.25))] == ["filters: 8", "fraction: 0.25"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{}", "params.column: required, but missing"),
        ("{column: age, kind: bianry}", "params.kind: expected 'continuous', 'binary' or 'binned', found 'bianry'"
         "; did you mean 'binary'?"),
        ("{column: age, bins: [{low: 1, high: 2}, {low: 1}]}", "params.bins.1.high: required, but missing"),
        ("{column: age, bins: [{low: 2, high: 1}]}", "params.bins.0: low must be below high, found 2 and 1"),
        ("{column: age, bins: [{low: 1, high: 2, hgih: 3}]}", "params.bins.0.hgih: unknown key; did you mean 'high'?"),
        ("{column: age, named: {old: {low: 1, high: 2, lo: 3}}}", "params.named.old.lo: unknown key"
         "; did you mean 'low'?"),
        ("{column: age, positive: [1]}", "params.positive: expected text or a whole number, found a list of 1"),
        ("{column: age, code: ab}", "params.code: expected a text that matches ^a{2}$, found 'ab'"),
        ("{column: age, day: 2020-13-01}", "params.day: expected a valid date in the format YYYY-MM-DD, month value is"
         " outside expected range of 1-12, found '2020-13-01'"),
        ("{column: age, size: [1]}", "params.size: expected a list of at least 2, found a list of 1"),
    ],
)  # fmt: skip
def test_a_plugin_s_params_are_judged_by_its_own_model(errors, params, message):
    text = MINIMAL.replace("{column: age}", params)
    assert errors(text) == [f"c.yaml:4: satellite_tasks.0.{message}"]


def test_missing_keys_point_at_what_should_hold_them(errors):
    assert errors("# a note\n\ntrials: 3\n") == [
        "c.yaml:3: base_network: required, but missing",
        "c.yaml:3: data: required, but missing",
        "c.yaml:3: satellite_tasks: required, but missing",
    ]
    assert errors(MINIMAL.replace("data: {name: table,", "data: {\n ")) == [
        "c.yaml:2: data.name: required, but missing"
    ]
    assert errors(MINIMAL, "prune.cut={}") == ["-o prune.cut={}: prune.cut.within: required, but missing"]


def test_all_problems_are_told_at_once_in_the_file_s_order(errors):
    text = """\
base_network: {name: nett}
data:
  name: table
  params:
    root: ${ABSENT_VARIABLE}/x
    label: l.csv
  max_bad_share: 2
satellite_tasks:
  - name: column
    params:
      column: 3
  - params: {}
  - name: bare
    column: age
  - name: column
    column: age
prune:
  threshold: 0.1
  threshold: 0.2
trials: 0
"""
    assert errors(text, "prune.copule=union", "finetune.epochs=x", "seed", "satellite_tasks.0.params.kind=bin") == [
        "c.yaml:1: base_network.name: unknown architecture 'nett'; did you mean 'net'?",
        "c.yaml:5: data.params.root: the environment variable ABSENT_VARIABLE is not set; set it or write"
        " ${ABSENT_VARIABLE:-default}",
        "c.yaml:6: data.params.label: unknown key; did you mean 'labels'?",
        "c.yaml:7: data.max_bad_share: expected at most 1.0, found 2",
        "c.yaml:11: satellite_tasks.0.params.column: expected text, found 3; put it in quotes to make it text",
        "c.yaml:12: satellite_tasks.1.name: required, but missing",
        "c.yaml:14: satellite_tasks.2.column: unknown key; known: label, name, params, split",
        "c.yaml:15: satellite_tasks.3.params.column: required, but missing",
        "c.yaml:16: satellite_tasks.3.column: unknown key; did you mean 'satellite_tasks.3.params.column'?",
        "c.yaml:19: prune.threshold: this key is given twice; the first is on line 18",
        "c.yaml:20: trials: expected at least 1, found 0",
        "-o seed: expected key.path=value",
        "-o satellite_tasks.0.params.kind=bin: satellite_tasks.0.params.kind: expected 'continuous', 'binary' or"
        " 'binned', found 'bin'; did you mean 'binned'?",
        "-o prune.copule=union: prune.copule: unknown key; did you mean 'couple'?",
        "-o finetune.epochs=x: finetune.epochs: expected a whole number, found 'x'",
    ]


def test_satellite_tasks_must_be_a_list_of_at_least_one(errors):
    start = MINIMAL.partition("satellite_tasks")[0]
    expected = "c.yaml:3: satellite_tasks: expected a list"
    assert errors(start + "satellite_tasks: []\n") == [expected + " of at least 1, found a list of 0"]
    assert errors(start + "satellite_tasks: {name: column}\n") == [expected + ", found a mapping"]
    assert errors(start + "satellite_tasks: [column]\n") == [
        "c.yaml:3: satellite_tasks.0: expected a mapping such as {name: …, params: {…}}, found 'column'"
    ]


@pytest.mark.parametrize("label", ["", "..", "a/b", "a\\b", "a:b"])
def test_a_label_must_be_able_to_name_a_folder(errors, label):
    text = MINIMAL.replace("{name: column,", f"{{name: column, label: '{label}',")
    assert errors(text) == [
        f"c.yaml:4: satellite_tasks.0.label: expected a label that can name a folder, found {label!r}"
    ]


def test_variables_are_expanded_in_overrides_too(load, errors, monkeypatch):
    monkeypatch.setenv("COLUMN", "gender")
    assert load(MINIMAL, "satellite_tasks.0.params.column=${COLUMN}").satellite_tasks[0].params.column == "gender"
    assert load(MINIMAL, "satellite_tasks.0.params.column=$${COLUMN}").satellite_tasks[0].params.column == "${COLUMN}"
    assert errors(MINIMAL, "seed=${ABSENT_VARIABLE}")[0].startswith("-o seed=${ABSENT_VARIABLE}: seed: the environment")


def test_an_override_may_replace_what_would_be_wrong(load):
    text = MINIMAL.replace("faces", "'${ABSENT_VARIABLE}'") + "trials: many\n"
    assert load(text, "data.params.root=/x", "trials=2").trials == 2


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("faces", "BASE/faces"),
        ("./a/../faces", "BASE/faces"),
        ("../faces", "PARENT/faces"),
        ("..", "PARENT"),
        (".", "BASE"),
        ("/faces", "/faces"),
        ("~/faces", "HOME/faces"),
    ],
)
def test_paths_count_from_the_file_s_folder(load, tmp_path, monkeypatch, written, expected):
    monkeypatch.setenv("HOME", "/home/of-mine")
    monkeypatch.chdir("/")
    places = {"BASE": tmp_path, "PARENT": tmp_path.parent, "HOME": "/home/of-mine"}
    for name, place in places.items():
        expected = expected.replace(name, str(place))
    config = load(MINIMAL, f"data.params.root={written}", f"data.params.extra=[{written}]")
    assert config.data.params.root == Path(expected)
    assert config.data.params.extra == (Path(expected),)


def test_a_relative_file_gives_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config("c.yaml", plugins=PLUGINS).data.params.root == tmp_path / "faces"


def test_a_link_keeps_its_name(load, tmp_path):
    (tmp_path / "blob").write_text("")
    (tmp_path / "model.dat").symlink_to("blob")
    assert load(MINIMAL, "data.params.root=model.dat").data.params.root == tmp_path / "model.dat"


@pytest.mark.parametrize("written", ["''", '"a\\0b"', "~nobody-of-this-name/x", "3", "[a]"])
def test_what_is_no_path_is_refused(errors, written):
    (line,) = errors(MINIMAL.replace("faces", written))
    assert line.startswith("c.yaml:2: data.params.root: ")


def test_a_params_model_takes_paths_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TableParams(root="faces") == TableParams(root=tmp_path / "faces")
    assert TableParams(root="faces").model_dump(mode="json")["root"] == str(tmp_path / "faces")


def test_the_default_plugins_are_the_installed_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(facetask.plugin_manager, "default_manager", lambda: PLUGINS)
    (tmp_path / "c.yaml").write_text(MINIMAL)
    assert load_config(tmp_path / "c.yaml") == load_config(tmp_path / "c.yaml", plugins=PLUGINS)


DATA = {
    "base_network": {"name": "net"},
    "data": {"name": "table", "params": {"root": Path("faces")}},
    "satellite_tasks": ({"name": "column", "params": {"column": "age"}},),
}


def test_a_dict_is_judged_as_a_file_is(load, tmp_path):
    same = load(MINIMAL, "prune.threshold=0.1")
    assert config_from_dict(DATA, base=tmp_path, plugins=PLUGINS, overrides=["prune.threshold=0.1"]) == same
    assert config_from_dict(MappingProxyType(DATA), base=tmp_path, plugins=PLUGINS) == load(MINIMAL)
    assert isinstance(DATA["data"]["params"]["root"], Path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**DATA, "trials": 0}, "trials: expected at least 1, found 0"),
        ({**DATA, "trials": {1}}, "trials: expected what YAML can say, found a set"),
        ({**DATA, "prune": {1: 2}}, "prune: a key must be a text, found 1\n"
         "prune.1: unknown key; known: below_cut, couple, cut, knee, macs, reconstruct, round_to, rounds, share, size, "
         "stable, threshold"),
        ({**DATA, "selector": {"name": "a\ud800"}}, "selector.name: the text holds bytes or escapes"
         " that are no Unicode character"),
        ([], "expected a mapping, found a list of 0"),
    ],
)  # fmt: skip
def test_a_wrong_dict_is_told_without_a_place(tmp_path, data, message):
    with pytest.raises(ConfigError) as caught:
        config_from_dict(data, base=tmp_path, plugins=PLUGINS)
    assert str(caught.value) == message


def test_a_configuration_is_frozen(load):
    config = load(MINIMAL)
    for part, name in [(config, "trials"), (config.prune, "cut"), (config.data, "name"), (config.data.params, "root")]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, 1)


NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["no", "on", "1e-4", "~", "null", "32_1", "${A}", "$${B:-c}", "a: b", "#", "- x", "{", "0o17", "1:30"]
)
FILLED = NAME.filter(bool)
SHARE = st.floats(0.1, 0.4)
POSITIVE = st.integers(1, 10**6)
LABEL = st.text("abc-_. 01é", min_size=3, max_size=9)
SPLIT = st.fixed_dictionaries(
    {},
    optional={
        "fractions": st.tuples(SHARE, SHARE).map(lambda two: [*two, 1 - sum(two)]),
        "group_by": st.none() | NAME,
        "stratify_by": st.none() | NAME,
        "min_per_class": POSITIVE,
    },
)
BIN = st.tuples(st.floats(-9, 0), st.floats(0.1, 9)).map(lambda two: {"low": two[0], "high": two[1]})
TASK = st.fixed_dictionaries(
    {
        "name": st.just("column"),
        "params": st.fixed_dictionaries(
            {"column": NAME},
            optional={
                "kind": st.sampled_from(["continuous", "binary"]),
                "positive": st.none() | NAME | st.integers(),
                "bins": st.lists(BIN, max_size=2),
                "named": st.dictionaries(NAME, BIN, max_size=2),
            },
        ),
    },
    optional={"label": st.none() | LABEL, "split": st.none() | SPLIT},
)
CONFIG = st.fixed_dictionaries(
    {
        "base_network": st.just({"name": "net"}),
        "data": st.fixed_dictionaries(
            {
                "name": st.just("table"),
                "params": st.fixed_dictionaries({"root": st.sampled_from(["faces", "../x y", "/a/$${b}", "~", "no"])}),
            },
            optional={"max_bad_share": st.floats(0, 1)},
        ),
        "satellite_tasks": st.lists(TASK | st.just({"name": "bare"}), min_size=1, max_size=3),
    },
    optional={
        "selector": st.sampled_from([{"name": "greedy"}, {"name": "lasso", "params": {"smallest": 1e-7}}]),
        "prune": st.fixed_dictionaries(
            {},
            optional={
                "threshold": st.floats(0, 1),
                "cut": FILLED | st.floats(0, 1e300).map(lambda within: {"within": within}),
                "couple": st.sampled_from(["group", "union", "intersection"]),
            },
        ),
        "finetune": st.just(False)
        | st.fixed_dictionaries(
            {},
            optional={
                "epochs": POSITIVE,
                "optimiser": st.sampled_from(["scaled-adamw", "adamw", "sgd"]),
                "learning_rate": st.floats(0, 1e3, exclude_min=True),
                "warmup": st.floats(0, 1, exclude_min=True, exclude_max=True),
                "flip": st.booleans(),
            },
        ),
        "split": SPLIT,
        "slices": st.lists(FILLED, max_size=3, unique=True),
        "compute": st.fixed_dictionaries(
            {}, optional={"device": FILLED, "workers": st.just("auto") | st.integers(0, 99)}
        ),
        "trials": POSITIVE,
        "seed": st.integers(0, 2**70),
    },
)


def unescaped_dollars(value):
    """Escape what the generator's texts would otherwise ask of the environment."""
    if isinstance(value, dict):
        return {key: unescaped_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unescaped_dollars(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


@given(CONFIG.map(unescaped_dollars))
def test_the_resolved_configuration_loads_as_the_same_one(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("resolved")
    config = config_from_dict(data, base=folder / "elsewhere", plugins=PLUGINS)
    text = resolved_yaml(config)
    (folder / "resolved.yaml").write_text(text, encoding="utf-8", newline="")
    again = load_config(folder / "resolved.yaml", plugins=PLUGINS)
    assert again == config
    assert config_differences(again, config) == []
    assert resolved_yaml(again) == text


def test_the_resolved_configuration_spells_every_default_out(load, tmp_path):
    assert yaml.safe_load(resolved_yaml(load(MINIMAL))) == {
        "base_network": {"name": "net", "params": {}, "model": None},
        "data": {
            "name": "table",
            "params": {"root": f"{tmp_path}/faces", "labels": "labels.csv", "extra": []},
            "max_bad_share": 0.05,
            "crop": 0.0,
            "align": None,
        },
        "satellite_tasks": [
            {
                "name": "column",
                "params": {
                    "column": "age",
                    "kind": "continuous",
                    "positive": None,
                    "bins": [],
                    "named": {},
                    "size": [1, 1],
                    "code": "aa",
                    "day": None,
                },
                "label": None,
                "split": None,
            }
        ],
        "selector": {"name": "lasso", "params": {"steps": 100, "smallest": 1e-4}},
        "curve": {"refit": "least-squares", "bootstrap": 0},
        "prune": PruneConfig().model_dump(),
        "finetune": FinetuneConfig().model_dump(),
        "split": {"fractions": [0.5, 0.25, 0.25], "group_by": None, "stratify_by": None, "min_per_class": 1},
        "slices": [],
        "compute": ComputeConfig().model_dump(),
        "trials": 3,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("overrides", "paths"),
    [
        ([], []),
        (["prune.threshold=0.010"], []),
        (["seed=1", "prune.cut=x", "data.params.root=y"], ["data.params.root", "prune.cut", "seed"]),
        (["prune.cut={within: 1}"], ["prune.cut"]),
        (["finetune=false"], ["finetune"]),
        (["split.fractions=[0.6, 0.2, 0.2]"], ["split.fractions.0", "split.fractions.1", "split.fractions.2"]),
        (["satellite_tasks=[{name: column, params: {column: age}}, {name: bare}]"], ["satellite_tasks.1"]),
        (["selector.name=greedy"], ["selector.name", "selector.params.steps", "selector.params.smallest"]),
    ],
)
def test_differences_are_dotted_paths(load, overrides, paths):
    a, b = load(MINIMAL), load(MINIMAL, *overrides)
    assert config_differences(a, b) == paths
    assert config_differences(a.model_dump(mode="json"), b) == paths
    assert sorted(config_differences(b, a)) == sorted(paths)


def test_differences_of_dicts_tell_true_from_one():
    assert config_differences({"a": 1, "b": {"c": 1.0}}, {"a": True, "b": {"c": 1}, "d": None}) == ["a", "d"]


def test_importing_it_imports_no_torch_and_no_numpy():
    code = "import sys, facetask.config; print(*({'torch', 'numpy', 'scipy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
