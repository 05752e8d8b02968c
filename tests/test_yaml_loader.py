from __future__ import annotations

import json
import math
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from facetask.errors import ConfigError
from facetask.yaml_loader import Document, describe, dump_yaml, escaped, load_yaml, parse_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# fmt: off
TRICKY = st.sampled_from([
    "no", "YES", "on", "~", "null", "1e-4", "1_000", "0o17", "017", "0x1F", "1:30", "2020-01-01", ".inf", "-.5",
    "=", "<<", "#c", "*a", "&a", "!a", "%a", "@a", "`a", "{a}", "[", "'", '"', "…", "+1", "1.", ".5", "1e5",
    "NaN", ".NAN", "True", "FALSE", "y", "n", "---", "...", "\ufeff", "\x00", "${A}", "$${A}", "${A:-b}",
    "", "- a", "a: b", "a #c", "a\nb", "\ta", " a ", "\x85", "\u2028", "\r", "word " * 40,
])
LOOKALIKES = [
    "no", "No", "yes", "on", "OFF", "y", "n", "tRue", "32_1", "1_000", "1:30", "2020-01-01", "0b1", "1e", "e5",
    "1.2.3", "=", "nan", "inf", ".", "-", "0o8", "256_down_out",
]
# fmt: on
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | TRICKY
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4), max_leaves=12
)
PRINTABLE = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def file(tmp_path):
    """Writes a YAML file and returns its path."""

    def write(content):
        path = tmp_path / "c.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def message_of(path):
    """The message with which a file is refused, the folder left out."""
    with pytest.raises(ConfigError) as caught:
        load_yaml(path).raise_problems()
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-1.5e+3", -1500.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("+.5", 0.5),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("", None),
        ("~", None),
        ("null", None),
        ("[1, [a, 2.0]]", [1, ["a", 2.0]]),
        ("{a: {b: c}, 1: x, true: y, ~: z}", {"a": {"b": "c"}, "1": "x", "true": "y", "~": "z"}),
        ("{a}", {"a": None}),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("'1'", "1"),
        ('"\\ud83d\\ude00"', "😀"),
    ],
)
def test_values_are_read_as_yaml_1_2_has_them(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read():
    assert math.isnan(parse_value(".nan"))


@pytest.mark.parametrize("text", LOOKALIKES)
def test_what_only_looks_special_stays_text(text):
    assert parse_value(f"[{text}]") == [text]


@given(VALUE)
def test_written_values_are_read_back(value):
    assert parse_value(dump_yaml(value)) == value


@given(VALUE)
def test_written_values_mean_the_same_to_a_reader_of_yaml_1_1(value):
    assert yaml.safe_load(dump_yaml(value)) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PRINTABLE,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PRINTABLE, inner, max_size=4),
    )
)
def test_json_is_yaml(value):
    assert parse_value(json.dumps(value)) == value


@given(VALUE)
def test_escaped_values_are_expanded_to_themselves(value):
    document = Document(escaped(value)).expanded({})
    document.raise_problems()
    assert document.value == value


@given(st.lists(st.sampled_from(["$", "{", "}", "A", ":-"]), max_size=12).map("".join))
def test_escaped_dollars_and_braces_are_expanded_to_themselves(text):
    assert Document(escaped(text)).expanded({}).value == text


def test_every_key_path_has_its_line(file):
    prune = "# note\n\nprune:\n  threshold:\n    5\n  cut: {within:\n    2}\n"
    document = load_yaml(file(prune + "tasks:\n- name: a\n  params: {column: x}\n-\n  b\n"))
    document.raise_problems()
    assert document.value == {
        "prune": {"threshold": 5, "cut": {"within": 2}},
        "tasks": [{"name": "a", "params": {"column": "x"}}, "b"],
    }
    assert document.marks == {
        (): 3,
        ("prune",): 3,
        ("prune", "threshold"): 4,
        ("prune", "cut"): 6,
        ("prune", "cut", "within"): 6,
        ("tasks",): 8,
        ("tasks", 0): 9,
        ("tasks", 0, "name"): 9,
        ("tasks", 0, "params"): 10,
        ("tasks", 0, "params", "column"): 10,
        ("tasks", 1): 12,
    }


def test_windows_line_ends_and_a_byte_order_mark_are_read(file):
    document = load_yaml(file(b"\xef\xbb\xbfa: 1\r\nb: no\r\n"))
    assert document.value == {"a": 1, "b": "no"}
    assert document.marks["b",] == 2


