"""Lists written as text, as csv files hold them: JSON, Python's and pandas' form, numpy's form."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from typing import Any

from bertune.types import Row

_ARRAY = re.compile(r"(?:np\.|numpy\.)?array\(\s*(\[.*\])\s*(?:,\s*dtype=.*)?\)", re.DOTALL)
_ITEM = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<word>True|False|true|false|None|null|nan|NaN)""",
    re.VERBOSE,
)
_SEPARATOR = re.compile(r"\s*,\s*|\s+|$")
_WORDS = {
    "True": True, "true": True, "False": False, "false": False, "None": None, "null": None,
    "nan": float("nan"), "NaN": float("nan"),
}  # fmt: skip


def parse_list_text(text: str) -> list[Any] | None:
    """Return the list that a text writes, or None for every other text.

    Known are JSON, Python's form (pandas writes it to csv; tuples and sets of texts too) and numpy's form,
    which has blanks between the items. A text that merely begins with a bracket is no list.

    >>> parse_list_text('["late", "damaged"]'), parse_list_text("['late', 'damaged']")
    (['late', 'damaged'], ['late', 'damaged'])
    >>> parse_list_text("['late' 'damaged']"), parse_list_text("[0 1 1]")
    (['late', 'damaged'], [0, 1, 1])
    >>> parse_list_text("[late] where is it?") is None, parse_list_text("[late]") is None
    (True, True)
    """
    text = text.strip()
    if text[-1:] not in {"]", ")", "}"}:  # nearly every label: the rest takes time
        return None
    array = _ARRAY.fullmatch(text)
    text = array[1] if array else text
    if text[:1] + text[-1:] not in {"[]", "()", "{}"} or len(text) < 2:
        return None
    if text[0] == "[":
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            return parsed if isinstance(parsed, list) else None
    elif text[1:].lstrip()[:1] not in {"'", '"'}:
        return None
    items = _parse_flat(text[1:-1].strip())
    return items if items is not None else _parse_nested(text)


def _parse_flat(inner: str) -> list[Any] | None:
    """Return the texts, numbers and words of a list with commas or blanks between them."""
    items: list[Any] = []
    offset = 0
    while offset < len(inner):
        item = _ITEM.match(inner, offset)
        separator = item and _SEPARATOR.match(inner, item.end())
        if item is None or separator is None:
            return None
        items.append(_item_value(item))
        offset = separator.end()
    return items


def _item_value(item: re.Match[str]) -> Any:
    if item["word"]:
        return _WORDS[item["word"]]
    if item["number"]:
        return int(item["number"]) if item["number"].lstrip("+-").isdigit() else float(item["number"])
    try:
        return ast.literal_eval(item["text"])
    except (SyntaxError, ValueError):  # such as a cut escape
        return item["text"][1:-1]


def _parse_nested(text: str) -> list[Any] | None:
    """Return a list of lists, tuples or dicts in Python's form."""
    try:
        parsed = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    return list(parsed) if isinstance(parsed, list | tuple) else None


class SentenceLists:
    """Unpacks words, tags and spans of sentences that a file holds as lists written as text.

    Args:
        text: the field with the words.
        target: the field with the tags or spans.
    """

    def __init__(self, text: str, target: str) -> None:
        self._text, self._target = text, target
        self._count = 0
        self._first = ""

    def unpack(self, row: Row) -> Row:
        """Return the row with lists where its fields write lists; words must be texts in quotes."""
        lists: dict[str, list[Any]] = {}
        for field in (self._text, self._target):
            value = row.fields.get(field)
            items = parse_list_text(value) if isinstance(value, str) else None
            if items is not None and (field == self._target or any(isinstance(i, str) for i in items)):
                lists[field] = items
        if not lists:
            return row
        self._count += 1
        field = next(iter(lists))
        self._first = self._first or f"{field!r} is {str(row.fields[field])[:40]} at {row.location}"
        return replace(row, fields={**row.fields, **lists})

    def report(self) -> list[str]:
        """Return a line about the rows that were unpacked, or nothing."""
        return [f"{self._count} rows have lists written as text, read as lists: {self._first}"] * bool(
            self._count
        )
