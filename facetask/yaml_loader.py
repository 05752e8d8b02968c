"""Reads YAML 1.2 safely and remembers where each value came from: a line of the file, or an override.

PyYAML alone reads ``1e-4`` as text, ``no`` as false, ``32_1`` as 321 and lets the last of two equal keys win.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from facetask.errors import ConfigError

KeyPath = tuple[str | int, ...]
Mark = int | str  # a line of the file, from 1, or an override as it was given

_MAX_VALUES = 100_000
_MAX_DEPTH = 50
_TAG = "tag:yaml.org,2002:"
_SCALARS = {  # YAML 1.2's core schema, in the order in which they are tried
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_HINTS = {  # a part of PyYAML's message, and what to do about it
    r"character '\t'": "; indent with spaces, not tabs",
    "cannot start any token": "; put the text in quotes",
    "mapping values are not allowed": "; put text that holds ': ' in quotes, or check the indentation",
    "expected <block end>": "; check the indentation",
    "but got '{'": "; put text that holds ${…} in quotes",
    "undefined alias": "; put text that begins with * in quotes",
    "could not find expected ':'": "; a key needs a colon and a space after it",
}
_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a document.

    Attributes:
        path: The keys and indices that lead to the value; empty for the whole document.
        what: What is wrong and what to do.
        mark: Where, if elsewhere than the value at that path.
    """

    path: KeyPath
    what: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Document:
    """Plain values (dict with text keys, list, str, int, float, bool, None) and where each came from.

    Attributes:
        value: The values.
        source: The file's name for messages; empty for values that came from Python.
        marks: The line or override of every key path.
        problems: What has been found wrong so far.
    """

    value: Any
    source: str = ""
    marks: Mapping[KeyPath, Mark] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def overridden(self, assignments: Sequence[str]) -> Document:
        """Return the document with ``key.path=value`` assignments applied in their order; wrong ones are problems."""
        value, marks, problems = copy.deepcopy(self.value), dict(self.marks), list(self.problems)
        for assignment in assignments:
            mark = f"-o {assignment}"
            dotted, equals, text = assignment.partition("=")
            keys = dotted.strip().split(".")
            if not equals or not all(keys):
                problems.append(Problem((), "expected key.path=value", mark))
                continue
            try:
                _assign(value, marks, keys, parse_value(text), mark)
            except (ConfigError, ValueError) as error:
                problems.append(Problem((), str(error), mark))
        return replace(self, value=value, marks=marks, problems=tuple(problems))

    def expanded(self, environment: Mapping[str, str]) -> Document:
        """Return the document with ``${NAME}`` and ``${NAME:-default}`` in its texts replaced; ``$${`` gives ``${``.

        As in a shell, the default also stands in for an empty variable. What was expanded stays text.
        """
        problems = list(self.problems)

        def expand(value: Any, path: KeyPath) -> Any:
            if isinstance(value, dict):
                return {key: expand(item, (*path, key)) for key, item in value.items()}
            if isinstance(value, list):
                return [expand(item, (*path, index)) for index, item in enumerate(value)]
            if not isinstance(value, str):
                return value
            try:
                return _expand(value, environment)
            except ValueError as error:
                problems.append(Problem(path, str(error)))
                return ""

        value = expand(self.value, ())
        return replace(self, value=value, problems=tuple(problems))

    def raise_problems(self, more: Sequence[Problem] = ()) -> None:
        """Raise one ConfigError with all problems, a line each, in the file's order and overrides last.

        Of several problems at one place and path only the first is told: the others follow from it.
        """
        lines: dict[tuple[str, KeyPath], tuple[tuple[bool, int], str]] = {}
        for problem in (*self.problems, *more):
            mark = self._mark(problem.path) if problem.mark is None else problem.mark
            place = f"{self.source}:{mark}" if isinstance(mark, int) else mark
            dotted = ".".join(map(str, problem.path))
            order = (False, mark) if isinstance(mark, int) else (True, 0)
            text = ": ".join(part for part in (place, dotted, problem.what) if part)
            lines.setdefault((place, problem.path), (order, " ".join(text.splitlines())))
        if lines:
            raise ConfigError("\n".join(text for _, text in sorted(lines.values(), key=lambda line: line[0])))

    def _mark(self, path: KeyPath) -> Mark:
        """Return the mark of a path, or of what encloses it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.marks:
                return self.marks[path[:length]]
        return self.source


def load_yaml(path: Path | str) -> Document:
    """Read a YAML file that holds one mapping.

    Keys are texts whatever they look like. Aliases are followed, up to a limit. Repeated keys, merge keys (``<<``) and
    tags of other types are among the document's problems.

    Raises:
        ConfigError: If the file cannot be read or is not such a YAML file.
    """
    source = str(path)
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror})") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{source}:{line}: byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None
    try:
        document = _parse(text, source)
    except _YamlError as error:
        raise ConfigError(f"{source}:{error.line}: {error}") from None
    if not isinstance(document.value, dict):
        found = "an empty file" if document.value is None else describe(document.value)
        raise ConfigError(f"{source}:{document.marks[()]}: expected a mapping of keys to values, found {found}")
    return document


def parse_value(text: str) -> Any:
    """Return the value of a YAML text by the same rules; ``1e-4`` is a number and ``no`` is a text.

    Raises:
        ConfigError: If it is not YAML.
    """
    try:
        document = _parse(text, "")
    except _YamlError as error:
        raise ConfigError(str(error)) from None
    if document.problems:
        raise ConfigError("; ".join(problem.what for problem in document.problems))
    return document.value


def dump_yaml(value: Any) -> str:
    """Return plain values as YAML that this module and readers of YAML 1.1 read alike."""
    return str(
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    )


def escaped(value: Any) -> Any:
    """Return plain values whose texts :meth:`Document.expanded` gives back unchanged."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def describe(value: Any) -> str:
    """Return a value as a message shows it: shortened, and in YAML's words."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:56]} …{shown[-1]}"


class _YamlError(Exception):
    """The text is not YAML; the message says why."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with YAML 1.2's rules for what a plain scalar is."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, putting in quotes what either YAML would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value out each time it occurs."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escape the line separators that PyYAML would write out and read back as others."""
    style = '"' if set(text) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Builder:
    """Turns PyYAML's nodes into plain values and notes where each stands and what is wrong with it."""

    def __init__(self) -> None:
        self.marks: dict[KeyPath, Mark] = {}
        self.problems: list[Problem] = []
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return a node's value."""
        line = node.start_mark.line + 1
        self.marks.setdefault(path, line)
        self._count += 1
        if self._count > _MAX_VALUES:
            raise _YamlError(f"more than {_MAX_VALUES} values, aliases counted each time they are used", line)
        if len(path) > _MAX_DEPTH:
            raise _YamlError(f"nested deeper than {_MAX_DEPTH} levels", line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise _YamlError("an alias refers to what encloses it", line)
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self._open.remove(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Return a mapping's values; the first of repeated keys counts."""
        self._check_tag(node, path, "map")
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            try:
                key = _key(key_node)
            except ValueError as error:
                self.problems.append(Problem(path, str(error), line))
                continue
            inner = (*path, key)
            if key == "<<" and key_node.style is None:
                self.problems.append(Problem(inner, "merge keys are not supported; write the keys out", line))
            elif key in mapping:
                what = f"this key is given twice; the first is on line {self.marks[inner]}"
                self.problems.append(Problem(inner, what, line))
            else:
                self.marks[inner] = line
                mapping[key] = self.build(value_node, inner)
        return mapping

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        """Return a sequence's values."""
        self._check_tag(node, path, "seq")
        return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        """Return a scalar's value by its tag, which the text decides unless it is written out."""
        self._check_tag(node, path, "str", *_SCALARS)
        try:
            return _scalar_value(node.tag.removeprefix(_TAG), node.value)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
            return None

    def _check_tag(self, node: yaml.Node, path: KeyPath, *known: str) -> None:
        """Note a tag that does not fit the node."""
        if node.tag.removeprefix(_TAG) not in known:
            what = f"the tag {node.tag.replace(_TAG, '!!')} is not supported here; leave it out"
            self.problems.append(Problem(path, what))


def _key(node: yaml.Node) -> str:
    """Return a key's text whatever its type; raise ValueError if it has none."""
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("a key must be a text, not a list or a mapping")
    return _whole_characters(node.value)


def _scalar_value(tag: str, text: str) -> Any:
    """Return a scalar's value; raise ValueError if its text does not fit its tag."""
    if tag not in _SCALARS:
        return _whole_characters(text)
    if not re.fullmatch(_SCALARS[tag][0], text):
        raise ValueError(f"{text!r} is no !!{tag}")
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "float":
        lower = text.lower()
        return float(lower.replace(".", "") if lower.endswith((".inf", ".nan")) else lower)
    try:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    except ValueError:
        raise ValueError(f"a whole number of {len(text)} digits is too long") from None


def _whole_characters(text: str) -> str:
    """Return a text with surrogate pairs joined, as JSON escapes write them; raise ValueError for half a pair."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ValueError("the text holds bytes or escapes that are no Unicode character") from None


def _parse(text: str, source: str) -> Document:
    """Return a text's document; raise _YamlError where it cannot be read at all."""
    builder = _Builder()
    try:
        node = yaml.compose(text, Loader=_Loader)
        value = None if node is None else builder.build(node, ())
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _YamlError(f"the character {chr(error.character)!r} is not allowed in YAML", line) from None
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(error) from None
    except RecursionError:
        raise _YamlError(f"nested deeper than {_MAX_DEPTH} levels", 1) from None
    return Document(value, source, builder.marks or {(): 1}, tuple(builder.problems))


def _yaml_error(error: yaml.MarkedYAMLError) -> _YamlError:
    """Return PyYAML's complaint with its line and what to do."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    message = str(error.problem)
    if "another document" in message:
        return _YamlError("a second document begins here; keep one document in a file", line)
    if error.context and error.context_mark and error.context_mark.line + 1 != line:
        message += f" ({error.context} that begins on line {error.context_mark.line + 1})"
    hint = next((hint for part, hint in _HINTS.items() if part in message), "")
    return _YamlError(f"not YAML: {message}{hint}", line)


def _assign(root: Any, marks: dict[KeyPath, Mark], keys: Sequence[str], value: Any, mark: Mark) -> None:
    """Set one value in place; mappings that are missing, null or false on the way are made."""
    here: Any = root
    path: KeyPath = ()
    for depth, key in enumerate(keys):
        slot = _slot(here, key, path)
        path = (*path, slot)
        last = depth == len(keys) - 1
        old = here.get(slot) if isinstance(here, dict) else here[slot]
        if last or old is None or old is False:
            for known in [known for known in marks if known[: len(path)] == path]:
                del marks[known]
            marks[path] = mark
            here[slot] = value if last else {}
        here = here[slot]


def _slot(here: Any, key: str, path: KeyPath) -> str | int:
    """Return the key or index of an entry; raise ValueError if there can be none."""
    if isinstance(here, dict):
        return key
    found = f"{'.'.join(map(str, path))} is {describe(here)}"
    if not isinstance(here, list):
        raise ValueError(f"{found}, in which {key!r} cannot be set")
    if not key.isdecimal() or int(key) >= len(here):
        raise ValueError(f"{found}, in which there is no {key!r}; indices count from 0")
    return int(key)


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """Return a text with its variables replaced; raise ValueError for one that is malformed or not set."""

    def replacement(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        inside = _INSIDE.fullmatch(match["inside"])
        if not match["end"] or not inside:
            shown = describe(match[0])
            raise ValueError(
                f"{shown} is malformed: expected ${{NAME}} or ${{NAME:-default}}; write $${{ for a plain ${{"
            )
        name, default = inside["name"], inside["default"]
        if default is None and name not in environment:
            raise ValueError(f"the environment variable {name} is not set; set it or write ${{{name}:-default}}")
        value = environment.get(name, "")
        return value if value or default is None else default

    return _whole_characters(_VARIABLE.sub(replacement, text))
