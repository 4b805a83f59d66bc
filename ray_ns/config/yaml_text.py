"""YAML as a config may be: measured before it is built, so that no text costs more than a second or 200 MB.

Nothing in a config is a date, a number to base 60 or one that begins with 0: such words stay words. Whatever is refused
raises ``ValueError`` with the line.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.reader import Reader

MAX_CHARACTERS = 1 << 20
MAX_NODES = 100_000  # a key or value each, with what aliases repeat: a number for each of 32,767 classes, and more
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
STR, NULL, BOOL, MERGE = f"{_TAG}str", f"{_TAG}null", f"{_TAG}bool", f"{_TAG}merge"
_INT, _FLOAT = f"{_TAG}int", f"{_TAG}float"


class _Loader(yaml.CSafeLoader):
    """Safe YAML that reads 1e-3 as a number, as everyone who writes it means."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, words) for tag, words in rules if tag in {NULL, BOOL, MERGE}]
    for first, rules in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_DIGITS = "[0-9][0-9_]*"
for _tag, _words in {
    _INT: "(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)",
    _FLOAT: rf"(?:{_DIGITS}\.[0-9_]*(?:[eE][-+]?[0-9]+)?|{_DIGITS}[eE][-+]?[0-9]+|\.{_DIGITS}(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF|nan|NaN|NAN))",
}.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"^[-+]?{_words}$"), list("-+.0123456789"))


def compose(text: str) -> yaml.Node | None:
    """The nodes of one YAML document, none of them a trap; None where it is empty."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS:,} characters: that is no config")
    odd = Reader.NON_PRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        raise ValueError(f"line {line}: the character {odd.group()!r} cannot stand in YAML. Is this a text file?")
    try:
        _check_events(text)
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_words_of(error, text)) from error
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error
    if node is not None:
        _Measure().size_and_depth(node)
    return node


def construct(node: yaml.Node | None) -> Any:
    """The values of what ``compose`` gave."""
    if node is None:
        return None
    try:
        return _Loader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_words_of(error, "")) from error


def line_of(node: yaml.Node) -> int:
    """The line that a node begins in, counted from 1."""
    return int(node.start_mark.line) + 1


def shown(value: Any) -> str:
    """A value for a message: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]} ... ({len(text):,} characters)"


def _check_events(text: str) -> None:
    depth = nodes = documents = 0
    event: Any
    for event in yaml.parse(text, _Loader):
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise ValueError(f"line {line}: a second document begins (---); a config is one")
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise ValueError(f"line {line}: more than {MAX_NODES:,} keys and values: that is no config")
        if getattr(event, "tag", None) is not None:
            raise ValueError(
                f"line {line}: the tag {shown(event.tag)} is not read; in a name that begins with !, quote it"
            )


class _Measure:
    """Walks the nodes in the order of the text: what an alias repeats has been measured before."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int] | None] = {}  # None: its inside is being looked at

    def size_and_depth(self, node: yaml.Node) -> tuple[int, int]:
        """How many nodes this one is, and how deep they go, with all that aliases repeat."""
        if id(node) in self._known:
            found = self._known[id(node)]
            if found is None:
                raise ValueError(f"line {line_of(node)}: this holds itself, by an alias (*)")
            return found
        self._known[id(node)] = None
        size, depth = 1, 0
        for child in self._children(node):
            more, below = self.size_and_depth(child)
            size, depth = size + more, max(depth, below)
        if size > MAX_NODES:
            raise ValueError(f"line {line_of(node)}: aliases (*) make more than {MAX_NODES:,} keys and values of this")
        if depth >= MAX_DEPTH:
            raise ValueError(f"line {line_of(node)}: nested deeper than {MAX_DEPTH} levels, by aliases (*)")
        self._known[id(node)] = size, depth + 1
        return size, depth + 1

    def _children(self, node: yaml.Node) -> Iterator[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            yield from node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError(f"line {line_of(key)}: a key is a name or a number, not a list or a mapping")
                name = _canonical(key)
                if name in lines:
                    raise ValueError(
                        f"line {line_of(key)}: {shown(key.value)} stands here and in line {lines[name]}. Keep one."
                    )
                lines[name] = line_of(key)
                yield from (key, value)
        elif isinstance(node, yaml.ScalarNode) and node.tag == _INT:
            _integer(node)


def _canonical(key: yaml.ScalarNode) -> str:
    """A key as the settings take it: a class is the same number whether it stands in quotes or not."""
    if key.tag == _INT:
        return str(_integer(key))
    return key.value.lstrip("0") or "0" if key.value.isdecimal() else str(key.value)


def _integer(node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "")
    if len(digits) > 20 or not -(2**63) <= int(digits, 0) < 2**63:
        raise ValueError(f"line {line_of(node)}: the number {shown(node.value)} has more than 64 bits")
    return int(digits, 0)


def _words_of(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong in which line; where a value in it lacks quotes, how it is written with them."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    at = mark.line if mark else 0
    said = f"line {at + 1}: not valid YAML: {error.problem or error.context}"
    found = re.match(r"\s*(?:- )?([\w.]+):\s+([^\s\"'\[{].*?)\s*$", lines[at]) if at < len(lines) else None
    if found and len(found[2]) <= 200:
        said += (
            f". A value with such characters stands in quotes: {found[1]}: {json.dumps(found[2], ensure_ascii=False)}"
        )
    return said