def test_repeated_keys_are_all_told_with_both_lines(file):
    message = message_of(file("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n'a': 2\n1: x\n'1': y\n"))
    assert message.splitlines() == [
        "c.yaml:5: b.c: this key is given twice; the first is on line 3",
        "c.yaml:6: a: this key is given twice; the first is on line 1",
        "c.yaml:8: 1: this key is given twice; the first is on line 7",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "c.yaml:1: expected a mapping of keys to values, found an empty file"),
        ("# only a note\n", "c.yaml:1: expected a mapping of keys to values, found an empty file"),
        ("\n- a\n- b\n", "c.yaml:2: expected a mapping of keys to values, found a list of 2"),
        ("word\n", "c.yaml:1: expected a mapping of keys to values, found 'word'"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: a second document begins here; keep one document in a file"),
        ("a: 1\n\tb: 2\n", "c.yaml:2: not YAML: found character '\\t' that cannot start any token"),
        ("a:\n\tb: 2\n", "; indent with spaces, not tabs"),
        (b"a: 1\nb: caf\xe9\n", "c.yaml:2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "c.yaml:1: byte 0xff is not UTF-8"),
        (b"a: 1\nb: \x00\n", "c.yaml:2: the character '\\x00' is not allowed in YAML"),
        ("a: 1\nb: [1,\n  2\nc: 3\n", "c.yaml:4: not YAML: "),
        ("a: 1\nb: [1,\n  2\n", "(while parsing a flow sequence that begins on line 2)"),
        ("a: b: c\n", "c.yaml:1: not YAML: mapping values are not allowed here; put text that holds ': ' in quotes"),
        ("a: @b\n", "c.yaml:1: not YAML: found character '@' that cannot start any token; put the text in quotes"),
        ("a: {b: ${X}/c}\n", "put text that holds ${…} in quotes"),
        ("a: *b\n", "c.yaml:1: not YAML: found undefined alias 'b'; put text that begins with * in quotes"),
        ("a: 1\nb\n", "a key needs a colon and a space after it"),
        ("a: 1\nb: !!python/object:os.system x\n", "c.yaml:2: b: the tag !!python/object:os.system is not supported"),
        ("a: !path x\n", "c.yaml:1: a: the tag !path is not supported here; leave it out"),
        ("a: !!set {x}\n", "c.yaml:1: a: the tag !!set is not supported here; leave it out"),
        ("a: !!int x\n", "c.yaml:1: a: 'x' is no !!int"),
        ("a: !!bool yes\n", "c.yaml:1: a: 'yes' is no !!bool"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "c.yaml:3: c.<<: merge keys are not supported; write the keys out"),
        ("a:\n  ? [1, 2]\n  : x\n", "c.yaml:2: a: a key must be a text, not a list or a mapping"),
        ("a: " + "9" * 5000, "c.yaml:1: a: a whole number of 5000 digits is too long"),
        ('a: "\\ud800"\n', "c.yaml:1: a: the text holds bytes or escapes that are no Unicode character"),
        ("a: &x\n  b: *x\n", "c.yaml:1: an alias refers to what encloses it"),
        ("a: " + "[" * 60 + "]" * 60, "c.yaml:1: nested deeper than 50 levels"),
        ("a: " + "[" * 3000 + "]" * 3000, "c.yaml:1: nested deeper than 50 levels"),
    ],
)
def test_what_is_refused_names_the_line(file, content, message):
    found = message_of(file(content))
    assert message in found
    assert re.match(r"c\.yaml:\d+: ", found)
    assert "\n" not in found


def test_aliases_are_followed_as_copies(file):
    document = load_yaml(file("a: &x {b: [1, 2]}\nc: *x\n")).overridden(["c.b.0=9"])
    document.raise_problems()
    assert document.value == {"a": {"b": [1, 2]}, "c": {"b": [9, 2]}}


