"""Lists written as text: JSON, Python's form, numpy's form; every other text is a text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertune.data.list_text import SentenceLists, parse_list_text
from bertune.types import Location, Row

labels = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8), max_size=5)


@given(labels)
def test_what_python_and_json_write_is_read_back(values: list[str]) -> None:
    import json

    assert parse_list_text(json.dumps(values)) == values
    assert parse_list_text(json.dumps(values, ensure_ascii=False)) == values
    assert parse_list_text(str(values)) == values


@given(st.lists(st.sampled_from(["late", "a b", "it's", 'say "x"', "好", "a,b", "[x]"]), max_size=30))
def test_what_numpy_writes_is_read_back(values: list[str]) -> None:
    assert parse_list_text(str(np.array(values, object))) == values
    assert parse_list_text(str(np.array(values))) == values
    assert parse_list_text(repr(np.array(values, object))) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[]", []),
        (" [ ] ", []),
        ("[1, 2]", [1, 2]),
        ("[0 1 1]", [0, 1, 1]),
        ("[0. 1. 0.5]", [0.0, 1.0, 0.5]),
        ("[-1 1e3]", [-1, 1000.0]),
        ("[ True False]", [True, False]),
        ("[True, None]", [True, None]),
        ("[true, null]", [True, None]),
        ("['a',]", ["a"]),
        ("('a', 'b')", ["a", "b"]),
        ("('a',)", ["a"]),
        ("{'b', 'a'}", ["b", "a"]),
        ("['a\\'b']", ["a'b"]),
        ("[(0, 2, 'ORG')]", [(0, 2, "ORG")]),
        ("[[0, 2, 'ORG'], [3, 4, 'LOC']]", [[0, 2, "ORG"], [3, 4, "LOC"]]),
        ("[{'start': 0}]", [{"start": 0}]),
        ('[{"start": 0}]', [{"start": 0}]),
    ],
)
def test_lists(text: str, values: list[object]) -> None:
    assert parse_list_text(text) == values


def test_nan_in_a_list() -> None:
    (value,) = parse_list_text("[nan]") or []
    assert math.isnan(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "]", "][", "late", "[late]", "[late, damaged]", "[late] where is it?", "['late'] again",
        "(late)", "(1, 2)", "{a}", "{1, 2}", "{}", "()", '{"a": 1}', "{'a': 1}", "['late'", "'late']",
        "['a'b]", "[1 2", "[--1]", "[1..2]", "[os.system('x')]", "[" * 5000 + "]" * 5000,
    ],
)  # fmt: skip
def test_other_texts(text: str) -> None:
    assert parse_list_text(text) is None


def row(**fields: object) -> Row:
    return Row(fields, Location("f.csv", 2))


def test_words_and_tags_of_a_sentence() -> None:
    lists = SentenceLists("text", "label")
    assert lists.unpack(row(text="['EU', 'is']", label="['B-ORG' 'O']")).fields == {
        "text": ["EU", "is"], "label": ["B-ORG", "O"]
    }  # fmt: skip
    assert lists.report() == [
        "1 rows have lists written as text, read as lists: 'text' is ['EU', 'is'] at f.csv:2"
    ]


@pytest.mark.parametrize(
    "fields", [{"text": "[1, 2]", "label": "O O"}, {"text": ["a"], "label": ["O"]}, {"text": "[x] y"}]
)
def test_other_sentences_stay(fields: dict[str, object]) -> None:
    lists = SentenceLists("text", "label")
    assert lists.unpack(row(**fields)).fields == fields
    assert lists.report() == []
