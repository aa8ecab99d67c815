"""How rows of CSL, CLUEWSC and CLUENER become texts and spans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import Read

from bertune.data.converted_rows import mark_spans
from bertune.types import Columns

TAGS = Columns(("text",), (), "label", is_word_level=True)
README_WSC = {
    "target": {"span2_index": 37, "span1_index": 5, "span1_text": "床", "span2_text": "它"},
    "idx": 261,
    "label": "false",
    "text": "这时候放在床上枕头旁边的手机响了，我感到奇怪，因为欠费已被停机两个月，现在它突然响了。",
}
"""The example of CLUE's README."""


def write(folder: Path, *rows: object) -> str:
    path = folder / "rows.json"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_example_of_cluewsc(tmp_path):
    read = Read(write(tmp_path, README_WSC), convert="cluewsc", columns={"text": "text", "label": "label"})
    assert read.fields == [
        {
            "text": "这时候放在_床_上枕头旁边的手机响了，我感到奇怪，"
            "因为欠费已被停机两个月，现在[它]突然响了。",
            "label": "false",
        }
    ]
    assert any("the noun is marked as _noun_" in note for note in read.notes)


@given(st.lists(st.text("abc好", min_size=1, max_size=4), min_size=5, max_size=5), st.booleans())
def test_marks_stand_around_both_spans_in_either_order(parts, pronoun_first):
    """Taking the marks away gives the text again; each pair of marks holds its span."""
    before, first, between, second, _ = parts
    text = "".join(parts)
    starts = (len(before), len(before + first + between))
    spans = [(first, starts[0]), (second, starts[1])]
    (noun, noun_at), (pronoun, pronoun_at) = spans[::-1] if pronoun_first else spans
    target = {"span1_text": noun, "span1_index": noun_at, "span2_text": pronoun, "span2_index": pronoun_at}
    marked = mark_spans({"text": text, "target": target})["text"]
    assert marked.translate({ord(mark): None for mark in "_[]"}) == text
    assert marked.count(f"_{noun}_") == 1
    assert marked.count(f"[{pronoun}]") == 1
    left, right = marked.split(f"[{pronoun}]")
    assert left.replace("_", "") == text[:pronoun_at]
    assert right.replace("_", "") == text[pronoun_at + len(pronoun) :]


def test_the_keywords_of_csl_are_the_first_text(tmp_path):
    row = {"id": 1, "abst": "为解决传统", "keyword": ["水声学", "FFT"], "label": "1"}
    read = Read(write(tmp_path, row), convert="csl")
    assert read.fields == [{"text": "水声学 FFT", "text_b": "为解决传统", "label": "1"}]


def test_spans_of_cluener_end_behind_their_last_character(tmp_path):
    row = {
        "text": "浙商银行企业信贷部叶老桂博士",
        "label": {"name": {"叶老桂": [[9, 11]]}, "company": {"浙商银行": [[0, 3]]}},
    }
    read = Read(write(tmp_path, row), convert="cluener", columns_of_task=TAGS)
    assert read.rows[0].fields["label"] == [
        {"start": 0, "end": 4, "label": "company"},
        {"start": 9, "end": 12, "label": "name"},
    ]


def test_rows_of_another_form_stay_as_they_are_and_a_mixture_is_said(tmp_path):
    plain = {"text": "a", "text_b": "b", "label": "0"}
    read = Read(write(tmp_path, plain), convert="csl")
    assert read.fields == [plain]
    assert not any("convert" in note for note in read.notes)
    mixed = Read(
        write(tmp_path, {"keyword": ["a"], "abst": "b", "label": "0"}, {**plain, "x": 1}), convert="csl"
    )
    assert any("1 rows lack 'abst' and 'keyword'" in note for note in mixed.notes)


@pytest.mark.parametrize(
    ("convert", "row", "expected"),
    [
        ("csl", {"keyword": "a", "abst": "b"}, "'keyword' must be a list of texts, got 'a'"),
        ("csl", {"keyword": [1], "abst": "b"}, "'keyword' must be a list of texts, got [1]"),
        ("cluewsc", {"text": "ab", "target": {"span1_text": "a"}}, "'target' needs span1_text"),
        ("cluewsc", {"text": "ab", "target": "x"}, "'target' needs span1_text"),
        ("cluewsc", {"text": None, "target": README_WSC["target"]}, "'text' must be a text"),
        ("cluewsc", {"text": "abcd", "target": README_WSC["target"]}, "'床' does not stand at character 5"),
        (
            "cluewsc",
            {
                "text": "ab",
                "target": {"span1_text": "ab", "span1_index": 0, "span2_text": "b", "span2_index": 1},
            },
            "'ab' and 'b' overlap",
        ),
        (
            "cluener",
            {"text": "ab", "label": {"name": {"b": [[0, 0]]}}},
            "'b' does not stand at characters 0 to 0",
        ),
        (
            "cluener",
            {"text": "ab", "label": {"name": ["a"]}},
            "'label' must be {TYPE: {ENTITY: [[FIRST, LAST]]}}",
        ),
        ("cluener", {"text": "ab", "label": {"name": {"a": [["x", 1]]}}}, "'label' must be"),
        ("golden_horse", {"words": ["a0", "b"], "text": "a"}, "'b' is no character with a number behind it"),
    ],
)
def test_a_row_that_cannot_be_converted_is_a_bad_row(convert, row, expected, tmp_path):
    good = {"text": "大地", "label": "x", "text_b": "z"}
    source = write(tmp_path, good, {"label": "1", **row})
    read = Read(source, convert=convert, columns={"text": "text", "label": "label"})
    assert read.faults.count == 1
    assert f"{source}:2: {expected}" in read.faults.first_messages[0]