def test_an_alias_bomb_is_defused(file):
    levels = [f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "more than 100000 values" in message_of(file("k0: &k0 [lol]\n" + "\n".join(levels)))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


@pytest.mark.parametrize("text", ["{a: 1", "a: b: c", "{a: 1, a: 2}", "!x y", "a\n---\nb", "\x00"])
def test_a_value_that_is_not_yaml_is_refused(text):
    with pytest.raises(ConfigError):
        parse_value(text)


ENVIRONMENT = {"NAME": "x", "EMPTY": "", "NESTED": "${NAME}", "LATIN": "caf\udce9"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a/${NAME}/b", "a/x/b"),
        ("${NAME}${NAME}", "xx"),
        ("${ABSENT:-data}/utkface", "data/utkface"),
        ("${NAME:-data}", "x"),
        ("${EMPTY:-data}", "data"),
        ("${EMPTY}", ""),
        ("${ABSENT:-}", ""),
        ("${ABSENT:-a:-b c}", "a:-b c"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$${NAME}"),
        ("$NAME $ 5$", "$NAME $ 5$"),
        ("${NESTED}", "${NAME}"),
        ("${ABSENT:-7}", "7"),
    ],
)
def test_variables_are_expanded(text, expanded):
    document = Document({"a": [text], text: 1}).expanded(ENVIRONMENT)
    document.raise_problems()
    assert document.value == {"a": [expanded], text: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${ABSENT}", "the environment variable ABSENT is not set; set it or write ${ABSENT:-default}"),
        ("${NAME", "'${NAME' is malformed"),
        ("${}", "'${}' is malformed"),
        ("${1}", "'${1}' is malformed"),
        ("${NAME-x}", "write $${ for a plain ${"),
        ("${LATIN}", "no Unicode character"),
    ],
)
def test_variables_that_cannot_be_expanded_name_the_line(file, text, message):
    document = load_yaml(file(f"a: 1\nb:\n- '{text}'\n")).expanded(ENVIRONMENT)
    with pytest.raises(ConfigError) as caught:
        document.raise_problems()
    assert (
        f"c.yaml:3: b.0: {message}" in str(caught.value) or message in str(caught.value).partition("c.yaml:3: b.0: ")[2]
    )


OVERRIDDEN = "a:\n  b: 1\n  l: [x, {y: 1}]\noff: false\nnone:\n"


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("a.b=1e-4", ("a", "b"), 1e-4),
        ("a.b=no", ("a", "b"), "no"),
        ("a.b=", ("a", "b"), None),
        ("a.b=x=y", ("a", "b"), "x=y"),
        ("a.b=[1, {c: 2}]", ("a", "b"), [1, {"c": 2}]),
        ("a.l.0=z", ("a", "l", 0), "z"),
        ("a.l.1.y=2", ("a", "l", 1, "y"), 2),
        ("new.deep.key=1", ("new", "deep", "key"), 1),
        ("off.key=1", ("off", "key"), 1),
        ("none.key=1", ("none", "key"), 1),
        ("a=false", ("a",), False),
    ],
)
def test_overrides_set_one_value_and_are_named_as_its_place(file, assignment, path, value):
    before = load_yaml(file(OVERRIDDEN))
    document = before.overridden([assignment])
    document.raise_problems()
    found = document.value
    for key in path:
        found = found[key]
    assert found == value
    assert document.marks[path] == f"-o {assignment}"
    assert before.value == load_yaml(file(OVERRIDDEN)).value
    untouched = {key: item for key, item in before.value.items() if key != path[0]}
    assert {key: document.value[key] for key in untouched} == untouched


def test_later_overrides_win_and_lines_below_a_replaced_value_are_forgotten(file):
    document = load_yaml(file(OVERRIDDEN)).overridden(["a.b=2", "a={c: 1}", "a.d=3"])
    assert document.value["a"] == {"c": 1, "d": 3}
    assert {path: mark for path, mark in document.marks.items() if path[:1] == ("a",)} == {
        ("a",): "-o a={c: 1}",
        ("a", "d"): "-o a.d=3",
    }


def test_wrong_overrides_are_all_told(file):
    wrong = ["a.b", "=1", "a..b=1", "a.l.2=x", "a.l.-1=x", "a.l.x=1", "a.b.c=1", "a.l.0.c=1", "a.b={"]
    with pytest.raises(ConfigError) as caught:
        load_yaml(file(OVERRIDDEN)).overridden(wrong).raise_problems()
    lines = str(caught.value).splitlines()
    assert lines[:8] == [
        "-o a.b: expected key.path=value",
        "-o =1: expected key.path=value",
        "-o a..b=1: expected key.path=value",
        "-o a.l.2=x: a.l is a list of 2, in which there is no '2'; indices count from 0",
        "-o a.l.-1=x: a.l is a list of 2, in which there is no '-1'; indices count from 0",
        "-o a.l.x=1: a.l is a list of 2, in which there is no 'x'; indices count from 0",
        "-o a.b.c=1: a.b is 1, in which 'c' cannot be set",
        "-o a.l.0.c=1: a.l.0 is 'x', in which 'c' cannot be set",
    ]
    assert lines[8].startswith("-o a.b={: not YAML: ")
    assert len(lines) == 9


def test_values_are_described_in_yaml_s_words():
    assert [describe(value) for value in (None, True, False, 1, 0.5, "a", [1], {})] == [
        "null", "true", "false", "1", "0.5", "'a'", "a list of 1", "a mapping"
    ]  # fmt: skip
    assert len(describe("x" * 1000)) <= 60
