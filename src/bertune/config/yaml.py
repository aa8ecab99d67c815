"""YAML 1.2 scalars, read and written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from bertune.errors import ConfigError

_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `3e-5` is a number, `no` and `2024-05-01` are text; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str | int | float | bool):
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that _Loader, or a YAML 1.1 reader, would read as another type."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(str(node.value)))
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None
    ),
)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _firsts = [*_first.replace("\0", ""), *([""] if _tag == "null" else [])]
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _firsts)


class _FlowDumper(_Dumper):
    """Writes 5e-5 as people do, without 5.0e-05."""


def _short_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    if not math.isfinite(value):
        return dumper.represent_float(value)
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(value).replace("e-0", "e-"))


_FlowDumper.add_representer(float, _short_float)


def dump_yaml(value: Any) -> str:
    """Write a value as YAML that `parse_yaml` reads back equal, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dump_flow(value: Any) -> str:
    """Write a value on one line, as it may stand after a key.

    >>> dump_flow({"text": "body", "label": [1, 3e-5]})
    '{text: body, label: [1, 3e-5]}'
    """
    listed = yaml.dump(
        [value], Dumper=_FlowDumper, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False
    )
    return str(listed).strip()[1:-1]


def parse_yaml(text: str, where: str, as_written: Iterable[Sequence[str]] = ()) -> Any:
    """Read YAML; `where` is named in the message when it is broken.

    Args:
        text: the YAML.
        where: its file, or what else it is.
        as_written: paths of keys; scalars there stay text, in a list its items, in a mapping its keys.

    >>> parse_yaml("[3e-5, no, 7, null]", "example")
    [3e-05, 'no', 7, None]
    >>> parse_yaml("labels: [02, true, '3']", "example", [["labels"]])
    {'labels': ['02', 'true', '3']}

    Raises:
        ConfigError: the text is not YAML, or a key is given twice.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        for path in as_written:
            _keep_text(_node_at(node, path))
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None


def _node_at(node: yaml.Node | None, path: Sequence[str]) -> yaml.Node | None:
    for name in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    return node


def _keep_text(node: yaml.Node | None) -> None:
    """Make the scalar, the items of a list, or the keys of a mapping text; nothing at all stays nothing."""
    if isinstance(node, yaml.ScalarNode):
        scalars = [] if node.tag == _NULL else [node]
    elif isinstance(node, yaml.SequenceNode):
        scalars = [item for item in node.value if isinstance(item, yaml.ScalarNode) and item.value]
    elif isinstance(node, yaml.MappingNode):
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value]
    else:
        scalars = []
    for scalar in scalars:
        scalar.tag = _TEXT
